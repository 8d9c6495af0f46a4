from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.aggregation import DESCRIPTOR_DIM, Aggregation, AggregationRejected
from models.aggregation.aggregation import SOFTNESS
from models.aggregation.residuals import aggregate_residuals, multi_scale_cells
from models.aggregation.start import starting_aggregation
from tests.support.paths import ROOT


def places(count: int, *, seed: int = 0, noise: float = 0.0) -> NDArray[np.float16]:
    """Return (count, 6, 6, 16) unit features of places; the same seed gives the same places."""
    random = np.random.default_rng(seed)
    kinds = random.standard_normal((12, 16))
    maps = kinds[random.integers(0, 12, (count, 6, 6))] + 0.3 * random.standard_normal((count, 6, 6, 16))
    maps = maps + noise * np.random.default_rng(seed + 1).standard_normal(maps.shape)
    return (maps / np.linalg.norm(maps, axis=-1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def learned() -> Aggregation:
    return Aggregation.fit([places(60)])


def test_a_descriptor_has_512_numbers_of_unit_norm_and_zeros_behind_the_components(
    learned: Aggregation,
) -> None:
    descriptors = learned.describe(places(60))
    assert descriptors.shape == (60, DESCRIPTOR_DIM)
    assert descriptors.dtype == np.float32
    assert np.allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-6)
    components = learned.projection.shape[1]
    assert components == 59  # of 60 photos, centred
    assert not descriptors[:, components:].any()
    assert descriptors[:, :components].any(axis=0).all()


def test_another_photo_of_a_place_is_nearest_to_it(learned: Aggregation) -> None:
    stored, asked = learned.describe(places(60)), learned.describe(places(60, noise=0.3))
    assert (np.argmax(asked @ stored.T, axis=1) == np.arange(60)).all()


def test_a_descriptor_depends_on_its_photo_alone(learned: Aggregation) -> None:
    features = places(21)
    together = learned.describe(features)
    for size in (1, 3, 8, 20):
        parts = [learned.describe(features[at : at + size]) for at in range(0, 21, size)]
        assert np.array_equal(np.concatenate(parts), together)
    assert np.array_equal(learned.describe(features[::-1]), together[::-1])
    assert learned.describe(features[:0]).shape == (0, DESCRIPTOR_DIM)


def test_maps_of_another_size_are_described_too(learned: Aggregation) -> None:
    wide = places(4).repeat(2, axis=2)
    similarity = learned.describe(wide) @ learned.describe(places(60)).T
    assert (np.argmax(similarity, axis=1) == np.arange(4)).all()
    assert np.isfinite(learned.describe(places(2)[:, :1, :1])).all()


def test_learning_twice_gives_the_same_bytes_however_the_photos_are_divided() -> None:
    features = places(40)
    whole = Aggregation.fit([features])
    assert Aggregation.fit([features]).to_bytes() == whole.to_bytes()
    assert Aggregation.fit([features[:7], features[7:32], features[32:]]).sha256 == whole.sha256


def test_rounding_differences_change_no_similarity_in_the_third_decimal() -> None:
    features = places(80).astype(np.float32)
    random = np.random.default_rng(5)
    disturbed = features * (1 + 1e-6 * random.standard_normal(features.shape)).astype(np.float32)
    one, other = (Aggregation.fit([maps]).describe(features) for maps in (features, disturbed))
    assert np.abs(one @ one.T - other @ other.T).max() < 1e-3


def test_zeros_and_equal_photos_give_usable_descriptors() -> None:
    equal = places(1).repeat(5, axis=0)
    for aggregation in (Aggregation.fit([equal]), Aggregation.fit([places(30)])):
        descriptors = aggregation.describe(np.concatenate([equal, np.zeros_like(equal)]))
        assert np.allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-6)


def test_too_few_photos_and_broken_features_are_refused() -> None:
    with pytest.raises(AggregationRejected) as refused:
        Aggregation.fit([places(1)])
    assert refused.value.reason == "too_few_photos"
    assert str(refused.value) == (
        "an aggregation cannot be learned from 1 photos: index more, or choose --aggregation gem"
    )
    broken = places(5)
    broken[3, 0, 0, 0] = np.nan
    with pytest.raises(AggregationRejected) as refused:
        Aggregation.fit([broken])
    assert refused.value.reason == "not_finite"


def test_features_of_another_width_are_refused(learned: Aggregation) -> None:
    with pytest.raises(AggregationRejected) as refused:
        learned.describe(places(2)[..., :8])
    assert refused.value.reason == "wrong_width"


def test_the_file_gives_the_same_descriptors(learned: Aggregation) -> None:
    data = learned.to_bytes()
    read = Aggregation.from_bytes(data)
    assert (read.to_bytes(), read.photos, read.softness, read.left_out) == (
        data,
        60,
        learned.softness,
        learned.left_out,
    )
    assert learned.sha256 == hashlib.sha256(data).hexdigest() == read.sha256
    assert np.array_equal(read.describe(places(9)), learned.describe(places(9)))


def test_components_left_out_are_reported() -> None:
    few = Aggregation.fit([places(60)], components=10)
    assert few.projection.shape[1] == 10
    assert 0.2 < few.left_out < 0.95
    assert Aggregation.fit([places(60)]).left_out < 1e-6


def test_more_photos_than_numbers_take_the_other_matrix_and_give_the_same_similarities() -> None:
    features = places(200)
    wide, narrow = (Aggregation.fit([features[:count]], words=4, vocabularies=1) for count in (60, 200))
    assert narrow.projection.shape == (64, 64)
    assert wide.projection.shape == (64, 59)
    spread = narrow.describe(features).std(axis=0)[:64]
    assert spread.max() < 4 * spread.min()  # whitened in part


def test_aggregation_needs_no_torch() -> None:
    code = "import sys, models.aggregation; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def altered(learned: Aggregation, *, vocabularies: int = 2, **arrays: Any) -> bytes:
    from models.aggregation.file import write_values

    values = {
        "words": learned.words,
        "mean": learned.mean,
        "projection": learned.projection.astype(np.float16),
    }
    return write_values(
        values | arrays,
        {
            "softness": 50.0,
            "photos": 60,
            "left_out": 0.0,
            "city_photos": 60,
            "automatic": True,
            "vocabularies": vocabularies,
        },
    )


def test_vocabularies_are_assigned_to_each_by_itself() -> None:
    features = places(40)
    four = Aggregation.fit([features], words=3, vocabularies=4)
    assert (four.vocabularies, len(four.words)) == (4, 12)
    assert len({words.tobytes() for words in four.words.reshape(4, -1)}) == 4
    cells = multi_scale_cells(features)
    parts = [aggregate_residuals(cells, words, SOFTNESS) for words in four.words.reshape(4, 3, 16)]
    expected = np.concatenate(parts, axis=1) / 2
    assert np.allclose(aggregate_residuals(cells, four.words, SOFTNESS, 4), expected, atol=1e-6)


def test_more_vocabularies_depend_less_on_the_chance_of_their_words() -> None:
    features, disturbed = places(60, noise=0.4), places(60)
    shuffled = np.random.default_rng(1).permutation(60)

    def similarity(count: int, order: NDArray[np.int64]) -> NDArray[np.float32]:
        fitted = Aggregation.fit([features[order]], words=4, vocabularies=count)
        return fitted.describe(disturbed) @ fitted.describe(features).T

    apart = [
        np.abs(similarity(count, np.arange(60)) - similarity(count, shuffled)).mean() for count in (1, 8)
    ]
    assert apart[1] < 0.8 * apart[0]


def test_the_file_of_one_vocabulary_is_what_it_was_before_there_were_several() -> None:
    one = Aggregation.fit([places(40)], words=8, vocabularies=1)
    assert b"vocabularies" not in one.to_bytes()
    assert Aggregation.from_bytes(one.to_bytes()).vocabularies == 1
    several = Aggregation.fit([places(40)], words=4, vocabularies=2)
    assert Aggregation.from_bytes(several.to_bytes()).vocabularies == 2
    assert starting_aggregation(112).vocabularies == 1


def test_wide_features_get_fewer_vocabularies() -> None:
    maps = np.random.default_rng(0).standard_normal((8, 3, 3, 260)).astype(np.float32)
    assert [Aggregation.fit([maps[..., :channels]]).vocabularies for channels in (256, 260)] == [2, 1]


@pytest.mark.parametrize(("count", "reason"), [(3, "wrong_shapes"), (1000, "unreadable"), (0, "unreadable")])
def test_numbers_of_vocabularies_that_do_not_fit_are_refused(
    learned: Aggregation, count: int, reason: str
) -> None:
    with pytest.raises(AggregationRejected) as refused:
        Aggregation.from_bytes(altered(learned, vocabularies=count))
    assert refused.value.reason == reason


def test_damaged_files_are_refused(learned: Aggregation) -> None:
    data = learned.to_bytes()
    for broken in (b"", b"\xff" * 8, data[:100], data[:-1], data + b"x", b"{}", data[:8] + b"[" * 5000):
        with pytest.raises(AggregationRejected) as refused:
            Aggregation.from_bytes(broken)
        assert refused.value.reason == "unreadable"


@pytest.mark.parametrize(
    "arrays",
    [
        {"words": np.zeros((32, 0), np.float32)},
        {"words": np.zeros((32, 16), np.float64)},
        {"words": np.zeros((300, 16), np.float32)},
        {"words": np.full((32, 16), np.inf, np.float32)},
        {"mean": np.zeros(3, np.float32)},
        {"projection": np.zeros((512, 600), np.float16)},
        {"projection": np.zeros((511, 20), np.float16)},
        {"more": np.zeros(1, np.float32)},
    ],
)
def test_files_with_arrays_that_do_not_fit_are_refused(
    learned: Aggregation, arrays: dict[str, NDArray[Any]]
) -> None:
    with pytest.raises(AggregationRejected) as refused:
        Aggregation.from_bytes(altered(learned, **arrays))
    assert refused.value.reason == "wrong_shapes"


def test_files_of_too_many_bytes_are_refused(learned: Aggregation, monkeypatch: pytest.MonkeyPatch) -> None:
    data = learned.to_bytes()
    monkeypatch.setattr("models.aggregation.file.MAX_BYTES", len(data) - 1)
    with pytest.raises(AggregationRejected) as refused:
        Aggregation.from_bytes(data)
    assert refused.value.reason == "too_large"
