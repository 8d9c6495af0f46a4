"""The photo out of a request: the body itself, or one field of a form. Nothing of it touches a disk."""

from __future__ import annotations

import re

from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serving.refusal import QueryRefused, Refusal
from serving.schema import IMAGE_TYPES

__all__ = ["read_photo"]

# RFC 2046, section 5.1.1, bare or quoted.
BOUNDARY = re.compile(
    r""";\s*boundary=(?:"([\w'()+,./:=? -]{1,70})"|([\w'()+./:=?-]{1,70}))(?=\s*(?:;|$))""", re.A | re.I
)


async def read_photo(request: Request) -> bytes:
    """Take the photo out of a request: the body itself, or the multipart field `image`.

    Raises:
        QueryRefused: reason `bad_request`, `missing_image`, `unsupported_media_type` or `empty`.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _multipart_photo(request)
    if kind not in IMAGE_TYPES and not kind.startswith("image/"):
        said = "Send the photo as image/jpeg, image/png or image/webp, or as the multipart field 'image'."
        raise QueryRefused(Refusal(415, "unsupported_media_type", said))
    return await request.body()


async def _multipart_photo(request: Request) -> bytes:
    unreadable = "The multipart body cannot be read; send one file in the field 'image'."
    try:
        form = await _form(request)
    except (MultiPartException, ValueError):
        raise QueryRefused(Refusal(400, "bad_request", unreadable)) from None
    try:
        uploads = form.getlist("image")
        if len(uploads) == 1 and not isinstance(uploads[0], str):
            return await uploads[0].read()
    finally:
        await form.close()
    said = "There is no photo; send one file in the multipart field 'image'."
    raise QueryRefused(Refusal(422, "missing_image", said))


async def _form(request: Request) -> FormData:
    """Read a multipart body, in memory: the guard has bounded it, and nothing of a photo goes to a disk.

    Raises:
        MultiPartException, ValueError: it is malformed.
    """
    found = BOUNDARY.search(request.headers.get("content-type", ""))
    if found is None:
        raise ValueError("no boundary")
    # Only the boundary is handed on: Python remembers the name of every unknown charset it was asked for.
    headers = Headers({"content-type": f'multipart/form-data; boundary="{found[1] or found[2]}"'})
    return await _InMemory(headers, request.stream(), max_files=1, max_fields=8).parse()


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 30
