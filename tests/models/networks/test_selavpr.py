"""SelaVPR: trainable parts, heads, sizes, and golden gradients."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from models.networks.architecture import Architecture
from models.networks.descriptions import SelaVPRDescription
from models.networks.selavpr import LocalHead, SelaVPR, generalized_mean
from tests.support.paths import GOLDEN

SMALL = Architecture(width=64, depth=2, num_heads=2, mlp_width=128)


def model(*, local_head: bool = True) -> SelaVPR:
    torch.manual_seed(0)
    return SelaVPR(SMALL, local_head=local_head).eval()


def images(height: int = 56, width: int = 70) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weights for name, weights in network.named_parameters() if weights.requires_grad}


def test_trainable_parameters_vitl14_as_published() -> None:
    with torch.device("meta"):
        network = SelaVPR(Architecture.of_size("l"), local_head=True)
    parts = trainable(network)
    assert sum(weights.numel() for weights in parts.values()) == 53_059_969
    assert sum(weights.numel() for name, weights in parts.items() if "adapters" in name) == 50_405_376
    assert sum(weights.numel() for name, weights in parts.items() if "local_head" in name) == 2_654_592
    # Without DINOv2's mask token, which only its own training uses.
    assert sum(weights.numel() for weights in network.parameters()) == pytest.approx(357.4e6, rel=1e-3)


@pytest.mark.parametrize("local_head", [True, False])
@pytest.mark.parametrize("size", [(56, 70), (14, 14), (224, 42)])
def test_forward_any_multiple_of_14_has_stated_shapes(local_head: bool, size: tuple[int, int]) -> None:
    network = model(local_head=local_head)
    with torch.inference_mode():
        descriptors, features = network(images(*size))
    assert descriptors.shape == (2, network.descriptor_dim)
    assert features.shape == (2, *network.grid(*size), network.feature_dim)
    assert network.feature_dim == (128 if local_head else 64)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(features.norm(dim=3), torch.ones(features.shape[:3]))
    assert float((descriptors[0] - descriptors[1]).abs().max()) > 1e-6


def test_grid_224_is_61_with_and_16_without_local_head() -> None:
    assert model().grid(224, 224) == (61, 61)
    assert model(local_head=False).grid(224, 224) == (16, 16)


def test_forward_without_local_head_returns_normalised_tokens() -> None:
    network = model(local_head=False)
    with torch.inference_mode():
        tokens, (_, features) = network.backbone(images()), network(images())
    torch.testing.assert_close(features, tokens / tokens.norm(dim=3, keepdim=True))


def test_generalized_mean_against_written_out_values() -> None:
    cells = torch.tensor([[[1.0, 8.0], [3.0, -5.0]]])
    expected = [((1 + 27) / 2) ** (1 / 3), ((512 + 1e-18) / 2) ** (1 / 3)]
    assert generalized_mean(cells, 3.0)[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert generalized_mean(cells, 1.0)[0].tolist() == pytest.approx([2.0, 4.0], rel=1e-6)


def test_descriptors_equal_the_formula() -> None:
    network = model()
    network.gem_p.data.fill_(2.5)
    tokens = torch.randn(2, 3, 4, 64, generator=torch.Generator().manual_seed(3))
    unit = (tokens / tokens.norm(dim=3, keepdim=True)).reshape(2, 12, 64).double()
    pooled = (unit.clamp(min=1e-6) ** 2.5).mean(1) ** (1 / 2.5)
    with torch.inference_mode():
        descriptors = network.descriptors(tokens)
    torch.testing.assert_close(descriptors, (pooled / pooled.norm(dim=1, keepdim=True)).float())


def test_backward_reaches_every_trainable_part_and_nothing_frozen() -> None:
    network = model().train()
    for name, weights in network.named_parameters():
        if name.endswith("up.weight"):
            nn.init.normal_(weights, std=0.1)
    weights = torch.randn(2, 64)
    descriptors, features = network(images())
    ((descriptors * weights).sum() + (features[0] * features[1].roll(1, 0)).sum()).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().sum()) > 0, name
        else:
            assert parameter.grad is None, name
            assert name.startswith("backbone.vit."), name


def test_trainable_parameters_are_those_with_golden_gradients() -> None:
    golden = json.loads((GOLDEN / "selavpr_small_grad_norms.json").read_text())
    shape = Architecture(width=96, depth=3, num_heads=3, mlp_width=384)
    with torch.device("meta"):
        network = SelaVPR(shape, local_head=True)
    assert len(trainable(network)) == len(golden) > 20


def test_add_local_head_once_and_equal_every_time() -> None:
    first, second = model(local_head=False), model(local_head=False)
    first.add_local_head()
    torch.manual_seed(5)
    second.add_local_head()
    assert isinstance(first.local_head, LocalHead)
    assert isinstance(second.local_head, LocalHead)
    assert torch.equal(first.local_head.first.weight, second.local_head.first.weight)
    head = first.local_head
    first.add_local_head()
    assert first.local_head is head


@pytest.mark.parametrize(
    ("size", "registers", "name"),
    [("s", 0, "selavpr-vits14"), ("l", 4, "selavpr-vitl14-reg4"), ("g", 0, "selavpr-vitg14")],
)
def test_name_follows_shape(size: str, registers: int, name: str) -> None:
    architecture = Architecture.of_size(size, registers=registers)
    assert SelaVPRDescription(architecture, local_head=False).name == name
