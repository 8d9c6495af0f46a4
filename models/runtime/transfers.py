"""Transfers of images to a device and of results back, overlapping with computation.

On CUDA, copies run on separate streams from and to pinned memory: a batch is uploaded while the previous one
is computed, and its results are downloaded while the next one is. On other devices copies are synchronous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Transfers", "one_ahead"]

T = TypeVar("T")


def one_ahead(started: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Start each piece of work before finishing the previous one.

    Args:
        started: Starts a piece of work when the next item is requested; calling the item finishes it.

    Yields:
        The results, in order.
    """
    waiting: Callable[[], T] | None = None
    for finish in started:
        if waiting is not None:
            yield waiting()
        waiting = finish
    if waiting is not None:
        yield waiting()


class Transfers:
    """Copies between the host and one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams = device.type == "cuda"
        if self._streams:
            stream: Any = torch.cuda.Stream
            self._up, self._down = stream(device), stream(device)

    def upload(self, arrays: Sequence[NDArray[np.generic]]) -> Tensor:
        """Stack arrays of one shape on the device, for use by work queued afterwards.

        Args:
            arrays: B arrays of one shape and dtype.

        Returns:
            (B, ...) on the device.
        """
        if not self._streams:
            return torch.from_numpy(np.stack(arrays)).to(self._device)
        kind = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
        pinned = torch.empty((len(arrays), *arrays[0].shape), dtype=kind, pin_memory=True)
        np.stack(arrays, out=pinned.numpy())
        with torch.cuda.stream(self._up):
            there = pinned.to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._up)
        there.record_stream(computing)  # memory of the copy stream must not be reused before this
        return there

    def download(self, *tensors: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        """Start copying tensors to the host; the returned function waits for them.

        Args:
            tensors: On the device; work queued before is included.
        """
        if not self._streams:
            return lambda: tuple(tensor.cpu() for tensor in tensors)
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            copies = tuple(
                torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
                    tensor, non_blocking=True
                )
                for tensor in tensors
            )
            for tensor in tensors:
                tensor.record_stream(self._down)
            done = self._down.record_event()

        def wait() -> tuple[Tensor, ...]:
            done.synchronize()
            return copies

        return wait
