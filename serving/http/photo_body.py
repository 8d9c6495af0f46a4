"""Reads the photo of a request: the body itself, or one field of a form. Nothing is written to disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serving.errors import Refusal
from serving.http.schema import IMAGE_TYPES
from serving.http.uploads import MAX_BODY_BYTES

__all__ = ["read_photo", "read_photos"]

MAX_PARTS = 8


async def read_photo(request: Request) -> bytes:
    """Read the photo of a request: the body itself, or the multipart field `image`.

    Raises:
        Refusal: reason `bad_request`, `missing_image` or `unsupported_media_type`.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _photo_of_form(request)
    if kind not in IMAGE_TYPES and not kind.startswith("image/"):
        message = "Send the photo as image/jpeg, image/png or image/webp, or as the multipart field 'image'."
        raise Refusal(415, "unsupported_media_type", message)
    return await request.body()


async def read_photos(request: Request, *, at_most: int) -> list[bytes]:
    """Read the multipart fields `image` of a request, in their order.

    Raises:
        Refusal: reason `bad_request` or `missing_image`.
    """
    try:
        form = await _FormParser(request, at_most).parse()
    except (MultiPartException, UnicodeError):
        message = f"The multipart body cannot be read; send up to {at_most} files in fields 'image'."
        raise Refusal(400, "bad_request", message) from None
    try:
        photos = form.getlist("image")
        if not photos or not all(isinstance(photo, UploadFile) for photo in photos):
            message = "The form must have photos; send each as a file in a multipart field 'image'."
            raise Refusal(422, "missing_image", message)
        return [await photo.read() for photo in photos if isinstance(photo, UploadFile)]
    finally:
        await form.close()


async def _photo_of_form(request: Request) -> bytes:
    try:
        form = await _FormParser(request, MAX_PARTS).parse()
    except (MultiPartException, UnicodeError):
        message = "The multipart body cannot be read; send one file in the field 'image'."
        raise Refusal(400, "bad_request", message) from None
    try:
        photos = form.getlist("image")
        if len(photos) != 1 or not isinstance(photos[0], UploadFile):
            message = "The form must have exactly one photo; send one file in the multipart field 'image'."
            raise Refusal(422, "missing_image", message)
        return await photos[0].read()
    finally:
        await form.close()


class _FormParser(MultiPartParser):
    """Starlette's parser in memory, with a bound on all parts together; a truncated form is an error.

    Against reading the parts by hand, per form of 8 MiB: time about the same, 16 MiB at peak instead of 24.
    """

    spool_max_size = MAX_BODY_BYTES

    def __init__(self, request: Request, max_parts: int) -> None:
        super().__init__(
            request.headers,
            self._complete(request.stream()),
            max_files=max_parts,
            max_fields=max_parts,
            max_part_size=MAX_BODY_BYTES,
        )
        self._ended = False
        self._parts = 0
        self._max_parts = max_parts

    async def _complete(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:  # raised inside the stream, so that the parser closes its files
            raise MultiPartException("The closing boundary is missing.")

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise MultiPartException(f"At most {self._max_parts} parts are accepted.")
        super().on_part_begin()

    def on_headers_finished(self) -> None:
        # Never the charset of the request: decoding 256 KiB as punycode takes half a minute.
        self._charset = "utf-8"
        part = self._current_part
        part.content_disposition = _form_data(
            value for name, value in part.item_headers if name == b"content-disposition"
        )
        super().on_headers_finished()

    def on_end(self) -> None:
        self._ended = True


def _form_data(dispositions: Iterable[bytes]) -> bytes:
    """Return the first Content-Disposition of a form field; Starlette takes the last, of any kind."""
    for value in dispositions:
        kind, options = parse_options_header(value)
        if kind == b"form-data" and b"name" in options:
            return value
    raise MultiPartException("A part is not a field of a form.")
