"""Training checkpoints: exact restore, and rejection of damaged or foreign files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.optim import AdamW

from models.errors import WeightsRejected
from models.networks.architecture import Architecture
from models.networks.selavpr import SelaVPR
from models.training.checkpoint import load_checkpoint, read_trained, save_checkpoint
from models.training.trainable import trainable_parameters, trainable_state

VALUES = {"step": 3, "nested": {"list": [1, 2.5, None]}}


def make(width: int = 16) -> tuple[SelaVPR, AdamW]:
    torch.manual_seed(width)
    model = SelaVPR(Architecture(width=width, depth=1, num_heads=2, mlp_width=32), local_head=True)
    return model, AdamW(trainable_parameters(model).values(), lr=1e-2)


def step(model: SelaVPR, optimiser: AdamW) -> None:
    descriptors, features = model(torch.rand(2, 3, 28, 28))
    (descriptors.square().sum(0)[:3].sum() + features[..., 0].sum()).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    optimiser.zero_grad()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, SelaVPR, AdamW]:
    model, optimiser = make()
    step(model, optimiser)
    step(model, optimiser)
    save_checkpoint(tmp_path / "state", model, optimiser, VALUES)
    return tmp_path / "state", model, optimiser


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_restored_run_takes_the_same_next_step(saved: tuple[Path, SelaVPR, AdamW]) -> None:
    path, model, optimiser = saved
    other, fresh = make()
    torch.manual_seed(12345)
    assert load_checkpoint(path, other, fresh) == VALUES
    first_draw = torch.rand(3)
    load_checkpoint(path, model, optimiser)  # the random state of that moment again
    assert torch.equal(torch.rand(3), first_draw)
    for one, its in ((model, optimiser), (other, fresh)):
        load_checkpoint(path, one, its)
        step(one, its)
    assert same(trainable_state(model), trainable_state(other))


def test_read_trained_loads_only_trained_tensors(saved: tuple[Path, SelaVPR, AdamW]) -> None:
    path, model, _ = saved
    other, _ = make()
    assert not same(trainable_state(model), trainable_state(other))
    assert read_trained(path, other) == VALUES
    assert same(trainable_state(model), trainable_state(other))


def test_checkpoint_has_no_frozen_tensors(saved: tuple[Path, SelaVPR, AdamW]) -> None:
    path, model, _ = saved
    trained = sum(tensor.numel() * 4 for tensor in trainable_parameters(model).values())
    assert path.stat().st_size < 3 * trained + 30_000


def test_a_checkpoint_of_another_model_is_refused(saved: tuple[Path, SelaVPR, AdamW]) -> None:
    other, fresh = make(width=32)
    with pytest.raises(WeightsRejected, match="shapes"):
        load_checkpoint(saved[0], other, fresh)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing", "plain"])
def test_a_damaged_file_is_refused(saved: tuple[Path, SelaVPR, AdamW], damage: str) -> None:
    path, model, optimiser = saved
    content = path.read_bytes()
    if damage == "plain":
        safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no tensors"}[damage])
    before = trainable_state(model)
    with pytest.raises(WeightsRejected, match="another"):
        load_checkpoint(path, model, optimiser)
    assert same(trainable_state(model), before)


ADAM = "optimiser.exp_avg.gem_p"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.update({ADAM: torch.zeros(2)}), "wrong_shapes"),
        (lambda tensors: tensors.update({ADAM: torch.full((1,), torch.nan)}), "not_finite"),
        (lambda tensors: tensors.update({"optimiser.step.gem_p": torch.zeros(3)}), "wrong_shapes"),
        (lambda tensors: tensors.pop(ADAM), "missing_tensors"),
        (lambda tensors: tensors.update({"optimiser.more.gem_p": torch.zeros(1)}), "missing_tensors"),
        (lambda tensors: tensors.update({"optimiser.step.classifier": torch.zeros(())}), "unknown_tensors"),
        (lambda tensors: tensors.pop("trained.gem_p"), "missing_tensors"),
        (lambda tensors: tensors.pop("random_state"), "wrong_layout"),
        (lambda tensors: tensors.update({"random_state": torch.zeros(9, dtype=torch.uint8)}), "wrong_layout"),
        (lambda tensors: tensors.update({"random_state": torch.zeros(5056)}), "wrong_layout"),
        (lambda tensors: tensors["random_state"].fill_(255), "wrong_layout"),
    ],
)
def test_a_changed_checkpoint_is_refused_and_changes_nothing(
    saved: tuple[Path, SelaVPR, AdamW], change: Callable[[dict[str, Tensor]], object], reason: str
) -> None:
    path, model, optimiser = saved
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    step(model, optimiser)
    before, random_state = trainable_state(model), torch.get_rng_state()
    with pytest.raises(WeightsRejected) as caught:
        load_checkpoint(path, model, optimiser)
    assert caught.value.reason == reason
    assert same(trainable_state(model), before)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("values", ["[]", "3", "[" * 100_000, "{"])
def test_a_checkpoint_whose_values_are_none_is_refused(
    saved: tuple[Path, SelaVPR, AdamW], values: str
) -> None:
    path, model, optimiser = saved
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {"values": values}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata=metadata)
    with pytest.raises(WeightsRejected, match="another"):
        load_checkpoint(path, model, optimiser)
