"""Import of published SelaVPR++ files: every tensor, either form, and the trunk only where it is needed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from models.checkpoints import importing
from models.checkpoints.importing import import_checkpoint
from models.checkpoints.published_selavprpp import published_name, translate
from models.errors import WeightsRejected, WeightsUnavailable
from models.names import SELAVPRPP_MODELS
from models.networks.selavprpp import SelaVPRpp
from models.weights import load_card, load_extractor, load_network
from tests.support.paths import GOLDEN

CHECKPOINT = GOLDEN / "selavprpp_small.pth"
HASHING = ("adapters_hashing", "aggregation_hashing", "linear3", "linear4")


@pytest.fixture
def published() -> dict[str, Any]:
    with torch.serialization.safe_globals(importing._ALLOWED_TYPES):
        content: dict[str, Any] = torch.load(CHECKPOINT, weights_only=True)
    return content


def saved(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    return path


def test_float_only_files_give_no_codes(published: dict[str, Any], tmp_path: Path) -> None:
    state = published["model_state_dict"]
    published["model_state_dict"] = {
        name: state[name] for name in state if not any(part in name for part in HASHING)
    }
    card = import_checkpoint(saved(tmp_path, published), tmp_path / "out.safetensors")
    assert card.code_bits is None
    assert "code_bits" not in card.to_json()
    both = import_checkpoint(CHECKPOINT, tmp_path / "both.safetensors")
    images = torch.randn(1, 3, 28, 42)
    with torch.inference_mode():
        outputs = [
            load_network(str(tmp_path / name))[0](images) for name in ("out.safetensors", "both.safetensors")
        ]
    assert both.code_bits == 512
    assert torch.equal(outputs[0][0], outputs[1][0])


@pytest.mark.parametrize(
    "missing",
    [
        "backbone.norm.bias",
        "backbone.adapters_hashing.11.D_fc2.bias",
        "linear1.bias",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in (
                "backbone.mask_token",
                "backbone.adapters.3.branch2.1.bn.num_batches_tracked",
                "aggregation_hashing.1.p",
                "linear4.weight",
            )
        ),
    ],
)
def test_one_missing_tensor_is_refused(missing: str, published: dict[str, Any], tmp_path: Path) -> None:
    del published["model_state_dict"][f"module.{missing}"]
    with pytest.raises(WeightsRejected) as caught:
        import_checkpoint(saved(tmp_path, published), tmp_path / "out.safetensors")
    assert caught.value.reason in ("missing_tensors", "wrong_layout")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("module.linear9.weight", torch.zeros(3), "unknown_tensors"),
        ("module.linear1.bias", torch.zeros(7), "wrong_shapes"),
        ("module.linear1.bias", torch.full((96,), torch.nan), "not_finite"),
        ("module.backbone.adapters.99.D_fc1.bias", torch.zeros(48), "wrong_layout"),
        ("module.linear4.weight", torch.zeros(509, 96), "wrong_layout"),
    ],
)
def test_other_tensors_are_refused(
    name: str, tensor: Tensor, reason: str, published: dict[str, Any], tmp_path: Path
) -> None:
    published["model_state_dict"][name] = tensor
    with pytest.raises(WeightsRejected) as caught:
        import_checkpoint(saved(tmp_path, published), tmp_path / "out.safetensors")
    assert caught.value.reason == reason


def test_24_blocks_with_16_adapters_start_beside_block_8(tmp_path: Path) -> None:
    """The large form, made of the small one's tensors: everything follows from names and shapes."""
    state = torch.load(CHECKPOINT, weights_only=False)["model_state_dict"]
    large: dict[str, Tensor] = {}
    for name, tensor in state.items():
        large[name] = tensor
        if ".blocks." in name:
            number = int(name.split(".blocks.")[1].split(".")[0])
            large[name.replace(f".blocks.{number}.", f".blocks.{number + 12}.")] = tensor.clone()
        for kind in ("adapters", "adapters_hashing"):
            for number in range(4):
                prefix = f"module.backbone.{kind}.{number}."
                if name.startswith(prefix):
                    large[name.replace(prefix, f"module.backbone.{kind}.{number + 12}.")] = tensor
    card = import_checkpoint(saved(tmp_path, {"model_state_dict": large}), tmp_path / "out.safetensors")
    assert card.model == "selavprpp-vit96x24"
    network, _ = load_network(str(tmp_path / "out.safetensors"))
    assert isinstance(network, SelaVPRpp)
    assert (network.description.adapters, network.architecture.depth) == (16, 24)


@pytest.fixture
def hub(published: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """timm's hub, which gives the trunk of the golden checkpoint under a name of ours."""
    prefix = "module.backbone."
    trunk = {
        name.removeprefix(prefix): tensor
        for name, tensor in published["model_state_dict"].items()
        if name.startswith(prefix) and "adapters" not in name and "mask_token" not in name
    }
    monkeypatch.setitem(SELAVPRPP_MODELS, "selavprpp-vit96x12", ("b", 0, "vit_golden"))
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: SimpleNamespace(state_dict=lambda: trunk))
    return trunk


def test_trunk_of_the_hub_is_left_out(hub: dict[str, Tensor], tmp_path: Path) -> None:
    lean, whole = tmp_path / "lean.safetensors", tmp_path / "whole.safetensors"
    card = import_checkpoint(CHECKPOINT, lean)
    assert import_checkpoint(CHECKPOINT, whole, whole=True) == card == load_card(str(lean))
    assert not any(name.startswith("backbone.") for name in safetensors.torch.load_file(lean))
    images = torch.randn(1, 3, 28, 28)
    with torch.inference_mode():
        for ours, theirs in zip(*(load_network(str(path))[0](images) for path in (lean, whole)), strict=True):
            assert torch.equal(ours, theirs)


def test_another_trunk_of_the_hub_is_refused(hub: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "lean.safetensors"
    import_checkpoint(CHECKPOINT, path)
    hub["cls_token"] = hub["cls_token"] + 1
    for load in (load_card, load_network):
        with pytest.raises(WeightsRejected, match="--whole") as caught:
            load(str(path))
        assert caught.value.reason == "other_backbone"


def test_a_file_cannot_choose_what_is_loaded(hub: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "lean.safetensors"
    import_checkpoint(CHECKPOINT, path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata["placeray_architecture"] = metadata["placeray_architecture"].replace("vit_golden", "hf_hub:x/y")
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata)
    with pytest.raises(WeightsRejected, match="unknown trunk"):
        load_network(str(path))


def test_a_trunk_that_differs_from_the_hub_is_kept(hub: dict[str, Tensor], tmp_path: Path) -> None:
    hub["cls_token"] = hub["cls_token"] + 1
    path = tmp_path / "out.safetensors"
    import_checkpoint(CHECKPOINT, path)
    assert "backbone.vit.cls_token" in safetensors.torch.load_file(path)


@pytest.mark.parametrize("load", [load_card, load_extractor])
def test_names_stand_for_no_weights(load: Any) -> None:
    with pytest.raises(WeightsUnavailable, match="import-weights"):
        load("selavprpp-vitb14")


def test_tensors_that_share_their_memory_are_imported(published: dict[str, Any], tmp_path: Path) -> None:
    state = published["model_state_dict"]
    state["module.linear3.bias"] = state["module.linear1.bias"]
    card = import_checkpoint(saved(tmp_path, published), tmp_path / "out.safetensors")
    assert load_card(str(tmp_path / "out.safetensors")) == card


def test_names_of_published_files_come_back(published: dict[str, Any]) -> None:
    names = {name.removeprefix("module.") for name in published["model_state_dict"]}
    translated = translate(published["model_state_dict"])
    assert {published_name(name) for name in translated} | {"backbone.mask_token"} == names


@pytest.mark.parametrize("name", ["linear3.weight", "backbone.adapters_hashing.5.branch2.1.bn.running_var"])
def test_refusals_name_the_file_and_its_tensor(name: str, published: dict[str, Any], tmp_path: Path) -> None:
    del published["model_state_dict"][f"module.{name}"]
    path = saved(tmp_path, published)
    with pytest.raises(WeightsRejected) as caught:
        import_checkpoint(path, tmp_path / "out.safetensors")
    assert str(path) in str(caught.value)
    assert name in str(caught.value)
