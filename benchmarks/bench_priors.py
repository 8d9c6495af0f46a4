"""What a soft prior is worth: Recall@1 where it is right, and where it is wrong by how much.

    python -m benchmarks.bench_priors --scratch DIR

Frames of night drives through hard drawn cities (`benchmarks.bench_drives` draws and indexes them) are
asked about with a prior whose position is 0, 1, 2, 4 and 8 standard deviations from the truth, in a random
direction, for standard deviations of 20, 50 and 200 m. The 100 most similar images of each frame were matched
there; which 25 of them a query with as many candidates would match under a prior, and how they rank, follows
from `serving.priors.soft_prior` with its own share for everywhere else, and with others beside it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bench_drives import CANDIDATES, drawn
from benchmarks.kept import add_kept_folder
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, write_results
from serving.answer import Match
from serving.priors.soft_prior import ELSEWHERE, SoftPrior, weighed_similarity
from serving.query import PRIOR_HITS
from storage.position import Position

Floats = NDArray[np.float64]

SETS = ("hard:0:night", "hard:1:night", "hard:2:night", "hard:3:night")
SIGMAS_M, OFF = (20.0, 50.0, 200.0), (0.0, 1.0, 2.0, 4.0, 8.0)
SHARES = (0.03, 0.1, ELSEWHERE, 0.5)
RIGHT_M = 25.0
M_PER_DEG = 111_320.0


@dataclass(frozen=True)
class Asked:
    """One frame with the images that are searched for under a prior.

    Attributes:
        truth: Where it was taken.
        positions: Of the images, by falling similarity.
        similarity: (N,) float64.
        scores: (N,) float64, votes.
    """

    truth: Position
    positions: list[Position]
    similarity: Floats
    scores: Floats

    @classmethod
    def of(cls, answer: Sequence[Match], truth: Position) -> Asked:
        """Read an answer in which every image was matched."""
        matches = sorted(answer, key=lambda match: -match.similarity)
        scores = np.array([match.score for match in matches], np.float64)
        assert np.isfinite(scores).all()
        similarity = np.array([match.similarity for match in matches], np.float64)
        return cls(truth, [match.record.position for match in matches], similarity, scores)

    def first(self, weights: Floats | None, *, rerank: bool) -> int:
        """Return the image that ranks first."""
        kept = CANDIDATES // PRIOR_HITS
        if weights is None:
            return int(np.argmax(self.scores[:kept])) if rerank else 0
        hits = np.arange(len(self.scores))
        hits = hits[np.argsort(-weighed_similarity(self.similarity[hits], weights[hits]), kind="stable")]
        if not rerank:
            return int(hits[0])
        hits = hits[:kept]
        return int(hits[np.argmax(self.scores[hits] * weights[hits])])

    def is_right(self, row: int) -> bool:
        """Whether an image shows the place."""
        metres = self.positions[row].distance_m(self.truth)
        return metres is not None and metres <= RIGHT_M


def answered(scratch: Path, name: str) -> list[Asked]:
    """Return the frames inside, with the images that `benchmarks.bench_drives` matched."""
    drive = drawn(scratch, name)
    frames = zip(drive.matches, drive.truth, drive.inside.tolist(), strict=True)
    return [Asked.of(matches, truth) for matches, truth, inside in frames if inside]


def recall(asked: Sequence[Asked], sigma_m: float, off: float, share: float, *, rerank: bool) -> float:
    """Return Recall@1 in percent with priors that are `off` standard deviations from the truth."""
    turns = random.Random(f"{sigma_m}/{off}")
    right = 0
    for each in asked:
        away_m, turn = off * sigma_m, turns.uniform(0, 2 * math.pi)
        assert each.truth.lat is not None
        assert each.truth.lon is not None
        lat = each.truth.lat + away_m * math.cos(turn) / M_PER_DEG
        lon = each.truth.lon + away_m * math.sin(turn) / (M_PER_DEG * math.cos(math.radians(each.truth.lat)))
        weights = SoftPrior(lat, lon, sigma_m).weights(each.positions)
        near = (weights - ELSEWHERE) / (1.0 - ELSEWHERE)
        right += each.is_right(each.first(share + (1.0 - share) * near, rerank=rerank))
    return round(100 * right / len(asked), 1)


def main() -> None:
    parser = make_parser(__doc__, "priors.json")
    add_kept_folder(parser, "--scratch", "drives")
    parser.add_argument("--sets", nargs="*", default=list(SETS), metavar="hard|easy:SEED:CONDITION")
    args = parser.parse_args()
    torch.set_num_threads(2)
    asked = [each for name in args.sets for each in answered(args.scratch, name)]
    results: dict[str, Any] = {"frames": len(asked), "sets": args.sets}
    for rerank in (True, False):
        alone = round(
            100 * float(np.mean([each.is_right(each.first(None, rerank=rerank)) for each in asked])), 1
        )
        figures: dict[str, Any] = {"without": alone}
        print(f"{'re-ranked' if rerank else 'global descriptor'}: {alone} without a prior", flush=True)
        for share in SHARES:
            for sigma_m in SIGMAS_M:
                by_off = {f"{off:g}": recall(asked, sigma_m, off, share, rerank=rerank) for off in OFF}
                figures.setdefault(f"share {share:g}", {})[f"{sigma_m:g} m"] = by_off
                print(f"  share {share:<5g} sigma {sigma_m:>4g} m: {by_off}", flush=True)
        results["reranked" if rerank else "global"] = figures
    write_results(args.out, results | {"machine": describe_machine(), "command": command_line()})


if __name__ == "__main__":
    main()
