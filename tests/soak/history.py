"""What a store held at each of its versions, kept beside it, and whether an answer agrees."""

from __future__ import annotations

import bisect
import threading
from typing import Any

__all__ = ["History"]


class History:
    """Versions of a store and the images that each held.

    Versions in between, which one operation made, hold what the version before or after them held.
    """

    def __init__(self, version: int, images: frozenset[str]) -> None:
        self._lock = threading.Lock()
        self._versions = [version]
        self._images = {version: images}

    @property
    def newest(self) -> int:
        return self._versions[-1]

    @property
    def images(self) -> frozenset[str]:
        return self._images[self.newest]

    def record(self, version: int, images: frozenset[str]) -> None:
        """Add what the store holds after an operation."""
        with self._lock:
            if version > self.newest:
                self._versions.append(version)
            self._images[version] = images

    def is_known(self, version: int) -> bool:
        """Return whether an answer of this version can be judged yet."""
        return version <= self.newest

    def wrong(self, answer: dict[str, Any], asked: str, top_k: int) -> str | None:
        """Return what is wrong with an answer to a photo of this id, or None."""
        if answer["degraded"]:
            return "degraded"
        found = [match["image_id"] for match in answer["matches"]]
        faults = [self._fault(images, found, asked, top_k) for images in self._held(answer["store_version"])]
        return None if None in faults else f"version {answer['store_version']}: {faults[0]}"

    def _held(self, version: int) -> list[frozenset[str]]:
        with self._lock:
            if version in self._images:
                return [self._images[version]]
            at = bisect.bisect(self._versions, version)
            return [self._images[known] for known in self._versions[max(0, at - 1) : at + 1]]

    @staticmethod
    def _fault(images: frozenset[str], found: list[str], asked: str, top_k: int) -> str | None:
        if strange := set(found) - images:
            return f"{sorted(strange)} are not in the store"
        if len(found) != min(top_k, len(images)) or len(set(found)) != len(found):
            return f"{len(found)} matches"
        if asked in images and found[0] != asked:
            return f"{found[0]} before {asked}, the photo itself"
        return None
