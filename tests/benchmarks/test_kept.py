"""What benchmarks keep is of the present code: files of former code are not measured as if they were."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from benchmarks import kept, local_index
from benchmarks.catalogue import PARTS, part_named
from benchmarks.kept import SHARED, add_kept_folder, kept_folder
from benchmarks.sources import ROOT


def test_other_code_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = kept_folder(tmp_path, "accuracy")
    (present / "features.npy").touch()
    assert present.parent == tmp_path
    assert kept_folder(tmp_path, "accuracy") == present
    of = kept.digest
    monkeypatch.setattr(kept, "digest", lambda part: "0" * 64 if part.name == "sizes" else of(part))
    other = kept_folder(tmp_path, "accuracy")
    assert other != present
    assert other.is_dir()
    assert not list(other.iterdir())


def test_an_option_leads_to_the_folder_of_the_code(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_kept_folder(parser, "--scratch", "places", tmp_path / "default")
    folder = parser.parse_args([]).scratch
    assert folder == kept_folder(tmp_path / "default", "places")
    assert folder.is_dir()
    given = parser.parse_args(["--scratch", str(tmp_path / "given")]).scratch
    assert given == kept_folder(tmp_path / "given", "places")


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_is_of_parts_that_there_are(name: str) -> None:
    assert [part_named(part).name for part in SHARED[name]] == list(SHARED[name])


@pytest.mark.parametrize("module", sorted({part.module for part in PARTS}))
def test_whatever_keeps_files_keeps_them_by_the_code(module: str) -> None:
    text = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()
    kept_elsewhere = [line for line in text.splitlines() if re.search("gettempdir|placeray-proof", line)]
    assert [line for line in kept_elsewhere if "add_kept_folder" not in line] == []
    for named in re.findall(r'add_kept_folder\(parser, "--\w+", "([^"]+)"', text):
        assert module in {part_named(part).module for part in SHARED[named]} | {"benchmarks.bench_codes"}


def test_an_interrupted_index_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def index(source: Path, uri: Path) -> None:
        assert not uri.exists()
        uri.mkdir()
        made.append(source)
        if len(made) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(local_index, "_index", index)
    monkeypatch.setattr(local_index.Store, "open", lambda uri: uri)
    source, uri = tmp_path / "images", tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        local_index.index_once(source, uri)
    assert local_index.index_once(source, uri) == uri
    assert local_index.index_once(source, uri) == uri
    assert made == [source, source]
