"""One set of tests over both kinds of location: a folder, and a bucket on a real server."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import CorruptStore
from storage.objects.location import objects_of, open_location
from storage.objects.protocol import ByteRange, ConditionFailed, ObjectStore


def test_what_was_put_is_got(objects: ObjectStore) -> None:
    objects.put("a/b.json", b"one")
    objects.put("a/b.json", b"two")
    assert objects.get("a/b.json", 10).data == b"two"
    objects.put("empty", b"")
    assert objects.get("empty", 10).data == b""


def test_what_is_absent_or_too_large_is_refused(objects: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError):
        objects.get("absent", 10)
    objects.put("large", b"x" * 11)
    with pytest.raises(CorruptStore, match="larger than 10 bytes"):
        objects.get("large", 10)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "a//b", "", "a b", "a\nb", "x" * 700])
def test_names_lead_nowhere_else(objects: ObjectStore, name: str) -> None:
    for act in (lambda: objects.get(name, 10), lambda: objects.put(name, b"")):
        with pytest.raises(CorruptStore, match="is not the name of an object"):
            act()


def test_ranges_of_many_objects(objects: ObjectStore) -> None:
    for i in range(40):
        objects.put(f"shards/{i}", bytes(range(i, i + 50)))
    wanted = [ByteRange(f"shards/{i}", i, 5) for i in range(40)] + [ByteRange("shards/none", 0, 5)]
    assert objects.get_ranges(wanted) == [bytes(range(2 * i, 2 * i + 5)) for i in range(40)] + [None]
    assert objects.get_range("shards/0", 45, 100) == bytes(range(45, 50))
    assert objects.get_range("shards/0", 60, 5) == b""
    assert objects.get_range("shards/0", -4, 4) == bytes(range(46, 50))
    assert objects.get_range("shards/0", -100, 100) == bytes(range(50))
    with pytest.raises(FileNotFoundError):
        objects.get_range("shards/none", 0, 5)


def test_a_write_under_a_condition(objects: ObjectStore) -> None:
    first = objects.put_if_absent("HEAD", b"1")
    assert objects.get("HEAD", 10) == (b"1", first)
    with pytest.raises(ConditionFailed):
        objects.put_if_absent("HEAD", b"2")
    second = objects.put_if_match("HEAD", b"2", first)
    assert objects.get("HEAD", 10) == (b"2", second)
    with pytest.raises(ConditionFailed):
        objects.put_if_match("HEAD", b"3", first)
    with pytest.raises(ConditionFailed):
        objects.put_if_match("absent", b"3", second)
    assert objects.get("HEAD", 10).data == b"2"
    assert [each.name for each in objects.list()] == ["HEAD"]


def test_of_several_writers_in_a_folder_one_wins(tmp_path: Path) -> None:
    of_several_writers_one_wins(objects_of(open_location(str(tmp_path / "objects"))))


def of_several_writers_one_wins(objects: ObjectStore) -> None:
    """Not over moto, which looks and writes in two steps: on a busy machine two writers won
    in 2 of 150 races."""
    barrier = threading.Barrier(6)

    def race(write: object, number: int) -> bool:
        assert callable(write)
        barrier.wait()
        try:
            write(number)
        except ConditionFailed:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        for turn in range(3):
            create = lambda n, name=f"new-{turn}": objects.put_if_absent(name, str(n).encode())  # noqa: E731
            won = list(pool.map(lambda n, write=create: race(write, n), range(6)))
            assert sum(won) == 1
            data, tag = objects.get(f"new-{turn}", 10)
            assert data == str(won.index(True)).encode()
            replace = lambda n, tag=tag, name=f"new-{turn}": (  # noqa: E731
                objects.put_if_match(name, f"{n}!".encode(), tag)
            )
            won = list(pool.map(lambda n, write=replace: race(write, n), range(6)))
            assert sum(won) == 1
            assert objects.get(f"new-{turn}", 10).data == f"{won.index(True)}!".encode()


def test_listing_and_removing(objects: ObjectStore) -> None:
    for name in ("features/b", "features/a", "features2/c", "d"):
        objects.put(name, name.encode())
    assert [(each.name, each.size) for each in objects.list("features")] == [
        ("features/a", 10),
        ("features/b", 10),
    ]
    assert [each.name for each in objects.list()] == ["d", "features/a", "features/b", "features2/c"]
    assert all(each.modified_s > 1e9 for each in objects.list())
    objects.delete(["features/a", "absent", "d"])
    assert [each.name for each in objects.list()] == ["features/b", "features2/c"]
    assert objects.list("nothing") == []
