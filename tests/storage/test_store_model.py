"""The store against a dictionary: random operations, reopened at random, every row compared."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.errors import InvalidBatch
from storage.store import Store
from tests.support.store_samples import (
    contents,
    descriptor_of,
    features_of,
    make_card,
    make_old_store,
    make_rows,
)

KEYS = [f"key{i:02d}" for i in range(40)]
SEEDS = range(10, 20)
# Of the slow test, over all seeds.
OPERATION_COUNT = int(os.environ.get("PLACERAY_STORE_MODEL_OPERATIONS", "20000"))


@dataclass
class Model:
    """What the store must hold, by key; `described` is the generation of the descriptor."""

    generation: dict[str, int] = field(default_factory=dict)
    described: dict[str, int] = field(default_factory=dict)
    lat: dict[str, float] = field(default_factory=dict)
    source: dict[str, str | None] = field(default_factory=dict)
    tags: dict[str, str | None] = field(default_factory=dict)

    def forget(self, key: str) -> None:
        for values in (self.generation, self.described, self.lat, self.source, self.tags):
            values.pop(key, None)  # type: ignore[attr-defined]


def commit(store: Store, model: Model, rng: random.Random, step: int) -> None:
    keys = rng.sample(KEYS, rng.randint(1, 8))
    rows = make_rows(store, keys, step)
    given: dict[str, list[str | None]] = {}
    if store.card.format_version >= 3:
        options = {"source": [None, "/photos/a", "/photos/b"], "tags": [None, "[]", '["a", "b"]']}
        for name in rng.sample(sorted(options), rng.randint(0, 2)):
            given[name] = [rng.choice(options[name]) for _ in keys]
            rows = rows.append_column(name, pa.array(given[name], pa.string()))
    with store.lease():
        store.commit(rows)
    for at, key in enumerate(keys):
        model.forget(key)
        model.generation[key] = model.described[key] = step
        model.source[key] = given["source"][at] if "source" in given else None
        model.tags[key] = given["tags"][at] if "tags" in given else None


def upgrade(store: Store, model: Model, rng: random.Random, step: int) -> None:
    before = store.card
    with store.lease():
        assert store.upgrade() == (before.format_version < 3)
    assert store.card == before.upgraded()


def relearn(store: Store, model: Model, rng: random.Random, step: int) -> None:
    """Replace all descriptors; now and then the first attempt ends early, and something comes in between."""
    words = f"lesson {step}".encode()
    digest = hashlib.sha256(words).hexdigest()
    card = store.card.stored_as("float16", aggregation_sha256=digest, descriptor_dim=rng.choice([8, 16, 24]))

    def described(keys: list[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        for at in range(0, len(keys), 7):
            some = keys[at : at + 7]
            yield some, np.stack([descriptor_of(key, step, dim=card.descriptor_dim) for key in some])

    if model.generation and rng.random() < 0.5:
        with store.lease():
            keys = store.rows_to_describe(card)
            some = described(keys[: rng.randrange(len(keys))])
            with pytest.raises(InvalidBatch, match="no new descriptor"):
                store.replace_descriptors(card, some, artifacts=[words])
        rng.choice([commit, amend, delete, search, compact, verify])(store, model, rng, step)
    with store.lease():
        store.replace_descriptors(card, described(store.rows_to_describe(card)), artifacts=[words])
    assert store.card == card
    assert store.artifact(digest) == words
    model.described = dict.fromkeys(model.generation, step)


def amend(store: Store, model: Model, rng: random.Random, step: int) -> None:
    keys = rng.sample(sorted(model.generation), min(len(model.generation), rng.randint(1, 4)))
    if keys:
        lats = [rng.uniform(-90, 90) for _ in keys]
        rows = pa.table({"image_id": keys, "lat": lats})
        if store.card.format_version >= 3 and rng.random() < 0.5:
            rows = rows.append_column("tags", pa.array(['["amended"]'] * len(keys), pa.string()))
            model.tags.update(dict.fromkeys(keys, '["amended"]'))
        with store.lease():
            store.amend(rows)
        model.lat.update(zip(keys, lats, strict=True))


def delete(store: Store, model: Model, rng: random.Random, step: int) -> None:
    keys = rng.sample(KEYS, rng.randint(1, 4))
    with store.lease():
        assert store.delete(keys) == len(set(keys) & set(model.generation))
    for key in keys:
        model.forget(key)


def search(store: Store, model: Model, rng: random.Random, step: int) -> None:
    keys = sorted(model.generation)
    dim = store.card.descriptor_dim
    query = descriptor_of(rng.choice(KEYS), rng.randint(0, max(1, step)), dim=dim)
    method = rng.choice(["exact", "lance"])
    hits = store.search(query[None], k=5, method=method)[0]  # type: ignore[arg-type]
    vectors = [descriptor_of(k, model.described[k], dim=dim).astype(np.float16) for k in keys]
    stored = np.array(vectors, np.float64)
    scores = stored @ query / np.linalg.norm(stored, axis=1) if keys else np.empty(0)
    best = sorted(range(len(keys)), key=lambda i: (-scores[i], keys[i]))[:5]
    assert [c.record.image_id for c in hits] == [keys[i] for i in best]
    assert np.allclose([c.similarity for c in hits], scores[best], atol=1e-5)


def compact(store: Store, model: Model, rng: random.Random, step: int) -> None:
    store.compact(keep_versions_s=rng.choice([0.0, 3600.0]))


def verify(store: Store, model: Model, rng: random.Random, step: int) -> None:
    report = store.verify()
    assert report.ok, report
    assert report.rows == len(model.generation)


def compare(store: Store, model: Model, rng: random.Random, step: int) -> None:
    stored = contents(store)
    assert sorted(stored) == sorted(model.generation)
    for key, values in stored.items():
        generation = model.generation[key]
        assert values[0] == f"file:///photos/{key}.jpg?g={generation}", key
        assert values[-1] == features_of(key, generation).tobytes(), key
        if key in model.lat:
            assert values[4] == model.lat[key], key
    for record in store.get(sorted(model.generation)):
        key = record.image_id
        assert (record.source, record.tags) == (model.source[key], model.tags[key]), key
    for source in ("/photos/a", "/photos/b"):
        assert sorted(store.rows_of_source(source)) == sorted(
            k for k, v in model.source.items() if v == source
        )


OPERATIONS = (
    [commit] * 8 + [amend] * 3 + [delete] * 3 + [search] * 6 + [compact, verify, compare, upgrade, relearn]
)


def run(folder: Path, steps: int, seed: int) -> tuple[list[str], Model]:
    """Do random things to a store and its model, compare both, and return the store's keys and the model."""
    rng, model = random.Random(seed), Model()
    store = Store.create(folder, make_card()) if seed % 2 else make_old_store(folder)
    for step in range(steps):
        if rng.random() < 0.05:
            store = Store.open(folder)
        operation = rng.choice(OPERATIONS)
        try:
            operation(store, model, rng, step)
            assert store.count == len(model.generation)
        except Exception as error:
            raise AssertionError(f"seed {seed}, step {step}, {operation.__name__}: {error}") from error
    store = Store.open(folder)
    compare(store, model, rng, steps)
    return sorted(store.metadata()["image_id"].to_pylist()), model


@pytest.mark.integration
@pytest.mark.parametrize("seed", [1])
def test_store_random_operations_agree_with_a_dictionary(tmp_path: Path, seed: int) -> None:
    keys, model = run(tmp_path, 80, seed)
    assert keys == sorted(model.generation) != []


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_store_many_random_operations_agree_with_a_dictionary(tmp_path: Path, seed: int) -> None:
    keys, model = run(tmp_path, OPERATION_COUNT // len(SEEDS), seed)
    assert keys == sorted(model.generation) != []
