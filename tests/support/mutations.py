"""Mutations of files and requests: what number N is made of seeds is the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

__all__ = ["MUTATIONS", "mutated"]

_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
_TEXTS = (
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"9" * 20,
    b"\0",
    b"\r\n",
    b'"',
    b"../",
    b"%2e%2e/",
    b"\xff\xfe",
    b"{{[[",
)


def mutated(seeds: Sequence[bytes], number: int) -> bytes:
    """Return one of the seeds with one to eight mutations, most of them near its beginning or end."""
    chance = random.Random(number)
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 8)):
        at = _position(chance, len(data))
        chance.choice(MUTATIONS)(chance, data, at, seeds)
    return bytes(data)


def _position(chance: random.Random, length: int) -> int:
    """Return a position, mostly among the first or last bytes, where formats keep their structure."""
    reach = min(length, chance.choice((64, 256, 2048, length or 1)))
    at = chance.randrange(reach) if reach else 0
    return at if chance.random() < 0.7 else max(0, length - 1 - at)


def _set_byte(chance: random.Random, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    data[at : at + 1] = bytes([chance.randrange(256)])


def _flip_bit(chance: random.Random, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    if data:
        data[at] ^= 1 << chance.randrange(8)


def _number(chance: random.Random, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    size = chance.choice((1, 2, 4, 8))
    value = chance.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))


def _text(chance: random.Random, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    text = chance.choice(_TEXTS)
    data[at : at + chance.choice((0, len(text)))] = text


def _remove(chance: random.Random, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    del data[at : at + chance.choice((1, 2, 4, 16, 256))]


def _repeat(chance: random.Random, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    piece = data[at : at + chance.choice((1, 4, 32, 256))]
    data[at:at] = piece * chance.choice((1, 2, 50))


def _cut(chance: random.Random, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    del data[at:]


def _splice(chance: random.Random, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    start = _position(chance, len(other))
    data[at : at + chance.choice((0, 64))] = other[start : start + chance.choice((16, 256, 4096))]


Mutation = Callable[[random.Random, bytearray, int, Sequence[bytes]], None]
MUTATIONS: tuple[Mutation, ...] = (
    *(_set_byte, _set_byte, _flip_bit, _flip_bit, _number, _number),
    *(_text, _remove, _repeat, _cut, _splice),
)
