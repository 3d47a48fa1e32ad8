"""What an epoch of updates does to the error of the weight, for each way to choose the samples.

An update on a batch B of b samples changes the error e = w − w* (w* = Σxy/Σx², least squares) by

    e ← (1 − lr h_B) e + lr r_B,    h_B = s mean x²,    r_B = s mean x (y − w* x)    (means over B),

with s = 2 for the mean loss, 1 for half of it, 2b for the sum. So the epoch is e ← scale · e + shift;
these two numbers are the same in every epoch if the order is fixed, else they are random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from torchgd.convergence.intervals import converging_intervals
from torchgd.epoch_maps import EpochMap, compose

Intervals = tuple[tuple[float, float], ...]
NEARLY_ZERO = 1e-6  # a smaller 1 − lr h has lost digits, which large factors amplify
MOST_EXACT = 64  # at most this many of them are computed with fractions


def exp(logarithm: float) -> float:
    """eˣ, or inf where it overflows."""
    return math.exp(logarithm) if logarithm < 709 else math.inf


@dataclass(frozen=True)
class Updates:
    """The samples, as the numbers that change the error.

    Attributes:
        x: the inputs, shape (n,), in float64 on the CPU.
        squares, residuals: x² and x (y − w* x), shape (n,) each.
        least_squares: w*.
        noise: mean (y − w* x)².
        batch_size, loss: how the samples are averaged.
        dtype: that of the given samples, in which a run rounds.
    """

    x: Tensor
    squares: Tensor
    residuals: Tensor
    least_squares: float
    noise: float
    batch_size: int
    loss: str
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor, y: Tensor, batch_size: int, loss: str) -> Updates:
        """The updates of these samples, in float64 on the CPU whatever their type."""
        dtype = x.dtype
        x, y = (values.detach().to("cpu", torch.float64) for values in (x, y))
        w_star = (torch.dot(x, y) / torch.dot(x, x)).item()
        z = y - w_star * x
        return cls(x, x * x, x * z, w_star, z.square().mean().item(), batch_size, loss, dtype)

    @property
    def size(self) -> float:
        """The size of a weight in these data, √(mean y² / mean x²): no w* is larger."""
        return math.hypot(self.least_squares, math.sqrt(self.noise / self.squares.mean().item()))

    def strength(self, size: int) -> float:
        """The s of the loss for a batch of this size."""
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

    def exact_factor(self, lr: float, number: int) -> float:
        """1 − lr h of a batch in file order, rounded once."""
        batch = self.x[number * self.batch_size : (number + 1) * self.batch_size].tolist()
        mean = sum(Fraction(value) ** 2 for value in batch) / len(batch)
        return float(1 - Fraction(lr) * Fraction(self.strength(len(batch))) * mean)


class FixedOrder:
    """The same batches in every epoch: one affine map."""

    almost_sure: Intervals | None = None
    limit_error = 0.0

    def __init__(self, updates: Updates) -> None:
        self.updates = updates
        self.h, self.r = updates.batches()
        # The smallest lr at which one factor is 0; the others are then at least 0.
        self.fastest_lr = 1 / self.h.max().item()

    def basis(self, lr: float) -> str:
        """How the answer at this lr is known: "exact", or simulated."""
        return "exact"

    @cached_property
    def intervals(self) -> Intervals:
        return converging_intervals(self.h.numpy())

    def factors(self, lr: float) -> Tensor:
        """1 − lr h of each batch; by fractions if it is nearly 0 while other factors are above 1."""
        factors = 1 - lr * self.h
        if lr > 2 * self.fastest_lr:
            landing = torch.nonzero(factors.abs() < NEARLY_ZERO).flatten().tolist()
            if len(landing) * self.updates.batch_size <= MOST_EXACT:
                for number in landing:
                    factors[number] = self.updates.exact_factor(lr, number)
        return factors

    def log_factor(self, lr: float) -> float:
        """log|scale|."""
        step = lr * self.h  # log1p keeps tiny steps: 1 − 1e-20 rounds to 1
        if lr < self.fastest_lr / 2:
            return torch.log1p(-step).sum().item()
        return torch.where(step < 0.5, torch.log1p(-step), torch.log(self.factors(lr).abs())).sum().item()

    def factor(self, lr: float) -> float:
        odd = int((self.factors(lr) < 0).sum()) % 2
        size = exp(self.log_factor(lr))
        return -size if odd and size else size  # never −0

    def map(self, lr: float) -> EpochMap:
        """The map of an epoch about least squares; the mean one if the order is random."""
        scale, lost, shift = (part.item() for part in compose(self.factors(lr), lr * self.h, lr * self.r))
        return EpochMap(scale, shift, self.updates.least_squares, lost)

    def offset(self, lr: float) -> float:
        """Where the error settles: the fixed point, less least squares."""
        epoch = self.map(lr)
        if epoch.lost and math.isfinite(epoch.drift) and math.isfinite(epoch.lost):
            return epoch.drift / epoch.lost
        # If the epoch overflows, use its inverse, (e − lr r)/(1 − lr h), with the same fixed point.
        factors = 1 / lr - self.h
        scale, shift = compose((1 / lr / factors).flip(0), (-self.r / factors).flip(0))
        place = shift.item() / (1 - scale.item()) if scale.item() != 1 else math.inf
        return math.inf if math.isnan(place) else place

    def spread(self, lr: float) -> float:
        """The standard deviation of the settled error at the ends of epochs; NaN if it does not settle."""
        return 0.0


def rounding(epoch: FixedOrder, lr: float) -> tuple[float, float]:
    """The most that rounding adds to |scale| in an epoch, and the most that it moves the settled weight.

        ε Σᵢ (1 + 2 lr hᵢ) Π_{j≠i} |1 − lr hⱼ|,    ε Σᵢ sizeᵢ Π_{j>i} |1 − lr hⱼ|

    An update rounds its result by at most ε times the size of what it adds up, and the later updates multiply
    this error. The sizes are those of a weight or, if steps overshoot, of the settled weights in an epoch.
    """
    logs = epoch.factors(lr).abs().log()
    later = logs.flip(0).cumsum(0).flip(0).roll(-1)
    later[-1] = 0
    earlier = logs.cumsum(0).roll(1)
    earlier[0] = 0
    once = math.log(torch.finfo(epoch.updates.dtype).eps) + torch.log(1 + 2 * lr * epoch.h)
    grown = exp(torch.logsumexp(once + earlier + later, 0).item())
    if lr <= epoch.fastest_lr or grown >= 1:
        sizes = torch.tensor(epoch.updates.size, dtype=torch.float64)
    else:
        star, error, found = epoch.updates.least_squares, epoch.offset(lr), []
        for step, factor, moved in zip(
            (lr * epoch.h).tolist(), epoch.factors(lr).tolist(), (lr * epoch.r).tolist(), strict=True
        ):
            before, error = error, factor * error + moved
            found.append(abs(star + before) + abs(star + error) / (1 + 2 * step) + abs(moved))
        sizes = torch.tensor(found, dtype=torch.float64)
    return grown, exp(torch.logsumexp(once + sizes.log() + later, 0).item())
