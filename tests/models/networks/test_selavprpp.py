"""SelaVPR++: equal to the authors' implementation, on images of any shape, without changing its trunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoints.importing import import_checkpoint
from models.images.decoder import decode_image
from models.networks.architecture import Architecture
from models.networks.selavprpp import SelaVPRpp
from models.networks.selavprpp_description import SelaVPRppDescription
from models.weights import load_extractor, load_network
from storage.card import Card
from tests.support.paths import GOLDEN

CHECKPOINT = GOLDEN / "selavprpp_small.pth"
LARGE_FORM = SelaVPRppDescription(Architecture(64, 24, 2, 256), adapters=16, float_dim=256, code_bits=64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Card]:
    path = tmp_path_factory.mktemp("selavprpp") / "small.safetensors"
    return path, import_checkpoint(CHECKPOINT, path)


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[np.generic]]:
    with np.load(GOLDEN / "selavprpp_small.npz") as file:
        return dict(file)


def network_of(path: Path) -> SelaVPRpp:
    network, _ = load_network(str(path))
    assert isinstance(network, SelaVPRpp)
    return network


def small(form: SelaVPRppDescription = LARGE_FORM) -> SelaVPRpp:
    torch.manual_seed(0)
    network = SelaVPRpp(form).eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("running_var"):
            tensor.copy_(torch.randn_like(tensor) * 0.2)
    network.float_branch.gem_p.data.fill_(2.5)
    return network


def bits_of(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.unpackbits(codes, axis=1)


def test_forward_equals_the_authors_outputs(
    weights: tuple[Path, Card], golden: dict[str, NDArray[np.float32]]
) -> None:
    network = network_of(weights[0])
    seen: dict[str, Tensor] = {}
    for name, at in (("adapter0", 0), ("adapter_last", -1)):
        network.float_branch.adapters[at].register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.__setitem__(name, output)
        )
    images = torch.tensor(golden["x"])
    with torch.inference_mode():
        descriptors, _, values = network(images)
        (seen["x_norm"],), _ = network.side_states(images, [network.float_branch])
    for name, output in {**seen, "f": descriptors, "z": values}.items():
        assert np.abs(output.numpy() - golden[name]).max() <= 1e-5, name
    sure = np.abs(golden["z"]) > 1e-4
    assert ((values.numpy() >= 0) == (golden["b"] > 0))[sure].all()
    assert sure.mean() > 0.99


def test_extraction_of_photos_equals_the_authors_codes(
    weights: tuple[Path, Card], golden: dict[str, NDArray[np.float32]]
) -> None:
    pixels = [decode_image((GOLDEN / f"image_{i}.png").read_bytes()).pixels for i in range(4)]
    extracted = load_extractor(str(weights[0]), device="cpu").extraction(pixels)
    assert np.abs(extracted.descriptors - golden["image_f"]).max() <= 1e-5
    assert extracted.codes is not None
    assert extracted.codes.shape == (4, 64)
    sure = np.abs(golden["image_z"]) > 1e-4
    expected = bits_of(golden["image_code"].astype(np.uint8))
    assert (bits_of(extracted.codes) == expected)[sure].all()
    assert extracted.features.shape == (4, 23, 23, 96)
    np.testing.assert_allclose(np.linalg.norm(extracted.features, axis=-1), 1, atol=1e-5)


def test_bfloat16_is_near_the_authors_outputs(
    weights: tuple[Path, Card], golden: dict[str, NDArray[np.float32]]
) -> None:
    pixels = [decode_image((GOLDEN / f"image_{i}.png").read_bytes()).pixels for i in range(4)]
    half = load_extractor(str(weights[0]), device="cpu", dtype=torch.bfloat16)
    extracted = half.extraction(pixels)
    assert (extracted.descriptors * golden["image_f"]).sum(axis=1).min() > 0.9999
    assert extracted.codes is not None
    # bfloat16 has eight significant bits: values of that size may change their sign.
    sure = np.abs(golden["image_z"]) > 5e-3
    assert sure.mean() > 0.8
    assert (bits_of(extracted.codes) == bits_of(golden["image_code"].astype(np.uint8)))[sure].all()


def test_card_names_the_code_and_the_resize_rule(weights: tuple[Path, Card]) -> None:
    card = weights[1]
    assert (card.model, card.descriptor_dim, card.code_bits) == ("selavprpp-vit96x12", 2048, 512)
    assert (card.preprocessing.resize, card.preprocessing.height) == ("tensor_antialiased", 322)
    assert Card.from_json(card.to_json()) == card


def plain_adapter(network: SelaVPRpp, name: str, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The adapter by its formulas, from its tensors alone."""
    weights = {
        key.removeprefix(f"{name}."): value
        for key, value in network.state_dict().items()
        if key.startswith(f"{name}.")
    }

    def linear(part: str, values: Tensor) -> Tensor:
        return values @ weights[f"{part}.weight"].T + weights[f"{part}.bias"]

    def convolved(part: str, maps: Tensor) -> Tensor:
        kernel = weights[f"{part}.conv.weight"]
        maps = torch.conv2d(maps, kernel, weights[f"{part}.conv.bias"], padding=kernel.shape[-1] // 2)
        scale = weights[f"{part}.norm.weight"] / (weights[f"{part}.norm.running_var"] + 1e-3).sqrt()
        shift = weights[f"{part}.norm.bias"] - weights[f"{part}.norm.running_mean"] * scale
        return (maps * scale[:, None, None] + shift[:, None, None]).relu()

    hidden = linear("down", tokens).relu()
    maps = hidden[:, 1:].reshape(len(tokens), *grid, -1).permute(0, 3, 1, 2)
    parts = [
        convolved("point", maps),
        convolved("three.1", convolved("three.0", maps)),
        convolved("five.1", convolved("five.0", maps)),
    ]
    mixed = torch.cat(parts, dim=1).permute(0, 2, 3, 1).flatten(1, 2)
    return linear("up", hidden + torch.cat((hidden[:, :1], mixed), dim=1))


@pytest.mark.parametrize("size", [(42, 70), (56, 56)])
def test_side_path_begins_before_the_first_block_with_an_adapter(size: tuple[int, int]) -> None:
    network = small()
    images = torch.randn(2, 3, *size)
    grid = (size[0] // 14, size[1] // 14)
    with torch.inference_mode():
        tokens, _ = network.backbone.embed(images)
        for block in network.backbone.vit.blocks[:8]:
            tokens = block(tokens)
        state = tokens
        for number, block in enumerate(network.backbone.vit.blocks[8:]):
            tokens = block(tokens)
            state = state + plain_adapter(network, f"hash_branch.adapters.{number}", state + tokens, grid)
        (ours,), shape = network.side_states(images, [network.hash_branch])  # type: ignore[list-item]
        expected = network.backbone.vit.norm(state)
    assert shape == grid
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_photos_do_not_depend_on_their_batch() -> None:
    network, images = small(), torch.randn(3, 3, 28, 42)
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    for ours, own in zip(together, alone, strict=True):
        torch.testing.assert_close(ours[1:2], own, atol=1e-5, rtol=1e-4)


def test_trunk_gets_no_gradients_and_stays_in_evaluation_mode() -> None:
    network = small().train()
    network(torch.randn(2, 3, 28, 28))[0].sum().backward()
    assert not any(weights.requires_grad for weights in network.backbone.parameters())
    assert not any(module.training for module in network.backbone.modules())
    assert network.float_branch.adapters[0].down.weight.grad is not None


def test_published_sizes_have_the_published_numbers_of_parameters() -> None:
    for size, adapters, out, whole in (("b", 12, 2048, 108_036_738), ("l", 16, 4096, 354_549_250)):
        shape = Architecture.of_size(size)
        with torch.device("meta"):
            network = SelaVPRpp(SelaVPRppDescription(shape, adapters, out, 512))
        total = sum(weights.numel() for weights in network.parameters())
        # DINOv2's mask token is in the published files and unused.
        assert total + shape.width == whole
        assert network.name == f"selavprpp-vit{size}14"
