"""Small monotone models: a logistic with weights of at least 0, and isotonic regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_logistic", "fit_steps", "step_values"]

Floats = NDArray[np.float64]

_ROUNDS = 400


def fit_logistic(
    values: Floats, right: NDArray[np.bool_], *, towards: Floats, strength: float
) -> tuple[Floats, float]:
    """Fit a logistic model whose weights are at least 0 and near given ones.

    Maximises the log-likelihood minus strength / 2 times the squared distance of the weights from `towards`,
    by projected gradients with a step of one over the largest curvature.

    Args:
        values: (N, F), each feature of about unit scale.
        right: (N,).
        towards: (F,) weights for no data.
        strength: In photos: how much they count.

    Returns:
        (F,) weights and the intercept.
    """
    target = right.astype(np.float64)
    design = np.column_stack([values, np.ones(len(values))])
    weights = np.append(np.maximum(towards, 0.0), 0.0)
    pull = np.append(np.full(len(towards), strength), 1e-3)
    goal = np.append(towards, 0.0)
    curvature = 0.25 * float(np.linalg.norm(design, 2) ** 2) + float(pull.max())
    previous, momentum = weights, weights
    for number in range(_ROUNDS):  # accelerated (Nesterov 1983)
        odds = np.clip(design @ momentum, -30.0, 30.0)
        gradient = design.T @ (1 / (1 + np.exp(-odds)) - target) + pull * (momentum - goal)
        weights = momentum - gradient / curvature
        weights[:-1] = np.maximum(weights[:-1], 0.0)
        momentum = weights + number / (number + 3) * (weights - previous)
        previous = weights
    return weights[:-1], float(weights[-1])


def fit_steps(scores: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Fit a probability that never falls with the score (isotonic regression by pooling adjacent violators).

    Each pool of photos gets (right + 1) / (photos + 2), so that no probability is 0 or 1.

    Args:
        scores: (N,).
        right: (N,).

    Returns:
        knots: (P,) float64 rising scores, the means of the pools.
        values: (P,) float64 probabilities, never falling.
    """
    order = np.argsort(scores, kind="stable")
    pools: list[list[float]] = []  # right, photos, sum of scores
    for score, hit in zip(scores[order].tolist(), right[order].tolist(), strict=True):
        pools.append([float(hit), 1.0, score])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    columns = np.array(pools).reshape(-1, 3)
    values = (columns[:, 0] + 1) / (columns[:, 1] + 2)
    return columns[:, 2] / columns[:, 1], np.maximum.accumulate(values)


def step_values(scores: Floats, knots: Floats, values: Floats) -> Floats:
    """Return the probabilities of scores, linear between the knots."""
    return np.interp(scores, knots, values) if len(knots) else np.full(len(scores), 0.5)
