"""Evaluating a data set: queries first, then what the store lacks, never a part of a database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import utm
from PIL import Image
from PIL.ExifTags import GPS, IFD

from models.extractor import Extractor
from models.weights import load_extractor
from pipelines.cli.output import print_evaluation
from pipelines.evaluation import database
from pipelines.evaluation.job import evaluate
from pipelines.sources import SourceError, list_source
from storage.errors import NotWritable
from storage.store import Store
from storage.version import __version__
from tests.support.city_store import commit_photos
from tests.support.pictures import draw, photo, write_photos


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("efficientnet-lite0")


@pytest.fixture
def city(tmp_path: Path) -> Path:
    write_photos(tmp_path / "city/database", 6)
    write_photos(tmp_path / "city/queries", 3)
    return tmp_path / "city"


class Indexing:
    """Stands in for the job on Ray: indexes in this process what a store lacks."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.calls: list[dict[str, Any]] = []
        self.skip: set[str] = set()

    def __call__(self, source: Path, store_uri: str, **options: Any) -> None:
        self.calls.append(options)
        store = Store.create(store_uri, self.extractor.card)
        listing = list_source(source, root=options["root"])
        known = {row["image_id"]: row for row in store.metadata().to_pylist()}
        wanted = [
            row["image_id"] not in self.skip
            and (row["image_id"] not in known or known[row["image_id"]]["utm_e"] != row["utm_e"])
            for row in listing.to_pylist()
        ]
        if any(wanted):
            with store.lease():
                commit_photos(store, self.extractor, listing.filter(wanted))


@pytest.fixture
def indexing(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> Indexing:
    fake = Indexing(extractor)
    monkeypatch.setattr(database, "index", fake)
    return fake


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_the_store_lacks_is_indexed_and_said(city: Path, indexing: Indexing, tmp_path: Path) -> None:
    uri, said = str(tmp_path / "store"), list[str]()
    later = sorted((city / "database").iterdir())[4:]
    for path in later:
        path.rename(tmp_path / path.name)
    assert evaluate(city, store_uri=uri, say=said.append).database == 4
    for path in later:
        (tmp_path / path.name).rename(path)
    result = evaluate(city, store_uri=uri, say=said.append)
    assert (result.database, result.database_indexed, result.database_rejected) == (6, 2, 0)
    assert result.recall["reranked"]["1"] == 100.0
    assert "indexing 2 of 6 database images that are not in the store" in said[-1]
    before = files_of(tmp_path / "store")
    again = evaluate(city, store_uri=uri, say=said.append)
    assert (again.database_indexed, len(indexing.calls), len(said)) == (0, 2, 2)
    assert files_of(tmp_path / "store") == before


def test_an_empty_store_of_an_interrupted_run_is_filled(
    city: Path, indexing: Indexing, tmp_path: Path, extractor: Extractor
) -> None:
    Store.create(tmp_path / "store", extractor.card)
    assert evaluate(city, store_uri=str(tmp_path / "store")).database_indexed == 6


def test_a_database_photo_that_cannot_be_used_is_counted_and_not_tried_again(
    city: Path, indexing: Indexing, tmp_path: Path
) -> None:
    indexing.skip = {"bad.jpg"}
    (city / "database/bad.jpg").write_bytes(b"nothing")
    for _ in range(2):
        result = evaluate(city, store_uri=str(tmp_path / "store"))
        assert (result.database, result.database_rejected) == (6, 1)
    assert len(indexing.calls) == 1


def unreadable(city: Path) -> None:
    for path in (city / "queries").iterdir():
        path.write_bytes(b"")


def unplaced(city: Path) -> None:
    for number, path in enumerate((city / "queries").iterdir()):
        path.rename(path.with_name(f"holiday{number}.jpg"))


def absent(city: Path) -> None:
    for path in (city / "queries").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(unreadable, "none of 3 queries .* can be used"), (unplaced, "has a position"), (absent, "no images")],
)
def test_queries_are_checked_before_anything_is_indexed(
    city: Path, indexing: Indexing, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(city)
    with pytest.raises(SourceError, match=message):
        evaluate(city, store_uri=str(tmp_path / "store"))
    assert indexing.calls == []
    assert not (tmp_path / "store").exists()


def test_a_database_without_positions_is_refused_before_it_is_indexed(
    city: Path, indexing: Indexing, tmp_path: Path, extractor: Extractor
) -> None:
    for number, path in enumerate((city / "database").iterdir()):
        path.rename(path.with_name(f"street{number}.jpg"))
    with pytest.raises(SourceError, match="none of 6 database images"):
        evaluate(city, store_uri=str(tmp_path / "store"))
    assert indexing.calls == []
    indexing(city / "database", str(tmp_path / "store"), root=None)
    with pytest.raises(SourceError, match="none of 6 images in the store"):
        evaluate(city, store_uri=str(tmp_path / "store"))
    with_gps(city / "database/mapped.jpg", 0, 36.14, 15.0)
    with pytest.raises(SourceError, match="in the store"):  # the stand-in indexes without EXIF
        evaluate(city, store_uri=str(tmp_path / "new"))
    assert Store.open(tmp_path / "new").count == 7


def with_gps(path: Path, seed: int, lat: float, lon: float) -> None:
    exif = Image.Exif()
    gps = exif.get_ifd(IFD.GPSInfo)
    gps |= {GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: (lat, 0.0, 0.0)}
    gps |= {GPS.GPSLongitudeRef: "E", GPS.GPSLongitude: (lon, 0.0, 0.0)}
    exif[IFD.GPSInfo] = gps
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(seed).save(path, quality=92, exif=exif)


def test_positions_come_from_exif_listings_and_names_with_a_prefix(
    indexing: Indexing, tmp_path: Path
) -> None:
    (database_listing, queries_listing) = tmp_path / "map.csv", tmp_path / "photos.csv"
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(photo(number))
    database_listing.write_text("path,lat,lon\n0.jpg,48.0,11.0\n1.jpg,48.1,11.0\n2.jpg,48.2,11.0\n")
    queries_listing.write_text("path,lat,lon\n1.jpg,48.1,11.0\n2.jpg,,\n")
    for seed, lat in ((0, 48.0), (1, 48.1)):
        with_gps(tmp_path / f"phone/{seed}.jpg", seed, lat, 11.0)
    east, north, zone, band = utm.from_latlon(48.2, 11.0)
    prefixed = tmp_path / "named" / f"night_7@{east:.2f}@{north:.2f}@{zone}@{band}@@@x@@@@@@@@.jpg"
    prefixed.parent.mkdir()
    prefixed.write_bytes(photo(2))

    for queries, scored, unplaced in ((queries_listing, 1, 1), ("phone", 2, 0), (prefixed.parent, 1, 0)):
        result = evaluate(
            tmp_path, store_uri=str(tmp_path / "store"), database=database_listing, queries=queries
        )
        assert (result.queries, result.queries_without_coordinates) == (scored, unplaced)
        assert result.recall["global"]["1"] == 100.0
        assert result.queries_without_positive == 0
    assert len(indexing.calls) == 1


def test_a_root_without_a_listing_is_refused(city: Path, indexing: Indexing, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--root is for listings"):
        evaluate(city, store_uri=str(tmp_path / "store"), root=tmp_path)


def test_a_store_of_other_images_is_neither_scored_nor_mixed(
    city: Path, indexing: Indexing, tmp_path: Path, extractor: Extractor
) -> None:
    write_photos(tmp_path / "other", 3, first=50)
    uri = str(tmp_path / "store")
    indexing(tmp_path / "other", uri, root=None)
    with pytest.raises(SourceError, match="none of the 6 images"):
        evaluate(city, store_uri=uri)
    assert len(indexing.calls) == 1


def test_stored_images_from_elsewhere_are_counted(city: Path, indexing: Indexing, tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    write_photos(tmp_path / "other", 3, first=50)
    for source in (city / "database", tmp_path / "other"):
        indexing(source, uri, root=None)
    result = evaluate(city, store_uri=uri)
    assert (result.database, result.database_elsewhere, result.database_indexed) == (9, 3, 0)


def test_images_under_other_ids_are_those_of_the_database_or_refused(
    city: Path, indexing: Indexing, tmp_path: Path, extractor: Extractor
) -> None:
    store = Store.create(tmp_path / "store", extractor.card)
    listing = list_source(city / "database", id_prefix="munich/")
    with store.lease():
        commit_photos(store, extractor, listing)
    result = evaluate(city, store_uri=store.uri)
    assert (result.database, result.database_indexed, result.database_elsewhere) == (6, 0, 0)
    write_photos(city / "database", 1, first=6)
    with pytest.raises(SourceError, match="under other ids"):
        evaluate(city, store_uri=store.uri)


def test_a_corrected_position_is_taken_over(indexing: Indexing, tmp_path: Path, city: Path) -> None:
    listing = tmp_path / "map.csv"
    names = [path.name for path in sorted((city / "database").iterdir())]
    uri, said = str(tmp_path / "store"), list[str]()
    for shift in (0, 1000):
        rows = (f"{name},{500_000 + 10 * i + shift},4000000,33T" for i, name in enumerate(names))
        listing.write_text("path,utm_e,utm_n,utm_zone\n" + "\n".join(rows) + "\n")
        options = {"database": listing, "root": city / "database", "say": said.append}
        result = evaluate(city, store_uri=uri, **options)
        assert result.recall["global"]["1"] == (0.0 if shift else 100.0)
    assert "6 of 6 database images that have another position" in said[1]


def test_other_photos_under_the_same_ids_are_never_scored(
    city: Path, indexing: Indexing, tmp_path: Path
) -> None:
    uri = str(tmp_path / "store")
    evaluate(city, store_uri=uri)
    for number, path in enumerate(sorted((city / "database").iterdir())):
        path.write_bytes(photo(90 + number))
    with pytest.raises(SourceError, match="other images under the ids"):
        evaluate(city, store_uri=uri)


def test_a_store_that_lacks_something_and_cannot_be_written_is_not_scored(
    city: Path, tmp_path: Path, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    Indexing(extractor)(city / "database", str(tmp_path / "store"), root=None)
    write_photos(city / "database", 2, first=6)

    def refuse(*args: object, **options: object) -> None:
        raise NotWritable("the store cannot be written (Read-only file system): give this user the right")

    monkeypatch.setattr(database, "index", refuse)
    with pytest.raises(NotWritable, match="2 of 8 database images") as refused:
        evaluate(city, store_uri=str(tmp_path / "store"))
    assert "Read-only file system" in str(refused.value)


def test_the_conditions_stand_beside_every_figure(
    city: Path, indexing: Indexing, tmp_path: Path, capsys: pytest.CaptureFixture[str], extractor: Extractor
) -> None:
    result = evaluate(
        city, store_uri=str(tmp_path / "store"), report=tmp_path / "report", candidates=5, threshold_m=12.5
    )
    conditions = result["conditions"]
    card = extractor.card
    assert conditions["image_size"] == [card.preprocessing.height, card.preprocessing.width]
    assert conditions["descriptor_dim"] == card.descriptor_dim
    assert (conditions["features"], conditions["precision"]) == ("float16", "float32")
    assert (conditions["candidates"], conditions["threshold_m"], conditions["score"]) == (5, 12.5, "votes")
    assert conditions["weights_sha256"] == card.weights_sha256
    assert conditions["min_similarity"] == card.min_similarity
    assert conditions["versions"].keys() >= {"placeray", "torch", "timm"}
    assert conditions["versions"]["placeray"] == __version__
    stored = Store.open(tmp_path / "store")
    assert conditions["store_version"] == stored.version
    assert conditions["store_format"] == stored.card.format_version
    written = json.loads((tmp_path / "report/evaluation.json").read_text())
    assert written["conditions"] == conditions
    print_evaluation(result)
    texts = [capsys.readouterr().out, (tmp_path / "report/index.html").read_text(), result._repr_html_()]
    size = "x".join(map(str, conditions["image_size"]))
    for text in texts:
        for part in (
            *(size, "float16", "float32", "5 candidates by votes", card.weights_sha256[:12]),
            *("12.5 m, inclusive", "geodesic between zones", f"placeray {__version__}", "timm", "version 2"),
            *("3 queries", "6 ", f"resized by {conditions['resize']}", "metres:12.5"),
            f"sha256 {conditions['dataset_sha256'][:12]}",
        ):
            assert part in text, part


@pytest.mark.parametrize("options", [{"candidates": 0}, {"rerank": False}])
def test_without_re_ranking_there_is_no_re_ranked_figure(
    city: Path,
    indexing: Indexing,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
) -> None:
    result = evaluate(city, store_uri=str(tmp_path / "store"), report=tmp_path / "report", **options)
    assert result.recall.keys() == {"global"}
    assert result["conditions"]["score"] is None
    assert "no re-ranking" in result.protocol
    assert result.matched_per_query == 0
    print_evaluation(result)
    assert "after re-ranking" not in capsys.readouterr().out + repr(result) + result._repr_html_()
    page = (tmp_path / "report/index.html").read_text()
    assert "after re-ranking" not in page
    assert "None" not in page


def test_predictions_hold_every_answer(city: Path, indexing: Indexing, tmp_path: Path) -> None:
    (city / "queries/@500000@4000000@33@T@bad@.jpg").write_bytes(b"")
    result = evaluate(city, store_uri=str(tmp_path / "store"), predictions=tmp_path / "out", candidates=4)
    made = np.load(tmp_path / "out/predictions.npz")
    queries, shape = made["queries"].tolist(), made["indices"].shape
    assert queries == [outcome.uri for outcome in result.outcomes]
    assert shape == (4, 6)
    for row, outcome in enumerate(result.outcomes):
        ids = [match.record.image_id for match in outcome.matches]
        assert made["database"][made["indices"][row][: len(ids)]].tolist() == ids
        assert (made["indices"][row][len(ids) :] == -1).all()
        assert made["first_hit_reranked"][row] == (outcome.first_hit_reranked or 0)
        order = made["indices_global"][row][: len(ids)]
        similarity = dict(zip(ids, made["similarity"][row], strict=False))
        values = [similarity[image_id] for image_id in made["database"][order].tolist()]
        assert values == sorted(values, reverse=True)
    good = made["indices"][:, 0] >= 0
    assert np.isclose(made["distance_m"][good, 0], 0.0, atol=1e-6).all()
    assert made["correct"][good, 0].all()
    assert (made["mutual_matches"][good] >= 0).sum() == 3 * 4
    assert json.loads(str(made["conditions"]))["candidates"] == 4
    lines = (tmp_path / "out/predictions.csv").read_text().splitlines()
    assert lines[0].startswith("query,rank,rank_global,image_id,uri,distance_m,correct,similarity")
    assert len(lines) == 1 + 3 * 6 + 1
    assert sum(line.endswith(",empty") for line in lines) == 1
