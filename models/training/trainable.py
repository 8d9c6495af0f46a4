"""The trainable parameters of a model, and their state for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from models.checkpoints.tensors import require_finite, require_fitting

__all__ = ["restore_trainable", "trainable_parameters", "trainable_state"]


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the adapters, the pooling exponent and the local head of a model, by name.

    Args:
        model: A `SelaVPR`, or an `EfficientNetLite0` with adapters or a local head.

    Raises:
        ValueError: the model has nothing to train.
    """
    trainable = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    if not trainable:
        raise ValueError(f"{type(model).__name__} has nothing to train: call its add_adapters() first")
    return trainable


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the trained tensors on the CPU, independent of further training.

    Statistics of trained batch normalisation are among them.
    """
    tensors = {**trainable_parameters(model), **_statistics(model)}
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def restore_trainable(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a `trainable_state` into a model of the same kind, in place, so that its optimiser stays valid.

    Raises:
        WeightsRejected: a tensor is missing, unknown, of the wrong shape or not finite.
    """
    trained = {**trainable_parameters(model), **_statistics(model)}
    require_fitting(trained, tensors)
    require_finite(tensors)
    for name, weights in trained.items():
        weights.data.copy_(tensors[name])


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """Return the running statistics of batch normalisation that is trained, by name."""
    return {
        f"{name}.{kind}": buffer
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.weight.requires_grad
        for kind, buffer in module.named_buffers()
    }
