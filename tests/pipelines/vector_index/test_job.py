"""An index built in parts, by a stand-in for Ray that runs tasks here, in a folder and in a bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.vector_index import job
from pipelines.vector_index.errors import IndexNeedsEights, IndexRecallTooLow
from storage import store as store_module
from storage.care import compaction
from storage.care.verify import verify_store
from storage.layout import INDEX_BUILD_FILE, TABLE_FOLDER
from storage.objects.files import exists, file_names
from storage.objects.location import open_location
from storage.store import Store
from storage.table.index_segments import SEGMENTED_INDEX, index_names
from storage.table.open_table import dataset_of
from tests.support.search_samples import seeded_queries
from tests.support.store_samples import DIM, make_card, make_rows, make_store

IDS = [f"id{i:03d}" for i in range(150)]
QUERIES = seeded_queries(3, 20, DIM)


class InThisProcess:
    """What the job uses of Ray; `stop_after` so many parts it is interrupted."""

    def __init__(self) -> None:
        self.built: list[list[int]] = []
        self.stop_after = 1000

    def remote(self, function: Any) -> InThisProcess:
        self._function = function
        return self

    def options(self, **options: Any) -> Any:
        class Task:
            @staticmethod
            def remote(*values: Any) -> tuple[Any, ...]:
                return tuple(map(_Held, values))

        return Task()

    def wait(self, running: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return running[:1], running[1:]

    def get(self, ref: tuple[Any, ...]) -> Any:
        if len(self.built) >= self.stop_after:
            raise KeyboardInterrupt
        values = [each.value for each in ref]
        self.built.append(values[-1])
        return self._function(*values)


class _Held:
    def __init__(self, value: Any) -> None:
        self.value = value


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> InThisProcess:
    made = InThisProcess()

    @contextlib.contextmanager
    def session(**options: Any) -> Iterator[InThisProcess]:
        yield made

    monkeypatch.setattr(job, "ray_session", session)
    monkeypatch.setattr(job, "check_ray", lambda: None)
    return made


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.long)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return make_store(tmp_path / "city", IDS, batch=25)
    uri = f"{request.getfixturevalue('bucket_uri')}&cache_dir={tmp_path / 'cache'}"
    return make_store(uri, IDS, batch=25)


def build(store: Store, workers: int = 3, **options: Any) -> dict[str, Any]:
    made = job.build_index(store.uri, workers=workers, min_rows=1, quiet=True, **options)
    store.refresh()
    return made


def trial_names(store: Store) -> list[str]:
    names = file_names(open_location(store.uri) / TABLE_FOLDER / "_versions")
    return [name for name in names if name.startswith("d")]


def names_of(store: Store) -> dict[str, int]:
    return index_names(dataset_of(store.table))


def ids_of(store: Store, method: Any) -> list[set[str]]:
    return [{hit.record.image_id for hit in hits} for hits in store.search(QUERIES, k=10, method=method)]


def test_parts_become_one_index_that_finds_what_exact_search_finds(store: Store, ray: InThisProcess) -> None:
    made = build(store)
    assert made["indexed"] is True
    assert made["parts"] == len(ray.built) >= 3
    assert made["parts_kept"] == 0
    assert made["recall_at_100"] >= 0.99
    assert names_of(store) == {SEGMENTED_INDEX: 1}
    assert ids_of(store, "lance") == ids_of(store, "exact")
    assert verify_store(store.uri).ok
    assert not exists(open_location(store.uri) / INDEX_BUILD_FILE)
    again = build(store)  # in place of the former one
    assert again["store_version"] > made["store_version"]
    assert names_of(store) == {SEGMENTED_INDEX: 1}


def test_an_interrupted_build_goes_on_with_the_parts_it_has(store: Store, ray: InThisProcess) -> None:
    ray.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        build(store)
    finished = [number for part in ray.built for number in part]
    assert not store.has_index
    with store.lease():  # rows that come in between are built too
        store.commit(make_rows(store, ["new0", "new1"]))
        store.delete(IDS[:5])
    ray.stop_after = 1000
    made = build(store)
    assert made["parts_kept"] == 2
    assert not {number for part in ray.built[2:] for number in part} & set(finished)
    assert made["recall_at_100"] >= 0.99
    assert ids_of(store, "lance") == ids_of(store, "exact")
    assert verify_store(store.uri).ok


def test_parts_of_rows_that_were_moved_are_built_anew(store: Store, ray: InThisProcess) -> None:
    ray.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        build(store)
    store.compact()
    ray.stop_after = 1000
    made = build(store)
    assert made["parts_kept"] == 0
    assert ids_of(store, "lance") == ids_of(store, "exact")


def test_an_index_that_finds_too_little_is_built_with_longer_codes(
    store: Store, ray: InThisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalls = iter([0.5, 0.995])
    monkeypatch.setattr(Store, "recall_of_segment", lambda self, segment: next(recalls))
    before = store.version
    made = build(store)
    assert made["bits"] == job.BITS[1]
    assert made["store_version"] == before + 1  # the first was never the store's
    monkeypatch.undo()
    assert store.index_recall() >= 0.99


@pytest.mark.long
def test_an_index_that_never_finds_enough_is_an_error_and_the_former_stays(
    store: Store, ray: InThisProcess
) -> None:
    build(store)
    before = store.version, ids_of(store, "lance")
    with pytest.raises(IndexRecallTooLow, match="search in memory, by --method ivf or exact"):
        build(store, min_recall=1.01)
    store.refresh()
    assert (store.version, ids_of(store, "lance")) == before
    assert verify_store(store.uri).ok


def test_an_index_is_measured_before_anybody_can_search_it(
    store: Store, ray: InThisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    measure = store_module.index_recall

    def looked_at(table: Any) -> float:
        assert table.has_index
        others = Store.open(store.uri)  # as a service opens it meanwhile
        seen.append((others.version, others.has_index))
        return measure(table)

    monkeypatch.setattr(store_module, "index_recall", looked_at)
    before = store.version
    build(store)
    assert seen == [(before, False)]
    assert store.has_index
    assert trial_names(store) == []


def test_what_a_killed_measurement_leaves_is_removed_by_the_next(
    store: Store, ray: InThisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:  # nothing is removed when it ends
        killed.setattr(store_module, "index_recall", lambda table: 1 / 0)
        killed.setattr(store_module, "forget_trials", lambda folder: None)
        with pytest.raises(ZeroDivisionError):
            build(store)
    assert len(trial_names(store)) == 1
    assert not Store.open(store.uri).has_index
    assert verify_store(store.uri).ok
    made = build(store)
    assert made["parts_kept"] == made["parts"]
    assert trial_names(store) == []


def test_compact_adds_rows_to_the_index_and_merges_nothing_of_it(store: Store, ray: InThisProcess) -> None:
    build(store)
    with store.lease():
        store.commit(make_rows(store, [f"new{i}" for i in range(30)]))
        store.delete(IDS[:20])
    store.compact()
    assert names_of(store) == {SEGMENTED_INDEX: 2}
    assert store.index_recall() >= 0.99
    assert ids_of(store, "lance") == ids_of(store, "exact")
    assert verify_store(store.uri).ok


@pytest.mark.long
def test_compact_builds_an_index_anew_that_finds_too_little(
    store: Store, ray: InThisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store)
    monkeypatch.setattr(compaction, "index_recall", lambda table: 0.6)
    store.compact()
    assert list(names_of(store)) == ["descriptor_idx"]
    assert ids_of(store, "lance") == ids_of(store, "exact")


def test_what_cannot_be_built_is_refused(ray: InThisProcess, tmp_path: Path) -> None:
    narrow = Store.create(tmp_path / "narrow", make_card(dim=12))
    with pytest.raises(IndexNeedsEights, match="leave --workers out"):
        job.build_index(narrow.uri, workers=2, quiet=True)
    few = make_store(tmp_path / "few", IDS[:10])
    assert job.build_index(few.uri, workers=2, quiet=True) == {
        "store_version": few.version,
        "indexed": False,
    }
    assert not ray.built


def test_parts_are_of_about_as_many_rows() -> None:
    rows = {1: 500, 2: 10, 3: 490, 4: 0, 5: 700, 6: 20}
    made = job.parts(rows, 3)
    assert sorted(number for part in made for number in part) == [1, 2, 3, 5, 6]
    assert len(made) == 3
    sizes = [sum(rows[number] for number in part) for part in made]
    assert sizes == sorted(sizes)
    assert job.parts({1: 10**6}, 4) == [[1]]
