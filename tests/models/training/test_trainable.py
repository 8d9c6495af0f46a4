"""Training of adapted models: gradients, memory and state of the trainable parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.checkpoints.tensors import weights_digest
from models.errors import WeightsRejected
from models.networks.efficientnet import ADAPTER_STAGES, EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.training.losses import mnn_local_loss, triplet_loss
from models.training.trainable import restore_trainable, trainable_parameters, trainable_state
from tests.support.adapted_models import adapted, default_model, images, small_vit
from tests.support.saved_tensors import saved_bytes


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_training_reaches_every_trainable_tensor_and_no_frozen_one() -> None:
    network = adapted().train()
    frozen = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    descriptors, features = network(images())
    weights = torch.randn(1280, generator=torch.Generator().manual_seed(5))
    ((descriptors * weights).sum() + (features[0] * features[1].roll(1, 0)).sum()).backward()
    names = {name.split(".")[0] for name in trainable_parameters(network)}
    assert names == {"adapters", "gem_p", "local_head"}
    for name, parameter in network.named_parameters():
        if name.startswith("backbone."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().sum()) > 0, name
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, frozen[name]), name


def test_training_mode_equals_evaluation_mode() -> None:
    network = adapted()
    with torch.no_grad():
        for a, b in zip(network.eval()(images()), network.train()(images()), strict=True):
            assert torch.equal(a, b)


def test_few_steps_on_the_trained_part_lower_the_loss() -> None:
    network, batch = adapted(trained=False).train(), images(4)
    optimiser = torch.optim.Adam(trainable_parameters(network).values(), lr=1e-3)
    losses = []
    for _ in range(6):
        descriptors, features = network(batch)
        loss = triplet_loss(descriptors[:1], descriptors[1:2], descriptors[None, 2:])
        loss = loss + mnn_local_loss(features[2:3], features[3:], features[None, :2])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0
    assert losses[-1] < 0.8 * losses[0], losses


def tracked(network: nn.Module, parts: list[nn.Module], batch: Tensor) -> list[bool]:
    """Whether autograd tracks what each part gives."""
    tracks: list[bool] = []
    hooks = [part.register_forward_hook(lambda *args: tracks.append(args[2].requires_grad)) for part in parts]
    network(batch)
    for hook in hooks:
        hook.remove()
    return tracks


def test_nothing_is_tracked_before_the_first_adapter() -> None:
    network = adapted().train()
    stages = [network.backbone.conv_stem, network.backbone.bn1, *network.backbone.blocks]
    first = min(ADAPTER_STAGES)
    assert tracked(network, stages, images()) == [False] * (3 + first) + [True] * (6 - first)
    vit = small_vit().train()
    parts = [vit.backbone.vit.patch_embed.proj, *(block.attn for block in vit.backbone.vit.blocks)]
    assert tracked(vit, parts, images(1, 28, 28)) == [False, False, True, True]


def bytes_for_backward(network: EfficientNetLite0 | SelaVPR, batch: Tensor) -> int:
    """Bytes that `describe` saves for the backward pass."""
    return saved_bytes(network, lambda: network.describe(batch))


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_activation_checkpointing_stores_less_with_equal_gradients(kind: str) -> None:
    network: Any = adapted() if kind == "conv" else small_vit()
    batch = images() if kind == "conv" else images(2, 56, 56)
    network.train()
    results = []
    for on in (False, True):
        network.activation_checkpointing = on
        network.zero_grad()
        descriptors, features = network(batch)
        (descriptors[0] @ descriptors[1] + (features[0] * features[1]).sum()).backward()
        gradients = {name: weights.grad for name, weights in trainable_parameters(network).items()}
        results.append((bytes_for_backward(network, batch), gradients))
    assert results[1][0] < 0.7 * results[0][0]
    assert any(float(gradient.abs().max()) > 0 for gradient in results[0][1].values())
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, msg=name)


def test_frozen_prefix_stores_nothing_for_the_backward_pass() -> None:
    network = adapted().train()
    frozen = bytes_for_backward(network, images())
    network.requires_grad_(True)
    assert frozen < 0.5 * bytes_for_backward(network, images())


def test_trainable_of_the_default_model_names_add_adapters() -> None:
    with pytest.raises(ValueError, match="add_adapters"):
        trainable_parameters(default_model())


def test_trainable_state_restores_in_place_and_refuses_another_model() -> None:
    network, other = adapted(), adapted(trained=False)
    state = trainable_state(network)
    parameters = trainable_parameters(other)
    restore_trainable(other, state)
    assert weights_digest(other.state_dict()) == weights_digest(network.state_dict())
    assert all(parameters[name] is weights for name, weights in trainable_parameters(other).items())
    for weights in parameters.values():
        weights.data += 1
    assert weights_digest(state) == weights_digest(trainable_state(network))
    with pytest.raises(WeightsRejected) as caught:
        restore_trainable(small_vit(), state)
    assert caught.value.reason in ("missing_tensors", "unknown_tensors")
    state["gem_p"] = torch.full((1,), torch.nan)
    with pytest.raises(WeightsRejected, match="gem_p"):
        restore_trainable(other, state)
