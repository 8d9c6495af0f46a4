"""Files that hold a listing: CSV and Parquet, read as tables with our column names."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipelines.sources.columns import map_columns
from pipelines.sources.errors import SourceError
from pipelines.sources.paths import clean

__all__ = ["SUFFIXES", "read_table"]

SUFFIXES = frozenset({".csv", ".parquet", ".pq"})
MAX_LISTING_BYTES = 4 << 30


def read_table(path: Path) -> pa.Table:
    """Read the known columns of a listing; those of a CSV file as text.

    Raises:
        SourceError: the file cannot be read, is too large, or has columns that cannot be used.
    """
    return _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)


def _read_csv(path: Path) -> pa.Table:
    try:
        with pa.csv.open_csv(path) as reader:
            header = reader.schema.names
        columns = map_columns(header, path)
        convert = pa.csv.ConvertOptions(
            include_columns=list(columns.values()),
            column_types=dict.fromkeys(columns.values(), pa.string()),
            strings_can_be_null=True,
        )
        table = pa.csv.read_csv(path, convert_options=convert)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} cannot be read as CSV ({clean(str(error))}): repair or convert it"
        ) from error
    return table.rename_columns(list(columns))


def _read_parquet(path: Path) -> pa.Table:
    try:
        with pa.parquet.ParquetFile(path) as file:
            columns = map_columns(file.schema_arrow.names, path)
            names = set(columns.values())
            size = sum(
                column.total_uncompressed_size
                for group in (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
                for column in (group.column(i) for i in range(group.num_columns))
                if column.path_in_schema.split(".")[0] in names
            )
            if size > MAX_LISTING_BYTES:
                raise SourceError(f"{path}: the listing has {size} bytes uncompressed: split it")
            table = file.read(columns=list(names))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{path} cannot be read as Parquet ({clean(str(error))}): repair or convert it"
        ) from error
    table = table.select(list(columns.values())).rename_columns(list(columns))
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            raise SourceError(f"{path}: column {name} has type {kind}: give text, numbers or times")
    return table
