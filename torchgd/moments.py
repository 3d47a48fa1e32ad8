"""The cost as a function of the weight, from three sums over the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PIECE = 1 << 14  # numbers that PyTorch adds up in one thread, in the same order everywhere


@dataclass(frozen=True)
class Moments:
    """The cost of y = w·x for every w, written about a weight c near the optimum, so that no digits cancel.

        n C(w) = Σx² (w−c)² − 2 (w−c) Σxz + Σz²,    z = y − c x

    Attributes:
        n: how many samples.
        c: the least-squares weight of the first block of samples, in units of y/x.
        xx, xz, zz: the three sums, in float64.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0])
        >>> moments = Moments.of([(x, 2 * x)])
        >>> moments.least_squares, round(moments.cost(1.0), 4), round(moments.gradient(1.0), 4)
        (2.0, 4.6667, -9.3333)
    """

    n: int = 0
    c: float = 0.0
    xx: float = 0.0
    xz: float = 0.0
    zz: float = 0.0

    @staticmethod
    def of(blocks: Iterable[tuple[Tensor, Tensor]]) -> Moments:
        """The moments of samples given in blocks, read once."""
        moments = Moments()
        for x, y in blocks:
            moments = moments.plus(x, y)
        return moments

    @staticmethod
    def total(parts: Iterable[Moments]) -> Moments:
        """The moments of all samples from those of parts of them, written about the first part's weight.

        Example:
            >>> x = torch.tensor([1.0, 2.0, 3.0])
            >>> parts = [Moments.of([(x, 2 * x)]), Moments.of([(x, 4 * x)])]
            >>> Moments.total(parts).least_squares
            3.0
        """
        first, *others = parts
        n, xx, xz, zz = first.n, first.xx, first.xz, first.zz
        for part in others:
            gap = part.c - first.c  # y − first.c · x = z + gap · x
            n, xx, xz = n + part.n, xx + part.xx, xz + part.xz + gap * part.xx
            zz += part.zz + gap * (2 * part.xz + gap * part.xx)
        return Moments(n, first.c, xx, xz, zz)

    @property
    def least_squares(self) -> float:
        """The weight of the least cost, w* = Σxy / Σx²."""
        return self.c + self.xz / self.xx if self.xx else 0.0

    @property
    def standard_error(self) -> float:
        """The standard error of w* by the noise of the samples: √(n C(w*) / (n − 1) / Σx²)."""
        variance = self.n * self.cost(self.least_squares) / max(1, self.n - 1)
        return (variance / self.xx) ** 0.5 if self.xx else 0.0

    def cost(self, w: float) -> float:
        """The mean squared error at w."""
        return max(0.0, (self.xx * (w - self.c) - 2 * self.xz) * (w - self.c) + self.zz) / self.n

    def gradient(self, w: float) -> float:
        """Its derivative at w."""
        return 2 * (self.xx * (w - self.c) - self.xz) / self.n

    def plus(self, x: Tensor, y: Tensor) -> Moments:
        """The moments with more samples added; the first ones decide c."""
        # In pieces, because a sum of more numbers would depend on the number of threads.
        length = PIECE if x.device.type in ("cpu", "mps") else x.numel()
        moments = self
        for xs, ys in zip(float64(x).split(length), float64(y).split(length), strict=True):
            if not moments.n:
                c = (xs * ys).sum().item() / max((xs * xs).sum().item(), 1e-300)
                moments = replace(moments, c=c)
            z = torch.sub(ys, xs, alpha=moments.c)
            sums = [(first * second).sum().item() for first, second in ((xs, xs), (xs, z), (z, z))]
            moments = moments.with_sums(xs.numel(), *sums)
        return moments

    def with_sums(self, n: int, xx: float, xz: float, zz: float) -> Moments:
        """The moments with the sums of more samples added, about the same c."""
        return Moments(self.n + n, self.c, self.xx + xx, self.xz + xz, self.zz + zz)


def float64(values: Tensor) -> Tensor:
    """The same numbers in float64 on their device; those of mps, which has no float64, on the CPU."""
    return (values.cpu() if values.device.type == "mps" else values).double()
