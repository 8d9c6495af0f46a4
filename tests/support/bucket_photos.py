"""Objects of any name in the test bucket, written by obstore without placeray."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from obstore.store import S3Store

__all__ = ["put_folder", "put_objects"]


def put_objects(url: str, objects: Mapping[str, bytes], bucket: str = "placeray") -> None:
    """Write objects by their keys, with the credentials of the environment."""
    store = S3Store(bucket, endpoint=url, region="us-east-1", client_options={"allow_http": True})
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda item: obstore.put(store, *item), objects.items()))


def put_folder(url: str, folder: Path, prefix: str) -> None:
    """Write the files below a folder as objects below a prefix."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    put_objects(url, {f"{prefix}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files})
