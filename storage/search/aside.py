"""Work beside the answers: a thread of low priority."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from storage.cores import usable_cores
from storage.search.faiss_module import import_faiss

__all__ = ["Aside"]

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Aside(Generic[Result]):
    """Computes something in a thread that leaves the processor to answers, on half of the cores.

    Attributes:
        result: What it computed; None until then, and if it failed.
    """

    def __init__(self, compute: Callable[[], Result], *, what: str) -> None:
        """Start.

        Args:
            compute: What to compute.
            what: Its name in the log, should it fail.
        """
        self.result: Result | None = None
        self._done = threading.Event()
        self._compute, self._what = compute, what
        threading.Thread(target=self._run, name="aside", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether it is finished, or failed."""
        return self._done.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for it; return `done`."""
        return self._done.wait(timeout_s)

    def _run(self) -> None:
        try:
            with contextlib.suppress(OSError, AttributeError):  # not everywhere do threads have a priority
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
            # FAISS's own threads take the priority of the thread that starts them.
            import_faiss().omp_set_num_threads(max(1, len(usable_cores()) // 2))
            self.result = self._compute()
        except Exception:  # the index as it is still answers
            _log.warning("%s failed", self._what, exc_info=True)
        finally:
            self._done.set()
