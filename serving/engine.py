"""Answers queries from a store in this process, without Ray and HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.aggregation.describer import Describer
from models.extractor import Extractor
from models.images import ImageRejected
from models.images.photo import Photo, load_pixels
from models.photo_limits import MAX_MEGAPIXELS, pixels_of
from models.runtime.execution import AS_USUAL, Execution
from models.store_fit import fitting_extractor
from serving.answer import PlaceRecord, QueryResult
from serving.counting import CandidateMatcher
from serving.decoding import DecodedPhoto, decoded_batches
from serving.defaults import TOP_K
from serving.lines import MatchedLines, line_points
from serving.matching_options import ALL_EXACTLY, Matching, default_candidates
from serving.places.conditions import ScoreConditions
from serving.places.places import Asked, Places
from serving.places.rerank_rule import RerankRule
from serving.priors.errors import require_tags
from serving.priors.soft_prior import SoftPrior
from serving.query import Query, QueryOptions, Rerank
from serving.reranking import match_in_turn
from storage.records import Candidate, ImageRecord
from storage.search.methods import SearchMethod
from storage.search.row_filter import RowFilter
from storage.search.snapshot import Snapshot
from storage.store import Store

__all__ = ["QueryEngine"]


class QueryEngine:
    """Answers queries from one store with the model that made it.

    Args:
        store: An open store; `store.refresh()` between queries makes newer commits visible.
        extractor: The model; its card must equal the store's.
        method: How nearest descriptors are searched, see `storage.search.methods`; default: by codes where
            the store has them, else exactly.
        matching: How the candidates are matched, see `serving.matching_options`.
        max_megapixels: Largest photo.

    Raises:
        CardMismatch: the store was made by another model.
    """

    def __init__(
        self,
        store: Store,
        extractor: Extractor,
        *,
        method: SearchMethod | None = None,
        matching: Matching = ALL_EXACTLY,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        store.card.require_model(extractor.card)
        self.store = store
        self.extractor = extractor
        self._describer = Describer(store.artifact, store.codec)
        self._places = Places(store)
        self.method: SearchMethod = method or ("exact" if store.card.code_bits is None else "codes")
        self.matching = matching
        self.max_pixels = pixels_of(max_megapixels)

    @classmethod
    def open(
        cls,
        store_uri: str | os.PathLike[str],
        *,
        model: str | None = None,
        method: SearchMethod | None = None,
        matching: Matching = ALL_EXACTLY,
        execution: Execution = AS_USUAL,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> QueryEngine:
        """Open a store and load the model that made it, at the store's input size.

        Args:
            store_uri: The folder of the store.
            model: Name or weights file; by default the name on the store's card.
            method: See `QueryEngine`.
            matching: See `QueryEngine`.
            execution: How to run the model.
            max_megapixels: See `QueryEngine`.

        Raises:
            StoreError: the store cannot be opened, or was made by another model.
            UnknownModel, WeightsRejected, WeightsUnavailable: the model cannot be loaded.
        """
        store = Store.open(store_uri)
        extractor = fitting_extractor(store_uri, store.card, model, execution)
        return cls(store, extractor, method=method, matching=matching, max_megapixels=max_megapixels)

    def answer(
        self,
        photo: Photo,
        *,
        top_k: int = TOP_K,
        candidates: int | None = None,
        rerank: Rerank = True,
        min_candidates: int | None = None,
        max_wrong: float | None = None,
        within: RowFilter | None = None,
        prior: SoftPrior | None = None,
    ) -> QueryResult:
        """Rank the places where a photo may have been taken.

        Args:
            photo: The bytes or the path of a JPEG, PNG or WebP, a PIL image, or upright (H, W, 3) uint8 RGB.
            top_k: Number of places to return.
            candidates: Number of global-descriptor hits that are re-ranked by mutual nearest neighbours of
                their local features (SelaVPR, section 3.3). Default: 50 where the store has learned its
                descriptors, else 100.
            rerank: False keeps the order of the global descriptors; `auto` follows the calibration.
            min_candidates: Candidates matched before an early stop, never below 20; by default `top_k`.
            max_wrong: Share of wrong answers among those called known; by default that of the calibration.
            within: Which stored images may be found, see `storage.search.filters`; default: all.
            prior: Where the photo was probably taken; what lies near ranks better.

        Returns:
            At most `top_k` matches, best first. Without re-ranking their order is by similarity; with it by
            mutual matches, ties by similarity. Candidates that were left out follow those matched.

        Raises:
            ImageRejected: the photo cannot be used; it carries the reason.
            ModelFault: the model's output is not finite.
            CannotCompile: compiling was requested and is not possible here.
            NotCalibrated, LevelNotPromised: the store cannot keep `max_wrong`.
            TagsNotKept: the filter asks for tags, which a store of an older format does not have.
            ValueError: `top_k` or `candidates` below 1.
            StoreError: the store cannot be read.
        """
        options = self._options(top_k, candidates, rerank, min_candidates, max_wrong)
        query = self._query(dataclasses.replace(options, within=within, prior=prior))
        with query.timed("decode"):
            pixels = load_pixels(photo, max_pixels=self.max_pixels)
        with query.timed("extract"):
            descriptors, features, codes = self.extractor.extraction([pixels])
            snapshot = (
                self.store.snapshot
            )  # one version for the whole answer, whatever is committed meanwhile
            descriptors = self._describer.describe(snapshot.card, descriptors, features)
        with query.timed("search"):
            (hits,), left = self._search(snapshot, query, descriptors, codes)
        self._match(query, features[0], self._searched(query, hits, snapshot, left))
        return query.result()

    def answer_many(
        self,
        photos: Iterable[Photo],
        *,
        top_k: int = TOP_K,
        candidates: int | None = None,
        rerank: Rerank = True,
        min_candidates: int | None = None,
        max_wrong: float | None = None,
        within: RowFilter | None = None,
        prior: SoftPrior | None = None,
        batch_size: int = 8,
    ) -> Generator[QueryResult | ImageRejected]:
        """Answer many photos in batches, faster than one by one; decoding runs ahead in threads.

        The answers are those of `answer`. Where the model's arithmetic depends on the size of a batch, as on
        accelerators, descriptors and features may differ in their last bits, and what follows from them.

        Batches save extraction time and overhead; matching takes as long as in `answer`. Processor time per
        photo with the default model, 100 candidates and two cores: 34 ms instead of 50 (medians of four
        interleaved runs), of which extraction takes 15 and matching 15. Batches of 16 are not faster.

        Args:
            photos: Read at most two batches ahead.
            top_k: See `answer`.
            candidates: See `answer`.
            rerank: See `answer`.
            min_candidates: See `answer`.
            max_wrong: See `answer`.
            within: See `answer`; of all photos.
            prior: See `answer`; of all photos.
            batch_size: Photos per batch; the pixels of two batches and the features of one are held. The
                network takes up to 8 photos at once on a CPU, 64 on an accelerator.

        Returns:
            One item per photo, in order: its answer, or the error of a photo that cannot be used. Decoding,
            fetching and matching are timed per photo; extraction and search are the batch's time divided by
            its photos, and `total` is the sum.

        Raises:
            TypeError: one of the photos is of another type than `answer` takes.
            ModelFault, CannotCompile, ValueError, StoreError: as `answer`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: give 1 or more")
        options = self._options(top_k, candidates, rerank, min_candidates, max_wrong)
        options = dataclasses.replace(options, within=within, prior=prior)
        return self._answer_batches(
            decoded_batches(photos, batch_size=batch_size, max_pixels=self.max_pixels), options
        )

    def _answer_batches(
        self, batches: Generator[list[DecodedPhoto]], options: QueryOptions
    ) -> Generator[QueryResult | ImageRejected]:
        with contextlib.closing(batches):  # ends the threads if the caller stops early
            for batch in batches:
                yield from self._answer_batch(batch, options)

    def _answer_batch(
        self, batch: Sequence[DecodedPhoto], options: QueryOptions
    ) -> Iterator[QueryResult | ImageRejected]:
        usable = [photo.pixels for photo in batch if not isinstance(photo.pixels, ImageRejected)]
        if not usable:
            yield from (photo.pixels for photo in batch if isinstance(photo.pixels, ImageRejected))
            return
        started = time.perf_counter()
        descriptors, features, codes = self.extractor.extraction(usable)
        snapshot = self.store.snapshot
        descriptors = self._describer.describe(snapshot.card, descriptors, features)
        extracted = time.perf_counter()
        hits, left = self._search(snapshot, self._query(options), descriptors, codes)
        searched = time.perf_counter()
        shares_ms = {
            "extract": (extracted - started) * 1e3 / len(usable),
            "search": (searched - extracted) * 1e3 / len(usable),
        }
        outputs = zip(hits, features, strict=True)
        for photo in batch:
            if isinstance(photo.pixels, ImageRejected):
                yield photo.pixels
                continue
            query = self._query(options)
            query.timings_ms |= {"decode": photo.decode_ms, **shares_ms}
            photo_hits, photo_features = next(outputs)
            self._match(query, photo_features, self._searched(query, photo_hits, snapshot, left))
            yield query.result(total_ms=sum(query.timings_ms.values()))

    def _options(
        self,
        top_k: int,
        candidates: int | None,
        rerank: Rerank,
        min_candidates: int | None,
        max_wrong: float | None,
    ) -> QueryOptions:
        return QueryOptions(
            top_k=top_k,
            candidates=default_candidates(self.store.card) if candidates is None else candidates,
            rerank=rerank,
            min_candidates=min_candidates,
            max_wrong=max_wrong,
        )

    def _query(self, options: QueryOptions) -> Query:
        if not self.store.card.has_features:  # nothing to re-rank by
            options = dataclasses.replace(options, rerank=False)
        return Query(
            options,
            model=self.store.card.model,
            partial=self.matching.partial,
            places=self._places,
            matching=self.matching,
        )

    def _search(
        self,
        snapshot: Snapshot,
        query: Query,
        descriptors: NDArray[np.float32],
        codes: NDArray[np.uint8] | None,
    ) -> tuple[list[list[Candidate]], int | None]:
        """Return the hits of each descriptor, and how many rows the filter left; None without one."""
        within = query.within
        require_tags(snapshot.card, within)
        hits = snapshot.search(descriptors, k=query.k, method=self.method, codes=codes, within=within)
        return hits, None if within is None else snapshot.considered(within, self.method)

    def _searched(
        self, query: Query, hits: list[Candidate], snapshot: Snapshot, left: int | None
    ) -> list[ImageRecord]:
        return query.searched(
            hits,
            version=snapshot.version,
            degraded=snapshot.degraded,
            card=snapshot.card,
            rows=snapshot.count,
            precision=self.extractor.precision,
            considered=left,
            search_method=self.method,
        )

    def _match(self, query: Query, features: NDArray[np.float32], records: Sequence[ImageRecord]) -> None:
        """Fetch and match a query's candidates, if there are any."""
        matcher = CandidateMatcher(features, self.store.card, codec=self.store.codec, matching=self.matching)

        def match(block: Sequence[ImageRecord]) -> list[int | None]:
            with query.timed("fetch"):
                stored, ok = self.store.fetch(block)
            with query.timed("rerank"):
                return matcher.match(stored, ok)

        if records:
            counts = match_in_turn(records, match, self.matching, min_candidates=query.min_candidates)
            with query.timed("rerank"):
                scores = matcher.scores()
            query.counted(counts, scores, matcher.kind)

    def rerank_rule(self, *, candidates: int | None = None) -> RerankRule | None:
        """Return what the store's calibration found out about re-ranking; None without a valid one.

        Args:
            candidates: See `answer`.
        """
        snapshot = self.store.snapshot
        conditions = ScoreConditions.of(
            snapshot.card,
            self.matching,
            candidates=default_candidates(snapshot.card) if candidates is None else candidates,
            rerank=True,
            precision=self.extractor.precision,
        )
        return self._places.rerank_rule(Asked(conditions=conditions, rows=snapshot.count))

    def matched_points(
        self, photo: Photo, record: ImageRecord | PlaceRecord
    ) -> tuple[NDArray[np.float32], ...]:
        """Locate the mutual nearest neighbours of a photo and a stored image.

        Returns:
            `points`, `stored_points` and `similarity` of `matched_lines`, whose arguments and errors these
            are.
        """
        return self.matched_lines(photo, record)[:3]

    def stored_record(self, record: ImageRecord | PlaceRecord) -> ImageRecord:
        """Return the store's record of a match; one of an answer rebuilt from JSON is looked up by its id.

        Raises:
            KeyError: the store holds no image of this id.
        """
        if isinstance(record, ImageRecord):
            return record
        stored_records = self.store.get([record.image_id])
        if not stored_records:
            raise KeyError(f"{self.store.uri} holds no image {record.image_id!r}: open the store it is from")
        return stored_records[0]

    def matched_lines(self, photo: Photo, record: ImageRecord | PlaceRecord) -> MatchedLines:
        """Locate the mutual nearest neighbours of a photo and a stored image, for lines between them.

        Args:
            photo: As of `answer`.
            record: The stored image of a match; one of an answer rebuilt from JSON is looked up by its id.

        Returns:
            The lines, in no particular order; none where the stored features cannot be read.

        Raises:
            ImageRejected: the photo cannot be used.
            KeyError: the store holds no image of this id.
        """
        _, features = self.extractor.extract([load_pixels(photo, max_pixels=self.max_pixels)])
        stored, ok = self.store.fetch([self.stored_record(record)])
        candidate = stored[0] if ok[0] else None
        card = self.store.card
        kind = self.matching.score_of(card)
        return line_points(features[0], candidate, card, codec=self.store.codec, kind=kind)
