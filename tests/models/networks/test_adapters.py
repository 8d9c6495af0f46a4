"""Adapted models: untrained adapters and heads, their formulas and initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.checkpoints.tensors import weights_digest
from models.networks.adapters import ConvAdapter, UpHead
from models.networks.efficientnet import ADAPTER_STAGES, EfficientNetLite0
from models.training.trainable import trainable_state
from tests.support.adapted_models import adapted, default_model, images, small_vit


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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
