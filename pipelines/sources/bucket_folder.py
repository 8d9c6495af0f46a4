"""The objects below a prefix of a bucket, as the images of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.sources.folders import has_image_suffix
from pipelines.sources.links import is_hidden
from pipelines.sources.notes import Note, join_notes
from pipelines.sources.paths import clean
from pipelines.sources.standard_name import read_standard_name
from storage.objects.source_bucket import open_source_bucket
from storage.photos.uris import ObjectUri

__all__ = ["list_bucket", "object_names"]


def list_bucket(prefix: ObjectUri, id_prefix: str, options: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each image below a prefix, in an order that does not change.

    Names that are hidden in folders are left out, as are other files.

    Args:
        prefix: It ends where a name between slashes does.
        id_prefix: Prefix of every image id.
        options: Of the bucket, see `storage.objects.source_bucket.open_source_bucket`.

    Raises:
        StoreError: the bucket does not exist, or does not answer as it should.
    """
    for name, uri in object_names(prefix, options):
        if has_image_suffix(name):
            notes: list[Note] = []
            row = read_standard_name(name.rpartition("/")[2], notes)
            yield row | {"image_id": id_prefix + clean(name), "uri": str(uri), "notes": join_notes(notes)}


def object_names(prefix: ObjectUri, options: Mapping[str, str]) -> Iterator[tuple[str, ObjectUri]]:
    """Yield each object below a prefix that is not hidden: its name relative to it, and where it lies."""
    bucket = open_source_bucket(prefix.scheme, prefix.bucket, options)
    inside = len(prefix.key) + 1 if prefix.key else 0
    for page in bucket.pages(prefix.key):
        for each in page:
            name = each.key[inside:]
            if name and not any(map(is_hidden, name.split("/"))):
                yield name, ObjectUri(prefix.scheme, prefix.bucket, each.key)
