"""The photo out of a request: the body itself, or one field of a form. Nothing of it touches a disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from serving.http.schema import IMAGE_TYPES
from serving.stages.refusal import QueryRefused, Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["read_photo"]

MAX_PARTS = 8


async def read_photo(request: Request) -> bytes:
    """Take the photo out of a request: the body itself, or the multipart field `image`.

    Raises:
        QueryRefused: reason `bad_request`, `missing_image` or `unsupported_media_type`.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _photo_of_form(await request.body(), content_type)
    if kind not in IMAGE_TYPES and not kind.startswith("image/"):
        said = "Send the photo as image/jpeg, image/png or image/webp, or as the multipart field 'image'."
        raise QueryRefused(Refusal(415, "unsupported_media_type", said))
    return await request.body()


def _photo_of_form(body: bytes, content_type: str) -> bytes:
    form = _Form()
    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise _Malformed
        parser = MultipartParser(boundary, form.callbacks)
        parser.write(body)
        parser.finalize()
        parts = [(part.disposition(), part.content) for part in form.finished_parts()]
    except (FormParserError, _Malformed, UnicodeError):
        said = "The multipart body cannot be read; send one file in the field 'image'."
        raise QueryRefused(Refusal(400, "bad_request", said)) from None
    photos = [(options, content) for options, content in parts if options[b"name"] == b"image"]
    if len(photos) != 1 or b"filename" not in photos[0][0]:
        said = "There must be one photo; send one file in the multipart field 'image'."
        raise QueryRefused(Refusal(422, "missing_image", said))
    return bytes(photos[0][1])


class _Malformed(Exception):
    """This is no whole form."""


@dataclass
class _Part:
    headers: list[tuple[bytearray, bytearray]] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)

    def disposition(self) -> dict[bytes, bytes]:
        """What the part says of itself: its `name`, and a `filename` if it is a file."""
        for name, value in self.headers:
            if name.lower() == b"content-disposition":
                kind, options = parse_options_header(value.decode("latin-1"))
                if kind == b"form-data" and b"name" in options:
                    return options
        raise _Malformed


class _Form:
    """Gathers the parts of a form as the parser finds them."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._ended = False
        self._name, self._value = bytearray(), bytearray()
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_content,
            "on_end": self._end,
        }

    def finished_parts(self) -> list[_Part]:
        """Return the parts; the closing boundary must have come."""
        if not self._ended:
            raise _Malformed
        return self._parts

    def _begin_part(self) -> None:
        if len(self._parts) == MAX_PARTS:
            raise _Malformed
        self._parts.append(_Part())

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._parts[-1].headers.append((self._name, self._value))
        self._name, self._value = bytearray(), bytearray()

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1].content += memoryview(data)[start:end]

    def _end(self) -> None:
        self._ended = True
