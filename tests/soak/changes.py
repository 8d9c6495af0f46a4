"""Changes of a store while it is served: indexing, deleting, compacting, learning again, verifying."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from pipelines.relearn import relearn
from storage.store import Store
from tests.soak.history import History
from tests.support.paths import ROOT

__all__ = ["Changes"]

LEAST = 24  # images that stay
PAUSE_S = 1.0


class Changes:
    """One writer that changes a store at random and compares it with its history after each change.

    Attributes:
        done: Changes by kind.
        wrong: What did not agree.
    """

    def __init__(self, uri: str, photos: list[Path], history: History, seed: int) -> None:
        self._uri = uri
        self._photos = {path.name: path for path in photos}
        self._history = history
        self._chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, stop: threading.Event) -> None:
        """Change until told to stop."""
        changes = [self._index, self._delete, self._delete, self._compact, self._relearn, self._verify]
        while not stop.wait(PAUSE_S):
            self.once(self._chance.choice(changes).__name__)

    def once(self, name: str) -> None:
        """Make one change; what it raises, and a difference afterwards, is kept as wrong."""
        try:
            expected = getattr(self, name)(set(self._history.images))
            store = Store.open(self._uri)
            held = store.metadata()["image_id"].to_pylist()
            if sorted(held) != sorted(expected):
                self.wrong.append(f"{name}: {len(held)} images instead of {len(expected)}")
            self._history.record(store.version, frozenset(held))
        except Exception as error:
            self.wrong.append(f"{name}: {error!r}")
        self.done[name.strip("_")] += 1

    def _index(self, images: set[str]) -> set[str]:
        new = self._chance.sample(sorted(self._photos), 8)
        root = next(iter(self._photos.values())).parent
        listing = Path(self._uri).with_name("new.csv")
        listing.write_text("uri\n" + "".join(f"{name}\n" for name in new))
        command = [sys.executable, "-m", "pipelines.cli", "index", str(listing), "--store", self._uri]
        command += ["--root", str(root), "--quiet", "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"exit {done.returncode}: {done.stderr[-1000:]}")
        return images | set(new)

    def _delete(self, images: set[str]) -> set[str]:
        gone = self._chance.sample(sorted(images), min(4, max(0, len(images) - LEAST)))
        store = Store.open(self._uri)
        with store.lease():
            store.delete(gone)
        return images - set(gone)

    def _compact(self, images: set[str]) -> set[str]:
        Store.open(self._uri).compact(keep_versions_s=60.0)
        return images

    def _relearn(self, images: set[str]) -> set[str]:
        relearn(self._uri)
        return images

    def _verify(self, images: set[str]) -> set[str]:
        report = Store.open(self._uri).verify()
        if not report.ok:
            raise RuntimeError(str(report)[:1000])
        return images
