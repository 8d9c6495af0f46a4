"""Sources of images: folders, buckets, listings, shards, data sets in the standard layout."""

from pipelines.sources.datasets import Dataset, open_dataset
from pipelines.sources.errors import SourceError
from pipelines.sources.links import SKIPPED_LINKS, Skipped, skipped_paths
from pipelines.sources.listing import list_source, listing_batches, require_images, whole_listing
from pipelines.sources.notes import Note, join_notes, listing_notes, split_notes
from pipelines.sources.opened import OpenedSource, open_source, split_options
from pipelines.sources.rows import DUPLICATE, duplicate_message
from pipelines.sources.schema import LISTING_SCHEMA
from pipelines.sources.standard_name import parse_standard_name

__all__ = [
    "DUPLICATE",
    "LISTING_SCHEMA",
    "SKIPPED_LINKS",
    "Dataset",
    "Note",
    "OpenedSource",
    "Skipped",
    "SourceError",
    "duplicate_message",
    "join_notes",
    "list_source",
    "listing_batches",
    "listing_notes",
    "open_dataset",
    "open_source",
    "parse_standard_name",
    "require_images",
    "skipped_paths",
    "split_notes",
    "split_options",
    "whole_listing",
]
