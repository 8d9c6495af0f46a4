"""Asks a store about its own photos: what the answers say about the radius of its places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.aggregation.sample import Sample
from serving.answer import Match, rank
from serving.counting import CandidateMatcher
from serving.places.evidence import Evidence
from serving.places.own_photos import MIN_PHOTOS, OwnPhotos, RadiusLine
from serving.places.position import locate
from serving.places.signs import SIGNS, signs_of
from storage.position import POSITION_COLUMNS, Positions
from storage.records import Candidate, ImageRecord
from storage.store_reader import StoreReader
from storage.table.checksums import intact_rows
from storage.table.schema import descriptor_matrix, to_records

__all__ = ["measure_own_photos", "measure_spacing_m"]

Floats = NDArray[np.float64]

_SPACED = 400  # photos whose distance to the next place is measured
_SAME_PLACE_M = 1.0  # the views of one place, such as both sides of a street, are no distance apart
_RATIO = SIGNS.index("ratio")


@dataclass(frozen=True)
class _Effort:
    """How many photos are asked about, and how many candidates each has.

    Attributes:
        photos: Size of the sample.
        candidates: Per photo.
    """

    photos: int
    candidates: int


_COARSE, _FINE = _Effort(40, 100), _Effort(16, 20)  # maps of up to 400 cells, and larger ones
_COARSE_CELLS = 400


def measure_own_photos(store: StoreReader) -> OwnPhotos | None:
    """Ask a store about a sample of its own photos; None where fewer than two places are known.

    Raises:
        CorruptStore: the table cannot be read.
    """
    rows = store.metadata().select(["image_id", *POSITION_COLUMNS])
    columns = Positions.from_columns({name: rows[name].to_pylist() for name in POSITION_COLUMNS})
    spacing_m = measure_spacing_m(columns)
    if spacing_m is None:
        return None
    effort = _COARSE if store.card.grid_height * store.card.grid_width <= _COARSE_CELLS else _FINE
    placed = rows.filter(pa.array(columns.known))
    errors: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    asked = 0
    for record, hits in _hits_of_sample(store, placed["image_id"].to_pylist(), effort):
        away_m = Positions.of([hit.record.position for hit in hits]).distances_m(record.position)
        others = [hit for hit, metres in zip(hits, away_m, strict=True) if not metres <= spacing_m / 2]
        for own_place, shown in ((True, hits), (False, others)):
            for ranked in _answers(store, record, shown[: effort.candidates]):
                _measure(ranked, record, spacing_m, own_place, errors)
        asked += 1
    return OwnPhotos(spacing_m, store.count, asked, store.card.aggregation_sha256, _lines(errors))


def measure_spacing_m(columns: Positions) -> float | None:
    """Return the median distance from a photo to the next place; None with fewer than two places."""
    columns = columns.take(columns.known)
    if len(columns) < 2:
        return None
    sampled = np.unique(np.linspace(0, len(columns) - 1, min(_SPACED, len(columns))).astype(np.int64))
    nearest = []
    for row in sampled:
        metres = columns.paired_distances_m(columns.take(np.full(len(columns), row)))
        others = metres[metres > _SAME_PLACE_M]
        if len(others):
            nearest.append(float(others.min()))
    return float(np.median(nearest)) if nearest else None


def _measure(
    ranked: Sequence[Match],
    record: ImageRecord,
    spacing_m: float,
    own_place: bool,
    errors: dict[tuple[str, bool], list[tuple[float, float]]],
) -> None:
    """Add lead and error, in spacings, of one answer."""
    evidence = Evidence.of(ranked)
    if evidence is None:
        return
    error_m = locate(evidence, spacing_m).position.distance_m(record.position)
    if error_m is not None:
        lead = float(signs_of(evidence)[_RATIO])
        errors.setdefault((evidence.kind, own_place), []).append((lead, error_m / spacing_m))


def _lines(errors: dict[tuple[str, bool], list[tuple[float, float]]]) -> dict[str, RadiusLine]:
    lines = {}
    for kind in sorted({kind for kind, _ in errors}):
        present, absent = errors.get((kind, True), []), errors.get((kind, False), [])
        if min(len(present), len(absent)) >= MIN_PHOTOS:
            lines[kind] = RadiusLine.through(*zip(*present, strict=True), *zip(*absent, strict=True))
    return lines


def _hits_of_sample(
    store: StoreReader, image_ids: Sequence[str], effort: _Effort
) -> Iterator[tuple[ImageRecord, list[Candidate]]]:
    """Yield stored photos with what is most similar to each, itself among it."""
    sample = Sample(effort.photos)
    sample.add(image_ids)
    asked = intact_rows(store.snapshot.table.find("image_id", list(sample.image_ids)), store.card)
    if not len(asked):
        return
    descriptors = descriptor_matrix(asked).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-12)
    nearest = _nearest(store, descriptors, 3 * effort.candidates)
    wanted = sorted({image_id for ids, _ in nearest for image_id in ids})
    records = {record.image_id: record for record in store.get(wanted)}
    for record, (ids, similarity) in zip(to_records(asked), nearest, strict=True):
        pairs = zip(ids, similarity.tolist(), strict=True)
        yield (
            record,
            [Candidate(records[image_id], value) for image_id, value in pairs if image_id in records],
        )


def _nearest(store: StoreReader, descriptors: NDArray[np.float32], k: int) -> list[tuple[list[str], Floats]]:
    """Return keys and similarities of the nearest rows, best first; the table is read once, in batches."""
    best: list[tuple[NDArray[np.object_], Floats]] = [(np.empty(0, object), np.empty(0))] * len(descriptors)
    for batch in store.snapshot.table.scan(["image_id", "descriptor"]):
        keys = np.array(batch["image_id"].to_pylist(), object)
        similarity = descriptors @ descriptor_matrix(batch).astype(np.float32).T
        for query, row in enumerate(similarity):
            ids, values = (np.concatenate(pair) for pair in zip(best[query], (keys, row), strict=True))
            order = np.argsort(-values, kind="stable")[:k]
            best[query] = ids[order], values[order].astype(np.float64)
    return [(list(ids), values) for ids, values in best]


def _answers(store: StoreReader, record: ImageRecord, hits: list[Candidate]) -> Iterator[tuple[Match, ...]]:
    """Yield the answer by global descriptor, and the one after re-ranking."""
    yield rank(hits, [])
    if not store.card.has_features:
        return
    own, own_ok = store.fetch([record])
    if not hits or not own_ok[0]:
        return
    features = own[0] if store.codec.binary else own[0].astype(np.float32)
    matcher = CandidateMatcher(features, store.card, codec=store.codec, stored=True)
    counts = matcher.match(*store.fetch([hit.record for hit in hits]))
    yield rank(hits, counts, matcher.scores(), matcher.kind)
