"""Linear layers prepared for inference: rounded and laid out once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.networks.inference_linears import LaidOutLinear, keep_for_inference, lays_out_linears
from models.runtime.onednn import lays_out


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 2),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Sequential(nn.Linear(72, 50), nn.ReLU(), nn.Linear(50, 5, bias=False)),
    ).eval()


def linears(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, nn.Linear | LaidOutLinear)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("laid_out", [False, True])
def test_prepared_network_has_equal_outputs(dtype: torch.dtype, laid_out: bool) -> None:
    original, images = network(), torch.randn(4, 3, 4, 4)
    prepared = copy.deepcopy(original)
    keep_for_inference(prepared, dtype, laid_out=laid_out)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        actual, expected = prepared(images), original(images)
    assert actual.dtype == expected.dtype == dtype
    tolerance = 0.0 if not laid_out else 1e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
    assert actual.abs().max() > 0.05


@pytest.mark.parametrize("laid_out", [False, True])
def test_only_linear_layers_are_changed(laid_out: bool) -> None:
    prepared = network()
    before = prepared.state_dict()
    keep_for_inference(prepared, torch.bfloat16, laid_out=laid_out)
    after = prepared.state_dict()
    for name in before.keys() - {"3.0.weight", "3.0.bias", "3.2.weight"}:
        assert after[name].data_ptr() == before[name].data_ptr(), name
    if laid_out and lays_out(torch.bfloat16):
        assert [type(layer) for layer in linears(prepared)] == [LaidOutLinear] * 2
    else:
        assert torch.equal(after["3.0.weight"], before["3.0.weight"].bfloat16())
    assert not any(weights.requires_grad for layer in linears(prepared) for weights in layer.parameters())


@pytest.mark.skipif(not lays_out(torch.float32), reason="this torch lays nothing out for oneDNN")
@pytest.mark.parametrize(("capability", "expected"), [("AVX512", LaidOutLinear), ("AVX2", nn.Linear)])
def test_float32_is_laid_out_where_that_is_faster(
    capability: str, expected: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    original, images = network(), torch.randn(4, 3, 4, 4)
    prepared = copy.deepcopy(original)
    keep_for_inference(prepared, torch.float32, laid_out=True)
    assert [type(layer) for layer in linears(prepared)] == [expected] * 2
    with torch.inference_mode():
        torch.testing.assert_close(prepared(images), original(images), atol=1e-6, rtol=1e-6)
    assert lays_out_linears(torch.bfloat16) == lays_out(torch.bfloat16)


def test_second_preparation_is_refused_where_layers_were_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if not lays_out(torch.float32):
        pytest.skip("this torch lays nothing out for oneDNN")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    prepared = network()
    keep_for_inference(prepared, torch.float32, laid_out=True)
    with pytest.raises(ValueError, match="load another one"):
        keep_for_inference(prepared, torch.float32, laid_out=False)


def test_unsupported_dtypes_are_rounded_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.networks.inference_linears.lays_out", lambda _: False)
    prepared = network()
    keep_for_inference(prepared, torch.bfloat16, laid_out=True)
    assert [weights.dtype for layer in linears(prepared) for weights in layer.parameters()] == [
        torch.bfloat16
    ] * 3


def test_network_rounded_before_is_refused() -> None:
    prepared = network()
    keep_for_inference(prepared, torch.bfloat16, laid_out=False)
    with pytest.raises(ValueError, match="load another one"):
        keep_for_inference(prepared, torch.float32, laid_out=False)
