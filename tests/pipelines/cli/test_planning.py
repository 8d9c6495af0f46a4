"""What `placeray plan` prints: the estimate in words, and nothing that has no figure."""

from __future__ import annotations

import re

import pytest

from pipelines.cli import main
from pipelines.plan import job
from tests.pipelines.plan.test_estimate import FIGURES


@pytest.fixture(autouse=True)
def no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "measure", lambda *args, **options: FIGURES)


def shown(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["plan", "--images", "4,000,000", "--quiet", *flags]) == 0
    return capsys.readouterr().out


def test_a_plan_in_words_has_the_figures_of_the_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    made = job.plan_index(4_000_000, cores=64, figures=FIGURES, quiet=True)["estimate"]
    text = shown(capsys, "--cores", "64")
    first, *lines = text.splitlines()
    assert first.startswith("4,000,000 images on 64 cores: ")
    (time, rate) = re.findall(r": ([\d,.]+) min, ([\d,.]+) images/s$", first)[0]
    assert float(time) == pytest.approx(made["hours"] * 60, abs=0.06)
    assert float(rate.replace(",", "")) == pytest.approx(made["images_per_s"], abs=0.06)
    assert f"limited by {made['limit']}; {made['core_hours']:,.1f} core hours" in text
    assert f"store {made['store_gb']:,.2f} GB" in text
    assert f"{made['commits']:,} commits" in text
    assert f"photos to read {made['photos_gb']:,.2f} GB" in text
    assert lines[lines.index("assumed:") + 1 :] == [f"  {sentence}" for sentence in made["assumed"]]
    for absent in ("GPU", "requests", "price"):
        assert absent not in text[: text.index("assumed:")]


def test_gpus_requests_and_prices_are_shown_where_they_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--cores", "64", "--gpus", "8", "--gpu-images-per-s", "900", "--photos", "s3://photos/2026"]
    prices = ["--price-core-hour", "0.05", "--price-gb-month", "0.02", "--price-thousand-reads", "0.0004"]
    text = shown(capsys, *flags, *prices)
    assert "on 64 cores and 8 GPUs: " in text
    assert re.search(r"limited by \w+; [\d,.]+ core hours, [\d,.]+ GPU hours; [\d,.]+ cores keep", text)
    assert "requests: 4,000 write or list, 4,000,000 read" in text
    assert "price of requests: 1.60" in text
    assert "price of storage per month: 3.32" in text  # 166 GB
    assert re.search(r"price of compute: [\d,]+\.\d\d$", text, re.MULTILINE)
