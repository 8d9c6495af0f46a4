"""Search on disk skips damaged rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from storage.search.lance_searcher import LanceSearcher
from storage.search.partition import read_partition
from storage.table.checksums import add_checksums
from storage.table.lance_table import LanceTable
from tests.support.store_samples import descriptor_of, make_card, rows_of

IDS = [f"id{i:05d}" for i in range(50)]


def test_search_leaves_damaged_rows_out_and_reports_degraded(tmp_path: Path) -> None:
    card = make_card()
    stored = add_checksums(rows_of(card, IDS[:50]), card)
    at = stored.schema.get_field_index("width")
    widths = stored["width"].to_pylist()
    widths[7] += 1
    table = LanceTable.create(tmp_path, card)
    table.append(stored.set_column(at, stored.schema.field(at), pa.array(widths, pa.int32())))
    rows, damaged = read_partition(table, card)
    assert (len(rows), damaged) == (49, 1)
    searcher = LanceSearcher(table, card)
    hits = searcher.search(descriptor_of(IDS[7])[None], k=50)[0]
    assert searcher.degraded
    assert sorted(c.record.image_id for c in hits) == IDS[:7] + IDS[8:50]
