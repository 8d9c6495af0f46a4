"""Products of NumPy arrays by the threads that run networks. Imports torch only in its function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["multiplied"]


def multiplied(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the product of (N, K) and (K, M), (N, M) float32.

    NumPy has threads of its own, which spin for some 20 ms after a product: they keep those of a network from
    the cores (benchmarks/README.md, Waiting threads).
    """
    import torch

    with torch.inference_mode():
        product: NDArray[np.float32] = torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    return product
