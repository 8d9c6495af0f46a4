"""Augmentation of triplets: effect, range and determinism."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models.training.augment import Photos, augment
from models.training.options import Augmentation

EVERY = {"jitter": 0.3, "perspective": 0.3, "crop": 0.4, "rotation_deg": 15.0, "flip": 1.0}


def photos(*, dtype: type = np.uint8, seed: int = 0) -> Photos:
    """Four smooth pictures: noise would not show where a pixel went."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:40, 0:48] / 40
    waves = [
        127 + 100 * np.sin(4 * x * rng.uniform(0.5, 2) + 5 * y * rng.uniform(0.5, 2) + c)
        for _ in range(4)
        for c in range(3)
    ]
    return np.stack(waves).reshape(4, 3, 40, 48).transpose(0, 2, 3, 1).astype(dtype).copy()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_option_changes_photos_and_keeps_shape_and_range(name: str, dtype: type) -> None:
    images = photos(dtype=dtype)
    original = images.copy()
    changed = augment(images, Augmentation(**{name: EVERY[name]}), seed=(1, 2, 3))
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert np.array_equal(images, original)
    assert (changed.astype(float) != images).mean() > 0.2
    assert changed.min() >= 0
    assert changed.max() <= 255
    # Still the same pictures: the mean colour stays near.
    assert np.abs(changed.astype(float).mean() - images.mean()) < 60


def test_off_returns_the_input_itself() -> None:
    images = photos()
    assert Augmentation().is_off
    assert augment(images, Augmentation(), seed=(0,)) is images


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_flip_applies_to_the_whole_triplet(dtype: type) -> None:
    images = (photos(dtype=np.float32) * np.float32(0.997)).astype(dtype)  # floats that are not integers
    flipped = [augment(images, Augmentation(flip=0.5), seed=(seed,)) for seed in range(40)]
    whole = [np.array_equal(one, images[:, :, ::-1]) for one in flipped]
    none = [np.array_equal(one, images) for one in flipped]
    assert all(a != b for a, b in zip(whole, none, strict=True))
    assert 8 <= sum(whole) <= 32
    assert not any(np.shares_memory(one, images) for one in flipped)


def test_jitter_moves_nothing() -> None:
    images = np.full((4, 40, 40, 3), (200, 120, 40), np.uint8)
    images[:, :, 20:] = (30, 90, 160)
    for seed in range(10):
        changed = augment(images, Augmentation(jitter=0.5), seed=(seed,))
        for half in (changed[:, :, :20], changed[:, :, 20:]):
            assert (half == half[:, :1, :1]).all(), seed
        assert (changed != images).any(), seed


@pytest.mark.parametrize("name", ["perspective", "crop", "rotation_deg", "flip"])
def test_geometric_options_change_no_colour(name: str) -> None:
    images = np.full((4, 40, 48, 3), (200, 120, 40), np.uint8)
    for seed in range(10):
        changed = augment(images, Augmentation(**{name: EVERY[name]}), seed=(seed,)).astype(int)
        assert np.abs(changed - images).max() <= 1, seed


def test_an_option_draws_the_same_whatever_others_are_on() -> None:
    images = photos()
    alone = augment(images, Augmentation(jitter=0.3), seed=(4,))
    both = augment(images, Augmentation(jitter=0.3, flip=1), seed=(4,))
    assert np.array_equal(both, alone[:, :, ::-1])


def test_strongest_options_give_valid_photos() -> None:
    strongest = Augmentation(jitter=1, perspective=1, crop=0.999, rotation_deg=180, flip=1)
    images = photos(dtype=np.float32)
    for seed in range(20):
        changed = augment(images, strongest, seed=(seed,))
        assert np.isfinite(changed).all(), seed
        assert changed.min() >= 0, seed
        assert changed.max() <= 255, seed


def test_photos_of_a_triplet_are_changed_differently() -> None:
    images = np.repeat(photos()[:1], 4, axis=0)
    for name in ("jitter", "perspective", "crop", "rotation_deg"):
        changed = augment(images, Augmentation(**{name: EVERY[name]}), seed=(5,))
        assert not np.array_equal(changed[0], changed[1]), name


def test_corners_uncovered_by_rotation_have_the_mean_colour() -> None:
    images = photos()
    turned = augment(images, Augmentation(rotation_deg=180), seed=(3,)).astype(float)
    again = augment(images, Augmentation(rotation_deg=180), seed=(11,)).astype(float)
    mean = images.mean(axis=(1, 2))[:, None]
    corners = np.concatenate([one[:, [0, 0, -1, -1], [0, -1, 0, -1]] for one in (turned, again)], axis=1)
    shown = np.abs(corners - mean).max(axis=2) <= 1
    assert shown.any(axis=1).all()


def test_the_seed_decides_and_global_random_states_stay() -> None:
    images, augmentation = photos(), Augmentation(**EVERY)
    torch.manual_seed(3)
    np.random.seed(3)
    state, other = torch.get_rng_state(), np.random.get_state()[1]
    first = augment(images, augmentation, seed=(0, 7, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], other)
    torch.manual_seed(4)
    assert np.array_equal(augment(images, augmentation, seed=(0, 7, 1)), first)
    for another in ((0, 7, 2), (0, 7), (0, 7, 1, 0)):
        assert not np.array_equal(augment(images, augmentation, seed=another), first), another


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_more_torch_threads_give_the_same_bytes(dtype: type) -> None:
    # Large enough that torch shares sums between threads.
    images = np.random.default_rng(0).uniform(0, 255, (3, 224, 224, 3)).astype(dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(augment(images, Augmentation(**EVERY), seed=(1,)))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(one, results[0]) for one in results)


def test_concurrent_threads_do_not_change_the_draws() -> None:
    images, augmentation = photos(), Augmentation(**EVERY)
    alone = [augment(images, augmentation, seed=(seed,)) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: augment(images, augmentation, seed=(seed,)), range(12)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.long
def test_another_process_draws_the_same() -> None:
    code = (
        "import hashlib; from models.training.augment import augment; "
        "from models.training.options import Augmentation; "
        "from tests.models.training.test_augment import EVERY, photos; "
        "print(hashlib.sha256(augment(photos(), Augmentation(**EVERY), seed=(0, 7, 1))).hexdigest())"
    )
    other_process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = augment(photos(), Augmentation(**EVERY), seed=(0, 7, 1))
    assert other_process.stdout.strip() == hashlib.sha256(here).hexdigest()


@pytest.mark.parametrize(
    "values",
    [{"jitter": -0.1}, {"perspective": 1.1}, {"crop": 1.0}, {"rotation_deg": 181}, {"flip": float("nan")}],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))}.*pass such a value"):
        Augmentation(**values)


def test_photos_of_another_form_are_refused() -> None:
    for wrong in (photos()[0], photos().astype(np.float64), photos()[..., :2], photos()[:, :0]):
        with pytest.raises(ValueError, match="uint8 or float32"):
            augment(wrong, Augmentation(flip=1), seed=(0,))
