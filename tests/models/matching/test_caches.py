"""The caches of a core, as Linux describes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.matching.caches import cache_share
from storage.cores import usable_cores


def describe(folder: Path, *caches: tuple[str, str, str]) -> Path:
    for number, cache in enumerate(caches):
        index = folder / f"cpu{usable_cores()[0]}" / "cache" / f"index{number}"
        index.mkdir(parents=True)
        for name, value in zip(("level", "size", "shared_cpu_list"), cache, strict=True):
            (index / name).write_text(f"{value}\n")
    return folder


def test_a_core_has_its_share_of_the_caches_above_the_first(tmp_path: Path) -> None:
    caches = ("1", "48K", "0"), ("1", "64K", "0"), ("2", "2048K", "0,64"), ("3", "96M", "0-15,64-79")
    assert cache_share(describe(tmp_path, *caches)) == (1 << 20) + (3 << 20)


@pytest.mark.parametrize(
    "cache",
    [
        ("2", "", "0"),
        ("2", "many", "0"),
        ("2", "2048", "0"),
        ("2", "2048K", ""),
        ("2", "2048K", "0-"),
        ("high", "2048K", "0"),
    ],
)
def test_a_cache_that_is_not_described_as_expected_has_no_share(
    tmp_path: Path, cache: tuple[str, str, str]
) -> None:
    assert cache_share(describe(tmp_path / "usual", ("2", "1M", "0"))) == 1 << 20
    assert cache_share(describe(tmp_path / "other", ("2", "1M", "0"), cache)) is None


def test_a_system_that_describes_no_such_cache_has_no_share(tmp_path: Path) -> None:
    assert cache_share(describe(tmp_path / "usual", ("1", "48K", "0"), ("2", "1M", "0"))) == 1 << 20
    assert cache_share(describe(tmp_path / "small", ("1", "48K", "0"))) is None
    assert cache_share(tmp_path / "none") is None
