"""The published form of SelaVPR++ with 24 blocks and 16 adapters, against its equations written out here.

The formulation below works on the published names alone and shares no code with the network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.checkpoints.importing import import_checkpoint
from models.weights import load_extractor, load_network

DEPTH, ADAPTERS, WITHOUT = 24, 16, 8
BITS, FLOAT_DIM, SIDE = 512, 256, 37
Weights = dict[str, Tensor]


def published(width: int) -> Weights:
    """A state dict of the documented names and shapes, random but for what must be positive."""
    shapes = {
        "backbone.cls_token": (1, 1, width),
        "backbone.mask_token": (1, width),
        "backbone.pos_embed": (1, 1 + SIDE * SIDE, width),
        "backbone.patch_embed.proj.weight": (width, 3, 14, 14),
        "backbone.patch_embed.proj.bias": (width,),
        "backbone.norm.weight": (width,),
        "backbone.norm.bias": (width,),
    }
    linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    linear |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for block in (f"backbone.blocks.{number}" for number in range(DEPTH)):
        for name, shape in linear.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        shapes |= {f"{block}.ls1.gamma": (width,), f"{block}.ls2.gamma": (width,)}
    for branch, heads in (("", (1, 2)), ("_hashing", (3, 4))):
        for number in range(ADAPTERS):
            shapes |= adapter_shapes(f"backbone.adapters{branch}.{number}", width)
        shapes[f"aggregation{branch}.1.p"] = (1,)
        out = BITS if branch else FLOAT_DIM
        for head, rows in zip(heads, (width, out), strict=True):
            shapes |= {f"linear{head}.weight": (rows, width), f"linear{head}.bias": (rows,)}
    generator = torch.Generator().manual_seed(width)
    return {f"module.{name}": drawn(name, shape, generator) for name, shape in shapes.items()}


def adapter_shapes(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    half = width // 2
    convolutions = {
        "branch1": (half // 2, half, 1, 1),
        "branch2.0": (half // 16, half, 1, 1),
        "branch2.1": (half // 4, half // 16, 3, 3),
        "branch3.0": (half // 16, half, 1, 1),
        "branch3.1": (half // 4, half // 16, 5, 5),
    }
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.D_fc1.weight": (half, width),
        f"{prefix}.D_fc1.bias": (half,),
        f"{prefix}.D_fc2.weight": (width, half),
        f"{prefix}.D_fc2.bias": (width,),
    }
    for name, kernel in convolutions.items():
        shapes |= {f"{prefix}.{name}.conv.weight": kernel, f"{prefix}.{name}.conv.bias": kernel[:1]}
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.{name}.bn.{tensor}"] = kernel[:1]
        shapes[f"{prefix}.{name}.bn.num_batches_tracked"] = ()
    return shapes


def drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    values = torch.randn(shape, generator=generator)
    if name.endswith(("running_var", ".p", "gamma")):
        return values.abs() * (0.2 if name.endswith("gamma") else 1) + (2 if name.endswith(".p") else 0.1)
    fan = shape[1] * (shape[2] * shape[3] if len(shape) == 4 else 1) if len(shape) in (2, 4) else 25
    return values / fan**0.5


class Plain:
    """The equations, on published names without their prefix."""

    def __init__(self, weights: Weights, heads: int) -> None:
        self.of = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
        self.heads = heads

    def linear(self, name: str, values: Tensor) -> Tensor:
        return values @ self.of[f"{name}.weight"].T + self.of[f"{name}.bias"]

    def norm(self, name: str, values: Tensor) -> Tensor:
        mean = values.mean(-1, keepdim=True)
        variance = (values - mean).square().mean(-1, keepdim=True)
        return (values - mean) / (variance + 1e-6).sqrt() * self.of[f"{name}.weight"] + self.of[
            f"{name}.bias"
        ]

    def tokens(self, images: Tensor) -> Tensor:
        kernel, bias = (self.of[f"backbone.patch_embed.proj.{part}"] for part in ("weight", "bias"))
        maps = F.conv2d(images, kernel, bias, stride=14)
        rows, columns = maps.shape[2:]
        table = self.of["backbone.pos_embed"]
        positions = table[:, 1:].reshape(1, SIDE, SIDE, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / SIDE, (columns + 0.1) / SIDE)
        maps = maps + F.interpolate(positions, scale_factor=scale, mode="bicubic")
        first = (self.of["backbone.cls_token"] + table[:, :1]).expand(len(images), -1, -1)
        return torch.cat((first, maps.flatten(2).transpose(1, 2)), dim=1)

    def block(self, number: int, tokens: Tensor) -> Tensor:
        name = f"backbone.blocks.{number}"
        mixed = self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", tokens))
        query, key, value = mixed.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
        attended = (weights @ value).transpose(1, 2).flatten(2)
        tokens = tokens + self.of[f"{name}.ls1.gamma"] * self.linear(f"{name}.attn.proj", attended)
        hidden = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", tokens))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        return tokens + self.of[f"{name}.ls2.gamma"] * self.linear(f"{name}.mlp.fc2", hidden)

    def convolved(self, name: str, maps: Tensor) -> Tensor:
        kernel = self.of[f"{name}.conv.weight"]
        maps = F.conv2d(maps, kernel, self.of[f"{name}.conv.bias"], padding=kernel.shape[-1] // 2)
        mean, variance, weight, bias = (
            self.of[f"{name}.bn.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((maps - mean) / (variance + 1e-3).sqrt() * weight + bias).relu()

    def adapter(self, name: str, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        u = self.linear(f"{name}.D_fc1", tokens).relu()
        maps = u[:, 1:].transpose(1, 2).unflatten(2, grid)
        three, five = (self.convolved(f"{name}.branch{n}.0", maps) for n in (2, 3))
        parts = [
            self.convolved(f"{name}.branch1", maps),
            self.convolved(f"{name}.branch2.1", three),
            self.convolved(f"{name}.branch3.1", five),
        ]
        mixed = torch.cat(parts, dim=1).flatten(2).transpose(1, 2)
        return self.linear(f"{name}.D_fc2", u + torch.cat((u[:, :1], mixed), dim=1))

    def pooled(self, branch: str, cells: str, head: str, state: Tensor) -> Tensor:
        patches = F.normalize(self.linear(cells, state[:, 1:]), dim=-1)
        p = self.of[f"aggregation{branch}.1.p"]
        return F.normalize(self.linear(head, patches.clamp(min=1e-6).pow(p).mean(1).pow(1 / p)), dim=-1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the float descriptors and the values whose signs are the code."""
        grid = (images.shape[2] // 14, images.shape[3] // 14)
        tokens = self.tokens(images)
        for number in range(WITHOUT):
            tokens = self.block(number, tokens)
        states = {"": tokens, "_hashing": tokens}
        for number in range(WITHOUT, DEPTH):
            tokens = self.block(number, tokens)
            for branch, state in states.items():
                name = f"backbone.adapters{branch}.{number - WITHOUT}"
                states[branch] = state + self.adapter(name, state + tokens, grid)
        normed = {branch: self.norm("backbone.norm", state) for branch, state in states.items()}
        return (
            self.pooled("", "linear1", "linear2", normed[""]),
            self.pooled("_hashing", "linear3", "linear4", normed["_hashing"]),
        )


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    folder = tmp_path_factory.mktemp("large")
    return import_published(64, folder)


def import_published(width: int, folder: Path) -> tuple[Weights, Path]:
    weights, path = published(width), folder / "large.safetensors"
    assert len(weights) == 1601  # of the published two-branch file
    torch.save({"epoch_num": 3, "model_state_dict": weights}, folder / "large.pth")
    card = import_checkpoint(folder / "large.pth", path)
    assert (card.model, card.code_bits) == (f"selavprpp-vit{width}x24", BITS)
    return weights, path


def require_equal(weights: Weights, path: Path, width: int) -> None:
    network, _ = load_network(str(path))
    plain = Plain(weights, heads=width // 32)
    for size in ((56, 56), (42, 70)):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            descriptors, values = plain.forward(images)
            ours, _, codes = network(images)
        torch.testing.assert_close(ours, descriptors, atol=1e-5, rtol=0)
        torch.testing.assert_close(codes, values, atol=1e-5, rtol=0)
        sure = values.abs() > 1e-4
        assert ((codes >= 0) == (values >= 0))[sure].all()
        assert sure.float().mean() > 0.99
        # Outputs tell photos apart, or equality would mean little.
        assert (descriptors[0] - descriptors[1]).abs().max() > 1e-3


def test_imported_file_equals_the_equations(imported: tuple[Weights, Path]) -> None:
    require_equal(*imported, width=64)


@pytest.mark.slow
@pytest.mark.parametrize("width", [32, 96, 128])
def test_other_widths_equal_the_equations(width: int, tmp_path: Path) -> None:
    require_equal(*import_published(width, tmp_path), width)


@pytest.mark.parametrize(
    ("dtype", "apart", "unsure"), [(torch.float32, 1e-5, 1e-4), (torch.bfloat16, 2e-2, 2e-2)]
)
def test_codes_of_photos_equal_the_equations(
    dtype: torch.dtype, apart: float, unsure: float, imported: tuple[Weights, Path]
) -> None:
    weights, path = imported
    extractor = load_extractor(str(path), device="cpu", dtype=dtype, image_size=(56, 56))
    photos = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    extracted = extractor.extraction(list(photos))
    pixels = torch.from_numpy(photos).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    with torch.inference_mode():
        descriptors, values = Plain(weights, heads=2).forward(
            (pixels - mean[:, None, None]) / std[:, None, None]
        )
    assert np.abs(extracted.descriptors - descriptors.numpy()).max() <= apart
    assert extracted.codes is not None
    sure = (values.abs() > unsure).numpy()
    assert sure.mean() > 0.5
    assert (np.unpackbits(extracted.codes, axis=1) == (values >= 0).numpy())[sure].all()
