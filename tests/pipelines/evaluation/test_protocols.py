"""Protocols: counts, rules, keys, and the messages that name the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.evaluation.protocols import PROTOCOLS, BadProtocol, Protocol, protocol_of
from pipelines.evaluation.query_keys import read_keys
from pipelines.evaluation.scoring import scoring_of
from pipelines.sources import Dataset
from pipelines.sources.schema import LISTING_SCHEMA

LAYOUT = Dataset("set", Path("/data/set/database"), Path("/data/set/queries"))


def listing(
    side: str, count: int, *, step_m: float = 10.0, key: str = "key", metres: bool = True
) -> pa.Table:
    """Return a listing of photos along a street, named as the usual downloaders name them."""
    rows: list[dict[str, Any]] = [
        {
            "image_id": f"{side}{i}.jpg",
            "uri": f"/data/set/{side}/@{500_000 + i * step_m:.2f}@4000000.00@33@T@@@{key}{i:05d}@@@@@@@@.jpg",
            **({"utm_e": 500_000 + i * step_m, "utm_n": 4e6, "utm_zone": "33T"} if metres else {}),
        }
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=LISTING_SCHEMA)


@pytest.mark.parametrize(
    ("name", "database", "queries", "rule"),
    [
        ("msls-val-11k", 18_871, 11_084, "metres:25"),
        ("msls-test", 38_770, 27_092, "metres:25"),
        ("pitts30k", 10_000, 6_816, "metres:25"),
        ("pitts250k", 83_952, 8_280, "metres:25"),
        ("tokyo247", 75_984, 315, "metres:25"),
        ("nordland-3450", 3_450, 3_450, "frames:2"),
        ("nordland-27592", 27_592, 27_592, "frames:10"),
        ("nordland-2760", 27_592, 2_760, "frames:1"),
        ("sped", 607, 607, "frames:0"),
    ],
)
def test_the_published_counts_are_accepted_and_one_photo_less_is_not(
    name: str, database: int, queries: int, rule: str
) -> None:
    protocol = protocol_of(name)
    assert f"{protocol.rule}:{protocol.tolerance:g}" == rule
    protocol.check_counts(Path("/data/set"), database, queries)
    with pytest.raises(BadProtocol, match=f"{name} has .*{queries - 1:,} queries.*: give"):
        protocol.check_counts(Path("/data/set"), database, queries - 1)


def test_another_data_set_is_refused_with_its_own_name_and_the_right_folder() -> None:
    sides = listing("database", 10_000), listing("queries", 7_608)
    with pytest.raises(BadProtocol) as refused:
        scoring_of(protocol_of("pitts30k"), LAYOUT, *sides)
    assert "--protocol pitts30k-val" in str(refused.value)
    assert "pitts30k/images/test" in str(refused.value)
    with pytest.raises(BadProtocol, match="give the keys of all 740 with --keys"):
        protocol_of("msls-val-740").check_counts(Path("/data/msls/val"), 18_871, 739)
    with pytest.raises(BadProtocol, match="nordland-3450: give --protocol nordland-3450"):
        scoring_of(protocol_of("tokyo247"), LAYOUT, listing("database", 3450), listing("queries", 3450))


def write_subset(folder: Path, keys: list[str], chosen: list[bool], panoramas: list[bool]) -> None:
    """Write MSLS's tables of a city's queries."""
    folder.mkdir(parents=True)
    (folder / "postprocessed.csv").write_text(
        "\n".join([",key,easting,northing", *(f"{i},{key},0,0" for i, key in enumerate(keys))])
    )
    (folder / "raw.csv").write_text(
        "\n".join(
            [",key,pano", *(f"{i},{k},{p}" for i, (k, p) in enumerate(zip(keys, panoramas, strict=True)))]
        )
    )
    (folder / "subtask_index.csv").write_text(
        "\n".join([",all,d2n", *(f"{i},{value},False" for i, value in enumerate(chosen))])
    )


def test_the_740_of_msls_come_from_its_own_tables(tmp_path: Path) -> None:
    """747 rows are chosen beside some panoramas; seven of them have nothing right and are left out."""
    database = listing("database", 18_871, step_m=5.0)
    queries = listing("queries", 11_084, step_m=8.0).to_pylist()
    for far in queries[:7]:
        far["utm_n"] = 5e6
    layout = Dataset("msls", tmp_path / "msls/val/database", tmp_path / "msls/val/queries")
    table = pa.Table.from_pylist(queries, schema=LISTING_SCHEMA)
    protocol = protocol_of("msls-val-740")
    with pytest.raises(BadProtocol, match="--keys FILE") as missing:
        scoring_of(protocol, layout, database, table)
    assert "subtask_index.csv" in str(missing.value)
    assert missing.value.exit_code == 2

    keys = [f"key{i:05d}" for i in range(11_084)]
    raw = tmp_path / "mapillary_sls/train_val"
    write_subset(raw / "cph/query", keys[:600], [True] * 500 + [False] * 100, [False] * 498 + [True] * 102)
    write_subset(raw / "sf/query", keys[600:900], [i < 249 for i in range(300)], [False] * 300)
    scoring = scoring_of(protocol, layout, database, table)
    assert scoring.only is not None
    assert len(scoring.only) == 740
    assert not scoring.only & {row["uri"] for row in queries[:7]}

    (tmp_path / "keys.txt").write_text(" ".join(keys[7:747]))
    np.save(tmp_path / "keys.npy", np.array([f"train_val/cph/query/images/{key}.jpg" for key in keys[7:747]]))
    for name in ("keys.txt", "keys.npy"):
        given = scoring_of(protocol, layout, database, table, keys=tmp_path / name)
        assert given.only == frozenset(row["uri"] for row in queries[7:747])
    (tmp_path / "few.txt").write_text("\n".join(keys[7:700]))
    with pytest.raises(BadProtocol, match="693 queries"):
        scoring_of(protocol, layout, database, table, keys=tmp_path / "few.txt")
    (tmp_path / "other.txt").write_text("nothing here")
    with pytest.raises(BadProtocol, match="none of 11,084 queries"):
        scoring_of(protocol, layout, database, table, keys=tmp_path / "other.txt")


def test_subset_tables_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_subset(tmp_path / "query", ["a", "b"], [True, True], [False, False])
    assert read_keys(tmp_path / "query/subtask_index.csv") == {"a", "b"}
    (tmp_path / "query/postprocessed.csv").write_text(",key\n0,a\n")
    with pytest.raises(BadProtocol, match=r"2 rows and postprocessed\.csv 1"):
        read_keys(tmp_path / "query/subtask_index.csv")
    (tmp_path / "query/postprocessed.csv").unlink()
    (tmp_path / "query/raw.csv").unlink()
    with pytest.raises(BadProtocol, match="not their keys"):
        read_keys(tmp_path / "query/subtask_index.csv")


def frames(side: str, names: list[str]) -> pa.Table:
    rows = [{"image_id": name, "uri": f"/drive/{side}/{name}"} for name in names]
    return pa.Table.from_pylist(rows, schema=LISTING_SCHEMA)


def positives(scoring: Any, queries: pa.Table, database: pa.Table) -> list[list[str]]:
    truth = scoring.truth(queries.to_pylist(), database)
    return [sorted(truth.positives(i)) for i in range(queries.num_rows)]


def test_frames_are_counted_in_the_order_of_the_drive() -> None:
    """Nordland with 2,760 queries: the first may be frame 0 or 1, the second 9, 10 or 11."""
    database = frames("database", [f"images-{i}.png" for i in range(27_592)])
    queries = frames("queries", [f"{i:04d}.png" for i in range(2_760)])
    scoring = scoring_of(PROTOCOLS["nordland-2760"], LAYOUT, database, queries)
    right = positives(scoring, queries, database)
    assert right[0] == ["images-0.png", "images-1.png"]
    assert right[1] == ["images-10.png", "images-11.png", "images-9.png"]
    assert right[2759] == ["images-27589.png", "images-27590.png", "images-27591.png"]


def test_metres_along_a_line_order_frames_and_a_missing_photo_shifts_none() -> None:
    def drive(side: str) -> pa.Table:
        rows = [
            {
                "image_id": f"{i}",
                "uri": f"/{side}/@0@{i * 2.3:.1f}@.jpg",
                "utm_e": 0.0,
                "utm_n": round(i * 2.3, 1),
            }
            for i in range(30)
        ]
        return pa.Table.from_pylist(sorted(rows, key=lambda row: row["uri"]), schema=LISTING_SCHEMA)

    database, queries = drive("winter"), drive("summer")
    scoring = scoring_of(protocol_of("frames:1"), LAYOUT, database, queries)
    stored = database.filter(pa.array([row != "7" for row in database["image_id"].to_pylist()]))
    right = positives(scoring, queries, stored)
    found = dict(zip(queries["image_id"].to_pylist(), right, strict=True))
    assert found["7"] == ["6", "8"]
    assert found["12"] == ["11", "12", "13"]


def test_sides_of_different_length_need_numbers_in_their_names() -> None:
    database = frames("database", [f"frame_{i}.png" for i in range(20)])
    queries = frames("queries", ["frame_3.png", "frame_15.png"])
    scoring = scoring_of(protocol_of("frames:1"), LAYOUT, database, queries)
    assert positives(scoring, queries, database)[1] == ["frame_14.png", "frame_15.png", "frame_16.png"]
    with pytest.raises(BadProtocol, match=r"holiday\.png has no frame number"):
        scoring_of(protocol_of("frames:1"), LAYOUT, database, frames("queries", ["holiday.png"]))


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("key00001\nkey00003\n")
    path = tmp_path / "ours.toml"
    path.write_text('name = "ours"\nrule = "metres:12.5"\ndatabase = 9\nqueries = 2\nkeys = "keys.txt"\n')
    protocol = protocol_of(str(path))
    assert protocol == Protocol("ours", "metres", 12.5, 9, 2, keys=tmp_path / "keys.txt")
    scoring = scoring_of(protocol, LAYOUT, listing("database", 9), listing("queries", 5))
    assert scoring.only is not None
    assert len(scoring.only) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = 3", "has no rule"),
        ('rule = "metres:25"\nqueries = 0', "queries is not a whole number"),
        ('rule = "metres:25"\nqueries = true', "queries is not a whole number"),
        ('rule = "metres:25"\ncount = 3', "has count: known are"),
        ('rule = "metres:25"\nsplit = "all"', "split is none of"),
        ('rule = "metres:25"\nkeys = 3', "keys is not a text"),
        ("rule =", "is not TOML"),
        ('rule = "miles:3"', "is not known"),
    ],
)
def test_a_protocol_file_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(BadProtocol, match=message):
        protocol_of(str(tmp_path / "p.toml"))


@pytest.mark.parametrize(
    "text", ["msls", "metres:", "metres:-1", "metres:nan", "frames:1.5", "frames:-1", "no.toml"]
)
def test_an_unknown_protocol_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(BadProtocol, match=r"give one of msls-val-740|cannot be read"):
        protocol_of(text)
