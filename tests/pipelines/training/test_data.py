"""Data sets of training and their settings: listing, checks before training, reading photos."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import utm

from models.images.decoder import decode_image
from models.images.preprocess import prepare
from pipelines.sources import SourceError
from pipelines.training.data import DataFolders, TrainingSet, open_training_set
from pipelines.training.errors import BadSettings, DataRejected, MiningRejected
from pipelines.training.photos import Photos, rejected_photo
from pipelines.training.plan import Plan, check_data
from pipelines.training.preflight import begin_run, list_rejected, require_space
from pipelines.training.settings import TrainingSettings, settings_of
from pipelines.training.worker import trainable_model
from storage.card import Preprocessing
from storage.errors import OutOfSpace
from tests.support.training_city import SIDE, tiny_settings, write_city, write_tiny_vit

PREPROCESSING = Preprocessing("pil_bilinear", SIDE, SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def city(tmp_path: Path) -> Path:
    return write_city(tmp_path / "city", places=5, val_places=4)


def planned(city: Path, settings: TrainingSettings, *, split: str = "train") -> Plan:
    return check_data(open_training_set(city, split=split), open_training_set(city, split="val"), settings)


def test_rows_do_not_depend_on_folder_or_listing_order(city: Path) -> None:
    one, again = open_training_set(city, split="train"), open_training_set(city, split="train")
    assert (len(one.queries), len(one.database)) == (5, 5)
    assert one.digest == again.digest
    assert list(one.database.uris) == sorted(one.database.uris)
    gone = one.queries.uris[2]
    without = open_training_set(city, split="train", without=frozenset({gone}))
    assert without.queries.uris == one.queries.uris[:2] + one.queries.uris[3:]
    assert without.digest != one.digest
    assert open_training_set(city, split="val").digest != one.digest


def test_photos_outside_the_data_set_are_unusable(city: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.png"
    shutil.copy(open_training_set(city, split="train").queries.uris[0], stranger)
    (city / "images/train/queries/@601000.00@5339000.00@33@U@link@.png").symlink_to(stranger)
    listed = open_training_set(city, split="train")
    assert len(listed.queries) == 5
    assert [reason for _, reason, _ in listed.unusable] == ["link_outside"]
    followed = open_training_set(city, split="train", follow_links=True)
    assert len(followed.queries) == 6
    assert str(stranger) in followed.queries.uris
    assert followed.unusable == ()


def test_a_missing_split_is_reported(city: Path) -> None:
    with pytest.raises(SourceError, match="images/evening/"):
        open_training_set(city, split="evening")


def test_training_and_validating_on_the_same_photos_is_refused(city: Path) -> None:
    with pytest.raises(DataRejected, match="--val") as refused:
        planned(city, TrainingSettings(batch=2), split="val")
    assert refused.value.reason == "no_validation"


def test_fewer_queries_than_a_step_needs_are_refused(city: Path) -> None:
    with pytest.raises(DataRejected, match="smaller --batch") as refused:
        planned(city, TrainingSettings(batch=6))
    assert refused.value.reason == "few_queries"


def test_data_without_positives_is_refused(city: Path) -> None:
    with pytest.raises(MiningRejected) as refused:
        planned(city, TrainingSettings(batch=2, positive_m=1.0))
    assert refused.value.reason == "no_positives"


def test_missing_coordinates_in_one_split_are_refused(city: Path) -> None:
    shutil.copy(open_training_set(city, split="val").queries.uris[0], city / "images/val/queries/holiday.png")
    with pytest.raises(MiningRejected, match=r"holiday\.png") as refused:
        planned(city, TrainingSettings(batch=2))
    assert refused.value.reason == "missing_coordinates"


def test_photos_of_two_zones_are_mined_together(city: Path) -> None:
    # The same places, with the database in the coordinates of the zone to the east.
    for photo in sorted((city / "images/train/database").iterdir()):
        parts = photo.name.split("@")
        lat, lon = utm.to_latlon(float(parts[1]), float(parts[2]), 33, "U")
        east, north, _, _ = utm.from_latlon(lat, lon, force_zone_number=34)
        parts[1:7] = [f"{east:.2f}", f"{north:.2f}", "34", "U", f"{lat:.7f}", f"{lon:.7f}"]
        photo.rename(photo.with_name("@".join(parts)))
    for photo in sorted((city / "images/train/queries").iterdir()):
        photo.rename(photo.with_name(photo.name.replace("@48.2@16.3@", "@@@")))
    neighbours = planned(city, TrainingSettings(batch=2)).neighbours
    assert neighbours.usable.tolist() == list(range(5))
    assert sorted(int(row) for query in range(5) for row in neighbours.positives(query)) == list(range(5))


def test_msls_weights_come_from_notes_in_file_names(city: Path, tmp_path: Path) -> None:
    weighted = TrainingSettings(batch=2, mining="msls_weighted")
    with pytest.raises(DataRejected, match="night or sideways") as refused:
        planned(city, weighted)
    assert refused.value.reason == "no_marks"
    marked = write_city(tmp_path / "marked", places=5, val_places=4)
    first = sorted((marked / "images/train/queries").iterdir())[0]
    first.rename(first.with_name(first.name.replace("@@.png", "@night_sideways@.png")))
    plan = planned(marked, weighted)
    assert plan.weights is not None
    assert plan.weights.tolist() == [11.0, 1.0, 1.0, 1.0, 1.0]


def test_validation_uses_a_sample_of_many_queries(city: Path) -> None:
    few = planned(city, TrainingSettings(batch=2, val_queries=2)).truth
    whole = planned(city, TrainingSettings(batch=2)).truth
    assert len(few.queries) == 2
    assert set(few.queries) < set(whole.queries)
    assert whole.positives == tuple(frozenset({row}) for row in range(4))


def test_photos_are_preprocessed_and_cached_up_to_a_limit(city: Path) -> None:
    uris = open_training_set(city, split="train").database.uris
    one = SIDE * SIDE * 3
    photos = Photos(uris, PREPROCESSING, cache_bytes=2 * one, threads=2)
    wanted = np.stack(
        [prepare(decode_image(Path(uris[i]).read_bytes()).pixels, PREPROCESSING) for i in (3, 0, 3)]
    )
    assert np.array_equal(photos.read([3, 0, 3]), wanted)
    for uri in uris:
        os.unlink(uri)
    assert np.array_equal(photos.read([0, 3]), wanted[[1, 0]])
    with pytest.raises(DataRejected, match="restore it") as lost:
        photos.read([1])
    assert lost.value.reason == "photo_lost"
    photos.close()


def test_an_undecodable_photo_is_reported(city: Path) -> None:
    uri = open_training_set(city, split="train").queries.uris[0]
    assert rejected_photo(uri) is None
    Path(uri).write_bytes(Path(uri).read_bytes()[:200])
    rejected = rejected_photo(uri)
    assert rejected is not None
    assert rejected[0] == uri
    assert rejected[1]


def splits(city: Path) -> tuple[TrainingSet, TrainingSet]:
    return open_training_set(city, split="train"), open_training_set(city, split="val")


def test_rejected_photos_are_listed_and_too_many_are_refused(city: Path, tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    training, validation = splits(city)
    list_rejected(path, [], training, validation, 0.0)
    assert not path.exists()
    rejected = [(training.queries.uris[0], "truncated", "cut, off")]
    list_rejected(path, rejected, training, validation, 0.1)
    assert path.read_text().splitlines() == [
        "image,reason,message",
        f'{training.queries.uris[0]},truncated,"cut, off"',
    ]
    with pytest.raises(DataRejected, match=r"1 photos \(6%\).*--max-rejected"):
        list_rejected(path, rejected, training, validation, 0.05)
    list_rejected(path, [], training, validation, 0.0)  # repaired since
    assert not path.exists()


def test_a_run_folder_of_other_settings_is_refused_and_not_changed(city: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "run", DataFolders(str(city), "train", str(city), "val")
    settings = TrainingSettings(adapter_stages=(5, 6), image_size=(64, 96))
    start = trainable_model(settings)[1]
    begin_run(folder, settings, data, start)
    written = (folder / "settings.json").read_bytes()
    begin_run(folder, dataclasses.replace(settings, threads=3), data, start)
    for changed in ({"batch": 8}, {"adapter_stages": (6,)}, {"image_size": None}, {"mining": "full"}):
        with pytest.raises(BadSettings, match=f"{next(iter(changed))}.*--run"):
            begin_run(folder, dataclasses.replace(settings, **changed), data, start)  # type: ignore[arg-type]
    with pytest.raises(BadSettings, match="val_split"):
        begin_run(folder, settings, dataclasses.replace(data, val_split="test"), start)
    with pytest.raises(BadSettings, match="weights of the model"):
        begin_run(folder, settings, data, dataclasses.replace(start, weights_sha256="0" * 64))
    assert (folder / "settings.json").read_bytes() == written
    for damaged in ("{", "null", "[" * 100_000, '{"settings": {}, "data": []}'):
        (folder / "settings.json").write_text(damaged)
        with pytest.raises(BadSettings, match="cannot be read"):
            begin_run(folder, settings, data, start)
    (folder / "settings.json").write_bytes(written)
    (folder / "log.csv").write_text("kind;step\n")
    with pytest.raises(BadSettings, match=r"log\.csv is not a valid training log"):
        begin_run(folder, settings, data, start)
    with pytest.raises(BadSettings, match="cannot be created"):
        begin_run(folder / "log.csv", settings, data, start)


def test_a_disk_that_is_too_small_is_refused_before_training(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(write_tiny_vit(tmp_path / "vit.safetensors"))
    model, card = trainable_model(settings)
    validation = splits(city)[1]
    require_space(tmp_path, model, card.preprocessing, validation)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000))
    with pytest.raises(OutOfSpace, match="checkpoints need"):
        require_space(tmp_path, model, card.preprocessing, validation)


@pytest.mark.parametrize(
    "values",
    [
        {"batch": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"positives up to 30 m": None, "positive_m": 30.0},
        {"mining": "hardest"},
        {"precision": "fp8"},
        {"batch": 5, "queries_per_round": 4},  # a worker without queries would block the others
        {"batch": 5, "queries_per_epoch": 4},
        {"weight_decay": -1.0},
        {"jitter": 2.0},
    ],
)
def test_invalid_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(BadSettings, match=next(iter(values))):
        settings_of(values)


def test_settings_round_trip_json_and_missing_flags_keep_defaults() -> None:
    settings = settings_of({"batch": 8, "flip": 0.5, "image_size": (28, 42), "dataset": "ignored"})
    assert (settings.batch, settings.augmentation.flip, settings.epochs) == (8, 0.5, 50)
    assert settings.differences(json.loads(json.dumps(settings.to_dict()))) == []


def test_the_learning_rate_follows_the_model(tmp_path: Path) -> None:
    vit = tiny_settings(write_tiny_vit(tmp_path / "vit.safetensors"), learning_rate=None)
    assert vit.with_rate_for(trainable_model(vit)[0]).learning_rate == 1e-5
    default = TrainingSettings()
    assert default.with_rate_for(trainable_model(default)[0]).learning_rate == 1e-4
    settings = TrainingSettings(learning_rate=3e-3)
    assert settings.with_rate_for(trainable_model(settings)[0]).learning_rate == 3e-3


def test_an_invalid_adapter_stage_is_refused() -> None:
    with pytest.raises(BadSettings, match="stages"):
        trainable_model(TrainingSettings(adapter_stages=(9,)))
