"""The store against a dictionary: random operations, reopened at random, every row compared."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.store import Store
from tests.support.store_samples import contents, descriptor_of, features_of, make_card, make_rows

KEYS = [f"key{i:02d}" for i in range(40)]
SEEDS = range(10, 20)
# Of the slow test, over all seeds.
OPERATION_COUNT = int(os.environ.get("PLACERAY_STORE_MODEL_OPERATIONS", "20000"))


@dataclass
class Model:
    """What the store must hold: for each key its generation and amended latitude."""

    generation: dict[str, int] = field(default_factory=dict)
    lat: dict[str, float] = field(default_factory=dict)


def commit(store: Store, model: Model, rng: random.Random, step: int) -> None:
    keys = rng.sample(KEYS, rng.randint(1, 8))
    with store.lease():
        store.commit(make_rows(store, keys, step))
    for key in keys:
        model.generation[key] = step
        model.lat.pop(key, None)


def amend(store: Store, model: Model, rng: random.Random, step: int) -> None:
    keys = rng.sample(sorted(model.generation), min(len(model.generation), rng.randint(1, 4)))
    if keys:
        lats = [rng.uniform(-90, 90) for _ in keys]
        with store.lease():
            store.amend(pa.table({"image_id": keys, "lat": lats}))
        model.lat.update(zip(keys, lats, strict=True))


def delete(store: Store, model: Model, rng: random.Random, step: int) -> None:
    keys = rng.sample(KEYS, rng.randint(1, 4))
    with store.lease():
        assert store.delete(keys) == len(set(keys) & set(model.generation))
    for key in keys:
        model.generation.pop(key, None)
        model.lat.pop(key, None)


def search(store: Store, model: Model, rng: random.Random, step: int) -> None:
    keys = sorted(model.generation)
    query = descriptor_of(rng.choice(KEYS), rng.randint(0, max(1, step)))
    method = rng.choice(["exact", "lance"])
    hits = store.search(query[None], k=5, method=method)[0]  # type: ignore[arg-type]
    stored = np.array([descriptor_of(k, model.generation[k]).astype(np.float16) for k in keys], np.float64)
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


OPERATIONS = [commit] * 8 + [amend] * 3 + [delete] * 3 + [search] * 6 + [compact, verify, compare]


def run(folder: Path, steps: int, seed: int) -> tuple[list[str], Model]:
    """Do random things to a store and its model, compare both, and return the store's keys and the model."""
    rng, model = random.Random(seed), Model()
    store = Store.create(folder, make_card())
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
@pytest.mark.parametrize("seed", [1, 2])
def test_store_random_operations_agree_with_a_dictionary(tmp_path: Path, seed: int) -> None:
    keys, model = run(tmp_path, 120, seed)
    assert keys == sorted(model.generation) != []


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_store_many_random_operations_agree_with_a_dictionary(tmp_path: Path, seed: int) -> None:
    keys, model = run(tmp_path, OPERATION_COUNT // len(SEEDS), seed)
    assert keys == sorted(model.generation) != []
