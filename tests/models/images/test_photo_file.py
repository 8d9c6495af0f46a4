"""Reading paths that are not regular photo files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from models.images.limits import MAX_BYTES, ImageRejected
from models.images.photo_file import read_bytes, read_indexed


def test_read_bytes_pipe_folder_and_huge_file_do_not_hang_or_fill_memory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name, reason in (
        ("pipe.jpg", "unreadable"),
        ("huge.jpg", "too_large"),
        ("gone.jpg", "missing"),
        (".", "unreadable"),
    ):
        with pytest.raises(ImageRejected) as caught:
            read_bytes(str(tmp_path / name))
        assert caught.value.reason == reason


def test_read_indexed_gives_the_indexed_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"indexed")
    digest = hashlib.sha256(b"indexed").hexdigest()
    assert read_indexed(tmp_path / "a.jpg", digest) == b"indexed"
    for other in (digest.upper(), "", "0" * 64, "../../a"):
        with pytest.raises(ImageRejected) as caught:
            read_indexed(tmp_path / "a.jpg", other)
        assert caught.value.reason == "changed"
