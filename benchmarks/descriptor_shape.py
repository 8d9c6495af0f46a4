"""The shape of a store's descriptors: spectrum, crowding and near-duplicates, for `city_descriptors`.

    python -m benchmarks.descriptor_shape STORE...

For each store of photos with positions: how the variance of the components falls off, as the exponent a of
1 / (1 + i)^a whose spectrum has the same effective number of dimensions, and the mean cosine similarity of
pairs of photos by their distance in metres. The effective number of dimensions is measured from pairs that
are far apart, 1 / E[(x . y)^2] of centred unit vectors, which few photos do not bias as they bias
eigenvalues.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.position import POSITION_COLUMNS, Positions
from storage.store import Store
from storage.table.schema import descriptor_matrix

__all__ = ["decay_of", "shape_of"]

FAR_M = 100.0
CLASSES_M = {"photo": (0.0, 5.0), "place": (5.0, 15.0), "street": (15.0, 60.0), "district": (60.0, 250.0)}
ALIKE_DEG = 30.0
_COLUMNS = ("heading_deg", "descriptor")


def effective(decay: float, width: int) -> float:
    """Return the effective number of dimensions of a spectrum 1 / (1 + i)^decay."""
    variances = (1 + np.arange(width)) ** -decay
    return float(variances.sum() ** 2 / (variances**2).sum())


def decay_of(dimensions: float, width: int) -> float:
    """Return the exponent of the spectrum that has so many effective dimensions."""
    decays = np.linspace(0, 3, 301)
    return float(decays[np.argmin([abs(effective(decay, width) - dimensions) for decay in decays])])


def shape_of(
    descriptors: NDArray[np.float32], metres: NDArray[np.float64], headings: NDArray[np.float64]
) -> dict[str, Any]:
    """Measure one city.

    Args:
        descriptors: (N, D), unit L2 norm.
        metres: (N, N) between the photos.
        headings: (N,) in degrees; NaN where unknown.
    """
    similar = descriptors @ descriptors.T
    upper = np.triu(np.ones(metres.shape, bool), 1)
    turned = np.abs((headings[:, None] - headings[None] + 180) % 360 - 180)
    alike = ~(turned > ALIKE_DEG)  # unknown headings count
    far = upper & (metres > FAR_M)
    centred = descriptors - descriptors.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    dimensions = 1 / float(((centred @ centred.T)[far] ** 2).mean())
    pairs = {
        name: round(float(similar[upper & alike & (metres >= least) & (metres < most)].mean()), 3)
        for name, (least, most) in CLASSES_M.items()
        if (upper & alike & (metres >= least) & (metres < most)).any()
    }
    return {
        "photos": len(descriptors),
        "width": descriptors.shape[1],
        "effective_dimensions": round(dimensions, 1),
        "decay": round(decay_of(dimensions, descriptors.shape[1]), 2),
        "similarity": pairs | {"far": round(float(similar[far].mean()), 3)},
        "far_p999": round(float(np.quantile(similar[far], 0.999)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--photos", type=int, default=4000, help="at most so many of a store")
    args = parser.parse_args()
    for uri in args.stores:
        rows = pa.concat_tables(Store.open(uri).snapshot.table.scan([*POSITION_COLUMNS, *_COLUMNS]))
        chosen = np.random.default_rng(0).permutation(len(rows))[: args.photos]
        rows = rows.take(pa.array(np.sort(chosen)))
        places = Positions.from_columns({name: rows[name].to_pylist() for name in POSITION_COLUMNS})
        plane = places.on_one_plane()
        metres = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
        headings = rows["heading_deg"].to_numpy().astype(np.float64)
        print(json.dumps({"store": str(uri)} | shape_of(descriptor_matrix(rows), metres, headings)))


if __name__ == "__main__":
    main()
