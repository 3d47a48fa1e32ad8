"""Epochs whose batches are drawn anew: the error e ← scale · e + shift with a random scale.

Such a run is judged by the mean square of its error, E e² ← E scale² · E e² + …. If E scale² < 1, the
weight settles into a distribution with a finite mean and variance. Beyond that limit almost every run may
still shrink (while E log|scale| < 0, the almost-sure limit), with excursions so large that the mean grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchgd.convergence.epochs import Intervals, Updates, exp
from torchgd.convergence.intervals import converging_intervals
from torchgd.epoch_maps import EpochMap

FEW_ORDERS = 20_000  # up to this many ways to fill the batches, all are computed
BATCHES = 20_000  # simulated batches for the almost-sure limit
GRID = 33


class RandomEpoch:
    """The common part of drawing with replacement and shuffled mini-batches: all follows from E scale²."""

    updates: Updates
    almost_sure: Intervals
    limit: float
    limit_error: float = 0.0
    fastest_lr: float
    simulation = ""

    def basis(self, lr: float) -> str:
        """How the answer at this lr is known: "exact", or which part is simulated."""
        return self.simulation or "exact"

    def log_mean_square(self, lr: float) -> float:
        """log E scale² of one epoch."""
        raise NotImplementedError

    def map(self, lr: float) -> EpochMap:
        """The map of an epoch for the mean weight, about least squares."""
        raise NotImplementedError

    def spread(self, lr: float) -> float:
        """The standard deviation of the settled weight at the ends of epochs; NaN if it does not settle."""
        raise NotImplementedError

    @property
    def intervals(self) -> Intervals:
        return ((0.0, self.limit),)

    def log_factor(self, lr: float) -> float:
        """Half the logarithm of E scale²: the root-mean-square factor."""
        return self.log_mean_square(lr) / 2

    def factor(self, lr: float) -> float:
        return exp(self.log_factor(lr))

    def offset(self, lr: float) -> float:
        """Where the mean error settles; inf if that is beyond float64."""
        epoch = self.map(lr)
        place = epoch.drift / epoch.lost if epoch.lost and epoch.drift else 0.0
        return place if math.isfinite(place) else math.inf

    def _solve(self, unsafe: float) -> None:
        """Find the limit, where E scale² first reaches 1 on (0, unsafe], and its minimum below that."""
        grid = torch.linspace(0, unsafe, GRID, dtype=torch.float64).tolist()
        crossing = next((i for i, lr in enumerate(grid) if i and self.log_mean_square(lr) >= 0), GRID - 1)
        self.limit = root(self.log_mean_square, grid[crossing - 1], grid[crossing])
        grid = torch.linspace(0, self.limit, GRID // 2, dtype=torch.float64).tolist()
        values = [self.log_mean_square(lr) for lr in grid]
        best = values.index(min(values))
        self.fastest_lr = minimum(self.log_mean_square, grid[max(best - 1, 0)], grid[min(best + 1, 15)])


class Replacement(RandomEpoch):
    """Every update draws its b samples independently: closed forms.

    E h = s m,  E h² = s² (m² + (mean x⁴ − m²)/b),  E r = 0,  E r² = s² mean x²(y − w* x)² / b,  m = mean x².
    """

    def __init__(self, updates: Updates, seed: int) -> None:
        self.updates = updates
        n, size = len(updates.squares), updates.batch_size
        mean, variance = updates.squares.mean().item(), updates.squares.var(correction=0).item()
        noise = updates.residuals.square().mean().item()
        self.groups: list[tuple[int, float, float, float]] = []  # how many batches, E h, E h², E r²
        curvatures, weights, exact = [], [], True
        generator = torch.Generator().manual_seed(seed)
        for count, b in ((n // size, size), (1, n % size)):
            if not b:
                continue
            s = updates.strength(b)
            self.groups.append((count, s * mean, s * s * (mean * mean + variance / b), s * s * noise / b))
            # With single samples E log|scale| is that of the fixed order: all samples are equally likely.
            every = b == 1 or n**b <= FEW_ORDERS
            drawn = (
                _draws(n, b) if every else torch.randint(n, (max(1, BATCHES // b), b), generator=generator)
            )
            exact = exact and every
            curvatures.append(s * updates.squares[drawn].mean(1))
            weights.append(torch.full((len(drawn),), count / len(drawn), dtype=torch.float64))
        limits = [2 * h / hh for _, h, hh, _ in self.groups]
        self._solve(max(limits))
        if len(self.groups) == 1:
            self.limit, self.fastest_lr = limits[0], limits[0] / 2
        self.almost_sure = converging_intervals(torch.cat(curvatures).numpy(), torch.cat(weights).numpy())
        if not exact:
            error = _error_of_root(self.almost_sure[0][1], torch.cat(curvatures))
            self.simulation = f"exact; the almost-sure limit simulated, seed {seed}, to ±{error:.2g} %"
            self.almost_sure = self.almost_sure[:1]

    def log_mean_square(self, lr: float) -> float:
        parts = [(count, lr * (lr * hh - 2 * h)) for count, h, hh, _ in self.groups]
        return sum(count * (math.log1p(part) if part > -1 else -math.inf) for count, part in parts)

    def map(self, lr: float) -> EpochMap:
        whole = EpochMap(center=self.updates.least_squares)
        for count, h, _, _ in self.groups:
            one = EpochMap(1 - lr * h, 0.0, whole.center, lr * h)
            whole = whole.then(one.after(count))
        return whole

    def spread(self, lr: float) -> float:
        if not self.log_mean_square(lr) < 0:
            return math.nan
        square = EpochMap()  # E e² ↦ (1 − lost) E e² + noise; batch by batch, with two numbers each
        for count, h, hh, rr in self.groups:
            once = 2 * lr * h - lr * lr * hh
            square = square.then(EpochMap(1 - once, lr * lr * rr, 0.0, once).after(count))
        return math.sqrt(max(square.fixed_point, 0.0))


def _draws(n: int, size: int) -> Tensor:
    """All draws of a batch with replacement, shape (n^size, size)."""
    return torch.cartesian_prod(*[torch.arange(n)] * size).reshape(-1, size)


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """The root of f, from below; f is negative at low and not at high."""
    a, b = f(low), f(high)
    for step in range(200):
        if high - low <= 4e-16 * high:
            break
        share = 0.5 if step % 3 == 2 or not math.isfinite(b - a) else a / (a - b)
        middle = low + min(max(share, 1e-9), 1 - 1e-9) * (high - low)
        if not low < middle < high:
            break
        value = f(middle)
        low, a, high, b = (middle, value, high, b) if value < 0 else (low, a, middle, value)
    return low


def minimum(f: Callable[[float], float], low: float, high: float, tolerance: float = 1e-7) -> float:
    """Where f is least between low and high, by golden sections."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = f(left), f(right)
    while high - low > tolerance * high:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = f(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = f(right)
    return (low + high) / 2


def _error_of_root(lr: float, h: Tensor) -> float:
    """Two standard errors of the root of E log|1 − lr h|, in percent."""
    logs = torch.log(torch.abs(1 - lr * h))
    slope = (h / (lr * h - 1)).mean().item() * lr
    return 200 * logs.std().item() / math.sqrt(len(h)) / abs(slope)
