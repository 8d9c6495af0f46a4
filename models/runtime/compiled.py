"""A network compiled for a few batch sizes: smaller batches are filled up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.errors import PlacerayError

__all__ = ["CannotCompile", "compiled", "filled_size"]

# Less is hardly faster on an accelerator, and each size is compiled anew.
_MIN_BATCH = 8


class CannotCompile(PlacerayError, RuntimeError):
    """Compilation was requested and is not possible here."""

    reason = "cannot_compile"


def filled_size(count: int, *, max_batch: int) -> int:
    """Return to how many images a batch of `count` is filled up: 8, 16, 32 and so on up to `max_batch`."""
    size = _MIN_BATCH
    while size < count:
        size *= 2
    return max(count, min(size, max_batch))


def compiled(network: nn.Module, *, max_batch: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the network for inference, compiled at its first use with each batch size.

    Batches are filled up with zeros to `filled_size`, and what comes of the zeros is left out.

    Args:
        network: Maps (B, ...) to tensors (B, ...), each row for itself.
        max_batch: The largest B.

    Returns:
        A function that raises CannotCompile where torch cannot compile.
    """
    fast: Any = torch.compile(network, dynamic=False)
    prepared = False

    def run(images: Tensor) -> tuple[Tensor, ...]:
        nonlocal prepared
        if not prepared:  # what a network does at its first use alone, such as folding, is not compiled
            network(images[:1])
            prepared = True
        count = len(images)
        missing = filled_size(count, max_batch=max_batch) - count
        if missing:
            layout = torch.channels_last
            images = F.pad(images, (0, 0) * (images.ndim - 1) + (0, missing)).contiguous(memory_format=layout)
        try:
            outputs = fast(images)
        except Exception as error:
            if not _of_the_compiler(error):
                raise
            raise CannotCompile(
                f"torch could not compile the network ({type(error).__name__}): install a C compiler and "
                "triton, or leave compiling off"
            ) from error
        return tuple(output[:count] for output in outputs)

    return run


def _of_the_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException  # loads the compiler, which few need

    return isinstance(error, TorchDynamoException)
