"""A tiny data set and a tiny model for training in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.checkpoints.weights_file import save_weights
from models.networks.architecture import Architecture
from models.networks.selavpr import SelaVPR
from pipelines.training.data import PhotoSet
from pipelines.training.settings import TrainingSettings
from storage.position import Positions

SIDE = 56
PLACE_M = 100.0


def write_split(folder: Path, split: str, *, places: int, seed: int, note: str = "") -> Path:
    """Write a database photo and a query of each place, 3 m apart; queries are darker, redder and noisy."""
    rng = np.random.default_rng(seed)
    for place in range(places):
        coarse = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        day = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 12, (SIDE, SIDE, 3))
        pixels = np.asarray(day, np.float32) * np.array([0.8, 0.35, 0.25]) + noise
        night = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        for side, photo, shift_m in (("database", day, 0.0), ("queries", night, 3.0)):
            target = folder / "images" / split / side
            target.mkdir(parents=True, exist_ok=True)
            east = f"{601_000 + place * PLACE_M + shift_m:.2f}"
            mark = note if side == "queries" else ""
            name = f"@{east}@5339000.00@33@U@48.2@16.3@p{place:03d}@@0@@@@@{mark}@"
            photo.save(target / f"{name}.png")
    return folder


def write_city(folder: Path, *, places: int = 12, val_places: int = 8, seed: int = 0) -> Path:
    """Write images/train and images/val of different places."""
    write_split(folder, "train", places=places, seed=seed)
    return write_split(folder, "val", places=val_places, seed=seed + 1)


def write_tiny_vit(path: Path, *, seed: int = 0) -> Path:
    """Write a DINOv2-shaped ViT with random weights, adapters and a local head."""
    torch.manual_seed(seed)
    shape = Architecture(width=32, depth=2, num_heads=2, mlp_width=64)
    model = SelaVPR(shape, local_head=True)
    # New blocks scale their residual, and that of adapters, by nearly zero.
    for name, weights in model.named_parameters():
        if name.endswith("gamma"):
            weights.data.fill_(1.0)
    save_weights(path, model)
    return path


def photo_set(utm_m: object, zones: list[str | None] | None = None) -> PhotoSet:
    """Return photos at (N, 2) eastings and northings, all in one zone or each in one of its own."""
    points = np.asarray(utm_m, np.float64).reshape(-1, 2)
    columns = {"utm_e": points[:, 0], "utm_n": points[:, 1], "utm_zone": zones or ["33U"] * len(points)}
    unmarked = np.zeros(len(points), bool)
    uris = tuple(f"folder/photo {i}.jpg" for i in range(len(points)))
    return PhotoSet(uris, Positions.from_columns(columns), unmarked, unmarked)


def tiny_settings(model: Path, **changes: object) -> TrainingSettings:
    """Return settings under which an epoch of the tiny set takes a second."""
    values: dict[str, object] = {
        "model": str(model),
        "image_size": (SIDE, SIDE),
        "epochs": 2,
        "queries_per_epoch": 8,
        "queries_per_round": 4,
        "batch": 2,
        "learning_rate": 1e-3,
        "val_candidates": 8,
        "threads": 1,
    }
    return TrainingSettings(**(values | changes))  # type: ignore[arg-type]
