"""The adapted backbone against timm, against DINOv2's position rule, and against published tokens."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.architecture import Architecture, token_grid
from models.networks.backbone import AdaptedViT
from models.networks.block_adapters import untrained_adapters

SMALL = Architecture(width=48, depth=3, num_heads=3, mlp_width=192)
SHAPES = {
    "plain": SMALL,
    "registers": Architecture(width=48, depth=3, num_heads=3, mlp_width=192, registers=4),
    "gated": Architecture(width=48, depth=2, num_heads=3, mlp_width=256, gated_mlp=True),
    "gated-registers": Architecture(
        width=48, depth=2, num_heads=3, mlp_width=256, registers=4, gated_mlp=True
    ),
}


def randomised(architecture: Architecture, seed: int = 0) -> AdaptedViT:
    """A backbone whose weights are all random, adapters untrained."""
    torch.manual_seed(seed)
    backbone = AdaptedViT(architecture).eval()
    for weights in backbone.vit.parameters():
        weights.data.add_(0.1 * torch.randn_like(weights))
    return backbone


def images(height: int, width: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_untrained_adapters_at_stored_grid_equal_plain_timm(shape: Architecture) -> None:
    """At the stored 37 x 37 grid no positions are resampled, so timm's own forward is the reference."""
    backbone, pixels = randomised(shape), images(518, 518, 1)
    with torch.inference_mode():
        expected = backbone.vit.forward_features(pixels)[:, 1 + shape.registers :]
        tokens = backbone(pixels)
    assert tokens.shape == (1, 37, 37, 48)
    torch.testing.assert_close(tokens.flatten(1, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("grid", [(16, 16), (5, 9), (40, 3)])
def test_untrained_adapters_other_grid_equal_timm_with_dinov2_positions(
    shape: Architecture, grid: tuple[int, int]
) -> None:
    backbone, pixels = randomised(shape), images(14 * grid[0], 14 * grid[1])
    stored = backbone.vit.pos_embed.detach()
    prefix, square = (stored[:, :0], stored) if shape.registers else (stored[:, :1], stored[:, 1:])
    scale = [(side + 0.1) / 37 for side in grid]
    planes = square.reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    resampled = F.interpolate(planes, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    reference: Any = VisionTransformer(
        img_size=(14 * grid[0], 14 * grid[1]),
        patch_size=14,
        num_classes=0,
        embed_dim=48,
        depth=shape.depth,
        num_heads=3,
        init_values=1e-5,
        reg_tokens=shape.registers,
        no_embed_class=shape.registers > 0,
        mlp_ratio=(shape.mlp_width + 0.5) / 48,
        mlp_layer=type(backbone.vit.blocks[0].mlp) if not shape.gated_mlp else timm.layers.mlp.SwiGLUPacked,
        act_layer=nn.SiLU if shape.gated_mlp else nn.GELU,
    )
    reference.load_state_dict(backbone.vit.state_dict() | {"pos_embed": torch.cat((prefix, resampled), 1)})
    with torch.inference_mode():
        expected = reference.eval().forward_features(pixels)[:, 1 + shape.registers :]
        tokens = backbone(pixels)
    assert tokens.shape == (2, *grid, 48)
    torch.testing.assert_close(tokens.flatten(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_positions_differ_from_timm_resampling() -> None:
    """The rule matters: timm's own resampling of the same embeddings is another one."""
    backbone = randomised(SMALL)
    grid = backbone.vit.pos_embed[:, 1:]
    ours = backbone._positions(grid, 16, 16)
    theirs = timm.layers.resample_abs_pos_embed(grid, [16, 16], num_prefix_tokens=0)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) > 0.02


def test_trained_adapters_change_tokens() -> None:
    backbone, pixels = randomised(SMALL), images(56, 70)
    with torch.inference_mode():
        before = backbone(pixels)
        for part in ("serial", "parallel"):
            nn.init.normal_(getattr(backbone.adapters[1], part).up.weight, generator=torch.manual_seed(0))
            after = backbone(pixels)
            assert float((after - before).abs().max()) > 1e-3, part
            before = after


def test_untrained_adapters_are_deterministic_and_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = untrained_adapters(SMALL).state_dict()
    first_draw = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(first_draw, torch.rand(1))
    torch.manual_seed(2)
    second = untrained_adapters(SMALL).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert float(first["0.serial.down.weight"].abs().max()) > 0
    assert not torch.equal(first["0.serial.down.weight"], first["1.serial.down.weight"])
    assert float(first["0.serial.up.weight"].abs().max()) == 0


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((225, 224), "height 225 is not a multiple of 14: use 224 or 238"),
        ((224, 100), "width 100 is not a multiple of 14: use 98 or 112"),
        ((13, 224), "height 13 is not a multiple of 14: use 14"),
        ((224, 0), "width 0 is not a multiple of 14: use 14"),
    ],
)
def test_token_grid_wrong_size_names_next_sizes(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_grid(*size)
    with pytest.raises(ValueError, match=message):
        AdaptedViT.forward(randomised(SMALL), torch.zeros(1, 3, *size))


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize(("letter", "word"), [("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant")])
def test_of_size_has_tensors_of_timm_model(letter: str, word: str, registers: int) -> None:
    with torch.device("meta"):
        published = timm.create_model(f"vit_{word}_patch14{'_reg4' * bool(registers)}_dinov2", num_classes=0)
        ours = AdaptedViT(Architecture.of_size(letter, registers=registers))
    expected = {name: tuple(tensor.shape) for name, tensor in published.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in ours.vit.state_dict().items()} == expected
    assert published.blocks[0].attn.num_heads == ours.vit.blocks[0].attn.num_heads
    assert type(published.blocks[0].mlp) is type(ours.vit.blocks[0].mlp)
    assert published.norm.eps == ours.vit.norm.eps
    assert str(published.blocks[0].mlp) == str(ours.vit.blocks[0].mlp)
