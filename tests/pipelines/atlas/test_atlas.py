"""The atlas: holes, near-duplicates with their cost, look-alikes, and its files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipelines.atlas.describe import atlas_lines
from pipelines.atlas.job import make_atlas
from pipelines.atlas.similar_pairs import find_pairs, leave_one_out
from pipelines.cli import main
from pipelines.sources import SourceError, list_source
from storage.position import Position, Positions
from storage.store import Store
from tests.support.store_samples import make_rows, make_store

BASE = (48.2, 16.37)


def city(folder: Path) -> Store:
    """Ten places 50 m apart; place 0 has three photos 1 m apart, place 9 looks like place 0."""
    store = make_store(folder, [])
    rng = np.random.default_rng(3)
    width = store.card.descriptor_dim
    places = rng.standard_normal((10, width))
    places[9] = places[0]
    rows = []
    for place in range(10):
        for copy in range(3 if place == 0 else 1):
            vector = places[place] + (0.0 if place == 9 else 0.05) * rng.standard_normal(width)
            lon = BASE[1] + (50 * place + copy) / 74_000
            rows.append((f"p{place}-{copy}", vector / np.linalg.norm(vector), lon))
    table = make_rows(store, [name for name, _, _ in rows])
    values = {
        "descriptor": [vector.astype(np.float16).tolist() for _, vector, _ in rows],
        "lat": [BASE[0]] * len(rows),
        "lon": [lon for _, _, lon in rows],
        **dict.fromkeys(("utm_e", "utm_n", "utm_zone", "heading_deg"), [None] * len(rows)),
    }
    for name, column in values.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(column, table.schema.field(at).type))
    with store.lease():
        store.commit(table)
    return store


def test_pairs_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    positions = Positions.of([Position(utm_e=10.0 * i, utm_n=0.0, utm_zone="33T") for i in range(60)])
    pairs = find_pairs(vectors, positions)
    similarity = vectors @ vectors.T
    wanted = set()
    for row in range(60):
        order = [other for other in np.argsort(-similarity[row]) if other != row][:24]
        wanted |= {(min(row, other), max(row, other)) for other in order}
    assert {tuple(pair) for pair in pairs.rows.tolist()} == wanted
    assert pairs.similarity == pytest.approx([similarity[a, b] for a, b in pairs.rows], abs=1e-6)
    assert pairs.distance_m == pytest.approx([10.0 * (b - a) for a, b in pairs.rows])


def test_removing_the_only_other_photo_of_a_place_costs_recall() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    places = Positions.of([Position(utm_e=float(e), utm_n=0.0, utm_zone="33T") for e in (0, 5, 500, 505)])
    nothing, one = np.zeros(4, bool), np.array([False, True, False, False])
    assert leave_one_out(vectors, places, nothing, threshold_m=25) == (100.0, 100.0, 4)
    before, after, asked = leave_one_out(vectors, places, one, threshold_m=25)
    assert (before, asked) == (100.0, 4)
    assert after < before


def test_an_atlas_of_a_small_city(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    city(tmp_path / "store")
    (tmp_path / "wanted.csv").write_text(
        "uri,lat,lon\n" + "\n".join(f"w{i}.jpg,{BASE[0]},{BASE[1] + 50 * i / 74_000}" for i in range(12))
    )
    arguments = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    arguments += ["--duplicate-similarity", "0.9"]
    assert main(["atlas", *arguments, "--listing", str(tmp_path / "wanted.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["listed"], found["uncovered"]) == (12, 12, 2)
    assert (found["prunable"], found["alike"]) == (2, 1)
    assert found["recall_queries"] == 3
    with (tmp_path / "out/prune.csv").open(newline="") as file:
        pruned = list(csv.DictReader(file))
    assert {row["image_id"] for row in pruned} | {row["kept_instead"] for row in pruned} == {
        *("p0-0", "p0-1", "p0-2"),
    }
    features = json.loads((tmp_path / "out/atlas.geojson").read_text())["features"]
    kinds = [feature["properties"]["kind"] for feature in features]
    assert [kinds.count(kind) for kind in ("hole", "near-duplicate", "alike")] == [found["holes"], 2, 1]
    (line,) = (f for f in features if f["geometry"]["type"] == "LineString")
    assert line["properties"]["distance_m"] == pytest.approx(450, abs=10)
    for lon, lat in line["geometry"]["coordinates"]:
        assert (lon, lat) == pytest.approx((BASE[1], BASE[0]), abs=0.01)
    assert list(atlas_lines(found)) == [
        f"{tmp_path / 'store'}: 12 images, version {found['store_version']}",
        f"coverage: 2 of 12 listed positions have no image within 25 m, at {found['holes']} places",
        "near-duplicates: 2 images within 5 m of a kept one, similarity at least 0.900; without them R@1 by "
        f"global descriptor goes from {found['recall_before_pruning']:.1f} to "
        f"{found['recall_after_pruning']:.1f} %, as 3 stored images tell",
        "look-alikes: 1 pairs of places at least 100 m apart",
        f"written: {', '.join(found['files'])}",
    ]
    page = (tmp_path / "out/index.html").read_text()
    assert "2 of 12 listed positions have no image within 25 m" in page
    assert "://" not in page


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_of_positions_alone_finds_holes(tmp_path: Path, suffix: str) -> None:
    city(tmp_path / "store")
    wanted = [{"lat": BASE[0], "lon": BASE[1] + 50 * i / 74_000} for i in range(12)]
    table = pa.Table.from_pylist(wanted)
    path = tmp_path / f"wanted.{suffix}"
    if suffix == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    found = make_atlas(str(tmp_path / "store"), tmp_path / "out", listing=str(path))
    assert (found["listed"], found["uncovered"]) == (12, 2)
    with pytest.raises(SourceError, match="no column uri"):
        list_source(path)


def test_without_a_listing_no_holes_are_looked_for(tmp_path: Path) -> None:
    city(tmp_path / "store")
    found = make_atlas(str(tmp_path / "store"), tmp_path / "out", duplicate_similarity=1.0)
    assert (found["holes"], found["prunable"]) == (None, 0)
    page = (tmp_path / "out/index.html").read_text()
    assert "to find holes" in page
    assert "No image has another within 5 m" in page
    assert "that can be removed</span>" not in page, "the map has none"
    assert "coverage: give --listing to find holes" in atlas_lines(found)
