"""What an unfinished build of an index has left is used only where it fits; whatever else is there is not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.care.unfinished_index import UnfinishedIndex, forget_unfinished, read_unfinished
from storage.layout import INDEX_BUILD_FILE
from storage.table.fragments import Fragments
from storage.table.index_segments import build_segment, train_model
from storage.table.open_table import dataset_of
from tests.support.store_samples import DIM, make_store

BITS = 2


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A store with one of its parts built, and its fragments."""
    folder = tmp_path_factory.mktemp("unfinished") / "city"
    store = make_store(folder, [f"id{i}" for i in range(60)], batch=30)
    fragments = Fragments(store.table).by_number
    dataset = dataset_of(store.table)
    unfinished = UnfinishedIndex(train_model(dataset, lists=1, bits=BITS))
    unfinished.segments.append(build_segment(dataset, unfinished.model, [min(fragments)]))
    unfinished.write(folder, fragments)
    return folder, fragments


def read(folder: Path, fragments: Any, *, width: int = DIM, bits: int = BITS) -> UnfinishedIndex | None:
    return read_unfinished(folder, fragments, width=width, bits=bits)


def test_what_is_left_is_read_again(left: tuple[Path, Any]) -> None:
    folder, fragments = left
    found = read(folder, fragments)
    assert found is not None
    assert found.fragments == {min(fragments)}
    assert found.model.centroids.shape == (1, DIM)
    assert read(folder, fragments, bits=4) is None
    assert read(folder, fragments, width=DIM + 8) is None
    elsewhere = read(folder, {number + 100: each for number, each in fragments.items()})
    assert elsewhere is not None
    assert elsewhere.fragments == set()


UNUSABLE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no shape": lambda values: values.pop("shape"),
    "a huge shape": lambda values: values.update(shape=[10**12, DIM]),
    "a shape of texts": lambda values: values.update(shape=["1", DIM]),
    "another type": lambda values: values.update(dtype="object"),
    "no base64": lambda values: values.update(centroids="%%%"),
    "a part that is a text": lambda values: values.update(segments=["part"]),
    "a huge fragment": lambda values: values["segments"][0].update(fragments=[2**70]),
    "a negative fragment": lambda values: values["segments"][0].update(fragments=[-1]),
    "a moment that is a number": lambda values: values["segments"][0].update(created_at=5),
    "files that are a text": lambda values: values.update(data_files="names"),
}
LEFT_OUT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "files elsewhere": lambda values: values["segments"][0].update(uuid="../../../data"),
    "files that are gone": lambda values: values["segments"][0].update(uuid="0" * 32),
    "no files": lambda values: values["segments"][0].update(files=[]),
    "other data": lambda values: values.update(data_files={}),
}


@pytest.mark.parametrize("name", [*UNUSABLE, *LEFT_OUT])
def test_what_does_not_fit_is_not_used(name: str, left: tuple[Path, Any]) -> None:
    folder, fragments = left
    path = folder / INDEX_BUILD_FILE
    whole = path.read_text()
    values = copy.deepcopy(json.loads(whole))
    (UNUSABLE | LEFT_OUT)[name](values)
    path.write_text(json.dumps(values))
    try:
        found = read(folder, fragments)
    finally:
        path.write_text(whole)
    if name in UNUSABLE:
        assert found is None
    else:
        assert found is not None
        assert found.segments == []


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"bits": 2}', "\0"])
def test_a_file_that_is_something_else_is_not_used(text: str, left: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / INDEX_BUILD_FILE).write_text(text)
    assert read(tmp_path, left[1]) is None


def test_nothing_is_left_where_nothing_was_built(left: tuple[Path, Any], tmp_path: Path) -> None:
    assert read(tmp_path, left[1]) is None
    forget_unfinished(tmp_path)
