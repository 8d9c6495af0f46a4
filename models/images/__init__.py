"""Photos: decoding within limits, EXIF, resizing to a network's input. Nothing exported here loads torch."""

from models.images.decoder import DecodedImage, decode_image
from models.images.limits import ImageRejected
from models.images.photo import Photo, load_pixels
from models.images.photo_encoding import encode_photo, encode_thumbnail

__all__ = [
    "DecodedImage",
    "ImageRejected",
    "Photo",
    "decode_image",
    "encode_photo",
    "encode_thumbnail",
    "load_pixels",
]
