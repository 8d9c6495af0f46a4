"""`placeray plan` with a real trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.plan.job import plan_index
from storage.errors import CardMismatch
from storage.store import Store
from tests.support.city_store import CityStore

TRIAL = 12


@pytest.fixture(scope="module")
def photos(city_store: CityStore) -> Path:
    return city_store.database[0].parent


@pytest.mark.integration
def test_plan_measures_photos_of_its_own_and_leaves_nothing(
    city_store: CityStore,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    command = [
        "plan",
        "--images",
        "1,000,000",
        "--photos",
        str(photos),
        "--trial",
        str(TRIAL),
        "--cores",
        "16",
    ]
    prices = ["--cores", "16", "--price-core-hour", "0.05", "--price-gb-month", "0.02"]
    assert main([*command, *prices, "--json", "--quiet"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    figures, made = plan["figures"], plan["estimate"]
    assert figures["images"] == TRIAL
    assert min(figures[stage] for stage in ("decode_s", "extract_s", "write_s", "commit_s")) > 0
    mean = sum(path.stat().st_size for path in photos.glob("*.jpg")) / len(list(photos.glob("*.jpg")))
    assert figures["photo_bytes"] == pytest.approx(mean, rel=0.5)
    # What the real store of these photos takes for each.
    folder = Path(city_store.uri)
    stored = sum(path.stat().st_size for path in (folder / "features").iterdir())
    assert figures["feature_bytes"] == pytest.approx(stored / Store.open(folder).count, rel=0.1)
    assert made["store_gb"] == pytest.approx(
        (figures["feature_bytes"] + figures["row_bytes"]) / 1e3, rel=1e-6
    )
    assert made["core_hours"] == pytest.approx(16 * made["hours"])
    assert set(made["cost"]) == {"compute", "storage_per_month"}


def test_plan_that_fits_no_store_or_has_no_photo_is_refused(city_store: CityStore, tmp_path: Path) -> None:
    with pytest.raises(CardMismatch):
        plan_index(1000, store_uri=city_store.uri, features="int8", quiet=True)
    (tmp_path / "empty").mkdir()
    assert main(["plan", "--images", "10", "--photos", str(tmp_path / "empty"), "--quiet"]) == 2
    assert main(["plan", "--images", "10", "--photos", str(tmp_path / "missing"), "--quiet"]) == 2


@pytest.mark.parametrize("images", ["0", "-3", "many", "1e9", "9" * 30])
def test_numbers_of_images_that_cannot_be_meant_are_refused(images: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--images", images])
    assert ended.value.code == 2


def test_a_gpu_is_refused_before_the_trial_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert main(["plan", "--images", "1000", "--gpus", "1", "--quiet"]) == 2
    assert "--gpu-images-per-s" in capsys.readouterr().err
