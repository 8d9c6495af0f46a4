"""What records are made of, in memory, in segments that never change: versions of a store share them."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.search.filters.all_of import AllOf, all_of
from storage.search.filters.bounds import bounds_of
from storage.search.filters.disc import is_disc
from storage.search.place_grid import PlaceGrid
from storage.search.row_filter import RowFilter
from storage.search.rows_left import plain_texts, rows_left

__all__ = ["MemoryRows", "compact_rows"]

_SEGMENT_ROWS = 65_536  # as many of the newest rows are copied when further ones come
_GRID_ROWS = 10_000  # of fewer, each is looked at
_KEPT_MASKS = 8  # of filters, per segment


class _Segment:
    """Some rows in one chunk, sorted by place, and what the last filters left of them."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self._grid: PlaceGrid | None = None
        # Here and not in the first query: a service makes versions ready before it searches them.
        if {"lat", "lon"} <= set(rows.column_names) and len(rows) >= _GRID_ROWS:
            lat, lon = (np.asarray(rows[name].to_numpy(), np.float64) for name in ("lat", "lon"))
            self._grid = PlaceGrid(lat, lon)
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
        if self._grid is None:
            return rows_left(within, self.rows)
        if is_disc(within):
            found = self._grid.within(within)
            if found is not None:
                inside, doubtful = found
                inside[doubtful] = self._left_of(within, doubtful)
                return inside
        if isinstance(within, AllOf):
            discs = [each for each in within.filters if is_disc(each)]
            if discs:
                others = all_of(each for each in within.filters if each is not discs[0])
                return self._also(others, self.left(discs[0]))
        bounds = bounds_of(within)
        nearby = None if bounds is None else self._grid.inside(bounds)
        if nearby is None or 2 * len(nearby) > len(self.rows):
            return rows_left(within, self.rows)
        mask = np.zeros(len(self.rows), bool)
        mask[nearby] = self._left_of(within, nearby)
        return mask

    def _also(self, within: RowFilter | None, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which of the rows `inside` another filter leaves too."""
        if within is None:
            return inside
        some = np.flatnonzero(inside)
        if 2 * len(some) > len(inside):
            return inside & rows_left(within, self.rows)
        mask = np.zeros(len(inside), bool)
        mask[some] = self._left_of(within, some)
        return mask

    def _left_of(self, within: RowFilter, some: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of some rows a filter leaves."""
        columns = {*within.columns, *(("uri",) if "source" in within.columns else ())}
        read = self.rows.select([name for name in self.rows.column_names if name in columns])
        if not read.num_columns:  # a table without columns has no length
            return rows_left(within, self.rows)[some]
        return rows_left(within, read.take(pa.array(some)))


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
