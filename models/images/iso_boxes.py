"""Boxes of ISO base media files, of which HEIC and AVIF are kinds (ISO/IEC 14496-12, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["boxes", "find", "stated_sizes"]

MAX_BOXES = 1_000


def boxes(data: bytes, at: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of the boxes in a file or in a box, from a position on; 1,000 of them at most.

    Raises:
        ValueError: a box states a size smaller than its own head.
    """
    for _ in range(MAX_BOXES):
        if at + 8 > len(data):
            return
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        end = len(data) if size == 0 else at + size
        if size != 0 and size < head:
            raise ValueError("a box without a size")
        yield data[at + 4 : at + 8], data[at + head : end]
        at = end


def find(data: bytes, kind: bytes, at: int = 0) -> bytes | None:
    """Return the content of the first box of a type, or None."""
    return next((content for name, content in boxes(data, at) if name == kind), None)


def stated_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return width and height of the pictures and tiles that a HEIC or AVIF file states in its header.

    Raises:
        ValueError: a box states a size smaller than its own head.
    """
    meta = find(data, b"meta") or b""
    properties = find(find(meta, b"iprp", 4) or b"", b"ipco") or b""
    return [
        (int.from_bytes(content[4:8], "big"), int.from_bytes(content[8:12], "big"))
        for name, content in boxes(properties)
        if name == b"ispe" and len(content) >= 12
    ]
