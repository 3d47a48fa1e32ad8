"""Epochs whose batches are drawn anew: the error e ← scale · e + shift with a random scale.

Such a run is judged by the mean square of its error, E e² ← E scale² · E e² + …: while E scale² < 1 the
weight settles into a distribution with a finite mean and variance. Beyond that limit almost every run may
still shrink (while E log|scale| < 0, the almost-sure limit), with excursions so large that the mean grows.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from torchgd.convergence.epochs import Intervals, Updates, exp
from torchgd.convergence.intervals import converging_intervals
from torchgd.epoch_maps import compose

ALL_ORDERS = 5  # samples: 5⁵ draws, 5! orders
GRID, ROUNDS = 33, 12  # a round leaves 2 of 32 steps: 16⁻¹² < 2⁻⁴⁷


class RandomEpoch:
    """What drawing with replacement and shuffled mini-batches share: all follows from E scale²."""

    updates: Updates
    basis: str
    almost_sure: Intervals
    limit: float
    best_lr: float

    def mean_square(self, lr: float) -> float:
        """E scale² of one epoch."""
        raise NotImplementedError

    def lost(self, lr: float) -> float:
        """1 − E scale of one epoch."""
        raise NotImplementedError

    def shift(self, lr: float) -> tuple[float, float]:
        """The mean of the shift, and the standard deviation of the settled error at the ends of epochs."""
        raise NotImplementedError

    @property
    def intervals(self) -> Intervals:
        return ((0.0, self.limit),)

    def log_factor(self, lr: float) -> float:
        """Half the logarithm of E scale²: the root-mean-square factor."""
        square = self.mean_square(lr)
        return math.log(square) / 2 if square > 0 else -math.inf

    def factor(self, lr: float) -> float:
        return exp(self.log_factor(lr))

    def _solve(self, unsafe: float) -> None:
        """Find the limit, where E scale² first comes to 1 on (0, unsafe], and its minimum below that."""
        low, high = 0.0, unsafe
        for _ in range(ROUNDS):
            grid = torch.linspace(low, high, GRID, dtype=torch.float64).tolist()
            crossing = next((i for i, lr in enumerate(grid) if i and self.mean_square(lr) >= 1), GRID - 1)
            low, high = grid[crossing - 1], grid[crossing]
        self.limit = low
        low, high = 0.0, self.limit
        for _ in range(ROUNDS):
            grid = torch.linspace(low, high, GRID, dtype=torch.float64).tolist()
            best = min(range(GRID), key=lambda i: self.mean_square(grid[i]))
            low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
        self.best_lr = (low + high) / 2


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
        for count, b in ((n // size, size), (1, n % size)):
            if b:
                s = updates.strength(b)
                self.groups.append((count, s * mean, s * s * (mean * mean + variance / b), s * s * noise / b))
        # Per sample E log|scale| is the fixed order's log|scale|: every sample is as likely as any other.
        orders, basis = (torch.arange(n)[None], "exact") if size == 1 else _orders(n, seed, replacement=True)
        self.basis = "exact" if basis == "exact" else f"exact; the almost-sure limit {basis}"
        limits = [2 * h / hh for _, h, hh, _ in self.groups]
        self._solve(max(limits))
        if len(self.groups) == 1:
            self.limit, self.best_lr = limits[0], limits[0] / 2
        self.almost_sure = _almost_sure(updates.batches(orders)[0], basis)

    def mean_square(self, lr: float) -> float:
        return math.prod((1 - 2 * lr * h + lr * lr * hh) ** count for count, h, hh, _ in self.groups)

    def lost(self, lr: float) -> float:
        return 1 - math.prod((1 - lr * h) ** count for count, h, _, _ in self.groups)

    def shift(self, lr: float) -> tuple[float, float]:
        lost, noise = 0.0, 0.0  # E e² → (1 − lost) E e² + noise; batch by batch with its own two numbers
        for count, h, hh, rr in self.groups:
            once = 2 * lr * h - lr * lr * hh
            after = -math.expm1(count * math.log1p(-once)) if once < 1 else 1.0
            noise = noise * (1 - after) + lr * lr * rr * (after / once if once else count)
            lost += (1 - lost) * after
        return 0.0, math.sqrt(noise / lost) if lost > 0 else math.nan


class ShuffledBatches(RandomEpoch):
    """Each sample once an epoch, in fresh batches: all orders of a few samples, else so many shuffles."""

    def __init__(self, updates: Updates, seed: int) -> None:
        self.updates = updates
        orders, self.basis = _orders(len(updates.squares), seed, replacement=False)
        self.h, self.r = updates.batches(orders)
        self.almost_sure = _almost_sure(self.h, self.basis)
        self._solve(self.almost_sure[0][1])  # E scale² ≥ exp E log scale²

    def mean_square(self, lr: float) -> float:
        return torch.log(torch.abs(1 - lr * self.h)).sum(1).mul(2).exp().mean().item()

    def lost(self, lr: float) -> float:
        return compose(1 - lr * self.h, lr * self.h)[1].mean().item()

    def shift(self, lr: float) -> tuple[float, float]:
        scale, shift = compose(1 - lr * self.h, lr * self.r)
        square = scale.square().mean().item()
        if not square < 1:
            return shift.mean().item(), math.nan
        mean = shift.mean().item() / self.lost(lr)
        second = (shift.square().mean().item() + 2 * (scale * shift).mean().item() * mean) / (1 - square)
        return shift.mean().item(), math.sqrt(max(second - mean * mean, 0.0))


def _orders(n: int, seed: int, *, replacement: bool) -> tuple[Tensor, str]:
    """The samples of all possible epochs, or of some simulated ones, shape (epochs, n); and which it is."""
    if n <= ALL_ORDERS:
        every = itertools.product(range(n), repeat=n) if replacement else itertools.permutations(range(n))
        return torch.tensor(list(every)), "exact"
    generator = torch.Generator().manual_seed(seed)
    count = min(400, max(2, 4_000_000 // n))
    if replacement:
        return torch.randint(n, (count, n), generator=generator), f"simulated, {count} epochs, seed {seed}"
    shuffles = [torch.randperm(n, generator=generator) for _ in range(count)]
    return torch.stack(shuffles), f"simulated, {count} shuffles, seed {seed}"


def _almost_sure(h: Tensor, basis: str) -> Intervals:
    """Where E log|scale| < 0; from a simulation the first interval only: the others would be its own."""
    intervals = converging_intervals(h.flatten().numpy(), repeats=len(h))
    return intervals if basis == "exact" else intervals[:1]
