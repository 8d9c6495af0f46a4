"""First answers and recall on photos: approximate counts and early stops against exact counts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset_features import extract_folder
from models.matching import cpu_products
from models.matching.adaptive import StopRule, match_in_blocks
from models.matching.mutual import mutual_nn_count
from models.weights import load_extractor
from pipelines.sources import open_dataset

__all__ = ["judge"]

THRESHOLD_M = 25.0
RULES = {
    "all 100": StopRule(),
    "lead 3": StopRule(lead=3.0),
    "lead 5": StopRule(lead=5.0),
    "blocks of 5, at least 10, lead 5": StopRule(block=5, min_candidates=10, lead=5.0),
}


class Candidates:
    """Candidates of every query of a data set, and which of them show its place."""

    def __init__(self, root: Path, candidates: int) -> None:
        extractor = load_extractor("efficientnet-lite0", device="cpu")
        layout = open_dataset(root)
        self.name = layout.name
        self.min_similarity = extractor.card.min_similarity
        database, queries = (
            extract_folder(folder, extractor) for folder in (layout.database, layout.queries)
        )
        self.features, self.queries = database.features.astype(np.float16), queries.features
        similarity = queries.descriptors @ database.descriptors.T
        self.top = np.argsort(-similarity, axis=1, kind="stable")[:, :candidates]
        distance = np.linalg.norm(queries.points[:, None] - database.points[None], axis=2)
        self.right = np.take_along_axis(distance <= THRESHOLD_M, self.top, axis=1)

    def counts(self, precision: Any) -> NDArray[np.int64]:
        rows = [
            mutual_nn_count(
                query, self.features[top], min_similarity=self.min_similarity, precision=precision
            ).numpy()
            for query, top in zip(self.queries, self.top, strict=True)
        ]
        return np.stack(rows)

    def recall(self, first: Sequence[int]) -> float:
        return float(np.mean([right[i] for right, i in zip(self.right, first, strict=True)])) * 100


def judge(root: Path, candidates: int) -> dict[str, Any]:
    """Compare first answers and recall; small maps are rounded too, which they are not by default."""
    photos = Candidates(root, candidates)
    threshold, cpu_products._INT8_FROM = cpu_products._INT8_FROM, 0
    fast = photos.counts("fast")
    cpu_products._INT8_FROM = threshold
    exact = photos.counts("exact")
    first = exact.argmax(axis=1)
    early = []
    for name, rule in RULES.items():
        matched = [
            match_in_blocks(len(row), lambda block, row=row: row[block.start : block.stop].tolist(), rule)
            for row in exact
        ]
        answers = [int(np.argmax(counts)) for counts in matched]
        early.append(
            {
                "rule": name,
                "matched_mean": statistics.mean(len(counts) for counts in matched),
                "r1": photos.recall(answers),
                "same_first": float(np.mean(np.array(answers) == first)) * 100,
            }
        )
    return {
        "set": photos.name,
        "queries": len(exact),
        "r1_global": photos.recall([0] * len(exact)),
        "r1_exact": photos.recall(first.tolist()),
        "r1_fast": photos.recall(fast.argmax(axis=1).tolist()),
        "same_first_answer": float(np.mean(fast.argmax(axis=1) == first)) * 100,
        "count_error_mean": float(np.abs(fast - exact).mean()),
        "count_error_max": int(np.abs(fast - exact).max()),
        "early_stops": early,
    }
