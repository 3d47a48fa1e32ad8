"""The points at which a gradient is judged: the user's data and our own, at several weights.

A gradient is never judged at the end of a training, where any looks right, nor on one data set, where
some mistakes cannot be told apart: at N = 3 a factor N and a factor 3 are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from torchgd.check.subject import Due, Point
from torchgd.gradient import gradients

YOUR_DATA = "your data"
PERTURBED = "perturbed"
OWN_DATA = "own data"
OWN_COUNTS = (5, 2, 1, 3, 4, 7, 10)  # the first two fix how an answer grows with N


@dataclass(frozen=True)
class Probe(Point):
    """One point (w, x, y), in float64 on the CPU, and what is right there."""

    data: str
    w: float
    x: Tensor
    y: Tensor

    @property
    def at(self) -> str:  # type: ignore[override]
        return f"{self.w:.6g}"

    @cached_property
    def right(self) -> Tensor:
        """The exact derivative of each sample's loss, 2 xᵢ (w xᵢ − yᵢ)."""
        return gradients(self.w, self.x, self.y)

    @cached_property
    def scale(self) -> Tensor:
        """The sum of the sizes of its two terms, |2 w xᵢ²| + |2 xᵢ yᵢ|: rounding is a fraction of this."""
        return 2 * self.x.abs() * (abs(self.w) * self.x.abs() + self.y.abs())

    @cached_property
    def means(self) -> Due:
        """The exact derivative of the cost, and the scale of its rounding."""
        return Due(self.right.mean(), self.scale.mean())

    def due(self, each: bool) -> dict[str, Due]:
        return {"": Due(self.right, self.scale) if each else self.means}

    def references(self, name: str, index: tuple[int, ...], each: bool) -> tuple[float, float]:
        return float(self.autograd[each][index]), float(self.difference[each][index])

    def tells(self, eps: float) -> bool:
        return not bool(((self.right.abs() <= eps * 9 * self.scale) & (self.scale > 0)).any())

    def fits(self, dtype: torch.dtype) -> bool:
        limits = torch.finfo(dtype if dtype.is_floating_point else torch.float64)
        smallest, largest = self.sizes
        return smallest > limits.tiny / limits.eps and largest < limits.max / (16 * self.n)

    @cached_property
    def sizes(self) -> tuple[float, float]:
        """The smallest number above 0 and the largest that any way to compute this meets, the sum aside."""
        x, y = self.x.abs(), self.y.abs()
        w = torch.full_like(x, abs(self.w))
        met = torch.stack([w, x, y, x * x, x * y, w * x, self.scale])
        return float(torch.where(met > 0, met, torch.inf).min()), float(met.max())

    @cached_property
    def autograd(self) -> tuple[Tensor, Tensor]:
        """The derivative by autograd, of the mean and of each loss."""
        with torch.enable_grad():
            w = torch.tensor(self.w, dtype=torch.float64, requires_grad=True)
            of_each = w.expand(self.n)
            cost = ((of_each * self.x - self.y) ** 2).mean()
            mean, shares = torch.autograd.grad(cost, (w, of_each))
        return mean, shares * self.n

    @cached_property
    def difference(self) -> tuple[Tensor, Tensor]:
        """The central difference of the mean and of each: exact for a parabola, so the step may be large."""
        step = max(abs(self.w), float(self.y.abs().max()) / (float(self.x.abs().max()) or 1.0)) or 1.0
        above, below = ((w * self.x - self.y) ** 2 for w in (self.w + step, self.w - step))
        each = (above - below) / (2 * step)
        return each.mean(), each


def your_probes(w: float, x: Tensor, y: Tensor, seed: int) -> list[Probe]:
    """The user's data at w, near the optimum, at random, large and small weights; then the data perturbed."""
    generator = torch.Generator().manual_seed(seed)
    unit = float(y.abs().max()) / (float(x.abs().max()) or 1.0) or 1.0  # the size of a weight that fits
    optimum = float((x / (x.abs().max() or 1.0) * y).sum() / (x / (x.abs().max() or 1.0) * x).sum())
    near = (optimum if optimum == optimum else 0.0) + 1e-3 * unit
    first, second, third = (3 * unit * torch.randn(3, generator=generator, dtype=torch.float64)).tolist()
    weights = (w, near, first, second, 1e3 * max(abs(w), unit), -1e-3 * unit)
    noise = torch.randn(2, x.shape[0], generator=generator, dtype=torch.float64)
    moved_x, moved_y = x * (1 + 0.1 * noise[0]), y + 0.1 * y.abs().max() * noise[1]
    moved = [Probe(PERTURBED, weight, moved_x, moved_y) for weight in (w, third)]
    return [Probe(YOUR_DATA, weight, x, y) for weight in weights] + moved


@lru_cache(maxsize=8)
def own_probes(seed: int) -> tuple[Probe, ...]:
    """Noisy data of several N, each at a moderate and at an extreme weight, and one set without noise."""
    generator = torch.Generator().manual_seed(seed)
    probes = []
    for index, n in enumerate((*OWN_COUNTS, 3)):
        x = torch.randn(n, generator=generator, dtype=torch.float64)
        x = x + 0.5 * x.sign()  # none near 0, where nothing can be told apart
        noise = 0.0 if index == len(OWN_COUNTS) else 1.0
        y = 1.7 * x + noise * torch.randn(n, generator=generator, dtype=torch.float64)
        moderate = 3.0 * float(torch.randn((), generator=generator, dtype=torch.float64))
        extreme = (1e3, -1e-3, -1e3)[index % 3] if noise else 1.7001
        probes += [Probe(OWN_DATA, moderate, x, y), Probe(OWN_DATA, extreme, x, y)]
    return tuple(probes)
