"""Single samples in a fresh order each epoch: mean and spread of where the weight settles.

The scale of an epoch is the same in every order, the shift is random. Give every sample a random uniform
time: all orders are then equally likely, and if the times of one or two samples are fixed, the others come
after it (between them) independently. This leaves an integral over these times, which Gauss-Legendre
quadrature gives up to rounding: of a polynomial for a few samples, else of a power series in lr.
"""

from __future__ import annotations

import math

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from torchgd.convergence.epochs import FixedOrder, Updates
from torchgd.epoch_maps import EpochMap, compose

FEW = 200  # samples; with more the polynomial has too high a degree
FEWER = 50  # samples; up to here the polynomial is cheaper than the series
TERMS = 56  # of the series in lr h ≤ 1/2: 2⁻⁵⁶ is below rounding
NODES = 32
REACH = 45.0  # e⁻⁴⁵ is below rounding, so the integrand beyond it is left out


class ShuffledSamples(FixedOrder):
    """Each sample once an epoch, in a fresh order."""

    def __init__(self, updates: Updates, seed: int) -> None:
        super().__init__(updates)
        self.seed = seed
        self.shuffles = min(400, max(2, 1_000_000 // len(self.h)))
        self._known: dict[float, tuple[float, float]] = {}
        powers, self._sums = torch.ones_like(self.h), torch.empty(3, TERMS + 1, dtype=torch.float64)
        for k in range(TERMS + 1):  # Σ, Σ r and Σ r² of (h / largest h)ᵏ
            self._sums[:, k] = torch.stack([powers.sum(), powers @ self.r, powers @ self.r.square()])
            powers = powers * (self.h * self.fastest_lr)

    def basis(self, lr: float) -> str:
        if lr <= self.fastest_lr / 2 or len(self.h) <= FEW:
            return "exact"
        error = 100 / math.sqrt(self.shuffles / 2)  # two standard errors, of a normal distribution
        return f"simulated, {self.shuffles} shuffles, seed {self.seed}: the spread to ±{error:.2g} %"

    def map(self, lr: float) -> EpochMap:
        epoch = super().map(lr)
        return EpochMap(epoch.scale, self._moments(lr)[0], epoch.center, epoch.lost)

    def offset(self, lr: float) -> float:
        epoch = self.map(lr)
        place = epoch.drift / epoch.lost if epoch.lost else math.inf
        return place if math.isfinite(place) else math.inf

    def spread(self, lr: float) -> float:
        epoch, (_, variance) = super().map(lr), self._moments(lr)
        kept = epoch.lost * (1 + epoch.scale)  # 1 − scale²
        return math.sqrt(max(variance, 0.0) / kept) if kept > 0 else math.nan

    def _moments(self, lr: float) -> tuple[float, float]:
        """Mean and variance of the shift over all n! orders."""
        if lr not in self._known:
            if lr <= self.fastest_lr / 2 and len(self.h) > FEWER:
                self._known[lr] = self._by_series(lr)
            else:
                self._known[lr] = self._by_polynomial(lr) if len(self.h) <= FEW else self._simulated(lr)
        return self._known[lr]

    def _by_polynomial(self, lr: float) -> tuple[float, float]:
        p, r = lr * self.h, lr * self.r
        nodes, weights = leggauss(len(p) // 4 * 2 + 2)  # even: at t = 1/2 a factor of p = 2 is 0
        t, weight = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
        after = 1 - t[:, None] * p  # the mean factor of another sample: after with probability t
        squared = 1 - t[:, None] * p * (2 - p)
        mean = weight @ (after.prod(1) * (r / after).sum(1))
        square = weight @ (squared.prod(1) * (r * r / squared).sum(1))
        for time, share in zip(t, weight, strict=True):  # the later one of two has t = time·t after it
            both = 1 - time * p * (1 + t[:, None] * (1 - p))
            pairs = (r / both).sum(1) * (r * (1 - p) / both).sum(1) - (r * r * (1 - p) / both**2).sum(1)
            square = square + 2 * share * time * (weight @ (both.prod(1) * pairs))
        return mean.item(), (square - mean * mean).item()

    def _by_series(self, lr: float) -> tuple[float, float]:
        """The same integrals, with Π (1 − a p + b p²) and sums of its inverse as power series in p = lr h."""
        largest = lr / self.fastest_lr
        terms = min(TERMS, math.ceil(TERMS * math.log(2) / -math.log(largest)) + 2)
        powers = largest ** torch.arange(terms + 1, dtype=torch.float64)
        ones, r, rr = (
            self._sums[:, : terms + 1] * powers * torch.tensor([[1.0], [lr], [lr * lr]], dtype=torch.float64)
        )
        nodes, weights = (torch.from_numpy(values / 2) for values in leggauss(NODES))
        nodes = nodes + 0.5
        until = min(1.0, REACH / ones[1].item())
        t, weight = until * nodes, until * weights

        def series(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Of Π (1 − a p + b p²) the value, of its inverse and that one's square the coefficients."""
            power_sums, inverse = [torch.full_like(a, 2), a], [torch.ones_like(a), a]
            square = [torch.ones_like(a), 2 * a]
            for _ in range(2, terms + 1):
                power_sums.append(a * power_sums[-1] - b * power_sums[-2])
                inverse.append(a * inverse[-1] - b * inverse[-2])
                square.append(inverse[-1] + a * square[-1] - b * square[-2])
            orders = torch.arange(1, terms + 1, dtype=torch.float64)
            logs = torch.stack(power_sums[1:], -1) @ (ones[1:] / orders)
            return torch.exp(-logs), torch.stack(inverse, -1), torch.stack(square, -1)

        def less(sums: Tensor) -> Tensor:
            """Σ r (1 − p) pᵏ of Σ r pᵏ."""
            return sums - torch.nn.functional.pad(sums[1:], (0, 1))

        product, inverse, _ = series(t, 0 * t)
        mean = weight @ (product * (inverse @ r))
        product, inverse, _ = series(2 * t, t)
        square = weight @ (product * (inverse @ rr))
        product, inverse, twice = series(t[:, None] * (1 + nodes), t[:, None] * nodes)
        pairs = product * ((inverse @ r) * (inverse @ less(r)) - twice @ less(rr))
        square = square + 2 * (weight * t) @ (pairs @ weights)
        return mean.item(), (square - mean * mean).item()

    def _simulated(self, lr: float) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(self.seed)
        orders = (torch.randperm(len(self.h), generator=generator) for _ in range(self.shuffles))
        shifts = torch.stack([compose(1 - lr * self.h[i], lr * self.r[i])[1] for i in orders])
        return shifts.mean().item(), shifts.var().item()
