"""Values of a late layer: equal to their formula, filtered by attention, and named on the card."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoints.weights_file import save_weights
from models.matching import mutual_nn_count
from models.networks.architecture import Architecture
from models.networks.attention_features import attention_features
from models.networks.local_layer import LocalLayer, late_layer
from models.networks.selavpr import SelaVPR
from models.weights import load_card, load_extractor
from storage.card import Card
from storage.errors import InvalidBatch

SHAPE = Architecture(width=64, depth=3, num_heads=2, mlp_width=128, registers=4)


def network() -> SelaVPR:
    torch.manual_seed(0)
    model = SelaVPR(SHAPE, local_head=False).eval()
    for tensor in model.backbone.vit.state_dict().values():
        tensor.copy_(torch.randn_like(tensor) * 0.2)
    return model


def plain(block: object, tokens: Tensor, local: LocalLayer, prefix: int) -> Tensor:
    """The formulas, image by image, head by head and cell by cell."""
    state = block.state_dict()  # type: ignore[attr-defined]
    result = []
    for image in tokens.double():
        centred = image - image.mean(dim=1, keepdim=True)
        normed = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
        normed = normed * state["norm1.weight"].double() + state["norm1.bias"].double()
        projected = normed @ state["attn.qkv.weight"].double().T + state["attn.qkv.bias"].double()
        parts = dict(zip(("query", "key", "value"), projected.split(64, dim=1), strict=True))
        paid = torch.zeros(len(image), dtype=torch.float64)
        for head in range(2):
            rows = slice(32 * head, 32 * head + 32)
            paid += torch.softmax(parts["key"][:, rows] @ parts["query"][0, rows] / 32**0.5, dim=0) / 2
        cells = [row / row.norm() for row in parts[local.part][prefix:]]
        order = sorted(range(len(cells)), key=lambda i: -float(paid[prefix + i]))
        kept = order[: round(local.attended_share * len(cells))]
        result.append(torch.stack([c if i in kept else torch.zeros(64) for i, c in enumerate(cells)]))
    return torch.stack(result).float()


@pytest.mark.parametrize("part", ["value", "key", "query"])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_features_equal_the_formula(part: str, share: float) -> None:
    model = network()
    local = LocalLayer(1, part, share)  # type: ignore[arg-type]
    tokens = torch.randn(2, 5 + 20, 64)
    block = model.backbone.vit.blocks[1]
    with torch.inference_mode():
        ours = attention_features(block, tokens, local, prefix=5)
    torch.testing.assert_close(ours, plain(block, tokens, local, 5), atol=1e-5, rtol=1e-4)
    assert (ours.norm(dim=-1) > 0).sum(dim=1).tolist() == [round(20 * share)] * 2


def test_network_takes_the_layer_before_it_runs() -> None:
    model, images = network(), torch.randn(1, 3, 42, 56)
    with torch.inference_mode():
        tokens = model.backbone.embed(images)[0]
        for block in model.backbone.vit.blocks[:2]:
            tokens = block(tokens)
        descriptors, _ = model(images)
        model.local_layer = LocalLayer(2, attended_share=1.0)
        same, features = model(images)
        expected = plain(model.backbone.vit.blocks[2], tokens, model.local_layer, 5)
    assert torch.equal(descriptors, same)
    torch.testing.assert_close(features.reshape(1, 12, 64), expected, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("untrained") / "vit.safetensors"
    save_weights(path, network())
    return str(path)


def test_card_names_layer_part_share_and_floor(weights: str) -> None:
    card = load_card(weights)
    assert (card.feature_layer, card.feature_part, card.attended_share) == (1, "value", 0.5)
    assert card.min_similarity == late_layer(3).min_similarity
    assert Card.from_json(card.to_json()) == card == load_extractor(weights, device="cpu").card


def test_stores_without_a_layer_keep_the_last_tokens(weights: str) -> None:
    before = load_card(weights, local=None)
    assert "feature_layer" not in before.to_json()
    assert LocalLayer.of_card(before) is None
    picture = [np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)]
    tokens = load_extractor(weights, device="cpu", image_size=(56, 56), local=None).extract(picture)[1]
    values = load_extractor(weights, device="cpu", image_size=(56, 56)).extract(picture)[1]
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-5)
    assert np.count_nonzero(np.linalg.norm(values, axis=-1)) == 8
    again = LocalLayer.of_card(load_card(weights))
    assert load_card(weights, local=again) == load_card(weights)


def test_cells_left_out_match_nothing() -> None:
    rng = np.random.default_rng(0)
    cells = rng.standard_normal((4, 4, 16)).astype(np.float32)
    cells /= np.linalg.norm(cells, axis=-1, keepdims=True)
    cells[:2] = 0
    assert mutual_nn_count(cells, cells[None], min_similarity=0.65).tolist() == [8]


def test_binary_features_are_refused(weights: str) -> None:
    card = load_card(weights)
    with pytest.raises(InvalidBatch, match="--features"):
        card.stored_as("binary")
    assert dataclasses.replace(card, attended_share=1.0).stored_as("binary").feature_encoding == "binary"
