"""Augmentations of triplets: what changes, what does not, and that it is always the same."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from models.augment import Augmentation, Photos, augment

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
    given = photos(dtype=dtype)
    kept = given.copy()
    found = augment(given, Augmentation(**{name: EVERY[name]}), seed=(1, 2, 3))
    assert (found.shape, found.dtype) == (given.shape, given.dtype)
    assert np.array_equal(given, kept)
    assert (found.astype(float) != given).mean() > 0.2
    assert found.min() >= 0
    assert found.max() <= 255
    # Still the same pictures: the mean colour stays near.
    assert np.abs(found.astype(float).mean() - given.mean()) < 60


def test_off_returns_the_very_input() -> None:
    given = photos()
    assert Augmentation().is_off
    assert augment(given, Augmentation(), seed=(0,)) is given


def test_a_flip_takes_the_whole_triplet_or_none_of_it() -> None:
    given = photos()
    flipped = [augment(given, Augmentation(flip=0.5), seed=(seed,)) for seed in range(40)]
    whole = [np.array_equal(one, given[:, :, ::-1]) for one in flipped]
    none = [np.array_equal(one, given) for one in flipped]
    assert all(a != b for a, b in zip(whole, none, strict=True))
    assert 8 <= sum(whole) <= 32


def test_photos_of_a_triplet_are_changed_differently() -> None:
    given = np.repeat(photos()[:1], 4, axis=0)
    for name in ("jitter", "perspective", "crop", "rotation_deg"):
        found = augment(given, Augmentation(**{name: EVERY[name]}), seed=(5,))
        assert not np.array_equal(found[0], found[1]), name


def test_what_rotation_uncovers_is_no_black_corner() -> None:
    bright = np.full((4, 40, 40, 3), 200, np.uint8)
    turned = augment(bright, Augmentation(rotation_deg=45), seed=(3,))
    assert (turned != 200).any()  # the seam
    assert turned[:, [0, 0, -1, -1], [0, -1, 0, -1]].min() >= 199


def test_the_seed_decides_and_torch_s_own_state_stays() -> None:
    given, wanted = photos(), Augmentation(**EVERY)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = augment(given, wanted, seed=(0, 7, 1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert np.array_equal(augment(given, wanted, seed=(0, 7, 1)), first)
    assert not np.array_equal(augment(given, wanted, seed=(0, 7, 2)), first)


def test_another_process_draws_the_same() -> None:
    code = (
        "from tests.test_augment import EVERY, photos; from models.augment import Augmentation, augment; "
        "print(int(augment(photos(), Augmentation(**EVERY), seed=(0, 7, 1)).astype(int).sum()))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) == augment(photos(), Augmentation(**EVERY), seed=(0, 7, 1)).astype(int).sum()


@pytest.mark.parametrize(
    "values",
    [{"jitter": -0.1}, {"perspective": 1.1}, {"crop": 1.0}, {"rotation_deg": 181}, {"flip": float("nan")}],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))}.*give such a value"):
        Augmentation(**values)


def test_photos_of_another_form_are_refused() -> None:
    for wrong in (photos()[0], photos().astype(np.float64), photos()[..., :2]):
        with pytest.raises(ValueError, match="uint8 or float32"):
            augment(wrong, Augmentation(flip=1), seed=(0,))
