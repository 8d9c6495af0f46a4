"""Weights files of adapted models: small, and bound to the frozen weights they were trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from models.checkpoints.tensors import weights_digest
from models.checkpoints.weights_file import save_weights
from models.errors import WeightsRejected
from models.networks.efficientnet import EfficientNetLite0
from models.training.trainable import trainable_parameters
from models.weights import load_extractor
from tests.support.adapted_models import adapted, default_model, images


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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
