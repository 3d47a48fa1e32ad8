"""Mini-batches that are filled again in each epoch, each sample once."""

from __future__ import annotations

import itertools
import math

import torch

from torchgd.convergence.epochs import Updates
from torchgd.convergence.intervals import converging_intervals
from torchgd.convergence.partitions import Saddle
from torchgd.convergence.random_epochs import BATCHES, FEW_ORDERS, RandomEpoch, minimum, root
from torchgd.epoch_maps import EpochMap, compose

SIMULATED = 1_000_000  # samples in all simulated epochs; these are 2 to 400
SMALL = 1e-3  # times the fastest lr; below it the scale hardly depends on how the batches are filled


class ShuffledBatches(RandomEpoch):
    """All ways to fill the batches if they are few; else E scale² from its saddle point or a simulation.

    In the second case mean and spread of the shift, which matter at smaller rates, are simulated.
    """

    def __init__(self, updates: Updates, seed: int) -> None:
        self.updates = updates
        n, size = len(updates.squares), updates.batch_size
        self.saddle: Saddle | None = None
        if exact := _ways(n, size) <= FEW_ORDERS:
            orders = torch.tensor(list(_fillings(list(range(n)), size)))
        else:
            generator = torch.Generator().manual_seed(seed)
            count = min(400, max(2, SIMULATED // n))
            orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(count)])
        self.h, self.r = updates.batches(orders)
        some = self.h if exact else self.h[: max(1, BATCHES // self.h.shape[1])]
        weights = torch.full((some.numel(),), 1 / len(some), dtype=torch.float64)
        self.almost_sure = converging_intervals(some.flatten().numpy(), weights.numpy())
        highest = self.almost_sure[0][1]  # E scale² ≥ exp E log scale²
        if exact or self._logs(0.8 * highest).std() <= 1:
            self._solve(highest)
            self.limit_error = 0.0 if exact else self._error()
        else:
            self._take_saddle(highest)
        if not exact:  # keep only the first interval, because others may be artefacts of the simulation
            self.almost_sure = self.almost_sure[:1]
            error = f"the limit to ±{100 * self.limit_error:.2g} %"
            self.simulation = f"simulated, {count} shuffles, seed {seed}: {error}"

    def _take_saddle(self, highest: float) -> None:
        """Limit and fastest rate if the epochs that make E scale² large are too rare to be drawn."""
        n, size = len(self.updates.squares), self.updates.batch_size
        kinds = [(n // size, size), (1, n % size)]
        batches = [(count, b, self.updates.strength(b) / b) for count, b in kinds if b]
        self.saddle = Saddle(self.updates.squares.numpy(), batches)
        self.limit = low = highest / 100
        while self.log_mean_square(low * 1.3) < 0 and low < highest:
            low *= 1.3
        self.limit = root(self.log_mean_square, low, low * 1.3)
        self.fastest_lr = minimum(self.log_mean_square, 0.01 * self.limit, self.limit, tolerance=1e-3)
        # The error of the saddle point is of the order of 1 over the number of batches; see its determinant.
        left_out = 1.5 / self.h.shape[1] + 1.5 * abs(self.saddle.log_mean(self.limit)[1])
        slope = (self.log_mean_square(self.limit) - self.log_mean_square(self.limit * 0.999)) / 1e-3
        self.limit_error = left_out / slope if slope > 0 else math.inf

    def _logs(self, lr: float) -> torch.Tensor:
        """log scale² of each computed epoch."""
        return torch.log(torch.abs(1 - lr * self.h)).sum(1).mul(2)

    def _error(self) -> float:
        """Three relative standard errors of the limit: the error of E scale² there, over its slope."""
        logs = self._logs(self.limit)
        squares = (logs - logs.max()).exp()
        error = squares.std().item() / squares.mean().item() / math.sqrt(len(logs))
        slope = (self.log_mean_square(self.limit * (1 + 1e-4)) - self.log_mean_square(self.limit)) / 1e-4
        return 3 * error / slope if slope > 0 else math.inf

    def log_mean_square(self, lr: float) -> float:
        if self.saddle and lr > SMALL * self.limit:
            return self.saddle.log_mean(lr)[0]
        small = lr * self.h.max() < 0.5
        logs = torch.log1p(-lr * self.h).sum(1).mul(2) if small else self._logs(lr)
        return torch.logsumexp(logs, 0).item() - math.log(len(logs))

    def map(self, lr: float) -> EpochMap:
        scale, lost, shift = (part.mean().item() for part in self._composed(lr))
        return EpochMap(scale, shift, self.updates.least_squares, lost)

    def spread(self, lr: float) -> float:
        scale, lost, shift = self._composed(lr)
        kept = (lost * (1 + scale)).mean().item()  # 1 − E scale²
        if self.saddle and lr > self.fastest_lr:
            kept = -math.expm1(min(self.log_mean_square(lr), 1.0))
        if not kept > 0:
            return math.nan
        mean = shift.mean().item() / lost.mean().item()
        second = (shift.square().mean().item() + 2 * (scale * shift).mean().item() * mean) / kept
        return math.sqrt(max(second - mean * mean, 0.0))

    def _composed(self, lr: float) -> tuple[torch.Tensor, ...]:
        return compose(1 - lr * self.h, lr * self.h, lr * self.r)


def _ways(n: int, size: int) -> float:
    """The number of ways in which n samples fill batches."""
    logarithm = math.lgamma(n + 1) - n // size * math.lgamma(size + 1) - math.lgamma(n % size + 1)
    return round(math.exp(logarithm)) if logarithm < 100 else math.inf


def _fillings(samples: list[int], size: int) -> list[list[int]]:
    """All ways to fill batches with the samples; the order within a batch does not matter."""
    if len(samples) <= size:
        return [samples]
    return [
        [*batch, *rest]
        for batch in itertools.combinations(samples, size)
        for rest in _fillings([i for i in samples if i not in batch], size)
    ]
