"""Collective operations of the workers of one training run; with a single worker they do nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["WorkerGroup"]


@dataclass(frozen=True)
class WorkerGroup:
    """One worker's view of the process group.

    Attributes:
        rank: Rank of this worker.
        size: Number of workers; 1 needs no process group.
        device: Device of this worker.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def blocks(self, count: int, length: int) -> list[tuple[int, int]]:
        """Return this worker's share of `count` rows cut into blocks of `length`: every size-th block.

        The blocks do not depend on the number of workers, so neither do the last bits of what is computed.
        """
        starts = range(self.rank * length, count, self.size * length)
        return [(start, min(start + length, count)) for start in starts]

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all workers.

        Args:
            tensor: Has the same shape on every worker.
        """
        if self.size == 1:
            return tensor
        shared = tensor.to(self.device, copy=True)
        dist.all_reduce(shared)
        return shared.to(tensor.device)

    def gather_blocks(self, mine: Tensor, count: int, length: int) -> Tensor:
        """Put together rows that were computed by `blocks`.

        Args:
            mine: This worker's rows (n, ...), its blocks end to end.
            count: Number of rows over all workers.
            length: Number of rows per block.

        Returns:
            (count, ...) on the CPU, the same on every worker.
        """
        if self.size == 1:
            return mine.cpu()
        # Adding zeros is exact: each row is written by one worker alone.
        whole = torch.zeros((count, *mine.shape[1:]), dtype=mine.dtype, device=self.device)
        at = 0
        for start, end in self.blocks(count, length):
            whole[start:end] = mine[at : at + end - start]
            at += end - start
        dist.all_reduce(whole)
        return whole.cpu()

    def from_first(self, data: bytes) -> bytes:
        """Return the bytes that the worker of rank 0 gives; those of others are not used."""
        if self.size == 1:
            return data
        first = self.rank == 0
        size = int(self.sum(torch.tensor([len(data) if first else 0]))[0])
        whole = torch.zeros(size, dtype=torch.uint8)
        if first:
            whole[:] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return self.sum(whole).numpy().tobytes()
