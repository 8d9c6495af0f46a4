"""What records are made of, in memory, in segments that never change: versions of a store share them."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.search.filters.bounds import Bounds, bounds_of
from storage.search.place_grid import PlaceGrid
from storage.search.row_filter import RowFilter
from storage.search.rows_left import plain_texts, rows_left

__all__ = ["MemoryRows", "compact_rows"]

_SEGMENT_ROWS = 65_536  # as many of the newest rows are copied when further ones come
_GRID_ROWS = 10_000  # of fewer, each is looked at
_KEPT_MASKS = 8  # of filters, per segment


class _Segment:
    """Some rows in one chunk, and what the last filters left of them."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self._grid: PlaceGrid | None = None
        self._masks: OrderedDict[RowFilter, npt.NDArray[np.bool_]] = OrderedDict()

    def left(self, within: RowFilter) -> npt.NDArray[np.bool_]:
        mask = self._masks.get(within)
        if mask is None:
            mask = self._masks[within] = self._computed(within)
            while len(self._masks) > _KEPT_MASKS:
                try:
                    self._masks.popitem(last=False)
                except KeyError:  # another thread was faster
                    break
        return mask

    def _computed(self, within: RowFilter) -> npt.NDArray[np.bool_]:
        nearby = self._nearby(bounds_of(within))
        if nearby is None or 2 * len(nearby) > len(self.rows):
            return rows_left(within, self.rows)
        columns = {*within.columns, *(("uri",) if "source" in within.columns else ())}
        some = self.rows.select([name for name in self.rows.column_names if name in columns])
        mask = np.zeros(len(self.rows), bool)
        mask[nearby[rows_left(within, some.take(pa.array(nearby)))]] = True
        return mask

    def _nearby(self, bounds: Bounds | None) -> npt.NDArray[np.int64] | None:
        """Return rows among which are all within some bounds; None: any row."""
        placed = {"lat", "lon"} <= set(self.rows.column_names)
        if bounds is None or not placed or len(self.rows) < _GRID_ROWS:
            return None
        if self._grid is None:
            lat, lon = (np.asarray(self.rows[name].to_numpy(), np.float64) for name in ("lat", "lon"))
            self._grid = PlaceGrid(lat, lon)
        return self._grid.inside(bounds)


class MemoryRows:
    """N rows, numbered as they came; immutable, safe to share between threads."""

    def __init__(self, rows: pa.Table) -> None:
        """Keep stored rows without descriptor and code."""
        self._segments: tuple[_Segment, ...] = (_Segment(compact_rows(rows)),)
        self._starts = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1]) + len(self._segments[-1].rows)

    @property
    def schema(self) -> pa.Schema:
        """The columns that are kept."""
        return self._segments[0].rows.schema

    def grown(self, rows: pa.Table) -> MemoryRows:
        """Return these rows and further ones of the same columns; all but the last segment are shared."""
        segments, fresh = list(self._segments), compact_rows(rows)
        if len(segments) > 1 and len(segments[-1].rows) + len(fresh) <= _SEGMENT_ROWS:
            both = [segments.pop().rows, fresh]
            fresh = pa.concat_tables(both).unify_dictionaries().combine_chunks()
        made = MemoryRows(fresh)
        made._segments = (*segments, *made._segments)
        made._starts = np.cumsum([0, *(len(segment.rows) for segment in made._segments[:-1])])
        return made

    def take(self, ids: npt.NDArray[np.int64]) -> pa.Table:
        """Return the rows of these numbers, in this order."""
        if len(self._segments) == 1:
            return self._segments[0].rows.take(pa.array(ids))
        of = np.searchsorted(self._starts, ids, side="right") - 1
        parts, places = [], []
        for number in np.unique(of):
            here = np.flatnonzero(of == number)
            taken = self._segments[int(number)].rows.take(pa.array(ids[here] - self._starts[number]))
            parts.append(plain_texts(taken))
            places.append(here)
        order = np.argsort(np.concatenate(places)) if places else np.empty(0, np.int64)
        rows = pa.concat_tables(parts) if parts else self._segments[0].rows.slice(0, 0)
        return rows.take(pa.array(order))

    def left(self, within: RowFilter) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: which rows a filter leaves."""
        masks = [segment.left(within) for segment in self._segments]
        return masks[0] if len(masks) == 1 else np.concatenate(masks)


def compact_rows(rows: pa.Table) -> pa.Table:
    """Return what records are made of, in one chunk; texts that many rows share take four bytes in each."""
    rows = rows.drop_columns([name for name in ("descriptor", "code") if name in rows.column_names])
    for name in ("source", "tags"):
        at = rows.schema.get_field_index(name)
        if at >= 0 and not pa.types.is_dictionary(rows.schema.field(at).type):
            rows = rows.set_column(at, name, rows[name].dictionary_encode())
    # One chunk: taking a hundred rows out of a hundred chunks took 5 ms instead of 1 ms.
    return rows.unify_dictionaries().combine_chunks()
