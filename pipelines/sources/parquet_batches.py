"""The rows of a Parquet file in small batches, without holding the file or all of its texts.

Texts stay in a dictionary until their lengths are known, so that a small file cannot expand without bounds.
Arrow keeps each text of a row group in that dictionary though, and gives the whole of it with every batch.
So columns that are large are read without one, once it is certain that no text of theirs is long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipelines.sources.arrow_values import text_bytes
from pipelines.sources.source_file import SourceFile
from storage.parquet_footer import RowGroup, read_row_groups
from storage.parquet_pages import check_pages, dictionary_entries

__all__ = ["read_batches"]

BATCH_ROWS = 1_024
BUFFER_BYTES = 1 << 20  # of each column: without, the whole file is held while its rows are read
LARGE_BYTES = 2 << 20  # of a column in a row group, uncompressed


def read_batches(file: SourceFile, columns: Sequence[str], texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some columns.

    Args:
        file: The file.
        columns: Names of the columns.
        texts: Paths of the columns of texts, which come as dictionaries where they are small.

    Raises:
        SourceError: a text is too long.
        ArrowException, OSError: the file cannot be read.
    """
    reading = {"pre_buffer": False, "buffer_size": BUFFER_BYTES}
    with file.parquet(read_dictionary=texts, **reading) as opened:
        with file.open() as raw:
            groups = read_row_groups(raw)
        top = set(columns) & set(texts)
        for number, group in enumerate(groups[: opened.num_row_groups]):
            with file.open() as raw:
                check_pages(raw, group, columns)
            plain = {name for name in top if _has_short_texts(file, opened, number, group, name)}
            if not plain:
                yield from opened.iter_batches(BATCH_ROWS, row_groups=[number], columns=columns)
                continue
            rest = [name for name in texts if name not in plain]
            with file.parquet(read_dictionary=rest, **reading) as other:
                yield from other.iter_batches(BATCH_ROWS, row_groups=[number], columns=columns)


def _has_short_texts(
    file: SourceFile, opened: pa.parquet.ParquetFile, number: int, group: RowGroup, name: str
) -> bool:
    """Return whether a column is large in a row group and certain to have no long texts there.

    Raises:
        SourceError: it has one.
    """
    chunks = [chunk for chunk in group.columns if chunk.path == name]
    if len(chunks) != 1 or chunks[0].expanded_bytes < LARGE_BYTES:
        return False
    with file.open() as raw:
        entries = dictionary_entries(raw, chunks[0])
    if not entries:
        return entries is not None
    for batch in opened.iter_batches(1, row_groups=[number], columns=[name]):
        array = batch.column(0)
        text_bytes(array, file)
        return isinstance(array, pa.DictionaryArray) and len(array.dictionary) >= entries
    return False
