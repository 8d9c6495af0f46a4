"""Sources of images: folders, buckets, listings, shards, data sets in the standard layout."""

from pipelines.sources.datasets import Dataset, open_dataset
from pipelines.sources.errors import SourceError
from pipelines.sources.links import SKIPPED_LINKS, Skipped, skipped_paths
from pipelines.sources.listing import list_source
from pipelines.sources.notes import Note, join_notes, listing_notes, split_notes
from pipelines.sources.opened import split_options
from pipelines.sources.schema import LISTING_SCHEMA
from pipelines.sources.standard_name import parse_standard_name

__all__ = [
    "LISTING_SCHEMA",
    "SKIPPED_LINKS",
    "Dataset",
    "Note",
    "Skipped",
    "SourceError",
    "join_notes",
    "list_source",
    "listing_notes",
    "open_dataset",
    "parse_standard_name",
    "skipped_paths",
    "split_notes",
    "split_options",
]
