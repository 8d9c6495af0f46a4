"""Creation of a store with what it learned, finished after a crash even if it was learned anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from storage.artifacts import digests_in
from storage.card import Card
from storage.care.repair import repair_store
from storage.commit.ledger import manifests, read_committed
from storage.errors import CardMismatch, CorruptStore, InvalidBatch, StoreNotFound
from storage.store import Store
from tests.support.store_samples import make_card, make_rows

WORDS = [b"words, learned once", b"words, learned again"]


def card_of(words: bytes, *, model: str = "tiny") -> Card:
    digest = hashlib.sha256(words).hexdigest()
    return make_card(model=model).stored_as("float16", aggregation_sha256=digest, descriptor_dim=16)


def interrupted(folder: Path) -> None:
    """Bring a folder into the state of a creation that was killed before its first acknowledgement."""
    Store.create(folder, card_of(WORDS[0]), artifacts=[WORDS[0]])
    (folder / "COMMITTED").unlink()
    with pytest.raises(StoreNotFound):
        Store.open(folder)


def test_a_new_store_has_the_newest_format_and_its_artifacts(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", card_of(WORDS[0]), artifacts=[WORDS[0]])
    assert store.card == card_of(WORDS[0])
    assert store.artifact(store.card.artifacts[0]) == WORDS[0]
    committed = read_committed(tmp_path / "s")
    assert committed is not None
    assert committed.card_sha256 == store.card.sha256
    assert Store.create(tmp_path / "plain", make_card()).card == make_card().upgraded()
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == [
        *("COMMITTED", "LEASE", "SHA256SUMS", "card.json", "cards", "features", "records.lance"),
    ]


def test_artifacts_that_the_card_names_must_be_given(tmp_path: Path) -> None:
    for artifacts in ((), (WORDS[1],)):
        with pytest.raises(InvalidBatch, match="not given"):
            Store.create(tmp_path, card_of(WORDS[0]), artifacts=artifacts)
    assert not (tmp_path / "card.json").exists()


@pytest.mark.parametrize("words", WORDS)
def test_an_interrupted_creation_is_finished_whatever_was_learned_the_second_time(
    tmp_path: Path, words: bytes
) -> None:
    interrupted(tmp_path)
    store = Store.create(tmp_path, card_of(words), artifacts=[words])
    assert store.card == card_of(words)
    with store.lease():
        store.commit(make_rows(store, ["a", "b"]))
    assert Store.open(tmp_path).count == 2
    assert store.verify().ok
    assert set(store.card.artifacts) <= set(digests_in(tmp_path / "artifacts"))


def test_rows_whose_acknowledgement_is_lost_are_never_removed(tmp_path: Path) -> None:
    store = Store.create(tmp_path, card_of(WORDS[0]), artifacts=[WORDS[0]])
    with store.lease():
        store.commit(make_rows(store, ["a", "b"]))
        store.compact(keep_versions_s=0)
    (tmp_path / "COMMITTED").unlink()
    assert len(manifests(tmp_path)) == 1
    with pytest.raises(CorruptStore, match="--repair"):
        Store.create(tmp_path, card_of(WORDS[1]), artifacts=[WORDS[1]])
    assert (tmp_path / "card.json").read_text() == card_of(WORDS[0]).to_json()
    repair_store(tmp_path)
    assert (Store.open(tmp_path).count, Store.open(tmp_path).card) == (2, card_of(WORDS[0]))


def test_an_interrupted_creation_by_another_model_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(CardMismatch, match="another model"):
        Store.create(tmp_path, card_of(WORDS[1], model="other"), artifacts=[WORDS[1]])
