"""Convolutions prepared for inference: laid out once, with their activation, equal to torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from models.card import make_card
from models.extractor import Extractor
from models.networks.efficientnet import EfficientNetLite0
from models.networks.folding import PAIRS, fold_batch_norm
from models.networks.inference_convolutions import LaidOutConvolution, lay_out_convolutions
from models.runtime import onednn
from tests.support.adapted_models import default_model

needs_operators = pytest.mark.skipif(
    not onednn.convolves(), reason="this torch lays no kernel out for oneDNN"
)


def images(count: int, height: int, width: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(count, 3, height, width, generator=draw)
    return values.contiguous(memory_format=torch.channels_last)


def laid_out_parts(network: EfficientNetLite0) -> int:
    with torch.no_grad():
        return sum(isinstance(part, LaidOutConvolution) for part in network._network().modules())


@needs_operators
@pytest.mark.parametrize("relu6", [False, True])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 24, 1),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        Conv2dSame(8, 16, 3, stride=2),
        Conv2dSame(8, 8, 5, stride=2, groups=8),
    ],
)
def test_convolution_equals_torchs_own(conv: nn.Conv2d, relu6: bool) -> None:
    prepared = LaidOutConvolution(conv, relu6=relu6)
    with torch.inference_mode():
        # Other sizes and batches than those that the kernel was first laid out for.
        for count, height, width in ((1, 16, 12), (3, 16, 12), (2, 6, 20), (1, 16, 12)):
            maps = 4 * torch.randn(count, 8, height, width)
            expected = conv(maps).clamp(0, 6) if relu6 else conv(maps)
            torch.testing.assert_close(prepared(maps), expected, rtol=1e-5, atol=1e-5)
            assert expected.max() > 1


@needs_operators
def test_odd_side_of_a_same_convolution_is_refused() -> None:
    prepared = LaidOutConvolution(Conv2dSame(8, 16, 3, stride=2), relu6=False)
    with torch.inference_mode(), pytest.raises(ValueError, match="5 x 6 cells: pass images with sides"):
        prepared(torch.zeros(1, 8, 5, 6))


def test_same_convolution_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="kernel of 3 with stride 3"):
        LaidOutConvolution(Conv2dSame(8, 16, 3, stride=3), relu6=False)


@needs_operators
@pytest.mark.parametrize("shape", [(1, 224, 224), (3, 96, 160)])
def test_laid_out_network_has_equal_outputs(shape: tuple[int, int, int]) -> None:
    network = default_model()
    prepared = copy.deepcopy(network)
    prepared.lay_out_convolutions()
    with torch.inference_mode():
        expected, actual = network(images(*shape)), prepared(images(*shape))
        for one, other in zip(copy.deepcopy(prepared)(images(*shape)), actual, strict=True):
            assert torch.equal(one, other)
    assert (laid_out_parts(network), laid_out_parts(prepared)) == (0, 49)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        assert other.abs().max() > 0.05


@needs_operators
def test_no_activation_runs_again_after_a_laid_out_convolution() -> None:
    folded = fold_batch_norm(default_model().backbone)
    before = sum(isinstance(part, nn.ReLU6) for part in folded.modules())
    lay_out_convolutions(folded, PAIRS)
    assert (before, sum(isinstance(part, nn.ReLU6) for part in folded.modules())) == (33, 0)


@needs_operators
def test_extractor_lays_convolutions_out_in_float32_only() -> None:
    single, half = default_model(), default_model()
    card = make_card(single, weights_sha256="0" * 64)
    extractors = [
        Extractor(single, card, device="cpu"),
        Extractor(half, card, device="cpu", dtype=torch.bfloat16),
    ]
    assert [laid_out_parts(network) for network in (single, half)] == [49, 0]
    assert [extractor.precision for extractor in extractors] == ["float32", "bfloat16"]


@needs_operators
def test_other_weights_are_laid_out_anew() -> None:
    network = default_model()
    network.lay_out_convolutions()
    with torch.no_grad():
        before, _ = network(images(1, 64, 64))
        network.load_state_dict({name: values * 1.02 for name, values in network.state_dict().items()})
        after, _ = network(images(1, 64, 64))
    assert (before - after).abs().max() > 1e-4
    assert laid_out_parts(network) == 49


@needs_operators
def test_network_moved_to_another_precision_is_not_laid_out() -> None:
    network = default_model()
    network.lay_out_convolutions()
    with torch.no_grad():
        single, _ = network(images(1, 64, 64))
        double, _ = network.double()(images(1, 64, 64).double())
    assert laid_out_parts(network) == 0
    torch.testing.assert_close(single, double.float(), rtol=0, atol=1e-6)


def test_without_the_operators_the_network_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.networks.inference_convolutions.convolves", lambda: False)
    network = default_model()
    network.lay_out_convolutions()
    assert laid_out_parts(network) == 0


def test_convolves_detects_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    original = onednn.convolve
    monkeypatch.setattr(onednn, "convolve", lambda *args: original(*args) * 1.001)
    assert not onednn.convolves.__wrapped__()


def test_convolves_needs_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(onednn, "lay_out_kernel", missing)
    assert not onednn.convolves.__wrapped__()
