"""From the answers to the frames of a drive to a position per frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.answer import Match, PlaceRecord
from serving.places.evidence import Evidence
from serving.tracks.city_map import CityMap
from serving.tracks.defaults import DEFAULT_LAG
from serving.tracks.emission import EMISSIONS, leads_of, rarity_of
from serving.tracks.markov import smoothed
from serving.tracks.model import USUAL, Chances, DriveModel, Seen
from serving.tracks.motion import LEAST_WEIGHT, USUAL_WEIGHT, Motion
from serving.tracks.place_graph import Views
from serving.tracks.repetition import novelties
from serving.tracks.whereabouts import Located, Whereabouts

__all__ = ["MAX_STATES", "track"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

MAX_STATES = 20_000  # views that a drive may pass
_UNKNOWN_SPACING_M = 10.0
_SAMPLE = 2_000


def track(
    frames: Sequence[Sequence[Match] | None],
    city: CityMap,
    motions: Sequence[Motion],
    *,
    lag: int = DEFAULT_LAG,
    chances: Chances = USUAL,
) -> Iterator[Located]:
    """Yield where each frame of a drive was taken.

    Args:
        frames: Ranked matches of each, the best first; None where a frame cannot be used.
        city: The places of the store version that answered.
        motions: To each frame from the one before, as many.
        lag: How many further frames each position knows.
        chances: Probabilities per frame.
    """
    looked = _looked_at(frames, city)
    region, rows = _region(looked, city)
    views = Views(city.graph.views.points[region], city.graph.views.headings_deg[region])
    weights = _weights(looked, rows, len(views), motions)
    seen = [_seen(each, rows, weight) for each, weight in zip(looked, weights, strict=True)]
    spacing_m = _spacing_m(views)
    model = DriveModel(views, seen, motions, spacing_m=spacing_m, chances=chances)
    whereabouts = Whereabouts(views, region, city, spacing_m)
    beliefs = smoothed(model.step, len(seen), start=model.start, lag=lag)
    for belief, each, weight in zip(beliefs, looked, weights, strict=True):
        yield whereabouts.of(belief, _own(each, rows, len(views), 1 - weight))


@dataclass(frozen=True, eq=False)
class _Looked:
    """Views of a store in a frame, with the logarithm of their likelihood; `miss` for all others."""

    views: Rows
    logs: Floats
    miss: float | None
    rarity: float = 1.0


def _looked_at(frames: Sequence[Sequence[Match] | None], city: CityMap) -> list[_Looked]:
    """Look up the candidates of all frames that stand out."""
    nothing = _Looked(np.empty(0, np.int64), np.empty(0), None)
    asked = [match.record.image_id for matches in frames if matches is not None for match in matches]
    rows = city.rows_of(asked)
    evidence = [None if matches is None else Evidence.of(_stored(matches, rows, city)) for matches in frames]
    looked = []
    for each in evidence:
        if each is None:
            looked.append(nothing)
            continue
        emission, leads = EMISSIONS[each.kind], leads_of(each)
        best: dict[int, float] = {}
        for match, lead in zip(each.matches, leads.tolist(), strict=True):
            view = int(city.graph.view_of[rows[match.record.image_id]])
            if view >= 0 and lead > 0:
                best[view] = max(best.get(view, 0.0), lead)
        views = np.array(sorted(best), np.int64)
        rarity = rarity_of(len(views), len(city.graph.views))
        logs = emission.log_likelihoods(np.array([best[view] for view in views.tolist()]), rarity)
        looked.append(_Looked(views, logs, emission.miss, rarity))
    return looked


def _stored(matches: Sequence[Match], rows: Mapping[str, int], city: CityMap) -> list[Match]:
    """Return the matches whose image is stored, where the store says that it is, whatever they say."""
    stored = []
    for match in matches:
        row = rows.get(match.record.image_id)
        if row is not None:
            record = PlaceRecord(match.record.image_id, "", city.position(row))
            stored.append(dataclasses.replace(match, record=record))
    return stored


def _region(looked: Sequence[_Looked], city: CityMap) -> tuple[Rows, Rows]:
    """Return the views that a drive may pass, at most `MAX_STATES`, and the row of each view among them.

    What lies around the candidates of all frames; of more than the bound, what most frames show.
    """
    counts = np.zeros(len(city.graph.views), np.int64)
    for each in looked:
        counts[each.views] += 1
    shown = np.flatnonzero(counts)
    region = city.graph.around(shown) if len(shown) else shown
    if len(region) > MAX_STATES:
        order = np.argsort(-counts[region], kind="stable")[:MAX_STATES]
        region = np.sort(region[order])
    rows = np.full(len(city.graph.views), -1, np.int64)
    rows[region] = np.arange(len(region))
    return region, rows


def _weights(looked: Sequence[_Looked], rows: Rows, views: int, motions: Sequence[Motion]) -> list[float]:
    """Return how much of the logarithms of each frame counts.

    Without a distance, what a frame repeats does not. A video repeats itself on the way too, which its rate
    tells already.
    """
    spoken = [(rows[each.views], each.logs - (each.miss or 0.0)) for each in looked]
    spoken = [(states[states >= 0], logs[states >= 0]) for states, logs in spoken]
    weights: list[float] = []
    for motion, novelty in zip(motions, novelties(spoken, views), strict=False):
        weight = motion.weight if weights else USUAL_WEIGHT
        if motion.distance_m is None and weight >= USUAL_WEIGHT:
            weight = max(LEAST_WEIGHT, weight * novelty)
        weights.append(weight)
    return weights


def _seen(looked: _Looked, rows: Rows, weight: float) -> Seen:
    """Return what a frame says; of what it repeats, nothing."""
    states = rows[looked.views]
    return Seen(
        states[states >= 0],
        weight * looked.logs[states >= 0],
        None if looked.miss is None else weight * looked.miss,
        looked.rarity**weight,
        weight,
    )


def _own(looked: _Looked, rows: Rows, count: int, share: float) -> Floats:
    """Return (S,) the share of a frame's own logarithms that counts within a street alone."""
    own = np.full(count, looked.miss or 0.0)
    states = rows[looked.views]
    own[states[states >= 0]] = looked.logs[states >= 0]
    return np.asarray(share * own)


def _spacing_m(views: Views) -> float:
    """Return the median distance from a place to the next."""
    if len(views) < 2:
        return _UNKNOWN_SPACING_M
    chosen = np.linspace(0, len(views) - 1, min(len(views), _SAMPLE)).astype(np.int64)
    for reach_m in (30.0, 120.0):
        edges = views.edges(reach_m)
        apart = edges.metres > 1.0
        nearest = np.full(len(views), np.inf)
        np.minimum.at(nearest, edges.sources[apart], edges.metres[apart])
        found = nearest[chosen][np.isfinite(nearest[chosen])]
        if len(found) > len(chosen) / 2:
            return float(np.median(found))
    return _UNKNOWN_SPACING_M
