"""Self-test of a model of others: descriptors that can be compared, whatever else is in the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from models.custom.errors import ModelUnfit
from models.custom.network import OwnNetwork

__all__ = ["self_test"]

_BATCH = 8
_UNIT = 1e-3
_SAME = 1e-4  # of single numbers of unit descriptors in float32


def self_test(
    network: OwnNetwork, *, source: str, promised_dim: int | None, unit: bool, multiple: int
) -> None:
    """Run a model on noise and check what every search relies on.

    Args:
        network: In evaluation mode, in float32 on a CPU.
        source: The model file, for messages.
        promised_dim: Width of the descriptor that it promises; None: any.
        unit: Whether it promises unit norm.
        multiple: Input sizes are multiples of it; 0: there is one.

    Raises:
        ModelUnfit: it failed.
    """
    pre = network.default_preprocessing()
    noise = torch.rand(_BATCH, 3, pre.height, pre.width, generator=torch.Generator().manual_seed(0))
    # Smooth and rough photos: statistics of a batch then differ from those of each.
    noise = (noise * torch.linspace(0.1, 1, _BATCH)[:, None, None, None] - 0.45) / 0.25
    with torch.inference_mode():
        raw = network.raw_descriptors(noise[:1]).float()
        together, again = network(noise)[0], network(noise)[0]
        alone = torch.cat([network(noise[at : at + 1])[0] for at in range(_BATCH)])
    _check_output(raw, source, promised_dim, unit=unit)
    if not all(bool(torch.isfinite(each).all()) for each in (together, alone)):
        raise _unfit(source, "model_not_finite", "descriptors are not finite", "check its weights")
    if _apart(together, again) > _SAME:
        raise _unfit(
            source,
            "model_not_repeatable",
            f"the same photos twice give descriptors that differ by {_apart(together, again):.2g}",
            "remove what is random from its forward",
        )
    if _apart(together, alone) > _SAME:
        raise _unfit(
            source,
            "model_depends_on_batch",
            f"a photo alone and among {_BATCH} gives descriptors {_apart(together, alone):.2g} apart",
            "add batch = 1 to the model file, which runs photos one by one",
        )
    if float((alone @ alone.T).min()) > 1 - 1e-6:
        raise _unfit(source, "model_constant", "all photos give one descriptor", "check its weights")
    if multiple:
        _check_size(network, source, pre.height, pre.width + multiple)


def _check_output(raw: Tensor, source: str, promised: int | None, *, unit: bool) -> None:
    if promised is not None and raw.shape[1] != promised:
        raise _unfit(
            source,
            "model_output",
            f"descriptors have {raw.shape[1]} dimensions, not {promised}",
            "correct dim",
        )
    norm = float(raw.norm())
    if unit and not abs(norm - 1) <= _UNIT:
        raise _unfit(
            source,
            "model_not_unit",
            f"a descriptor has the norm {norm:.4g} instead of 1",
            "add normalise = true to [output] if dividing by it is meant",
        )


def _check_size(network: OwnNetwork, source: str, height: int, width: int) -> None:
    try:
        network.grid(height, width)
    except ValueError as error:
        raise _unfit(
            source,
            "model_input_size",
            f"it does not take {height}x{width} pixels ({error})",
            "correct multiple_of, or leave it out",
        ) from error


def _apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def _unfit(source: str, reason: str, problem: str, advice: str) -> ModelUnfit:
    return ModelUnfit(reason, f"{source} failed its self-test: {problem}: {advice}")
