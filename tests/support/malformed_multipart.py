"""Multipart requests that are wrong, each in its own way, from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.support.http_client import multipart

__all__ = ["WAYS", "malformed"]

Request = tuple[str, bytes]  # content type and body
PART = 'Content-Disposition: form-data; name="image"; filename="a.jpg"'
KIND = "multipart/form-data; boundary=b0undary"


def malformed(seed: int, photo: bytes) -> Request:
    """A malformed request; seeds below `len(WAYS)` go through all the ways."""
    return WAYS[seed % len(WAYS)](random.Random(seed), photo)


def no_boundary(chance: random.Random, photo: bytes) -> Request:
    kinds = ["multipart/form-data", "multipart/form-data;", "multipart/form-data; boundary", KIND + '"']
    return chance.choice(kinds), multipart((PART, photo))


def bad_boundary(chance: random.Random, photo: bytes) -> Request:
    boundary = chance.choice(["", '""', '"b0undary', "b" * 71, "b0 undary", "b\u00f6undary", "b0undary\t!"])
    return f"multipart/form-data; boundary={boundary}", multipart((PART, photo))


def other_boundary(chance: random.Random, photo: bytes) -> Request:
    return KIND, multipart((PART, photo), boundary=chance.choice(["other", "b0undar", "B0UNDARY"]))


def cut(chance: random.Random, photo: bytes) -> Request:
    body = multipart((PART, photo))
    return KIND, body[: chance.randrange(len(body) - len("\r\n--b0undary") - 4)]


def no_end(chance: random.Random, photo: bytes) -> Request:
    return KIND, multipart((PART, photo)).removesuffix(b"\r\n--b0undary--\r\n")


def not_a_form(chance: random.Random, photo: bytes) -> Request:
    return KIND, chance.choice([photo, b'{"image": "x"}', b"\x00" * 5000, b"--", b"\r\n\r\n", b"--b0undary"])


def nothing(chance: random.Random, photo: bytes) -> Request:
    return KIND, chance.choice([b"", b"--b0undary--\r\n", b"\r\n--b0undary--\r\n"])


def wrong_name(chance: random.Random, photo: bytes) -> Request:
    name = chance.choice(["photo", "Image", "image ", "image[]", "", "i" * 5000, "image\x00", "../image"])
    return KIND, multipart((PART.replace('"image"', f'"{name}"'), photo))


def no_name(chance: random.Random, photo: bytes) -> Request:
    heads = ["Content-Disposition: form-data", "Content-Type: image/jpeg", "X: y", 'Content-Disposition: "']
    return KIND, multipart((chance.choice(heads), photo))


def no_file(chance: random.Random, photo: bytes) -> Request:
    heads = ['form-data; name="image"', 'attachment; name="image"', 'form-data; name=image; file="x"']
    return KIND, multipart((f"Content-Disposition: {chance.choice(heads)}", photo))


def bad_header(chance: random.Random, photo: bytes) -> Request:
    heads = [PART.replace(":", ""), ": x\r\n" + PART, "a" * 20_000 + ": b\r\n" + PART, "a b: c\r\n" + PART]
    heads.append("\x00: b\r\n" + PART)
    return KIND, multipart((chance.choice(heads), photo))


def many_headers(chance: random.Random, photo: bytes) -> Request:
    return KIND, multipart(("A: b\r\n" * chance.randrange(200, 50_000) + PART, photo))


def several_images(chance: random.Random, photo: bytes) -> Request:
    return KIND, multipart(*[(PART, photo)] * chance.randrange(2, 30))


def many_fields(chance: random.Random, photo: bytes) -> Request:
    field = ('Content-Disposition: form-data; name="x"', b"y")
    return KIND, multipart(*[field] * chance.randrange(9, 3000), (PART, photo))


def file_and_text(chance: random.Random, photo: bytes) -> Request:
    parts = [(PART, photo), ('Content-Disposition: form-data; name="image"', b"http://127.0.0.1/x.jpg")]
    chance.shuffle(parts)
    return KIND, multipart(*parts)


def line_feeds_only(chance: random.Random, photo: bytes) -> Request:
    return KIND, multipart((PART, b"photo")).replace(b"\r\n", chance.choice([b"\n", b"\r", b"\n\r"]))


def preamble(chance: random.Random, photo: bytes) -> Request:
    return KIND, chance.randbytes(chance.randrange(1, 5000)) + b"\r\n" + multipart((PART, photo))


def empty_file(chance: random.Random, photo: bytes) -> Request:
    return KIND, multipart((PART, b"\r\n" * chance.randrange(3)))


def form_in_a_form(chance: random.Random, photo: bytes) -> Request:
    inner = multipart((PART, photo), boundary="inner")
    return KIND, multipart((PART + "\r\nContent-Type: multipart/mixed; boundary=inner", inner))


WAYS: list[Callable[[random.Random, bytes], Request]] = [
    *(no_boundary, bad_boundary, other_boundary, cut, no_end, not_a_form, nothing, wrong_name, no_name),
    *(no_file, bad_header, many_headers, several_images, many_fields, file_and_text),
    *(line_feeds_only, preamble, empty_file, form_in_a_form),
]
