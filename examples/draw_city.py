"""Draw a small city to try the other examples on: a data set in the standard layout, with exact positions.

    python examples/draw_city.py city

Index, query and evaluate `city/images/test`; `train` and `val` are other cities to fine-tune on.
"""

import sys

from pipelines.demo.dataset import draw_city


def main(folder: str, database_images: int = 240, query_images: int = 80) -> None:
    """Draw three cities from three seeds, one per split; the same seed draws the same pictures."""
    for seed, split in enumerate(("test", "train", "val")):
        drawn = draw_city(
            folder, split=split, seed=seed, database_images=database_images, query_images=query_images
        )
        print(f"{split}: {drawn.database_images} database images, {drawn.query_images} queries")


if __name__ == "__main__":
    main(*sys.argv[1:2])
