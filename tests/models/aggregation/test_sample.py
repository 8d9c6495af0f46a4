from __future__ import annotations

import random

from models.aggregation import Sample, sample_key
from models.aggregation.sample import SAMPLE_BYTES, SAMPLE_IMAGES, sample_size

IDS = [f"street/{number}.jpg" for number in range(1000)]


def sampled(ids: list[str], size: int = 50) -> Sample:
    sample = Sample(size)
    sample.add(ids)
    return sample


def test_the_sample_is_the_ids_of_the_smallest_hashes_in_order() -> None:
    assert list(sampled(IDS).image_ids) == sorted(IDS, key=sample_key)[:50]
    assert list(sampled(IDS[:3]).image_ids) == sorted(IDS[:3], key=sample_key)
    assert sampled([]).image_ids == ()


def test_neither_order_nor_repetition_nor_division_matters() -> None:
    expected = sampled(IDS).image_ids
    shuffled = random.Random(1).sample(IDS * 2, 2 * len(IDS))
    assert sampled(shuffled).image_ids == expected
    parts = [sampled(IDS[at::3]) for at in range(3)]
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])
    assert parts[2].image_ids == expected


def test_the_sample_is_spread_over_all_ids() -> None:
    chosen = sampled(IDS, 200).image_ids
    halves = sum(IDS.index(image_id) < 500 for image_id in chosen)
    assert 70 < halves < 130


def test_memory_is_bounded_by_the_size() -> None:
    sample = Sample(10)
    for image_id in IDS:
        sample.add([image_id])
        assert len(sample._keys) <= 2 * 10 + 64


def test_the_size_of_a_sample_is_bounded_in_photos_and_in_bytes() -> None:
    assert sample_size(100) == SAMPLE_IMAGES
    assert sample_size(1 << 20) == SAMPLE_BYTES >> 20
    assert sample_size(1 << 40) == 1
