"""Weights files: saved atomically, loaded equal, rejected when damaged or altered."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from models.aggregation.choice import default_aggregation
from models.checkpoints.weights_file import save_weights
from models.errors import WeightsRejected
from models.networks.efficientnet import EfficientNetLite0
from models.weights import load_card, load_extractor, load_network
from storage.card import Card, Preprocessing
from tests.support.weights_samples import small_model


def loading_reason(path: Path) -> str:
    with pytest.raises(WeightsRejected) as caught:
        load_extractor(str(path), device="cpu")
    with pytest.raises(WeightsRejected) as of_card:
        load_card(str(path))
    assert str(of_card.value) == str(caught.value)
    return caught.value.reason


def test_load_altered_bytes_rejected(imported: tuple[Path, Card], tmp_path: Path) -> None:
    whole = imported[0].read_bytes()
    header = struct.unpack("<Q", whole[:8])[0] + 8
    path = tmp_path / "altered.safetensors"
    for position in (header, (header + len(whole)) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert loading_reason(path) == "wrong_sha256", position
    path.write_bytes(whole)
    assert load_extractor(str(path), device="cpu").card == imported[1]


# Shapes that tensors do not have: some would take hours or all memory to build.
HOSTILE_SHAPES: list[tuple[str, object]] = [
    ("width", 10**9),
    ("width", -64),
    ("width", 0),
    ("depth", 10**9),
    ("depth", "2"),
    ("num_heads", 0),
    ("num_heads", -1),
    ("num_heads", 7),
    ("num_heads", 1.0),
    ("mlp_width", 10**30),
    ("registers", -1),
    ("position_grid", 0),
    ("gated_mlp", "no"),
    ("colour", 1),
]


def reshape(metadata: dict[str, str], changes: dict[str, object]) -> None:
    shape = json.loads(metadata["placeray_architecture"])
    metadata["placeray_architecture"] = json.dumps(shape | changes)


def test_load_damaged_file_rejected(imported: tuple[Path, Card], tmp_path: Path) -> None:
    whole = imported[0].read_bytes()
    path = tmp_path / "damaged.safetensors"
    assert loading_reason(path) == "not_a_file"
    for content in (b"", b"text", whole[:100], whole[:-1], whole + b"x", b"\xff" * 200):
        path.write_bytes(content)
        assert loading_reason(path) == "unreadable"
    assert loading_reason(tmp_path) == "not_a_file"


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.clear(),
        lambda meta: meta.pop("placeray_card"),
        lambda meta: meta.pop("placeray_architecture"),
        lambda meta: meta.update(placeray_card="{}"),
        lambda meta: meta.update(placeray_architecture="[]"),
        lambda meta: meta.update(placeray_architecture='{"kind": "resnet"}'),
        lambda meta: meta.update(placeray_architecture='{"kind": "efficientnet-lite0"}'),
        lambda meta: meta.update(
            placeray_card=meta["placeray_card"].replace('"feature_dim": 128', '"feature_dim": 64')
        ),
        lambda meta: meta.update(
            placeray_card=meta["placeray_card"].replace('"height": 224', '"height": 225')
        ),
        lambda meta: meta.update(
            placeray_card=meta["placeray_card"].replace('"format_version": 1', '"format_version": 9')
        ),
        lambda meta: meta.update(placeray_architecture="[" * 100_000),
        *(partial(reshape, changes={name: value}) for name, value in HOSTILE_SHAPES),
    ],
)
def test_load_other_metadata_rejected(
    change: Callable[[dict[str, str]], Any], imported: tuple[Path, Card], tmp_path: Path
) -> None:
    with safetensors.safe_open(imported[0], framework="pt") as file:
        metadata = file.metadata()
    change(metadata)
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(imported[0]), path, metadata=metadata)
    assert loading_reason(path) == "wrong_card"


def test_save_then_load_keeps_outputs_card_and_trainable_parts(tmp_path: Path) -> None:
    model = small_model()
    preprocessing = Preprocessing("pil_bilinear", 28, 42, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    card = save_weights(tmp_path / "model.safetensors", model, preprocessing=preprocessing)
    extractor = load_extractor(str(tmp_path / "model.safetensors"), device="cpu")
    assert extractor.card == card
    assert (card.grid_height, card.grid_width) == (5, 9)
    names = {name for name, weights in model.named_parameters() if weights.requires_grad}
    network, _ = load_network(str(tmp_path / "model.safetensors"))
    assert {name for name, weights in network.named_parameters() if weights.requires_grad} == names
    images = torch.randn(1, 3, 28, 42)
    with torch.inference_mode():
        torch.testing.assert_close(extractor.network(images), model.eval()(images))


def test_save_efficientnet_round_trip(tmp_path: Path) -> None:
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    assert isinstance(extractor.network, EfficientNetLite0)
    card = save_weights(tmp_path / "lite.safetensors", extractor.network)
    assert card == extractor.card
    assert load_extractor(str(tmp_path / "lite.safetensors"), device="cpu").card == card


def test_card_of_a_file_names_what_validation_chose_for_its_stores(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert default_aggregation(save_weights(path, small_model())) == "gem"
    card = save_weights(path, small_model(), aggregation="learned", score="votes")
    assert load_card(str(path)) == load_extractor(str(path), device="cpu").card == card
    assert (card.aggregation, card.score) == ("learned", "votes")
    assert default_aggregation(card) == "learned"


def test_save_interrupted_keeps_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, small_model())
    before = path.read_bytes()

    def interrupted(*_: Any) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr("os.replace", interrupted)
    other = small_model()
    other.gem_p.data.fill_(2.0)
    with pytest.raises(OSError, match="disk gone"):
        save_weights(path, other)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_nan_weights_refused(tmp_path: Path) -> None:
    model = small_model()
    model.gem_p.data.fill_(torch.nan)
    with pytest.raises(WeightsRejected, match="gem_p"):
        save_weights(tmp_path / "model.safetensors", model)
    assert not list(tmp_path.iterdir())


def test_save_other_module_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="pass a SelaVPR"):
        save_weights(tmp_path / "model.safetensors", torch.nn.Linear(2, 2))
