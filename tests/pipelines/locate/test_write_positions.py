"""Accepted positions in photos: copies or in place, never over one, and undone byte for byte."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD

from models.images.decoder import decode_image
from models.images.facts import facts_of_file
from models.images.writing.jpeg_segments import find_exif
from models.images.writing.sidecar import names_position
from pipelines.cli import main
from pipelines.locate.errors import BadReview
from pipelines.locate.reviewed import Accepted, read_accepted
from pipelines.locate.undo_list import UNDO_LIST, undo
from pipelines.locate.write_positions import write_positions
from tests.support.pictures import draw

LAT, LON = 48.1985, 16.3618


def encoded(kind: str, seed: int, **options: Any) -> bytes:
    file = io.BytesIO()
    draw(seed).save(file, kind, **options)
    return file.getvalue()


def tagged(lat: Any, lon: Any) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(IFD.GPSInfo).update(
        {GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: lat, GPS.GPSLongitudeRef: "E", GPS.GPSLongitude: lon}
    )
    return encoded("JPEG", 5, exif=exif.tobytes())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "album").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encoded("JPEG", 1))
    (folder / "album/b.jpg").write_bytes(encoded("JPEG", 2, quality=70, progressive=True))
    (folder / "c.png").write_bytes(encoded("PNG", 3))
    (folder / "=d.jpg").write_bytes(encoded("JPEG", 4))
    (folder / "placed.jpg").write_bytes(tagged((50.0, 0.0, 0.0), (9.0, 0.0, 0.0)))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != UNDO_LIST
    }


def accepted(folder: Path, *names: str, **changed: Any) -> list[Accepted]:
    def one(name: str) -> Accepted:
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        values = {"folder": str(folder), "sha256": digest, "lat": LAT, "lon": LON, "radius_m": 17.0}
        return Accepted(image=name, **(values | changed))

    return [one(name) for name in names]


ALL = ("a.jpg", "album/b.jpg", "c.png", "=d.jpg", "placed.jpg")


def test_copies_get_positions_and_the_photos_stay_as_they_are(photos: Path) -> None:
    before = contents(photos)
    report = write_positions(accepted(photos, *ALL))
    assert (report.exif, report.sidecars, report.skipped) == (3, 1, [("placed.jpg", "has_position")])
    assert contents(photos) == before
    made = Path(report.folder)
    assert made == photos.with_name("photos-located")
    assert sorted(contents(made)) == sorted(["a.jpg", "album/b.jpg", "c.png", "c.png.xmp", "=d.jpg"])
    for name in ("a.jpg", "album/b.jpg", "=d.jpg"):
        old, new = before[name], (made / name).read_bytes()
        facts = facts_of_file(new)
        assert facts.lat == pytest.approx(LAT, abs=1e-8)
        assert facts.lon == pytest.approx(LON, abs=1e-8)
        assert np.array_equal(decode_image(old).pixels, decode_image(new).pixels)
        place, former = find_exif(new), find_exif(old)
        assert new[: place.begin] + new[place.end :] == old[: former.begin] + old[former.end :]
    assert (made / "c.png").read_bytes() == before["c.png"]
    assert names_position((made / "c.png.xmp").read_bytes())
    assert (made / "a.jpg").stat().st_mtime == pytest.approx((photos / "a.jpg").stat().st_mtime)


def test_in_place_nothing_but_the_segment_changes_and_undo_restores_every_byte(photos: Path) -> None:
    before = contents(photos)
    (photos / "a.jpg").chmod(0o640)
    report = write_positions(accepted(photos, *ALL), in_place=True)
    assert (report.exif, report.sidecars) == (3, 1)
    assert report.undo_list == str(photos / UNDO_LIST)
    assert facts_of_file((photos / "a.jpg").read_bytes()).lat == pytest.approx(LAT)
    assert (photos / "a.jpg").stat().st_mode & 0o777 == 0o640
    assert contents(photos)["placed.jpg"] == before["placed.jpg"]
    undone = undo(photos / UNDO_LIST)
    assert (undone.restored, undone.removed, undone.skipped) == (3, 1, [])
    assert contents(photos) == before
    assert (photos / "a.jpg").stat().st_mode & 0o777 == 0o640
    again = undo(photos / UNDO_LIST)
    assert (again.restored, again.removed, len(again.skipped)) == (0, 0, 4)


def test_a_position_is_never_written_over_another_one(photos: Path) -> None:
    (photos / "xmp.jpg").write_bytes(encoded("JPEG", 7, xmp=b"<x exif:GPSLatitude='48,8.2N'/>"))
    (photos / "xmp.png").write_bytes(encoded("PNG", 8) + b"exif:GPSLatitude")
    (photos / "beside.jpg").write_bytes(encoded("JPEG", 9))
    (photos / "beside.xmp").write_bytes(b"<x exif:GPSLatitude='48,8.2N'/>")
    (photos / "odd.jpg").write_bytes(tagged((500.0, 0.0, 0.0), (9.0, 0.0, 0.0)))
    names = ("placed.jpg", "xmp.jpg", "xmp.png", "beside.jpg", "odd.jpg")
    before = contents(photos)
    for in_place in (True, False):
        report = write_positions(accepted(photos, *names), in_place=in_place)
        assert report.skipped_by_reason == {"has_position": len(names)}
        assert contents(photos) == before
    write_positions(accepted(photos, "a.jpg"), in_place=True)
    second = write_positions(accepted(photos, "a.jpg"), in_place=True)
    assert second.skipped_by_reason == {"has_position": 1}


def test_a_position_of_zero_counts_as_none(photos: Path) -> None:
    (photos / "zero.jpg").write_bytes(tagged((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
    before = (photos / "zero.jpg").read_bytes()
    assert write_positions(accepted(photos, "zero.jpg"), in_place=True).exif == 1
    assert facts_of_file((photos / "zero.jpg").read_bytes()).lon == pytest.approx(LON, abs=1e-8)
    undo(photos / UNDO_LIST)
    assert (photos / "zero.jpg").read_bytes() == before


def test_what_is_not_the_reviewed_photo_is_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded("JPEG", 6))
    (photos / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    before = contents(photos)
    (changed,) = accepted(photos, "a.jpg", sha256="0" * 64)
    (nowhere,) = accepted(photos, "c.png", lat=None)
    outside = [Accepted(name, "", "", LAT, LON, None) for name in ("../secret.jpg", "link.jpg", "gone.jpg")]
    report = write_positions([changed, nowhere, *outside], photos, in_place=True)
    assert report.exif == report.sidecars == 0
    assert {reason for _, reason in report.skipped} >= {"changed", "no_degrees", "outside_root", "missing"}
    assert report.undo_list is None
    assert contents(photos) == before


def test_copies_never_replace_a_file(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies/a.jpg").write_bytes(b"mine")
    report = write_positions(accepted(photos, "a.jpg", "=d.jpg"), copies=tmp_path / "copies")
    assert (report.exif, report.skipped) == (1, [("a.jpg", "exists")])
    assert (tmp_path / "copies/a.jpg").read_bytes() == b"mine"
    undone = undo(tmp_path / "copies" / UNDO_LIST)
    assert undone.removed == 1
    assert sorted(contents(tmp_path / "copies")) == ["a.jpg"]


def test_undo_leaves_alone_what_changed_since_and_what_lies_elsewhere(photos: Path, tmp_path: Path) -> None:
    write_positions(accepted(photos, "a.jpg", "=d.jpg"), in_place=True)
    edited = (photos / "a.jpg").read_bytes() + b"edited"
    (photos / "a.jpg").write_bytes(edited)
    (tmp_path / "outside.jpg").write_bytes(b"outside")
    digest = hashlib.sha256(b"outside").hexdigest()
    hostile = {"path": "../outside.jpg", "kind": "made", "sha256": digest}
    with open(photos / UNDO_LIST, "a") as file:
        file.write(json.dumps(hostile | {"former_sha256": "", "former_segment": ""}) + "\n" + '{"cut')
    undone = undo(photos / UNDO_LIST)
    assert undone.restored == 1
    assert len(undone.skipped) == 2
    assert (photos / "a.jpg").read_bytes() == edited
    assert (tmp_path / "outside.jpg").exists()
    (photos / "other").write_text('{"a": 1}\n{}\n')
    for name in ("other", "none"):
        with pytest.raises(BadReview):
            undo(photos / name)


def review(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "folder", "sha256", "decision", "lat", "lon", "radius_m"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_command_line_writes_accepted_positions_and_undoes_them(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"image": name, "folder": str(photos), "decision": decision, "lat": LAT, "lon": LON}
        for name, decision in (("a.jpg", "accepted"), ("'=d.jpg", "accepted"), ("c.png", "rejected"))
    ]
    path = str(review(tmp_path / "reviewed.csv", rows))
    before = contents(photos)
    assert main(["locate", "--accepted", path]) == 2
    assert "--write-gps" in capsys.readouterr().err
    assert main(["locate", "--accepted", path, "--write-gps", "--in-place", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["accepted"], report["exif"], report["skipped"]) == (2, 2, [])
    assert contents(photos)["c.png"] == before["c.png"]
    assert main(["locate", "--undo", report["undo_list"]]) == 0
    assert "2 photos are as they were" in capsys.readouterr().out
    assert contents(photos) == before
    for arguments in (["--write-gps"], ["--undo", "x", "--accepted", path], [str(photos)]):
        assert main(["locate", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "data", [b"", b"image,lat\n", b"\xff\xfe", b'image,decision,lat,lon\n"' + b"x" * 200_000]
)
def test_lists_that_are_none_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(BadReview, match="list of a review page"):
        read_accepted(tmp_path / "list.csv")
    with pytest.raises(BadReview, match="cannot be read"):
        read_accepted(tmp_path / "none.csv")


def test_numbers_of_a_list_that_are_none_are_missing(tmp_path: Path) -> None:
    rows = [
        {"image": "a", "decision": "Accepted ", "lat": "nan", "lon": "999", "radius_m": "-"},
        {"image": "b", "decision": "", "lat": "1", "lon": "2"},
    ]
    (photo,) = read_accepted(review(tmp_path / "list.csv", rows))
    assert (photo.image, photo.lat, photo.lon, photo.radius_m) == ("a", None, None, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_photo_that_cannot_be_read_is_left_alone(photos: Path) -> None:
    (photos / "a.jpg").chmod(0)
    report = write_positions([Accepted("a.jpg", str(photos), "", LAT, LON, None)], in_place=True)
    assert report.skipped_by_reason == {"unreadable": 1}
