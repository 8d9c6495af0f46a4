"""The arithmetic of a plan."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.plan.errors import NoGpuFigure
from pipelines.plan.estimate import (
    LEASE_SECONDS,
    RAY_CORE_S,
    READS_PER_COMMIT,
    WRITES_PER_COMMIT,
    Prices,
    Workload,
    estimate,
)
from pipelines.plan.figures import Figures

FIGURES = Figures(
    images=200,
    photos="drawn",
    cpu="a processor",
    decode_s=0.003,
    extract_s=0.014,
    write_s=0.001,
    commit_s=0.05,
    photo_bytes=100_000.0,
    feature_bytes=40_000.0,
    row_bytes=1_500.0,
)
MILLION = 1_000_000


def test_cores_share_the_work_of_every_image() -> None:
    made = estimate(Workload(MILLION, cores=10), FIGURES, Prices())
    core_s = 0.003 + 0.014 + 0.001 + RAY_CORE_S
    assert made.limit == "cores"
    assert made.images_per_s == pytest.approx(10 / core_s)
    assert made.core_hours == pytest.approx(MILLION * core_s / 3600)
    assert made.hours == pytest.approx(made.core_hours / 10)
    assert (made.features_gb, made.rows_gb) == pytest.approx((40.0, 1.5))
    assert made.store_gb == pytest.approx(41.5)
    assert made.photos_gb == pytest.approx(100.0)
    assert (made.writes, made.reads, made.cost) == (0, 0, {})
    twice = estimate(Workload(MILLION, cores=20), FIGURES, Prices())
    assert twice.hours == pytest.approx(made.hours / 2)
    assert twice.core_hours == pytest.approx(made.core_hours)


def test_gpus_take_the_model_from_the_cores_and_say_how_many_keep_them_busy() -> None:
    few = estimate(Workload(MILLION, cores=4, gpus=8, gpu_images_per_s=1000), FIGURES, Prices())
    around_s = 0.003 + 0.001 + RAY_CORE_S
    assert few.limit == "cores"
    assert few.images_per_s == pytest.approx(4 / around_s)
    assert few.cores_for_gpus == pytest.approx(8000 * around_s)
    enough = estimate(Workload(MILLION, cores=64, gpus=8, gpu_images_per_s=1000), FIGURES, Prices())
    assert (enough.limit, enough.images_per_s) == ("gpus", 8000)
    assert enough.gpu_hours == pytest.approx(8 * MILLION / 8000 / 3600)
    measured = dataclasses.replace(FIGURES, on_gpu="a GPU", extract_s=0.001)
    assert estimate(Workload(MILLION, 64, gpus=8), measured, Prices()).images_per_s == pytest.approx(8000)


def test_a_gpu_that_nobody_measured_is_refused() -> None:
    with pytest.raises(NoGpuFigure, match="--gpu-images-per-s") as refused:
        estimate(Workload(MILLION, cores=4, gpus=1), FIGURES, Prices())
    assert (refused.value.reason, refused.value.exit_code) == ("no_gpu_figure", 2)


def test_the_driver_commits_at_most_so_fast() -> None:
    made = estimate(Workload(MILLION, cores=100_000), FIGURES, Prices())
    assert made.limit == "commits"
    assert made.images_per_s == pytest.approx(1024 / 0.05)


def test_requests_count_shards_commits_lease_and_photos() -> None:
    plain = Workload(MILLION, cores=10)
    made = estimate(dataclasses.replace(plain, bucket=True), FIGURES, Prices())
    shards = 977  # of 1,024 images, since 64 MiB hold more
    assert made.commits == 977
    lease = made.hours * 3600 / LEASE_SECONDS
    assert made.writes == pytest.approx(shards + 977 * WRITES_PER_COMMIT + lease, abs=1)
    assert made.reads == 977 * READS_PER_COMMIT
    photos = estimate(dataclasses.replace(plain, photos_in_bucket=True), FIGURES, Prices())
    assert (photos.writes, photos.reads) == (1000, MILLION)
    slow = estimate(Workload(1000, cores=0.1), FIGURES, Prices())
    assert slow.commits == 7  # one every half minute


def test_prices_are_multiplied_and_absent_ones_leave_no_amount() -> None:
    work = Workload(MILLION, cores=10, gpus=2, gpu_images_per_s=100, bucket=True)
    prices = Prices(core_hour=0.04, gpu_hour=3.0, gb_month=0.02, thousand_writes=0.005, thousand_reads=0.0004)
    made = estimate(work, FIGURES, prices)
    assert made.cost["compute"] == pytest.approx(made.core_hours * 0.04 + made.gpu_hours * 3)
    assert made.cost["storage_per_month"] == pytest.approx(41.5 * 0.02)
    assert made.cost["requests"] == pytest.approx((made.writes * 0.005 + made.reads * 0.0004) / 1000)
    assert list(estimate(work, FIGURES, Prices(gb_month=0)).cost) == ["storage_per_month"]


def test_a_plan_says_what_it_assumed() -> None:
    work = Workload(MILLION, cores=10, gpus=1, gpu_images_per_s=500, bucket=True)
    text = "\n".join(estimate(work, FIGURES, Prices()).assumed)
    for part in ("200 images", "a processor", "3.00 decoding", "500.0 images per second, as given", "lease"):
        assert part in text
    assert "the model" not in text  # a GPU runs it
    assert "14.00 the model" in "\n".join(estimate(Workload(1, 1), FIGURES, Prices()).assumed)
