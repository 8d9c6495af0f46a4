"""Writes a model as ONNX and checks the file against PyTorch before it is kept.

Input `images` (B, 3, h, w) float32: upright RGB in 0..255, resized as the card says and normalised by
`(pixel / 255 - mean) / std`, which are in the file's metadata. Outputs `descriptors` (B, D) and `features`
(B, H, W, C), float32 of unit L2 norm. B is free.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.weights import load_network
from pipelines.export.errors import ExportRefused, ExportUnavailable
from storage.card import Card
from storage.durable import replace_file

__all__ = ["export_network"]

_OPSET = 18
_TOLERANCE = 2e-4  # of outputs of unit norm; other orders of summation differ by about 1e-6
_CHECKED = (1, 3)  # batch sizes
_MAX_ONE_FILE = (1 << 31) - (1 << 20)  # protobuf's limit, less the graph


class _UnitDescriptors(nn.Module):
    """The network with descriptors of unit norm, as `Extractor` returns them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        descriptors, features = self.network(images)
        return F.normalize(descriptors, dim=-1), features


def export_network(
    model: str, out: str | Path, *, image_size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Write a model as one ONNX file.

    Args:
        model: Name or weights file.
        out: The `.onnx` file to write.
        image_size: Height and width of the network's input; default: the model's.

    Returns:
        `out`, `model`, `image_size`, `bytes`, and `difference`, the largest one from PyTorch in an output.

    Raises:
        ExportUnavailable: onnx, onnxscript or onnxruntime is not installed.
        ExportRefused: the model is larger than an ONNX file can be, or the file computes something else.
        UnknownModel, WeightsRejected, WeightsUnavailable, BadImageSize: the model cannot be loaded.
        OutOfSpace, NotWritable: the file cannot be written.
    """
    _require_packages()
    network, card = load_network(model, image_size=image_size)
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > _MAX_ONE_FILE:
        raise ExportRefused(f"{card.model} has {size >> 20} MiB of weights, more than one ONNX file holds")
    module = _UnitDescriptors(network).eval().requires_grad_(False)
    content = _exported(module, card)
    difference = _difference(module, content, card)
    if not difference <= _TOLERANCE:
        raise ExportRefused(
            f"the ONNX file of {card.model} differs from PyTorch by {difference:.2g}: "
            "update onnxruntime and torch"
        )
    replace_file(Path(out).expanduser(), content)
    pre = card.preprocessing
    return {
        "out": str(out),
        "model": card.model,
        "image_size": [pre.height, pre.width],
        "bytes": len(content),
        "difference": difference,
    }


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportUnavailable(f"ONNX needs {error.name or 'onnx'}: pip install 'placeray[onnx]'") from error


def _exported(module: nn.Module, card: Card) -> bytes:
    """Return the file's content, with the card in its metadata."""
    import onnx

    pre = card.preprocessing
    images = torch.zeros(2, 3, pre.height, pre.width)
    with tempfile.TemporaryDirectory(prefix="placeray-onnx-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own future
        path = os.path.join(folder, "model.onnx")
        logger = logging.getLogger("torch.onnx")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                _program(module, images),
                (),
                path,
                input_names=["images"],
                output_names=["descriptors", "features"],
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        finally:
            logger.setLevel(level)
        written = onnx.load(path)
    onnx.helper.set_model_props(written, {"placeray.card": json.dumps(dataclasses.asdict(card))})
    onnx.checker.check_model(written)
    return bytes(written.SerializeToString())


def _program(module: nn.Module, images: Tensor) -> Any:
    """Return the traced module, for batches of any size.

    Networks have faster layers for inference, some for training too, that cannot be traced: one of both ways
    is made of plain layers alone.
    """
    batches = torch.export.Dim("batch")
    try:
        with torch.no_grad():
            return torch.export.export(module, (images,), dynamic_shapes=({0: batches},), strict=False)
    except RuntimeError:
        with torch.enable_grad():
            return torch.export.export(module, (images,), dynamic_shapes=({0: batches},), strict=False)


def _difference(module: nn.Module, content: bytes, card: Card) -> float:
    """Return the largest difference of the file's outputs from PyTorch's, over two batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    pre, worst = card.preprocessing, 0.0
    rng = np.random.default_rng(0)
    for count in _CHECKED:
        images = rng.standard_normal((count, 3, pre.height, pre.width), dtype=np.float32)
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in module(torch.from_numpy(images))]
        made: list[NDArray[np.float32]] = session.run(["descriptors", "features"], {"images": images})
        for one, other in zip(made, expected, strict=True):
            if one.shape != other.shape:
                return float("inf")
            worst = max(worst, float(np.abs(one - other).max()))
    return worst
