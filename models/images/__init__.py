"""From photos to the pixels that a network reads; nothing exported here loads torch."""

from models.images.decoder import DecodedImage, ImageRejected, decode_image
from models.images.photo import Photo, load_pixels

__all__ = ["DecodedImage", "ImageRejected", "Photo", "decode_image", "load_pixels"]
