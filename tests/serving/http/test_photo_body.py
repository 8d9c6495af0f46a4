"""The photo of a request: which parts of a form are accepted, and which are refused."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from serving.errors import Refusal
from serving.http.photo_body import read_photo
from tests.support.http_client import multipart

FORM = "multipart/form-data; boundary=b0undary"
IMAGE = 'Content-Disposition: form-data; name="image"; filename="a.jpg"'
PHOTO = b"\xff\xd8 photo"


def read(body: bytes, *, kind: str = FORM, chunk: int = 7) -> bytes:
    """Read the photo of a request whose body comes in chunks."""
    chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)]

    async def receive() -> Message:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}
    return asyncio.run(read_photo(Request(scope, receive)))


def refusal(body: bytes) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        read(body)
    return caught.value.status, caught.value.reason


@pytest.mark.parametrize(
    "kind",
    [FORM, FORM + "; charset=utf-8", FORM + "; charset=cp500", FORM + "; charset=none-such"],
)
def test_photo_of_a_form_is_read_whatever_its_charset(kind: str) -> None:
    text = ('Content-Disposition: form-data; name="note"', b"words")
    assert read(multipart(text, (IMAGE, PHOTO)), kind=kind) == PHOTO


@pytest.mark.parametrize("name", ["image", "other"])
@pytest.mark.parametrize("file", ["", '; filename="a.jpg"'])
@pytest.mark.parametrize("disposition", ["attachment", "inline", "file", "form-data-too"])
def test_part_of_another_disposition_makes_the_form_malformed(disposition: str, file: str, name: str) -> None:
    part = f'Content-Disposition: {disposition}; name="{name}"{file}'
    assert refusal(multipart((part, PHOTO))) == (400, "bad_request")
    assert refusal(multipart((IMAGE, PHOTO), (part, PHOTO))) == (400, "bad_request")


def test_part_without_a_name_or_disposition_makes_the_form_malformed() -> None:
    for part in ('Content-Disposition: form-data; filename="a.jpg"', "Content-Type: image/jpeg"):
        assert refusal(multipart((part, PHOTO))) == (400, "bad_request")


def test_first_form_data_disposition_of_a_part_counts() -> None:
    other = "Content-Disposition: attachment"
    for part in (f"{IMAGE}\r\n{other}", f"{other}\r\n{IMAGE}"):
        assert read(multipart((part, PHOTO))) == PHOTO


def test_truncated_form_and_too_many_parts_are_malformed() -> None:
    whole = multipart((IMAGE, PHOTO))
    assert refusal(whole[:-6]) == (400, "bad_request")
    assert refusal(multipart(*[(IMAGE, PHOTO)] * 9)) == (400, "bad_request")


def test_form_without_exactly_one_photo_lacks_its_image() -> None:
    text = 'Content-Disposition: form-data; name="image"'
    for parts in ([(text, PHOTO)], [(IMAGE, PHOTO)] * 2, [(IMAGE.replace("image", "photo"), PHOTO)]):
        assert refusal(multipart(*parts)) == (422, "missing_image")
