"""Networks compiled for a few batch sizes; other batches are padded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.errors import PlacerayError

__all__ = ["CannotCompile", "compiled", "padded_size"]

# Smaller batches are hardly faster on an accelerator, and each size is compiled separately.
_MIN_BATCH = 8


class CannotCompile(PlacerayError, RuntimeError):
    """Compilation was requested but is not possible on this machine."""

    reason = "cannot_compile"


def padded_size(count: int, *, max_batch: int) -> int:
    """Return the padded size of a batch of `count` images: 8, 16, 32 and so on up to `max_batch`."""
    size = _MIN_BATCH
    while size < count:
        size *= 2
    return max(count, min(size, max_batch))


def compiled(network: nn.Module, *, max_batch: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the network compiled for inference, once for each batch size at its first use.

    Batches are padded with zeros to `padded_size`; the outputs for the padding are dropped.

    Args:
        network: Maps (B, ...) to tensors (B, ...), each row independently.
        max_batch: The largest B.

    Returns:
        A function that raises CannotCompile where torch cannot compile.
    """
    fast: Any = torch.compile(network, dynamic=False)
    prepared = False

    def run(images: Tensor) -> tuple[Tensor, ...]:
        nonlocal prepared
        if not prepared:  # one-time work of the network, such as folding, is not compiled
            network(images[:1])
            prepared = True
        count = len(images)
        missing = padded_size(count, max_batch=max_batch) - count
        if missing:
            layout = torch.channels_last
            images = F.pad(images, (0, 0) * (images.ndim - 1) + (0, missing)).contiguous(memory_format=layout)
        try:
            outputs = fast(images)
        except Exception as error:
            if not _is_compiler_error(error):
                raise
            raise CannotCompile(
                f"torch could not compile the network ({type(error).__name__}): install a C compiler and "
                "triton, or leave compiling off"
            ) from error
        return tuple(output[:count] for output in outputs)

    return run


def _is_compiler_error(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException  # imports the compiler, which is rarely needed

    return isinstance(error, TorchDynamoException)
