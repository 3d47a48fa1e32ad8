"""What an epoch of updates does to the error of the weight, for each way to choose the samples.

An update on a batch B of b samples changes the error e = w − w* (w* = Σxy/Σx², least squares) by

    e ← (1 − lr h_B) e + lr r_B,    h_B = s mean x²,    r_B = s mean x (y − w* x)    (means over B),

with s = 2 for the mean loss, 1 for half of it, 2b for the sum. So the epoch is e ← scale · e + shift: the
same in every epoch if the order is fixed, else a random pair of numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from torchgd.convergence.intervals import converging_intervals
from torchgd.epoch_maps import compose

Intervals = tuple[tuple[float, float], ...]
FEW = 200  # samples; with more the formula for a shuffled epoch, of n³/4 terms, gives way to a simulation


def exp(logarithm: float) -> float:
    """eˣ, or inf where it overflows."""
    return math.exp(logarithm) if logarithm < 709 else math.inf


@dataclass(frozen=True)
class Updates:
    """The samples, by what they do to the error: x² and x (y − w* x), shape (n,) each."""

    squares: Tensor
    residuals: Tensor
    least_squares: float
    batch_size: int
    loss: str

    @classmethod
    def of(cls, x: Tensor, y: Tensor, batch_size: int, loss: str) -> Updates:
        """The updates of these samples, in float64 on the CPU whatever their own type."""
        x, y = (values.detach().to("cpu", torch.float64) for values in (x, y))
        w_star = (torch.dot(x, y) / torch.dot(x, x)).item()
        return cls(x * x, x * (y - w_star * x), w_star, batch_size, loss)

    def strength(self, size: int) -> float:
        """The s of the loss for a batch of so many samples."""
        return {"mean": 2.0, "half": 1.0, "sum": 2.0 * size}[self.loss]

    def batches(self, indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """h and r of each batch of the samples in this order: shape (…, n) → (…, number of batches)."""
        n, size = len(self.squares), self.batch_size
        whole = n - n % size
        parts = []
        for samples in (self.squares, self.residuals):
            taken = samples if indices is None else samples[indices]
            means = taken[..., :whole].unflatten(-1, (-1, size)).mean(-1) * self.strength(size)
            if n % size:
                rest = taken[..., whole:].mean(-1, keepdim=True) * self.strength(n % size)
                means = torch.cat([means, rest], -1)
            parts.append(means)
        return parts[0], parts[1]


class FixedOrder:
    """The same batches in every epoch: one affine map."""

    basis = "exact"
    almost_sure: Intervals | None = None

    def __init__(self, updates: Updates) -> None:
        self.updates = updates
        self.h, self.r = updates.batches()
        self.best_lr = (
            1 / self.h.max().item()
        )  # the smallest lr at which one factor is 0 (and the others ≥ 0)

    @cached_property
    def intervals(self) -> Intervals:
        return converging_intervals(self.h.numpy())

    def log_factor(self, lr: float) -> float:
        """log|scale|."""
        step = lr * self.h  # however small: 1 − 1e-20 is 1, but log1p(−1e-20) is not 0
        return torch.where(step < 1, torch.log1p(-step), torch.log((1 - step).abs())).sum().item()

    def factor(self, lr: float) -> float:
        odd = int((lr * self.h > 1).sum()) % 2
        size = exp(self.log_factor(lr))
        return -size if odd and size else size  # 0 is not −0

    def lost(self, lr: float) -> float:
        """1 − scale, joined as 1 − (1 − p)(1 − q) = p + (1 − p) q: nothing cancels for a small lr."""
        return compose(1 - lr * self.h, lr * self.h)[1].item()

    def shift(self, lr: float) -> tuple[float, float]:
        """The mean of the shift, and the standard deviation of the settled error at the ends of epochs."""
        return compose(1 - lr * self.h, lr * self.r)[1].item(), 0.0


class ShuffledSamples(FixedOrder):
    """Each sample once an epoch, in a fresh order: the scale stays the same, the shift is random."""

    def __init__(self, updates: Updates, seed: int) -> None:
        super().__init__(updates)
        self.seed = seed
        count = len(self.h)
        self.shuffles = min(400, max(2, 4_000_000 // count))
        self.basis = "exact" if count <= FEW else f"simulated, {self.shuffles} shuffles, seed {seed}"

    def shift(self, lr: float) -> tuple[float, float]:
        if len(self.h) <= FEW:
            mean, square = self._moments(lr)
            variance = square - mean * mean
        else:
            generator = torch.Generator().manual_seed(self.seed)
            orders = (torch.randperm(len(self.h), generator=generator) for _ in range(self.shuffles))
            shifts = torch.stack([compose(1 - lr * self.h[i], lr * self.r[i])[1] for i in orders])
            mean, variance = shifts.mean().item(), shifts.var().item()
        lost = self.lost(lr)
        kept = lost * (2 - lost)  # 1 − scale²
        return mean, math.sqrt(max(variance, 0.0) / kept) if kept > 0 else math.nan

    def _moments(self, lr: float) -> tuple[float, float]:
        """Mean and mean square of the shift over all n! orders.

        Give every sample its own uniform time: the orders are then equally likely, and with the times of one
        sample (or two) held fixed the others come after it (between them) independently. What is left is the
        integral of a polynomial over these times, which Gauss-Legendre quadrature gives exactly.
        """
        p, r = lr * self.h, lr * self.r
        nodes, weights = leggauss(len(p) // 2 + 2)
        t, weight = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
        after = 1 - t[:, None] * p  # the mean factor of another sample: after with probability t
        squared = 1 - t[:, None] * p * (2 - p)
        mean = weight @ (after.prod(1) * (r / after).sum(1))
        square = weight @ (squared.prod(1) * (r * r / squared).sum(1))
        for time, share in zip(t, weight, strict=True):  # the later one of two has t = time·t after it
            both = 1 - time * p * (1 + t[:, None] * (1 - p))
            pairs = (r / both).sum(1) * (r * (1 - p) / both).sum(1) - (r * r * (1 - p) / both**2).sum(1)
            square = square + 2 * share * time * (weight @ (both.prod(1) * pairs))
        return mean.item(), square.item()
