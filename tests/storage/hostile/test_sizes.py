"""Files of a store that are larger than placeray writes them are not read into memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.errors import CorruptStore
from storage.features.projection import read_projection
from storage.features.reader import FeatureReader
from storage.features.shards import shard_path
from storage.store import Store
from tests.support.hostile_stores import IDS, name_card
from tests.support.store_samples import make_card


@pytest.mark.parametrize("name", ["card.json", "COMMITTED", "SHA256SUMS"])
def test_files_of_a_gigabyte_are_not_read(folder: Path, name: str) -> None:
    os.truncate(folder / name, 1 << 30)
    with pytest.raises(CorruptStore, match="larger than"):
        raise CorruptStore(" ".join(verify_store(folder).problems))
    if name != "card.json":
        assert any(entry.endswith(f"-{name}") for entry in repair_store(folder).quarantined)
        assert verify_store(folder).ok


def test_cards_and_artifacts_of_a_gigabyte_are_not_read(folder: Path) -> None:
    card = make_card().stored_as("float16", aggregation_sha256="0" * 64)
    digest = name_card(folder, card.to_json().encode())
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / ("0" * 64)).touch()
    os.truncate(folder / "artifacts" / ("0" * 64), 1 << 30)
    with pytest.raises(CorruptStore, match="larger than"):
        Store.open(folder).artifact("0" * 64)
    assert "larger than" in " ".join(verify_store(folder).damaged_artifacts)
    os.truncate(folder / "cards" / f"{digest}.json", 1 << 30)
    with pytest.raises(CorruptStore, match="larger than"):
        Store.open(folder)


def test_a_projection_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    (tmp_path / f"projection-{'0' * 16}.f32").touch()
    os.truncate(tmp_path / f"projection-{'0' * 16}.f32", 1 << 30)
    with pytest.raises(CorruptStore, match="larger than"):
        read_projection(tmp_path, "0" * 64, shape=(4, 2))


@pytest.mark.slow
def test_a_footer_that_claims_gigabytes_is_not_read(folder: Path) -> None:
    [record] = Store.open(folder).get([IDS[0]])
    path = shard_path(folder, record.shard)
    with open(path, "r+b") as file:
        file.truncate(3 << 30)
        file.seek(-8, os.SEEK_END)
        file.write((2 << 30).to_bytes(4, "little") + b"PAR1")
    _, ok = FeatureReader(folder, make_card()).fetch([record])
    assert not ok[0]
