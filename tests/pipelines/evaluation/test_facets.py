"""What names, folders, tags and columns tell about a query."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluation.facets import facets_of_listing
from pipelines.sources import list_source
from tests.support.pictures import photo


def facets(source: Path) -> list[dict[str, str]]:
    return facets_of_listing(source, list_source(source))


def test_notes_of_msls_and_folders_of_svox(tmp_path: Path) -> None:
    folder = tmp_path / "queries_night"
    (folder / "winter").mkdir(parents=True)
    name = "@1.00@2.00@33@T@@@key@@@@@@201801@night_sideways_cph@.jpg"
    (folder / name).write_bytes(photo(1))
    (folder / "winter/plain.jpg").write_bytes(photo(2))
    first, second = facets(folder)
    assert first == {"condition": "night", "light": "night", "view": "sideways", "city": "cph"}
    assert second == {"condition": "night", "light": "night", "season": "winter"}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_and_tags_of_a_listing(tmp_path: Path, suffix: str) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(photo(ord(name[0])))
    columns = {
        "uri": ["c.jpg", "a.jpg", "b.jpg"],
        "City": ["Graz", "", "Linz"],
        "night": ["True", "0", "perhaps"],
        "tags": ["rain, cat", "", "sunny"],
    }
    path = tmp_path / f"photos{suffix}"
    if suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        lines = [";".join(columns), *(";".join(row) for row in rows)]
        path.write_text("\n".join(lines))
    else:
        pq.write_table(pa.table(columns), path)
    assert facets(path) == [
        {"city": "graz", "light": "night", "weather": "rain"},
        {"light": "day"},
        {"city": "linz", "weather": "sun"},
    ]


def test_a_listing_without_such_columns_and_a_folder_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    (tmp_path / "a.jpg").write_bytes(photo(1))
    (tmp_path / "night/b.jpg").write_bytes(photo(2))
    (tmp_path / "photos.csv").write_text("uri,weight\na.jpg,3\n")
    assert facets(tmp_path / "photos.csv") == [{}]
    assert sorted(map(str, facets(tmp_path))) == ["{'light': 'night'}", "{}"]
