"""Learning a store's aggregation again from its stored features: no photos, no network, no torch.

All descriptors are replaced as one new version; until then the former one answers. An interrupted run is
continued by the next, which learns the same from the same rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.aggregation import Aggregation
from models.aggregation.choice import GEM, LEARNED, with_aggregation
from models.aggregation.describer import open_aggregation
from models.aggregation.rejected import AggregationRejected
from models.aggregation.sample import Sample, sample_size
from models.aggregation.start import MIN_LEARNED, starting_aggregation
from models.aggregation.stored import DecodedRows, decoded, describe_rows
from models.runtime.threads import lone_threads
from storage.errors import CorruptStore, repair_command
from storage.objects.location import open_location
from storage.records import ImageRecord
from storage.store import Store
from storage.table.schema import to_records

__all__ = [
    "AUTOMATIC_BELOW",
    "RelearnReport",
    "aggregation_info",
    "learn_from",
    "relearn_if_due",
    "relearn_store",
    "relearning_advice",
    "sample_first",
]

AUTOMATIC_BELOW = 2000  # photos learned from
GROWN, RISEN = 10, 0.1
LARGE = 4  # samples
_CHUNK, _SHARE = 512, 64  # photos read at once, and described by one thread
_CHECKED = 256
_SLOW = 500  # photos, some seconds


@dataclass(frozen=True)
class RelearnReport:
    """Result of learning again.

    Attributes:
        photos: Number of photos learned from.
        rows: Number of descriptors in the store, all by the new aggregation.
        replaced: Number of them that this run computed; the others were kept of an interrupted one.
        left_out: Share of the variance of the photos learned from that descriptors leave out.
        store_version: The new version.
        aggregation_sha256: The digest of the new aggregation.
    """

    photos: int
    rows: int
    replaced: int
    left_out: float
    store_version: int
    aggregation_sha256: str


def learn_from(store: Store) -> Aggregation:
    """Learn from the sample of all stored photos; damaged ones are left out.

    Returns:
        The aggregation; the starting one if there are too few photos.
    """
    sample = Sample(sample_size(store.codec.row_bytes))
    rows = store.metadata()
    sample.add(rows["image_id"].to_pylist())
    records = store.get(list(sample.image_ids))
    features, ok = store.fetch_encoded(records)
    if int(ok.sum()) < MIN_LEARNED:
        return starting_aggregation(store.codec.channels)
    learned = Aggregation.fit(DecodedRows(store.codec, features[ok]))
    return dataclasses.replace(learned, city_photos=store.count)


def relearn_store(store: Store, aggregation: Aggregation | None = None) -> RelearnReport:
    """Replace the descriptors of a store by those of an aggregation; needs the lease.

    Args:
        store: The store.
        aggregation: Default: learned from the store.

    Raises:
        CorruptStore: the local features of a photo cannot be read.
        AggregationRejected: the aggregation is of features of another width.
    """
    aggregation = aggregation or learn_from(store)
    if aggregation.words.shape[1] != store.codec.channels:
        raise AggregationRejected(
            "wrong_width",
            f"the aggregation is for features of {aggregation.words.shape[1]} channels, the store keeps "
            f"{store.codec.channels}: use the file of a store of the same model and encoding",
        )
    card = with_aggregation(store.card, aggregation)
    missing = store.rows_to_describe(card)
    store.replace_descriptors(
        card, _described(store, aggregation, missing), artifacts=[aggregation.to_bytes()]
    )
    return RelearnReport(
        photos=aggregation.photos,
        rows=store.count,
        replaced=len(missing),
        left_out=round(aggregation.left_out, 4),
        store_version=store.version,
        aggregation_sha256=aggregation.sha256,
    )


def _described(
    store: Store, aggregation: Aggregation, image_ids: Sequence[str]
) -> Iterator[tuple[Sequence[str], NDArray[np.float32]]]:
    """Yield ids and descriptors, in the order of the shards."""
    wanted = set(image_ids)
    records = [record for record in to_records(store.metadata()) if record.image_id in wanted]
    records.sort(key=lambda record: (record.shard, record.row))
    describe = functools.partial(describe_rows, aggregation, store.codec)
    with lone_threads("describe") as pool:
        for at in range(0, len(records), _CHUNK):
            chunk = records[at : at + _CHUNK]
            rows = _read(store, chunk)
            parts = pool.map(
                describe, (rows[start : start + _SHARE] for start in range(0, len(rows), _SHARE))
            )
            yield [record.image_id for record in chunk], np.concatenate(list(parts))


def _read(store: Store, records: Sequence[ImageRecord]) -> NDArray[np.uint8]:
    rows, ok = store.fetch_encoded(records)
    if not ok.all():
        lost = records[int(np.flatnonzero(~ok)[0])]
        raise CorruptStore(
            f"the local features of {lost.image_id} cannot be read, so it can get no new descriptor: "
            f"{repair_command(open_location(store.uri))}"
        )
    return np.asarray(rows)


def relearn_if_due(
    store: Store, *, listed: int = 0, say: Callable[[str], None] = lambda text: None
) -> RelearnReport | None:
    """Learn again while that was from fewer than 2,000 photos and the store has doubled; needs the lease.

    Args:
        store: The store.
        listed: Number of photos that the stored ones are a sample of, if there are more.
        say: Shows one line to the user, where this takes more than some seconds.
    """
    aggregation = open_aggregation(store.artifact, store.card)
    if aggregation is None or not _grows_by_itself(store, aggregation):
        return None
    if store.count < max(MIN_LEARNED, 2 * aggregation.photos):
        return None
    if store.count >= _SLOW:
        say(f"learning descriptors from the stored photos, then describing {store.count} anew")
    learned = learn_from(store)
    return relearn_store(store, dataclasses.replace(learned, city_photos=max(store.count, listed)))


def _grows_by_itself(store: Store, aggregation: Aggregation) -> bool:
    enough = min(AUTOMATIC_BELOW, sample_size(store.codec.row_bytes))
    return aggregation.automatic and aggregation.photos < enough


def sample_first(store: Store, work: pa.Table) -> list[pa.Table]:
    """Divide the rows of an index run in two where most of a large city would be described twice.

    After the first part, the sample and a quarter more for photos that cannot be used, the store learns; the
    others then get their final descriptors at once.

    Args:
        store: The store.
        work: Listed rows with rejected and stored_sha256.
    """
    aggregation = open_aggregation(store.artifact, store.card)
    if aggregation is None or aggregation.photos or not aggregation.automatic:
        return [work]
    size = sample_size(store.codec.row_bytes)
    new = pc.and_(pc.is_null(work["stored_sha256"]), pc.is_null(work["rejected"]))
    ids = work.filter(new)["image_id"]
    if len(ids) < LARGE * size:
        return [work]
    sample = Sample(size + size // 4)
    sample.add(ids.to_pylist())
    chosen = pc.is_in(work["image_id"], value_set=pa.array(sample.image_ids, pa.string()))
    return [work.filter(chosen), work.filter(pc.invert(chosen))]


def relearning_advice(store: Store) -> str | None:
    """Return why `placeray relearn` is advisable; None where it is not, or `index` does it by itself.

    The rule: the store holds ten times as many photos as when it learned, or of the newest photos the
    descriptors leave out at least 0.1 more of the variance than of those.
    """
    aggregation = open_aggregation(store.artifact, store.card)
    if aggregation is None or _grows_by_itself(store, aggregation):
        return None
    if store.count >= GROWN * aggregation.city_photos:
        return (
            f"the store has grown to {store.count} photos since its descriptors were learned with "
            f"{aggregation.city_photos}"
        )
    newest = store.newest(_CHECKED)
    features, ok = store.fetch_encoded(to_records(newest))
    left_out = aggregation.left_out_of(decoded(store.codec, features[ok])) if ok.any() else 0.0
    if left_out >= aggregation.left_out + RISEN:
        return (
            f"descriptors leave out {left_out:.0%} of the variance of the newest photos, and "
            f"{aggregation.left_out:.0%} of those learned from"
        )
    return None


def aggregation_info(store: Store) -> dict[str, object]:
    """Return what made a store's descriptors, and how many photos were indexed since, ready for JSON.

    A damaged aggregation is reported under `aggregation_error`.
    """
    try:
        aggregation = open_aggregation(store.artifact, store.card)
    except CorruptStore as error:
        return {"aggregation": LEARNED, "aggregation_error": str(error)}
    if aggregation is None:
        return {"aggregation": GEM}
    return {
        "aggregation": LEARNED,
        "learned_from": aggregation.photos,
        "indexed_since_learned": max(0, store.count - aggregation.city_photos),
        "left_out": round(aggregation.left_out, 4),
    }
