"""The extractor: batches, dtypes, prepared input and faults."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from models import extractor as extractor_module
from models.card import make_card
from models.errors import ModelFault
from models.extractor import Extractor
from models.images import ImageRejected
from models.images.preprocess import prepare
from models.networks.architecture import Architecture
from models.networks.inference_linears import LaidOutLinear, lays_out_linears
from models.networks.selavpr import SelaVPR
from models.runtime.compiled import CannotCompile
from models.runtime.execution import Execution
from models.weights import load_extractor
from storage.card import Card, Preprocessing, ResizeMode


def photos(count: int) -> list[NDArray[np.uint8]]:
    """Smooth pictures of different sizes."""
    rng = np.random.default_rng(0)
    pictures = []
    for index in range(count):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        pictures.append(coarse.repeat(20 + 7 * index, axis=0).repeat(30, axis=1))
    return pictures


def small_network(resize: ResizeMode) -> tuple[SelaVPR, Card]:
    torch.manual_seed(0)
    network = SelaVPR(Architecture(width=64, depth=2, num_heads=2, mlp_width=128), local_head=True)
    for weights in network.backbone.vit.parameters():
        weights.data.add_(0.05 * torch.randn_like(weights))
    preprocessing = Preprocessing(resize, 56, 70, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return network, make_card(network, weights_sha256="0" * 64, preprocessing=preprocessing)


def small_extractor(resize: ResizeMode, dtype: torch.dtype | None = None, **options: bool) -> Extractor:
    return Extractor(*small_network(resize), device="cpu", dtype=dtype, **options)


@pytest.mark.parametrize("resize", ["pil_bilinear", "tensor_bilinear"])
def test_extract_prepared_equals_extract_and_the_network(resize: ResizeMode) -> None:
    extractor, pictures = small_extractor(resize), photos(3)
    pre = extractor.card.preprocessing
    descriptors, features = extractor.extract(pictures)
    prepared = [prepare(picture, pre) for picture in pictures]
    for batch in (prepared, np.stack(prepared)):
        again = extractor.extract_prepared(batch)
        assert np.array_equal(again[0], descriptors)
        assert np.array_equal(again[1], features)
    values = (np.stack(prepared) / 255 - np.array(pre.mean)) / np.array(pre.std)
    with torch.inference_mode():
        expected = extractor.network(torch.from_numpy(values.transpose(0, 3, 1, 2)).float())
    np.testing.assert_allclose(descriptors, expected[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(features, expected[1].numpy(), atol=1e-5)
    assert (descriptors.dtype, features.dtype) == (np.float32, np.float32)
    card = extractor.card
    assert features.shape == (3, card.grid_height, card.grid_width, card.feature_dim) == (3, 13, 17, 128)
    assert np.abs(descriptors[0] - descriptors[1]).max() > 1e-3


@pytest.mark.parametrize("name", ["small", "efficientnet-lite0"])
def test_extract_result_does_not_depend_on_the_batch(name: str) -> None:
    """Tolerance 2e-5: batches of other sizes may run through other kernels."""
    torch.set_num_threads(1)
    small = name == "small"
    extractor = small_extractor("pil_bilinear") if small else load_extractor(name, device="cpu")
    pictures = photos(11)
    together = extractor.extract(pictures)
    for index in (0, 4, 10):
        alone = extractor.extract([pictures[index]])
        np.testing.assert_allclose(alone[0][0], together[0][index], atol=2e-5)
        np.testing.assert_allclose(alone[1][0], together[1][index], atol=2e-5)
    mates = extractor.extract([pictures[4], pictures[9], pictures[0]])
    np.testing.assert_allclose(mates[0][0], together[0][4], atol=2e-5)


def test_extract_long_list_runs_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor_module, "_CPU_BATCH", 3)
    extractor, pictures, sizes = small_extractor("pil_bilinear"), photos(8), []
    extractor.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    descriptors, _ = extractor.extract(pictures)
    assert sizes == [3, 3, 2]
    np.testing.assert_allclose(descriptors[7], extractor.extract(pictures[7:])[0][0], atol=2e-5)


def test_extract_no_photos_returns_empty_arrays() -> None:
    extractor = small_extractor("pil_bilinear")
    for descriptors, features in (extractor.extract([]), extractor.extract_prepared([])):
        assert (descriptors.shape, features.shape) == ((0, 64), (0, 13, 17, 128))


def test_extract_bfloat16_stays_close_and_returns_unit_float32() -> None:
    pictures = photos(3)
    exact = small_extractor("pil_bilinear").extract(pictures)
    mixed = small_extractor("pil_bilinear", torch.bfloat16).extract(pictures)
    assert mixed[0].dtype == mixed[1].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(mixed[0], axis=1), 1, atol=1e-6)
    assert not np.array_equal(exact[0], mixed[0])
    assert float((exact[0] * mixed[0]).sum(axis=1).min()) > 0.999
    assert float((exact[1] * mixed[1]).sum(axis=-1).mean()) > 0.999


@pytest.mark.parametrize("resize", ["pil_bilinear", "tensor_bilinear"])
def test_extract_resized_on_the_device_stays_close(
    resize: ResizeMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `pil_bilinear` single samples are off by one level of 255."""
    pictures = photos(11)
    exact = small_extractor(resize).extract(pictures)
    resizing = small_extractor(resize)
    monkeypatch.setattr(resizing, "_device_resize", True)  # as on an accelerator
    there = resizing.extract(pictures)
    assert there[0].shape == exact[0].shape
    assert float((exact[0] * there[0]).sum(axis=1).min()) > 0.99999
    np.testing.assert_allclose(there[0], exact[0], atol=2e-3 if resize == "pil_bilinear" else 2e-5)
    assert resize == "tensor_bilinear" or not np.array_equal(there[0], exact[0])


def sizes_compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compile nothing; return a list that gets the size of each batch that a network sees."""
    sizes: list[int] = []

    def traced(network: nn.Module, **_: bool) -> nn.Module:
        network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        return network

    monkeypatch.setattr(torch, "compile", traced)
    return sizes


def test_extract_compiled_runs_the_same_network_on_filled_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sizes_compiled(monkeypatch)
    pictures = photos(9)
    compiled = small_extractor("pil_bilinear", compile_network=True).extract(pictures)
    assert sizes == [1, 8, 8]  # once uncompiled
    expected = small_extractor("pil_bilinear").extract(pictures)
    for one, other in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_extractor_on_a_cpu_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(extractor_module, "keep_freed_memory", lambda: calls.append(True))
    small_extractor("pil_bilinear")
    assert calls == [True]


def test_extractor_sets_exact_products_for_its_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(extractor_module, "multiply_exactly", lambda *args: calls.append(args))
    for dtype in (torch.float32, torch.bfloat16):
        small_extractor("pil_bilinear", dtype)
    assert calls == [(torch.device("cpu"), torch.float32), (torch.device("cpu"), torch.bfloat16)]


def test_extractor_lays_out_linear_layers_on_a_cpu_unless_compiled() -> None:
    def kinds(extractor: Extractor) -> set[type[nn.Module]]:
        layers = {type(module) for module in extractor.network.modules()}
        return layers & {nn.Linear, LaidOutLinear}

    laid_out = LaidOutLinear if lays_out_linears(torch.float32) else nn.Linear
    assert kinds(small_extractor("pil_bilinear")) == {laid_out}
    assert kinds(small_extractor("pil_bilinear", compile_network=True)) == {nn.Linear}


def test_extractor_refuses_a_network_of_another_extractor() -> None:
    first = small_extractor("pil_bilinear", torch.bfloat16)
    with pytest.raises(ValueError, match="load another one"):
        Extractor(first.network, first.card, device="cpu")


@pytest.mark.parametrize("resize", ["pil_bilinear", "tensor_bilinear"])
def test_warm_up_raises_where_nothing_can_be_compiled(
    resize: ResizeMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise TorchDynamoException("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: refused)
    small_extractor(resize).warm_up(8)
    with pytest.raises(CannotCompile, match="leave compiling off"):
        small_extractor(resize, compile_network=True).warm_up(8)


def test_warm_up_compiles_every_padded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sizes_compiled(monkeypatch)
    monkeypatch.setattr(extractor_module, "_CPU_BATCH", 24)
    small_extractor("pil_bilinear", compile_network=True).warm_up(100)
    assert sizes == [1, 8, 16, 24]
    sizes.clear()
    small_extractor("pil_bilinear", compile_network=True).warm_up(9)
    assert sizes == [1, 8, 16]


def test_warm_up_of_an_accelerator_runs_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, batches = small_extractor("tensor_bilinear"), []
    extractor.network.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    extractor.warm_up(8)
    assert batches == []
    monkeypatch.setattr(extractor, "extract_prepared", lambda batch: batches.append(batch.shape))
    monkeypatch.setattr(extractor, "device", torch.device("cuda"))
    extractor.warm_up(8)
    assert batches == [(1, 56, 70, 3)]


def test_load_extractor_uses_the_precision_of_the_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.runtime.execution.native_dtype", lambda _: torch.bfloat16)
    pictures, name = photos(2), "efficientnet-lite0"
    exact = load_extractor(name, device="cpu").extract(pictures)
    fp32 = load_extractor(name, device="cpu", execution=Execution(precision="fp32")).extract(pictures)
    assert np.array_equal(fp32[0], exact[0])
    mixed = load_extractor(name, device="cpu", execution=Execution(precision="bf16")).extract(pictures)
    assert not np.array_equal(mixed[0], exact[0])
    assert float((mixed[0] * exact[0]).sum(axis=1).min()) > 0.995
    assert float((mixed[1] * exact[1]).sum(axis=-1).mean()) > 0.995


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("resize", ["pil_bilinear", "tensor_bilinear"])
def test_extract_on_cuda_equals_the_cpu(resize: ResizeMode) -> None:
    pictures, exact = photos(150), small_extractor(resize)
    on_cpu = exact.extract(pictures)
    for dtype, min_similarity in ((torch.float32, 0.99999), (torch.bfloat16, 0.999)):
        there = Extractor(*small_network(resize), device="cuda", dtype=dtype)
        descriptors, features = there.extract(pictures)
        assert float((on_cpu[0] * descriptors).sum(axis=1).min()) > min_similarity
        assert float((on_cpu[1] * features).sum(axis=-1).mean()) > min_similarity


def test_extract_network_in_evaluation_mode_without_gradients() -> None:
    extractor = small_extractor("pil_bilinear")
    assert not extractor.network.training
    modes = []
    extractor.network.register_forward_hook(lambda *_: modes.append(torch.is_inference_mode_enabled()))
    extractor.extract(photos(1))
    assert modes == [True]


@pytest.mark.parametrize("image", [np.zeros((9, 9, 3), np.float32), np.zeros((9, 9, 4), np.uint8)])
def test_extract_other_arrays_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageRejected, match="uint8"):
        small_extractor("pil_bilinear").extract([image])


@pytest.mark.parametrize("device_resize", [False, True])
def test_extract_takes_photos_in_any_form(
    tmp_path: Path, device_resize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = small_extractor("pil_bilinear")
    monkeypatch.setattr(extractor, "_device_resize", device_resize)
    image = Image.fromarray(photos(1)[0])
    path = tmp_path / "photo.png"
    image.save(path)
    descriptors, features = extractor.extract([np.asarray(image), image, path, str(path), path.read_bytes()])
    assert all(np.array_equal(one, descriptors[0]) for one in descriptors)
    assert all(np.array_equal(one, features[0]) for one in features)


def test_extract_refuses_a_single_photo() -> None:
    picture = photos(1)[0]
    for single in (picture, b"", "photo.jpg", Path("photo.jpg"), Image.fromarray(picture)):
        with pytest.raises(TypeError, match=r"pass \[photo\]"):
            small_extractor("pil_bilinear").extract(single)  # type: ignore[arg-type]


def test_extract_prepared_for_another_card_refused() -> None:
    extractor = small_extractor("pil_bilinear")
    for batch in (np.zeros((1, 56, 71, 3), np.uint8), np.zeros((1, 56, 70, 3), np.float32)):
        with pytest.raises(ValueError, match=r"use models\.images\.preprocess\.prepare"):
            extractor.extract_prepared(batch)


class Faulty(nn.Module):
    """A network whose output is wrong in one way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        descriptors, features = torch.ones(len(images), 64), torch.ones(len(images), 13, 17, 128)
        if self.fault == "zero":
            descriptors[0] = 0
        elif self.fault == "nan":
            descriptors[-1, 3] = torch.nan
        elif self.fault == "inf":
            features[0, 1, 2, 3] = torch.inf
        return descriptors, features


@pytest.mark.parametrize("fault", ["zero", "nan", "inf", "none"])
def test_extract_invalid_output_raises_model_fault(fault: str) -> None:
    extractor = Extractor(Faulty(fault), small_extractor("pil_bilinear").card, device="cpu")
    if fault == "none":
        assert np.allclose(extractor.extract(photos(2))[0], 0.125)
        return
    with pytest.raises(ModelFault, match="load other weights"):
        extractor.extract(photos(2))


def test_make_card_size_the_network_refuses_raises() -> None:
    network, _ = small_network("pil_bilinear")
    preprocessing = Preprocessing("pil_bilinear", 225, 224, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="use 224 or 238"):
        make_card(network, weights_sha256="0", preprocessing=preprocessing)
