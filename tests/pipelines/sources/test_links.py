"""Symbolic links of sources: followed inside, beyond them on request, each photo once, never in circles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.sources import SKIPPED_LINKS, SourceError, list_source, skipped_paths


def build(top: Path, files: str, links: dict[str, str] | None = None) -> Path:
    """Write files, each with its own name as content, and links; return the folder `source`."""
    for name in files.split():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for name, target in (links or {}).items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target.replace("TOP", str(top)))
    return top / "source"


def ids(source: Path, **options: Any) -> list[str]:
    return [row["image_id"] for row in list_source(source, **options).to_pylist() if not row["rejected"]]


def reasons(source: Path, **options: Any) -> dict[str, str]:
    """Return the reason of each path that is not followed, by its name in the source."""
    listing = list_source(source, **options)
    named = {row["uri"]: row["rejected"] for row in listing.to_pylist() if row["rejected"]}
    named |= {skipped.path: skipped.reason for skipped in skipped_paths(listing)}
    return {os.path.relpath(path, source): reason for path, reason in named.items()}


# Files, links, ids without and with --follow-links, reasons without it.
CASES: dict[str, tuple[str, dict[str, str], str, str, dict[str, str]]] = {
    "a year on another disk": (
        "source/2019/0.jpg disk/2020/jan/0.jpg disk/2020/1.jpg",
        {"source/2020": "../disk/2020", "source/2019/linked.jpg": "../../disk/2020/jan/0.jpg"},
        "2019/0.jpg",
        "2019/0.jpg 2019/linked.jpg 2020/1.jpg",
        {"2020": "link_outside", "2019/linked.jpg": "link_outside"},
    ),
    "links to photos that are listed by themselves": (
        "source/2019/0.jpg",
        {"source/best.jpg": "2019/0.jpg", "source/favourites": "2019", "source/2019/again.jpg": "0.jpg"},
        "2019/0.jpg",
        "2019/0.jpg",
        {"best.jpg": "link_repeated", "favourites": "link_repeated", "2019/again.jpg": "link_repeated"},
    ),
    "thumbnails and bins of file servers": (
        "source/1.jpg source/@eaDir/1.jpg/THUMB.jpg source/#recycle/2.jpg source/a/$RECYCLE.BIN/3.jpg",
        {"source/kept.jpg": "#recycle/2.jpg"},
        "1.jpg kept.jpg",
        "1.jpg kept.jpg",
        {},
    ),
    "photos in a hidden pool inside": (
        "source/.git/annex/ab12 source/.git/annex/cd34.jpg source/1.jpg "
        "source/.pool/2.jpg source/.pool/sub/3.jpg",
        {
            "source/walk/a.jpg": "../.git/annex/ab12",
            "source/walk/b.jpg": "../.git/annex/cd34.jpg",
            "source/z.jpg": ".git/annex/cd34.jpg",
            "source/pool": ".pool",
        },
        "1.jpg z.jpg pool/2.jpg pool/sub/3.jpg walk/a.jpg",
        "1.jpg z.jpg pool/2.jpg pool/sub/3.jpg walk/a.jpg",
        {"walk/b.jpg": "link_repeated"},
    ),
    "blobs without a suffix": (
        "source/blobs/ab12 source/blobs/cd34",
        {"source/snapshots/1/a.jpg": "../../blobs/ab12", "source/snapshots/2/a.jpg": "../../blobs/ab12"},
        "snapshots/1/a.jpg",
        "snapshots/1/a.jpg",
        {"snapshots/2/a.jpg": "link_repeated"},
    ),
    "circles": (
        "source/a/0.jpg source/b/1.jpg",
        {
            "source/a/up": "..",
            "source/self.jpg": "self.jpg",
            "source/a/here": ".",
            "source/b/top": "TOP",
            "source/ping": "pong",
            "source/pong": "ping",
        },
        "a/0.jpg b/1.jpg",
        "a/0.jpg b/1.jpg",
        dict.fromkeys(("a/up", "self.jpg", "a/here", "b/top", "ping", "pong"), "link_loop"),
    ),
    "circles by way of another disk": (
        "source/0.jpg disk/1.jpg disk/in/2.jpg other/3.jpg",
        {
            "source/x": "../disk",
            "disk/in/back": "..",
            "disk/home": "../source",
            "disk/y": "../other",
            "other/z": "../disk",
        },
        "0.jpg",
        "0.jpg x/1.jpg x/in/2.jpg x/y/3.jpg",
        {"x": "link_outside"},
    ),
    "a folder and a part of it": (
        "source/0.jpg disk/1.jpg disk/in/2.jpg",
        {"source/a": "../disk/in", "source/b": "../disk", "source/c": "../disk"},
        "0.jpg",
        "0.jpg a/2.jpg b/1.jpg",
        dict.fromkeys("abc", "link_outside"),
    ),
    "links that lead nowhere": (
        "source/0.jpg",
        {
            "source/gone.jpg": "/nowhere/else.jpg",
            "source/2018": "/nowhere/2018",
            "source/under.jpg": "0.jpg/x.jpg",
        },
        "0.jpg",
        "0.jpg",
        dict.fromkeys(("gone.jpg", "2018", "under.jpg"), "link_dangling"),
    ),
    "links to other files, and hidden ones": (
        "source/0.jpg disk/notes.txt disk/1.jpg",
        {
            "source/notes.txt": "../disk/notes.txt",
            "source/.hidden": "../disk",
            "source/._1.jpg": "../disk/1.jpg",
        },
        "0.jpg",
        "0.jpg",
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_links_of_a_folder(tmp_path: Path, case: str) -> None:
    files, links, inside, followed, named = CASES[case]
    source = build(tmp_path, files, links)
    assert ids(source) == inside.split()
    assert ids(source, follow_links=True) == followed.split()
    assert reasons(source) == named
    beyond = [reason for reason in reasons(source, follow_links=True).values() if reason == "link_outside"]
    assert beyond == []


def test_followed_links_are_read_where_they_lead(tmp_path: Path) -> None:
    name = "@584286.37@4477236.93@17@T@@@@@@@@@@@.jpg"
    source = build(tmp_path, "source/0.jpg disk/x.jpg", {f"source/{name}": "../disk/x.jpg"})
    rows = {row["image_id"]: row for row in list_source(source, follow_links=True).to_pylist()}
    assert rows[name]["uri"] == str(tmp_path / "disk/x.jpg")
    assert rows[name]["utm_e"] == 584286.37


def test_the_source_itself_may_be_a_link(tmp_path: Path) -> None:
    build(tmp_path, "disk/0.jpg", {"source": "disk"})
    assert ids(tmp_path / "source") == ["0.jpg"]


def test_messages_name_the_target_and_the_next_step(tmp_path: Path) -> None:
    source = build(
        tmp_path,
        "source/0.jpg disk/1.jpg",
        {"source/1.jpg": "../disk/1.jpg", "source/2.jpg": "gone.jpg", "source/3": "../disk"},
    )
    listing = list_source(source)
    messages = {row["image_id"]: row["message"] for row in listing.to_pylist() if row["rejected"]}
    assert str(tmp_path / "disk/1.jpg") in messages["1.jpg"]
    assert "--follow-links" in messages["1.jpg"]
    assert "does not exist" in messages["2.jpg"]
    assert "--follow-links" not in messages["2.jpg"]
    (folder,) = skipped_paths(listing)
    assert "--follow-links" in folder.message


@pytest.mark.parametrize("kind", ["files", "folder"])
def test_a_data_set_made_of_links_names_the_flag(tmp_path: Path, kind: str) -> None:
    files = " ".join(f"pool/{part}/@{i}@5@.jpg" for part in ("database", "queries") for i in range(3))
    links = {f"source/{part}": f"TOP/pool/{part}" for part in ("database", "queries")}
    if kind == "files":
        links = {f"source/{name.removeprefix('pool/')}": f"TOP/{name}" for name in files.split()}
    source = build(tmp_path, files, links)
    if kind == "folder":  # the folders of a data set may be links: the source is what they lead to
        assert len(ids(source)) == 3
        return
    for folder in (source, source / "database"):
        with pytest.raises(SourceError, match="--follow-links"):
            list_source(folder)
    assert len(ids(source, follow_links=True)) == 3


def test_a_folder_that_only_links_out_names_the_flag(tmp_path: Path) -> None:
    source = build(tmp_path, "disk/1.jpg", {"source/disk": "../disk"})
    with pytest.raises(SourceError, match="--follow-links"):
        list_source(source)


LISTED = [
    ("in.jpg", "in.jpg", "in.jpg"),
    ("linked.jpg", "link_outside", "linked.jpg"),
    ("disk/1.jpg", "link_outside", "disk/1.jpg"),
    ("disk/gone.jpg", "link_outside", "disk/gone.jpg"),  # its absence is found when it is read
    ("gone.jpg", "link_dangling", "link_dangling"),
    ("lost/x.jpg", "link_dangling", "link_dangling"),
    ("self.jpg", "link_loop", "link_loop"),
    ("again.jpg", "in.jpg", "in.jpg"),
    ("../disk/1.jpg", "outside_root", "outside_root"),
    ("missing.jpg", "missing.jpg", "missing.jpg"),
]


@pytest.mark.parametrize(("path", "inside", "followed"), LISTED)
def test_links_of_a_listing(tmp_path: Path, path: str, inside: str, followed: str) -> None:
    links = {
        "source/linked.jpg": "../disk/1.jpg",
        "source/disk": "../disk",
        "source/gone.jpg": "/nowhere/else.jpg",
        "source/lost": "/nowhere/folder",
        "source/self.jpg": "self.jpg",
        "source/again.jpg": "in.jpg",
    }
    source = build(tmp_path, "source/in.jpg source/other.jpg disk/1.jpg", links)
    (tmp_path / "l.csv").write_text(f"path\n{path}\nother.jpg\n")
    for follow, expected in ((False, inside), (True, followed)):
        row, _ = list_source(tmp_path / "l.csv", root=source, follow_links=follow).to_pylist()
        assert (row["rejected"] or row["image_id"]) == expected
        if row["rejected"] in SKIPPED_LINKS:
            assert "link" in row["message"]


def test_a_listing_of_links_alone_names_the_flag(tmp_path: Path) -> None:
    build(tmp_path, "disk/1.jpg", {"source/1.jpg": "../disk/1.jpg"})
    (tmp_path / "source/l.csv").write_text("path\n1.jpg\n")
    with pytest.raises(SourceError, match="--follow-links"):
        list_source(tmp_path / "source/l.csv")
    assert ids(tmp_path / "source/l.csv", follow_links=True) == ["1.jpg"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build(tmp_path, "source/0.jpg source/closed/1.jpg")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may list every folder
    assert ids(source) == ["0.jpg"]
    assert reasons(source) == {"closed": "unreadable"}
