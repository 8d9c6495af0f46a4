from __future__ import annotations

import numpy as np

from models.aggregation.residuals import aggregate_residuals, multi_scale_cells
from models.aggregation.whitening import fit_whitening
from models.aggregation.words import learn_words, sample_cells

RANDOM = np.random.default_rng(3)


def test_words_are_the_means_of_separate_clusters() -> None:
    centres = 10 * RANDOM.standard_normal((5, 7))
    cells = (centres[np.arange(500) % 5] + 0.01 * RANDOM.standard_normal((500, 7))).astype(np.float32)
    words = learn_words(cells, 5)
    assert words.dtype == np.float32
    nearest = np.linalg.norm(words[:, None] - centres[None], axis=2)
    assert sorted(nearest.argmin(axis=1)) == list(range(5))
    means = np.array([cells[at::5].mean(axis=0) for at in range(5)])
    assert np.allclose(words[np.argsort(nearest.argmin(axis=1))], means, atol=1e-5)


def test_equal_cells_make_equal_words() -> None:
    assert np.array_equal(learn_words(np.ones((9, 3), np.float32), 4), np.ones((4, 3)))


def test_cells_are_taken_evenly_from_each_photo() -> None:
    features = np.arange(2 * 10, dtype=np.float32).reshape(2, 10, 1)
    assert sample_cells(features, 0.3).ravel().tolist() == [0, 4, 9, 10, 14, 19]
    assert len(sample_cells(features, 1.0)) == 20
    assert len(sample_cells(features, 1e-9)) == 2


def test_cells_come_with_the_means_of_their_neighbours() -> None:
    features = RANDOM.standard_normal((2, 3, 4, 5)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    cells = multi_scale_cells(features)
    assert cells.shape == (2, 12 + 6, 5)
    assert np.allclose(cells[:, :12].reshape(unit.shape), unit, atol=1e-6)
    mean = unit[1, :2, :2].mean(axis=(0, 1))
    assert np.allclose(cells[1, 12], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.isfinite(multi_scale_cells(np.zeros((1, 2, 2, 5)))).all()


def test_residuals_of_hard_assignment_are_the_sums_of_the_definition() -> None:
    words = RANDOM.standard_normal((3, 4)).astype(np.float32)
    cells = RANDOM.standard_normal((1, 50, 4)).astype(np.float32)
    labels = np.linalg.norm(cells[0][:, None] - words[None], axis=2).argmin(axis=1)
    sums = np.stack([(cells[0][labels == k] - words[k]).sum(axis=0) for k in range(3)])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    expected = sums.ravel() / np.linalg.norm(sums)
    assert np.allclose(aggregate_residuals(cells, words, 1e5)[0], expected, atol=1e-4)


def test_power_one_half_without_shrinkage_would_make_variances_equal() -> None:
    vectors = (RANDOM.standard_normal((500, 6)) * [5, 4, 3, 2, 1.5, 1]).astype(np.float32)
    mean, projection, left_out = fit_whitening(vectors, 6, 0.5)
    spread = ((vectors - mean) @ projection).std(axis=0)
    assert np.allclose(spread, 1, atol=0.02)
    assert left_out < 1e-6
    _, plain, _ = fit_whitening(vectors, 6, 0.0)
    assert np.allclose(plain.T @ plain, np.eye(6), atol=1e-5)
    _, few, left_out = fit_whitening(vectors, 2, 0.25)
    assert few.shape == (6, 2)
    assert np.isclose(left_out, (9 + 4 + 2.25 + 1) / (25 + 16 + 9 + 4 + 2.25 + 1), atol=0.05)


def test_the_sign_of_a_component_is_fixed() -> None:
    vectors = RANDOM.standard_normal((30, 8)).astype(np.float32)
    for rows in (vectors, vectors[:5]):
        _, projection, _ = fit_whitening(rows, 4, 0.25)
        assert (projection[np.abs(projection).argmax(axis=0), np.arange(4)] > 0).all()
