"""Learn the aggregation that is shipped for stores of very few photos, from drawn cities.

    python -m benchmarks.make_shipped_aggregation

The pictures are drawn by this project, so what is learned from them has its licence. The cities are none that
tests or benchmarks measure. Writes `models/aggregation/shipped.safetensors`; a quarter of the components of
larger stores keep it small.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.dataset_features import extract_folder
from models.aggregation import Aggregation
from models.aggregation.start import SHIPPED_FILE
from models.weights import load_extractor
from pipelines.demo.dataset import draw_city

SEEDS = (1000, 1001, 1002)
DATABASE, QUERIES = 200, 100  # pictures by day, and at night, in snow, under clouds
COMPONENTS, WORDS = 128, 32


def main() -> None:
    torch.set_num_threads(1)
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    blocks = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            draw_city(folder, seed=seed, database_images=DATABASE, query_images=QUERIES)
            for side in ("database", "queries"):
                photos = extract_folder(Path(folder, "images", "test", side), extractor)
                blocks.append(photos.features.astype(np.float16))
        print(f"city {seed}: {sum(map(len, blocks))} pictures", flush=True)
    learned = Aggregation.fit(blocks, words=WORDS, vocabularies=1, components=COMPONENTS, power=0.0)
    # Of the photos of a store it was learned from none.
    shipped = dataclasses.replace(learned, photos=0, city_photos=0)
    SHIPPED_FILE.write_bytes(shipped.to_bytes())
    print(f"{SHIPPED_FILE}: {SHIPPED_FILE.stat().st_size} bytes, {learned.left_out:.1%} left out")


if __name__ == "__main__":
    main()
