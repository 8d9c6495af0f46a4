"""A small vision transformer that means something: it learns on a drawn city to imitate the default network.

    python -m benchmarks.small_trunk --work DIR

DINOv2's weights need a network, and a trunk with random weights says little about what adapters are worth.
So a transformer of DINOv2's shape learns without any label of places: its class token to give the pooled last
map of EfficientNet-Lite0 (ImageNet, Apache-2.0), its patch tokens to give the cells of that map, both in
fewer dimensions, while its own input changes in light and colour. The linear maps to them are thrown away. It
is kept in DIR/trunk.safetensors, with its figures in DIR/trunk.json.
"""

# ruff: noqa: E402 (what follows `sleep_while_waiting` imports torch, whose threads read their setting then)

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from models.runtime.threads import sleep_while_waiting

sleep_while_waiting()

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.architecture import Architecture
from models.networks.dinov2 import DinoV2
from models.weights import load_network
from pipelines.demo.dataset import draw_city

__all__ = ["SEED", "SHAPE", "SIDE", "STEPS", "small_trunk"]

SIDE = 112
SHAPE = Architecture(width=96, depth=4, num_heads=3, mlp_width=384, position_grid=SIDE // 14)
SEED = 11  # of no city that anything is measured on
DATABASE, QUERIES = 480, 240
TEACHER_SIDE, TARGET = 224, 192
STEPS, BATCH, RATE, WARM_UP = 200, 64, 2e-3, 50
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def small_trunk(work: Path, *, steps: int, cells: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the trunk's tensors, named as in `DinoV2`, and its figures; trained once per folder.

    Args:
        work: The folder.
        steps: Of training.
        cells: Whether the patch tokens of the last layer learn too; without it the class token alone does,
            and nothing asks those tokens to say what is in their cell.
    """
    name = "trunk" if cells else "trunk-class-token"
    weights, figures_file = work / f"{name}.safetensors", work / f"{name}.json"
    if not figures_file.exists():
        work.mkdir(parents=True, exist_ok=True)
        photos = _drawn(work)
        trunk, figures = _train(photos, *_targets(photos), steps=steps, cells_count=cells)
        safetensors.torch.save_file(trunk.state_dict(), weights)
        figures_file.write_text(json.dumps(figures, indent=1))
    return safetensors.torch.load_file(weights), json.loads(figures_file.read_text())


def _drawn(work: Path) -> list[Path]:
    city = work / f"city-{SEED}"
    draw_city(city, seed=SEED, database_images=DATABASE, query_images=QUERIES)
    return sorted((city / "images").rglob("*.jpg"))


def _pixels(path: Path, side: int) -> NDArray[np.uint8]:
    with Image.open(path) as photo:
        return np.asarray(photo.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def _targets(photos: list[Path]) -> tuple[Tensor, Tensor]:
    """Return (N, TARGET) pooled and (N, TARGET, 7, 7) cells of the default network, in fewer dimensions."""
    network: Any = load_network("efficientnet-lite0")[0]
    maps = []
    with torch.inference_mode():
        for at in range(0, len(photos), 16):
            pixels = np.stack([_pixels(path, TEACHER_SIDE) for path in photos[at : at + 16]])
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
            maps.append(network._maps(images.contiguous(memory_format=torch.channels_last))[1].half())
    last = torch.cat(maps)
    pooled = last.float().mean(dim=(2, 3))
    mean, basis = _reduction(pooled)
    cell_mean, cell_basis = _reduction(last[::4].permute(0, 2, 3, 1).flatten(0, 2).float())
    reduced = [
        torch.einsum("nchw,cd->ndhw", part.float() - cell_mean[:, None, None], cell_basis)
        for part in last.split(256)
    ]
    return (pooled - mean) @ basis, torch.cat(reduced)


def _reduction(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the first principal components, each divided by the root of its deviation."""
    mean = sample.mean(dim=0)
    variances, vectors = torch.linalg.eigh(torch.cov((sample - mean).T))
    return mean, vectors[:, -TARGET:] / variances[-TARGET:].clamp(min=1e-9) ** 0.25


class _Imitation(nn.Module):
    """The trunk, and the linear maps to what it imitates."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = DinoV2(SHAPE)
        vit = self.trunk.vit.requires_grad_(True)
        for name, weights in vit.named_parameters():
            if name.endswith("gamma"):
                weights.data.fill_(1.0)
        self.pooled, self.cells = nn.Linear(SHAPE.width, TARGET), nn.Linear(SHAPE.width, TARGET)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens, grid = self.trunk.embed(images)
        for block in self.trunk.vit.blocks:
            tokens = self.trunk.run_block(block, tokens)
        tokens = self.trunk.vit.norm(tokens)
        cells = self.cells(tokens[:, 1:]).transpose(1, 2).unflatten(2, grid)
        return self.pooled(tokens[:, 0]), cells


def _train(
    photos: list[Path], pooled: Tensor, cells: Tensor, *, steps: int, cells_count: bool
) -> tuple[Any, Any]:
    pixels = torch.from_numpy(np.stack([_pixels(path, SIDE) for path in photos])).permute(0, 3, 1, 2)
    torch.manual_seed(0)
    model = _Imitation()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    began, losses = time.monotonic(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (1 - step / steps)
        rows = torch.randint(len(photos), (BATCH,))
        images, wanted = pixels[rows].float() / 255, cells[rows]
        if step % 2:
            images, wanted = images.flip(3), wanted.flip(3)
        wanted = F.interpolate(wanted, SHAPE.position_grid, mode="bilinear")
        class_token, patches = model(_relit(images))
        loss = (1 - F.cosine_similarity(class_token, pooled[rows], dim=1)).mean()
        if cells_count:
            loss = loss + (1 - F.cosine_similarity(patches, wanted, dim=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 25 == 24:
            print(f"step {step + 1} of {steps}: {np.mean(losses[-25:]):.3f}", flush=True)
    figures = {
        "photos": len(photos),
        "steps": steps,
        "images": steps * BATCH,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "loss_first": round(float(np.mean(losses[:20])), 3),
        "loss_last": round(float(np.mean(losses[-50:])), 3),
    }
    return model.trunk.eval(), figures


def _relit(images: Tensor) -> Tensor:
    """Change exposure, gamma, colours and contrast of (B, 3, h, w) in 0..1, add noise, and normalise."""
    count = len(images)
    gamma = torch.empty(count, 1, 1, 1).uniform_(-0.6, 0.6).exp()
    gain = torch.empty(count, 3, 1, 1).uniform_(-0.25, 0.25).exp() * torch.empty(count, 1, 1, 1).uniform_(
        0.5, 1.3
    )
    changed = images.clamp(1e-3, 1) ** gamma * gain
    mean = changed.mean(dim=(1, 2, 3), keepdim=True)
    changed = (changed - mean) * torch.empty(count, 1, 1, 1).uniform_(0.6, 1.2) + mean
    changed = (changed + 0.03 * torch.randn_like(changed)).clamp(0, 1)
    return (changed - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def main() -> None:
    """Draw the cities and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("placeray-proof"))
    parser.add_argument("--steps", type=int, default=STEPS, help="of training; default: %(default)s")
    args = parser.parse_args()
    print(json.dumps(small_trunk(args.work, steps=args.steps)[1]))


if __name__ == "__main__":
    main()
