"""Re-rank candidates by mutual nearest neighbours between local features of one's own network.

    python examples/rerank_own_features.py

Random features stand in for a network here. The last candidate shows the query's scene: the same cells in
another order, with noise.
"""

import numpy as np

import placeray


def unit(cells: np.ndarray) -> np.ndarray:
    """Scale every cell to unit length, so that inner products are cosine similarities."""
    return cells / np.linalg.norm(cells, axis=-1, keepdims=True)


def main() -> None:
    """Count matches between one query and ten candidates, and rank the candidates by them."""
    random = np.random.default_rng(0)
    query = unit(random.standard_normal((400, 128), dtype=np.float32))  # cells, channels
    candidates = unit(random.standard_normal((10, 400, 128), dtype=np.float32))
    noise = unit(random.standard_normal((400, 128), dtype=np.float32))
    candidates[9] = unit(random.permutation(query) + noise)

    counts = placeray.mutual_nn_count(query, candidates).numpy()
    for candidate in np.argsort(-counts, kind="stable"):
        print(f"candidate {candidate}: {counts[candidate]} mutual matches")


if __name__ == "__main__":
    main()
