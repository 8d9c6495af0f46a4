"""Folded batch normalisation: equal outputs, never stale, trainable weights unchanged."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from models.networks.efficientnet import EfficientNetLite0
from models.networks.folding import fold_batch_norm
from tests.support.adapted_models import default_model


@pytest.fixture
def network() -> EfficientNetLite0:
    torch.set_num_threads(1)
    return default_model()


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(seed))


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def test_folded_network_has_equal_maps_and_no_batch_norm(network: EfficientNetLite0) -> None:
    folded = fold_batch_norm(network.backbone)
    assert (norms(network.backbone), norms(folded)) == (49, 0)
    with torch.no_grad():
        expected, actual = network.backbone.forward_features(images()), folded.forward_features(images())
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_network_folds_only_without_gradients(network: EfficientNetLite0) -> None:
    with torch.inference_mode():
        actual = network(images())
    assert norms(network._network()) == 49
    with torch.no_grad():
        assert norms(network._network()) == 0
    for one, other in zip(actual, network(images()), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_network_with_other_weights_folds_anew(network: EfficientNetLite0) -> None:
    with torch.no_grad():
        before, _ = network(images())
        for owner in (network, network.backbone):
            state = {name: values * 1.02 for name, values in owner.state_dict().items()}
            owner.load_state_dict(state)
            after, _ = network(images())
            assert (before - after).abs().max() > 1e-4
            before = after
        with torch.enable_grad():
            torch.testing.assert_close(network(images())[0].detach(), before, rtol=0, atol=1e-5)


def test_copied_network_with_other_weights_folds_anew(network: EfficientNetLite0) -> None:
    with torch.no_grad():
        before, _ = network(images())
        other = copy.deepcopy(network)
        other.load_state_dict({name: values * 1.02 for name, values in network.state_dict().items()})
        assert (other(images())[0] - before).abs().max() > 1e-4
        assert torch.equal(network(images())[0], before)


def test_network_moved_to_another_precision_folds_anew(network: EfficientNetLite0) -> None:
    with torch.no_grad():
        single, _ = network(images())
        double, _ = network.double()(images().double())
    torch.testing.assert_close(single, double.float(), rtol=0, atol=1e-5)


def test_folding_leaves_names_and_values_of_the_weights_alone(network: EfficientNetLite0) -> None:
    before = {name: values.clone() for name, values in network.state_dict().items()}
    with torch.no_grad():
        network(images())
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], values) for name, values in before.items())


def test_folding_an_unknown_block_is_refused() -> None:
    with pytest.raises(TypeError, match=r"no convolution is known before 1: add"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
