"""Digests of named tensors."""

from __future__ import annotations

import torch

from models.checkpoints.tensors import weights_digest


def test_digest_depends_on_name_shape_dtype_and_value_not_on_order() -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    digest = weights_digest(tensors)
    assert weights_digest(dict(reversed(tensors.items()))) == digest
    others = [
        {"c": tensors["a"], "b": tensors["b"]},
        tensors | {"a": tensors["a"].view(2, 3)},
        tensors | {"a": tensors["a"].half()},
        tensors | {"b": torch.tensor(4)},
        {"a": tensors["a"]},
    ]
    assert len({digest, *map(weights_digest, others)}) == 6
    strided = torch.arange(6.0).view(2, 3).T
    assert weights_digest({"a": strided}) == weights_digest({"a": strided.contiguous()})
