"""Transfers to and from a device: overlap and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from models.runtime.transfers import Transfers, one_ahead

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")),
]


def test_one_ahead_finishes_each_after_the_next_is_started() -> None:
    events: list[str] = []

    def started() -> Iterator[Callable[[], int]]:
        for index in range(3):
            events.append(f"start {index}")
            yield lambda index=index: events.append(f"finish {index}") or 10 * index

    assert list(one_ahead(started())) == [0, 10, 20]
    assert events == ["start 0", "start 1", "finish 0", "start 2", "finish 1", "finish 2"]
    assert list(one_ahead(iter([]))) == []


def test_one_ahead_fault_stops_the_work() -> None:
    indices: list[int] = []

    def started() -> Iterator[Callable[[], float]]:
        for index in range(5):
            indices.append(index)
            yield lambda index=index: 1 / (index - 1)

    with pytest.raises(ZeroDivisionError):
        list(one_ahead(started()))
    assert indices == [0, 1, 2]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_transfers_preserve_values(device: str, dtype: type) -> None:
    transfers = Transfers(torch.device(device))
    rng = np.random.default_rng(0)
    waits, expected = [], []
    for count in (5, 64, 1):
        arrays = [rng.integers(0, 256, (32, 40, 3)).astype(dtype) for _ in range(count)]
        there = transfers.upload(arrays)
        assert there.device.type == device
        waits.append(transfers.download(there.permute(0, 3, 1, 2).float() + 1, there.sum()))
        expected.append(np.stack(arrays).astype(np.float32) + 1)
        for array in arrays:
            array[:] = 0  # what was sent is the caller's again
    for wait, values in zip(waits, expected, strict=True):
        moved, total = wait()
        assert moved.device.type == total.device.type == "cpu"
        assert np.array_equal(moved.permute(0, 2, 3, 1).numpy(), values)
        assert float(total) == pytest.approx(float(values.sum()) - values.size, rel=1e-5)
