"""The default model: shapes, determinism, and recall on real photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.extractor import Extractor
from models.images.decoder import decode_image
from models.matching.mutual import mutual_nn_count
from models.networks.descriptions import EfficientNetDescription
from models.networks.efficientnet import EfficientNetLite0
from models.weights import load_extractor
from tests.support.real_datasets import photo_set


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    torch.set_num_threads(1)
    return load_extractor("efficientnet-lite0", device="cpu")


def test_efficientnet_card_has_grid_and_min_similarity(extractor: Extractor) -> None:
    card = extractor.card
    assert (card.model, card.descriptor_dim, card.min_similarity) == ("efficientnet-lite0", 1280, 0.6)
    assert (card.grid_height, card.grid_width, card.feature_dim) == (14, 14, 112)
    assert (card.preprocessing.resize, card.preprocessing.mean) == ("pil_bilinear", (0.5, 0.5, 0.5))
    assert card.weights_sha256 == "f67245dd1f222736d80c3617f4f92aa5eb8d4038e4063002b620c9f27e633cf4"


def test_efficientnet_features_match_hooked_timm_maps(extractor: Extractor) -> None:
    network = extractor.network
    assert isinstance(network, EfficientNetLite0)
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        descriptors, features = network(images)
        last = network.backbone.forward_features(images)
        maps = network.backbone.forward_intermediates(images, indices=[3], intermediates_only=True)[0]
    pooled = last.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
    torch.testing.assert_close(descriptors, pooled / pooled.norm(dim=1, keepdim=True))
    assert maps.shape == (2, 112, 6, 4)
    torch.testing.assert_close(features, (maps / maps.norm(dim=1, keepdim=True)).permute(0, 2, 3, 1))
    assert features.shape == (2, *network.grid(96, 64), 112)


@pytest.mark.parametrize("size", [(225, 224), (224, 100), (0, 224), (-32, 224)])
def test_efficientnet_grid_wrong_size_names_next_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a multiple of 32: use"):
        EfficientNetDescription().grid(*size)


def easting_northing(path: Path) -> tuple[float, float]:
    parts = path.name.split("@")
    return float(parts[1]), float(parts[2])


@pytest.mark.long
def test_efficientnet_corridor_recall_rises_with_reranking(extractor: Extractor) -> None:
    folder = photo_set("corridor") / "images" / "test"
    sides = {side: sorted((folder / side).glob("*.jpg")) for side in ("database", "queries")}
    places = {side: np.array([easting_northing(path) for path in paths]) for side, paths in sides.items()}
    vectors: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for side, paths in sides.items():
        vectors[side] = extractor.extract([decode_image(path.read_bytes()).pixels for path in paths])
    similarity = vectors["queries"][0] @ vectors["database"][0].T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :100]
    distance_m = np.linalg.norm(places["queries"][:, None] - places["database"][None], axis=2)
    hits = np.zeros((2, len(order)), dtype=bool)
    for query, candidates in enumerate(order):
        counts = mutual_nn_count(
            vectors["queries"][1][query],
            vectors["database"][1][candidates],
            min_similarity=extractor.card.min_similarity,
        ).numpy()
        best = candidates[np.argsort(-counts, kind="stable")[0]]
        hits[:, query] = distance_m[query, candidates[0]] <= 25, distance_m[query, best] <= 25
    before, after = 100 * hits.mean(axis=1)
    assert before >= 58
    assert after >= 96
