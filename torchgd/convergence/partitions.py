"""The mean square of an epoch's scale over all ways to distribute the samples to the batches.

For batches B of b samples with values q ≥ 0, Π_B f(B), f(B) = (1 − c Σ_B q)², has the mean

    [z₁ … zₙ] Φ(z)ᵐ / [z₁ … zₙ] S₀ⁿ,    Φ = E f(B) Π_B z = a polynomial of S₀, S₁, S₂,    S_k = Σ zᵢ qᵢᵏ / n,

for b independent draws: terms with a sample twice are not in z₁ … zₙ. The coefficient is an integral over
S and its dual t, and for many samples that is its value at the saddle, where zᵢ = n / Σ t_k qᵢᵏ and t is the
gradient of log Φᵐ, times a determinant of the curvatures there; the rest is of the order of 1/n.
A simulation does not find it, because the partitions that decide the mean square are too rare to be drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ENOUGH = 1e-12  # of the change of S
MOST_STEPS = 200
MOST_VALUES = 8_000  # different ones; if there are more, neighbours are merged


class Saddle:
    """The mean of Π f(B) over the ways to fill batches, as a function of lr.

    Args:
        values: of the samples, shape (n,): h of a batch is the sum of its values times its strength.
        batches: for each kind of batch: their number, their samples and their strength.
    """

    def __init__(self, values: Array, batches: Sequence[tuple[int, int, float]]) -> None:
        self.unit = values.max()
        q, counts = np.unique(values / self.unit, return_counts=True)
        group = len(q) // MOST_VALUES
        if group > 1:  # merge neighbours, but keep the largest values
            end = (len(q) - MOST_VALUES // 10) // group * group
            whole = counts[:end].reshape(-1, group)
            middle = (q[:end].reshape(-1, group) * whole).sum(1) / whole.sum(1)
            q, counts = np.append(middle, q[end:]), np.append(whole.sum(1), counts[end:])
        self.powers, self.counts, self.n = np.stack([np.ones_like(q), q, q * q]), counts, len(values)
        self.batches = batches

    def log_mean(self, lr: float) -> tuple[float, float]:
        """The logarithm of the mean, and the determinant's part in it."""
        s = self.powers @ self.counts / self.n
        for _ in range(MOST_STEPS):
            _, t, bend = self._polynomial(lr, s)
            weights, mean, dual = self._dual(t)
            change = mean - s
            if np.abs(change).max() <= ENOUGH:
                break
            # Newton's step, except in the direction in which both are homogeneous.
            newton = np.linalg.lstsq(np.eye(3) - dual @ bend, change, rcond=1e-10)[0]
            full = s + newton
            s = full if full[0] > 0 and self._valid(lr, full / full[0]) else s + 0.3 * change
            s = s / s[0]
        value, t, bend = self._polynomial(lr, s)
        weights, _, dual = self._dual(t)
        exponent = value - float(self.counts @ np.log(weights))
        eigenvalues = np.linalg.eigvals(np.eye(3) - bend @ dual)
        others = np.sort(np.abs(eigenvalues))[1:]
        share = -0.5 * float(np.log(others).sum())
        return exponent + share, share

    def _valid(self, lr: float, s: Array) -> bool:
        if not (np.isfinite(s).all() and (s > 0).all()):
            return False
        value, t, _ = self._polynomial(lr, s)
        return math.isfinite(value) and bool((t @ self.powers > 0).all())

    def _dual(self, t: Array) -> tuple[Array, Array, Array]:
        """The zᵢ of t, their S, and the derivatives of S by t."""
        weights = self.n / (t @ self.powers)
        mean = self.powers @ (self.counts * weights) / self.n
        dual = -(self.powers * (self.counts * weights * weights)) @ self.powers.T / self.n**2
        return weights, mean, dual

    def _polynomial(self, lr: float, s: Array) -> tuple[float, Array, Array]:
        """log Φᵐ at S with S₀ = 1, its gradient and its second derivatives."""
        _, s1, s2 = s
        value, gradient, bend = 0.0, np.zeros(3), np.zeros((3, 3))
        for count, b, strength in self.batches:
            c, pairs = lr * strength * self.unit, b * (b - 1)
            phi = 1 - 2 * c * b * s1 + c * c * (b * s2 + pairs * s1 * s1)
            first = np.array(
                [
                    b - 2 * c * pairs * s1 + c * c * (pairs * s2 + pairs * (b - 2) * s1 * s1),
                    -2 * c * b + 2 * c * c * pairs * s1,
                    c * c * b,
                ]
            )
            zero = pairs * (1 - 2 * c * (b - 2) * s1 + c * c * (b - 2) * (s2 + (b - 3) * s1 * s1))
            one = 2 * c * pairs * (c * (b - 2) * s1 - 1)
            second = np.array(
                [[zero, one, c * c * pairs], [one, 2 * c * c * pairs, 0.0], [c * c * pairs, 0, 0]]
            )
            value += count * math.log(phi) if phi > 0 else math.nan
            gradient += count * first / phi
            bend += count * (second / phi - np.outer(first, first) / phi**2)
        return value, gradient, bend
