"""Adapted models: untrained adapters change no output, and only trainable parts get gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from models.checkpoints.tensors import weights_digest
from models.checkpoints.weights_file import save_weights
from models.errors import WeightsRejected
from models.networks.adapters import ConvAdapter, UpHead
from models.networks.architecture import Architecture
from models.networks.efficientnet import ADAPTER_STAGES, EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.training.losses import mnn_local_loss, triplet_loss
from models.training.trainable import restore_trainable, trainable_parameters, trainable_state
from models.weights import load_extractor
from tests.support.saved_tensors import saved_bytes


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def default_model() -> EfficientNetLite0:
    network = load_extractor("efficientnet-lite0", device="cpu").network
    assert isinstance(network, EfficientNetLite0)
    return network


def adapted(*, trained: bool = True, head: bool = True) -> EfficientNetLite0:
    """The default model with adapters and a head; `trained` moves every trained tensor off its start."""
    network = default_model()
    network.add_adapters()
    if head:
        network.add_local_head()
    if trained:
        generator = torch.Generator().manual_seed(3)
        for weights in trainable_parameters(network).values():
            weights.data += 0.02 * torch.randn(weights.shape, generator=generator)
    return network.eval()


def small_vit() -> SelaVPR:
    torch.manual_seed(0)
    network = SelaVPR(Architecture(width=32, depth=3, num_heads=2, mlp_width=64), local_head=True)
    for name, weights in network.named_parameters():
        if name.endswith(("up.weight", "gamma")):
            nn.init.normal_(weights, std=0.3)
    return network


def images(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_untrained_adapters_change_no_output() -> None:
    plain, with_adapters = default_model(), adapted(trained=False, head=False)
    with torch.inference_mode():
        (descriptors, features), (adapted_descriptors, adapted_features) = (
            plain(images()),
            with_adapters(images()),
        )
    assert torch.equal(features, adapted_features)
    torch.testing.assert_close(descriptors, adapted_descriptors, atol=1e-6, rtol=0)
    assert (with_adapters.min_similarity, with_adapters.grid(64, 96)) == (0.6, (4, 6))


def test_untrained_head_interpolates_the_map_and_counts_every_neighbour() -> None:
    plain, network = default_model(), default_model()
    network.add_local_head()
    with torch.inference_mode():
        descriptors, features = plain(images())
        same, raised = network(images())
    assert torch.equal(descriptors, same)
    assert raised.shape == (2, *network.grid(64, 96), network.feature_dim) == (2, 7, 11, 112)
    torch.testing.assert_close(raised[:, ::2, ::2], features, atol=1e-5, rtol=0)
    torch.testing.assert_close(raised.norm(dim=3), torch.ones(2, 7, 11))
    assert network.min_similarity is None


def test_up_head_untrained_is_bilinear_interpolation() -> None:
    maps = torch.randn(1, 6, 3, 4, generator=torch.Generator().manual_seed(2))
    expected = nn.functional.interpolate(maps, size=(5, 7), mode="bilinear", align_corners=True)
    with torch.inference_mode():
        torch.testing.assert_close(UpHead(6)(maps), expected, atol=1e-6, rtol=1e-6)


def test_conv_adapter_is_its_formula() -> None:
    torch.manual_seed(4)
    adapter, maps = ConvAdapter(6), torch.randn(1, 6, 2, 2)
    nn.init.normal_(adapter.up.weight)
    nn.init.normal_(adapter.up.bias)  # type: ignore[arg-type]
    cell = maps[0, :, 1, 0]
    hidden = (adapter.down.weight[:, :, 0, 0] @ cell + adapter.down.bias).clamp(min=0)
    expected = cell + adapter.up.weight[:, :, 0, 0] @ hidden + adapter.up.bias
    torch.testing.assert_close(adapter(maps)[0, :, 1, 0], expected)


def test_new_parts_are_deterministic() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = EfficientNetLite0(adapter_stages=ADAPTER_STAGES, local_head=True)
        states.append(weights_digest(trainable_state(network)))
    assert states[0] == states[1]


def test_stages_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 6"):
        EfficientNetLite0(adapter_stages=(3, 7))


def test_describe_returns_the_descriptors_of_forward() -> None:
    for network, batch in ((adapted(), images()), (small_vit().eval(), images(2, 42, 56))):
        with torch.inference_mode():
            assert torch.equal(network.describe(batch), network(batch)[0])


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


@pytest.mark.parametrize(("adapters", "head"), [(True, True), (True, False), (False, True)])
def test_saved_adapted_model_loads_equal_from_a_small_file(
    adapters: bool, head: bool, tmp_path: Path
) -> None:
    network = adapted(head=head) if adapters else default_model()
    if not adapters:
        network.add_local_head()
    path = tmp_path / "tuned.safetensors"
    card = save_weights(path, network)
    loaded = load_extractor(str(path), device="cpu")
    assert loaded.card == card
    assert card.model == "efficientnet-lite0-adapted"
    assert card.weights_sha256 == weights_digest(network.state_dict())
    assert (card.min_similarity, card.grid_height) == ((None, 27) if head else (0.6, 14))
    assert path.stat().st_size < 4e6
    assert set(safetensors.torch.load_file(path)) == set(trainable_parameters(network))
    assert isinstance(loaded.network, EfficientNetLite0)
    assert set(trainable_parameters(loaded.network)) == set(trainable_parameters(network))
    with torch.inference_mode():
        for a, b in zip(network.eval()(images()), loaded.network(images()), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    assert save_weights(tmp_path / "again.safetensors", loaded.network) == card


def test_min_similarity_is_saved_and_loaded(tmp_path: Path) -> None:
    network = adapted()
    network.min_similarity = 0.75
    card = save_weights(tmp_path / "tuned.safetensors", network)
    loaded = load_extractor(str(tmp_path / "tuned.safetensors"), device="cpu")
    assert loaded.card.min_similarity == card.min_similarity == 0.75
    assert isinstance(loaded.network, EfficientNetLite0)
    assert loaded.network.min_similarity == 0.75


def test_model_on_other_frozen_weights_is_refused_by_name(tmp_path: Path) -> None:
    network = adapted()
    path = tmp_path / "tuned.safetensors"
    save_weights(path, network)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    shape = json.loads(metadata["placeray_architecture"])
    metadata["placeray_architecture"] = json.dumps(shape | {"frozen_sha256": "0123456789ab" + "0" * 52})
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata=metadata)
    with pytest.raises(WeightsRejected, match=r"efficientnet-lite0 with weights 0123456789ab") as caught:
        load_extractor(str(path), device="cpu")
    assert caught.value.reason == "other_backbone"
    network.backbone.conv_stem.weight.data[0] += 1
    with pytest.raises(WeightsRejected) as caught:
        save_weights(tmp_path / "other.safetensors", network)
    assert caught.value.reason == "other_backbone"
    assert not (tmp_path / "other.safetensors").exists()


def test_model_of_another_kind_or_with_altered_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    save_weights(path, adapted())
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    other = metadata["placeray_architecture"].replace("efficientnet-lite0-adapted", "mobilenet-adapted")
    safetensors.torch.save_file(tensors, path, metadata=metadata | {"placeray_architecture": other})
    with pytest.raises(WeightsRejected, match="mobilenet-adapted") as caught:
        load_extractor(str(path), device="cpu")
    assert caught.value.reason == "wrong_card"
    tensors["gem_p"] = torch.full((1,), 2.5)
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    with pytest.raises(WeightsRejected) as caught:
        load_extractor(str(path), device="cpu")
    assert caught.value.reason == "wrong_sha256"
