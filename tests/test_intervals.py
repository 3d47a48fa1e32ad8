"""Every converging learning rate, against bisection on real training runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgd.convergence.intervals import converging_intervals
from torchgd.convergence.methods import epoch_of

Array = NDArray[np.float64]
SETS = 500
METHODS: dict[str, Callable[[int], int]] = {
    "gd": lambda n: n,
    "sgd": lambda n: 1,
    "minibatch": lambda n: max(2, n // 2),
}


def grows(x: Tensor, y: Tensor, lr: Tensor, size: int) -> Tensor:
    """Train two epochs from w = 1 in every row at once, and see whether the second step is the longer one.

    An epoch is affine, so its steps are multiplied by exactly its factor: two epochs decide.
    """
    weights = [torch.ones_like(lr)]
    for _ in range(2):
        w = weights[-1]
        for xs, ys in zip(x.split(size, 1), y.split(size, 1), strict=True):
            w = w - lr * (2 * xs * (w[:, None] * xs - ys)).mean(1)
        weights.append(w)
    return (weights[2] - weights[1]).abs() > (weights[1] - weights[0]).abs()


def data_sets(n: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(count, n, generator=generator, dtype=torch.float64)
    return x, 3 * x + torch.randn(count, n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
def test_the_limits_are_those_of_training_runs(method: str) -> None:
    """500 data sets: each end that training shows is the certificate's to 1e-9, and each of its is real."""
    for n in range(2, 12):
        x, y = data_sets(n, SETS // 10)
        size = METHODS[method](n)
        batch_size = size if method == "minibatch" else None
        certificates = [
            epoch_of(*row, method=method, batch_size=batch_size) for row in zip(x, y, strict=True)
        ]
        # Found by training: where neighbours on a grid of learning rates differ, bisect. Below the grid every
        # update shrinks the error, above it every update stretches it.
        h = torch.stack([2 * batch.square().mean(1) for batch in x.split(size, 1)])
        low, high = h.amax(0).reciprocal(), 2.2 / h.amin(0)
        grid = low[:, None] * (high / low)[:, None] ** torch.linspace(0, 1, 300, dtype=torch.float64)
        rows = torch.arange(len(x)).repeat_interleave(grid.shape[1])
        diverges = grows(x[rows], y[rows], grid.flatten(), size).view_as(grid)
        row, column = (diverges[:, 1:] != diverges[:, :-1]).nonzero(as_tuple=True)
        low, high, first = grid[row, column], grid[row, column + 1], diverges[row, column]
        for _ in range(60):
            middle = (low + high) / 2
            same = grows(x[row], y[row], middle, size) == first
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        assert len(set(row.tolist())) == len(x)
        for certificate, rates, wrong in zip(certificates, grid, diverges, strict=True):
            said = torch.zeros_like(wrong)
            for low_end, high_end in certificate.intervals:
                said |= (low_end < rates) & (rates < high_end)
            assert torch.equal(said, ~wrong)
        ends = [np.array(certificate.intervals).flatten() for certificate in certificates]
        for which, found in zip(row.tolist(), low.tolist(), strict=True):
            assert np.abs(ends[which] / found - 1).min() < 1e-9
        # Said by the certificate: training just inside converges and just outside diverges.
        inner = [
            (which, end, outwards, min(1e-9, (high - low) / end / 4))
            for which, certificate in enumerate(certificates)
            for low, high in certificate.intervals
            for end, outwards in ((low, -1), (high, 1))
            if end > 0 and high - low > 1e-6 * high  # of narrower ones rounding in training decides
        ]
        chosen = torch.tensor([which for which, *_ in inner])
        numbers = torch.tensor([row[1:] for row in inner], dtype=torch.float64)
        end, outwards, step = numbers.unbind(1)
        assert grows(x[chosen], y[chosen], end * (1 + outwards * step), size).all()
        assert not grows(x[chosen], y[chosen], end * (1 - outwards * step), size).any()


SHAPES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda random, n: random.standard_normal(n),
    "uniform": lambda random, n: random.uniform(0, 5, n),
    "two clusters": lambda random, n: np.concatenate(
        [random.normal(1, 0.01, n // 2), random.normal(9, 0.1, n // 2)]
    ),
    "lognormal": lambda random, n: random.lognormal(0, 2, n),
    "integers": lambda random, n: random.integers(1, 30, n).astype(np.float64),
    "with zeros": lambda random, n: random.standard_normal(n) * (random.random(n) < 0.5),
}


@pytest.mark.parametrize("n", [6, 300, 4000])
@pytest.mark.parametrize("shape", SHAPES)
def test_many_updates(shape: str, n: int) -> None:
    """The tree of stretches agrees with the plain sum of logarithms, in the gaps and at the ends."""
    curvatures = 2 * SHAPES[shape](np.random.default_rng(n), n) ** 2
    intervals = np.array(converging_intervals(curvatures))

    def log_factor(lr: Array) -> Array:
        return np.array([np.log(np.abs(1 - rate * curvatures)).sum() for rate in lr])

    zeros = 1 / np.unique(curvatures[curvatures > 0])[::-1]
    gaps = np.linspace(0, len(zeros) - 2, min(len(zeros) - 1, 400)).astype(int)
    inside = np.concatenate([zeros[gaps] + (zeros[gaps + 1] - zeros[gaps]) * at for at in (0.1, 0.5, 0.9)])
    value = log_factor(inside)
    clear = np.abs(value) > 1e-9
    member = ((intervals[:, :1] < inside) & (inside < intervals[:, 1:])).any(0)
    assert (member == (value < 0))[clear].all()
    wide = intervals[intervals[:, 1] - intervals[:, 0] > 1e-8 * intervals[:, 1]]
    low, high = wide[wide[:, 0] > 0, 0], wide[:, 1]
    assert (log_factor(low * (1 + 1e-9)) < 0).all()
    assert (log_factor(low * (1 - 1e-9)) > 0).all()
    assert (log_factor(high * (1 - 1e-9)) < 0).all()
    assert (log_factor(high * (1 + 1e-9)) > 0).all()


def test_intervals_rise_and_do_not_touch() -> None:
    intervals = converging_intervals(2 * np.random.default_rng(5).standard_normal(50) ** 2)
    assert intervals[0][0] == 0
    assert all(low < high for low, high in intervals)
    assert all(left[1] < right[0] for left, right in pairwise(intervals))


def test_the_course_has_an_island() -> None:
    (_, limit), (low, high) = converging_intervals(np.array([2.0, 8.0, 18.0]))
    assert (round(limit, 8), round(low, 8), round(high, 8)) == (0.20401794, 0.47653762, 0.51901447)
    for rate, product in ((limit, 1), (low, 1), (high, -1)):
        assert (1 - 2 * rate) * (1 - 8 * rate) * (1 - 18 * rate) == pytest.approx(product, abs=1e-12)


@pytest.mark.parametrize("curvatures", [[2.0], [2.0, 2.0, 2.0], [2.0, 0.0]])
def test_one_curvature_has_one_interval(curvatures: list[float]) -> None:
    assert converging_intervals(np.array(curvatures)) == ((0.0, 1.0),)


def test_scaling_x_scales_the_intervals() -> None:
    h = 2 * np.random.default_rng(1).standard_normal(40) ** 2
    for factor in (1e-150, 1e-6, 1e150):
        scaled = np.array(converging_intervals(h * factor)) * factor
        assert np.allclose(scaled, np.array(converging_intervals(h)), rtol=1e-9, atol=0)


def test_curvatures_that_differ_by_a_rounding_are_one_zero() -> None:
    """Their logarithms are equal, and between them lies no learning rate."""
    h = np.array([2.0, 8.0, 18.0]).repeat(3) * (1 + np.array([0, 1, 2] * 3) * np.finfo(float).eps)
    expected = converging_intervals(np.array([2.0, 8.0, 18.0]).repeat(3))
    assert np.array(converging_intervals(h)) == pytest.approx(np.array(expected), rel=1e-12)
    assert np.array(converging_intervals(h[:3])) == pytest.approx(np.array([[0.0, 1.0]]))


@pytest.mark.parametrize("seed", range(3))
def test_many_samples_by_cells_have_the_roots_of_the_plain_sum(seed: int) -> None:
    """Each end is where Σ log|1 − lr h|, summed to rounding, changes its sign."""
    x = np.random.default_rng(seed).normal(size=5000)
    h = 2 * x * x
    wide = [(low, high) for low, high in converging_intervals(h) if high - low > 1e-8 * high]
    for low, high in wide:
        for end, inwards in ((low, 1), (high, -1)):
            for side in (-1, 1) if end else ():
                total = math.fsum(np.log(np.abs(1 - end * (1 + side * 1e-11) * h)))
                assert (total < 0) == (side == inwards)
