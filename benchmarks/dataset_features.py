"""Descriptors, local features and positions of the photos of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.extractor import Extractor
from models.images.decoder import decode_image
from models.images.photo_file import read_bytes
from pipelines.sources import list_source

__all__ = ["Photos", "extract_folder"]


class Photos(NamedTuple):
    """Photos of one folder: (N, D) float32 descriptors, (N, H, W, C) float32 features, (N, 2) metres."""

    descriptors: np.ndarray
    features: np.ndarray
    points: np.ndarray


def extract_folder(folder: Path, extractor: Extractor) -> Photos:
    rows = list_source(folder).sort_by("uri").to_pylist()
    extracted = [extractor.extract([decode_image(read_bytes(row["uri"])).pixels]) for row in rows]
    points = np.array([(row["utm_e"], row["utm_n"]) for row in rows])
    descriptors, features = (np.concatenate(parts) for parts in zip(*extracted, strict=True))
    return Photos(descriptors, features, points)
