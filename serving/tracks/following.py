"""Follows drives for the service: nothing is kept between requests but the map of the newest version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from serving.answer import Match, QueryResult
from serving.errors import Refusal, refusal_of
from serving.tracks.answers import located_dict, summary_of
from serving.tracks.city_map import CityMaps
from serving.tracks.errors import AnotherAggregation, VersionGone
from serving.tracks.motion import Motion
from serving.tracks.tracker import track
from storage.errors import PlacerayError
from storage.store import Store

__all__ = ["Following", "StoreThreads"]

_MAX_WAITING = 8  # requests that wait for the one that is followed
_AT_ONCE = 4  # photos of one request that are answered
_MAX_VERSIONS = 32  # that the answers of one request may be of
_ITS_OWN = {400, 404, 413, 415, 422}  # statuses by which one photo is refused and not the request

Result = TypeVar("Result")


class StoreThreads(Protocol):
    """Runs work on the store in threads."""

    async def with_store(self, work: Callable[[Store], Result]) -> Result:
        """Return what the work returns, see `Gallery.with_store`."""


class Following:
    """Follows drives, one at a time.

    Args:
        threads: Run the work.
    """

    def __init__(self, threads: StoreThreads) -> None:
        self._threads = threads
        self._maps = CityMaps()
        self._one = asyncio.Semaphore(1)
        self._waiting = 0

    async def follow(
        self,
        frames: Sequence[Sequence[Match] | None],
        versions: Sequence[int],
        motions: Sequence[Motion],
        *,
        lag: int,
    ) -> dict[str, Any]:
        """Return `store_version`, `lag`, `summary` and `frames`, ready for JSON.

        Args:
            frames: Ranked matches of each frame.
            versions: Of the store, that answered.
            motions: To each frame.
            lag: How many further frames each position knows.

        Raises:
            Refusal: answers of another aggregation or of a version that is gone, or too many requests.
        """
        if self._waiting >= _MAX_WAITING:
            raise Refusal(503, "overloaded", "Too many drives are being followed; try again later.", 2)
        self._waiting += 1
        try:
            async with self._one:
                return await self._threads.with_store(
                    partial(self._follow, frames=frames, versions=versions, motions=motions, lag=lag)
                )
        except PlacerayError as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            raise refusal from error
        finally:
            self._waiting -= 1

    def _follow(
        self,
        store: Store,
        *,
        frames: Sequence[Sequence[Match] | None],
        versions: Sequence[int],
        motions: Sequence[Motion],
        lag: int,
    ) -> dict[str, Any]:
        if any(version > store.version for version in versions):
            store.refresh()
        snapshot = store.snapshot
        require_aggregation(store, versions)
        located = [located_dict(each) for each in track(frames, self._maps.of(snapshot), motions, lag=lag)]
        return {
            "store_version": snapshot.version,
            "lag": lag,
            "summary": summary_of(located),
            "frames": located,
        }


def require_aggregation(store: Store, versions: Sequence[int]) -> None:
    """Check that answers of some versions were made as the store's are now.

    Raises:
        AnotherAggregation: one was not.
        VersionGone: a version is not kept, or there are too many to look at.
    """
    if len(versions) > _MAX_VERSIONS:
        raise VersionGone(
            f"the answers are of more than {_MAX_VERSIONS} versions: query again with the frames"
        )
    for version in versions:
        card = store.card_at(version)
        if card is None:
            raise VersionGone(f"the store does not keep version {version}: query again with the frames")
        if card.aggregation_sha256 != store.card.aggregation_sha256:
            raise AnotherAggregation(
                f"the answers of version {version} were made by another aggregation than version "
                f"{store.version} has: query again with the frames"
            )


async def answers_of(
    photos: Sequence[bytes], ask: Callable[[bytes], Awaitable[QueryResult]]
) -> list[QueryResult | Refusal]:
    """Answer photos, some at once; a photo that cannot be used does not stop the others.

    Args:
        photos: Encoded.
        ask: Answers one.

    Raises:
        Refusal: the service cannot answer now.
    """
    places = asyncio.Semaphore(_AT_ONCE)

    async def answered(photo: bytes) -> QueryResult | Refusal:
        async with places:
            try:
                return await ask(photo)
            except Refusal as refusal:
                if refusal.status not in _ITS_OWN:
                    raise
                return refusal

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answered(photo)) for photo in photos]
    return [task.result() for task in tasks]
