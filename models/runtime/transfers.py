"""Images to a device and results back, beside what the device computes.

On CUDA copies run on streams of their own from and to pinned memory; a batch is sent while the one before it
is computed, and its results come back while the one after it is. Elsewhere copies are plain ones.
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
    """Finish each piece of work only when the next one has been started.

    Args:
        started: Starts a piece of work whenever its next item is requested; calling the item finishes it.

    Yields:
        What the pieces return, in their order.
    """
    waiting: Callable[[], T] | None = None
    for finish in started:
        if waiting is not None:
            yield waiting()
        waiting = finish
    if waiting is not None:
        yield waiting()


class Transfers:
    """The copies between the host and one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams = device.type == "cuda"
        if self._streams:
            stream: Any = torch.cuda.Stream
            self._up, self._down = stream(device), stream(device)

    def upload(self, arrays: Sequence[NDArray[np.generic]]) -> Tensor:
        """Stack arrays of one shape on the device, for work queued there after this.

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
        there.record_stream(computing)  # its memory is the copying stream's, and must outlive this use
        return there

    def download(self, *tensors: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        """Start copying tensors to the host; the returned function waits for them.

        Args:
            tensors: On the device, as work queued there before this leaves them.
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
