"""Loading models by name or file: outputs, cards, input sizes, unknown names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints.weights_file import save_weights
from models.errors import BadImageSize, UnknownModel
from models.extractor import Extractor
from models.images.decoder import decode_image
from models.images.preprocess import prepare
from models.matching.mutual import mutual_nn_count
from models.names import MODEL_NAMES
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavpr import SelaVPR
from models.weights import load_card, load_extractor, load_network
from storage.card import Card
from tests.support.paths import GOLDEN, ROOT
from tests.support.weights_samples import SMALL, small_model


def test_golden_checkpoint_from_import_to_counts_agrees(imported: tuple[Path, Card]) -> None:
    path, card = imported
    golden = np.load(GOLDEN / "selavpr_small.npz")
    extractor = load_extractor(str(path), device="cpu")
    assert extractor.card == card
    assert (card.model, card.grid_height, card.feature_dim) == ("selavpr-vit96x3", 61, 128)
    assert card.preprocessing.resize == "tensor_bilinear"
    pictures = [decode_image((GOLDEN / f"image_{i}.png").read_bytes()).pixels for i in range(4)]
    descriptors, features = extractor.extract(pictures)
    np.testing.assert_allclose(descriptors, golden["global_"], atol=1e-5)
    np.testing.assert_allclose(features[:2], golden["local"], atol=1e-5)
    network, pre = extractor.network, card.preprocessing
    assert isinstance(network, SelaVPR)
    values = np.stack([prepare(picture, pre) for picture in pictures]) / 255
    inputs = torch.from_numpy((values - np.float32(pre.mean)) / np.float32(pre.std)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        tokens = network.backbone(inputs.float()).flatten(1, 2).numpy()
    np.testing.assert_allclose(tokens, golden["patch_tokens"], atol=1e-5)
    np.testing.assert_allclose(features[0], golden["mnn_query"], atol=5e-4)
    assert mutual_nn_count(golden["mnn_query"], features[:1]).tolist() == golden["mnn_scores"][:1].tolist()
    counts = mutual_nn_count(features[0], features[[0, 1]])
    np.testing.assert_array_equal(counts, mutual_nn_count(golden["local"][0], golden["local"]))
    assert counts[0] == 61 * 61


def test_load_unknown_name_lists_names() -> None:
    for load in (load_extractor, load_card):
        with pytest.raises(UnknownModel) as caught:
            load("selavpr-vitx14")
        assert all(name in str(caught.value) for name in MODEL_NAMES)


def test_names_are_the_promised_ones() -> None:
    promised = {"efficientnet-lite0", "selavpr-vits14", "selavpr-vitb14", "selavpr-vitl14", "selavpr-vitg14"}
    with_registers = {f"{name}-reg4" for name in promised if "vit" in name}
    assert promised | with_registers | {"selavprpp-vitb14", "selavprpp-vitl14"} == set(MODEL_NAMES)


def adapted_model() -> EfficientNetLite0:
    network, _ = load_network("efficientnet-lite0")
    assert isinstance(network, EfficientNetLite0)
    network.add_adapters((3, 5))
    network.add_local_head()
    network.min_similarity = 0.7
    return network


@pytest.mark.parametrize("kind", ["default", "default in a file", "adapted", "selavpr", "selavpr on tokens"])
@pytest.mark.parametrize("image_size", [None, (224, 448)])
def test_load_card_is_that_of_the_extractor(
    kind: str, image_size: tuple[int, int] | None, tmp_path: Path
) -> None:
    name = "efficientnet-lite0"
    if kind != "default":
        model = {
            "default in a file": lambda: load_network(name)[0],
            "adapted": adapted_model,
            "selavpr": small_model,
            "selavpr on tokens": lambda: SelaVPR(SMALL, local_head=False),
        }[kind]()
        name = str(tmp_path / "model.safetensors")
        save_weights(name, model)
    card = load_card(name, image_size=image_size)
    assert card == load_extractor(name, device="cpu", image_size=image_size).card
    with pytest.raises(BadImageSize):
        load_card(name, image_size=(224, 225))


def test_load_card_of_the_default_builds_no_network() -> None:
    code = "import sys; from models.weights import load_card; load_card('efficientnet-lite0');"
    code += "sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_load_image_size_changes_grid_and_input(imported: tuple[Path, Card]) -> None:
    extractor = load_extractor(str(imported[0]), device="cpu", image_size=(56, 98))
    assert isinstance(extractor, Extractor)
    card = extractor.card
    assert (card.grid_height, card.grid_width) == (13, 25)
    picture = decode_image((GOLDEN / "image_1.png").read_bytes()).pixels
    assert extractor.extract([picture])[1].shape == (1, 13, 25, 128)
    assert (card.preprocessing.height, card.preprocessing.width) == (56, 98)
    assert card.weights_sha256 == imported[1].weights_sha256
    with pytest.raises(ValueError, match="use 98 or 112"):
        load_extractor(str(imported[0]), image_size=(56, 100))
