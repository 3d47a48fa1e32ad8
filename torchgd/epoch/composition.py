"""Affine maps w ↦ a w + b of one weight: one of them, and many in order composed to one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torchgd.errors import InputError


@dataclass(frozen=True)
class EpochMap:
    """What a run of updates does to the weight: w ↦ center + scale · (w − center) + drift.

    Args:
        scale: the product of the factors of all updates, without unit; ±inf above float64's range.
        drift: where the centre itself ends, less the centre; in units of w.
        center: the weight about which the map is written; in units of w.

    Example:
        >>> halve = EpochMap(0.5, 1.0)  # w ↦ w/2 + 1
        >>> halve(4.0), halve.then(halve)(4.0), halve.after(100)(4.0), halve.fixed_point
        (3.0, 2.5, 2.0, 2.0)
    """

    scale: float = 1.0
    drift: float = 0.0
    center: float = 0.0

    @property
    def shift(self) -> float:
        """The constant of the map written as w ↦ scale · w + shift."""
        return number_or_inf(self.drift + times(1 - self.scale, self.center))

    @property
    def fixed_point(self) -> float:
        """The weight that the map leaves where it is, shift / (1 − scale); NaN where scale is 1."""
        return self.center + self.drift / (1 - self.scale) if self.scale != 1 else math.nan

    @property
    def converges(self) -> bool:
        """Whether epoch after epoch ends at the fixed point, from any weight: |scale| < 1."""
        return abs(self.scale) < 1 and math.isfinite(self.drift)

    @property
    def verdict(self) -> str:
        """Whether epoch after epoch converges, in one sentence."""
        grows = f"an epoch multiplies the error by {self.scale:.6g}"
        if not math.isfinite(self.drift):
            return "It diverges: an epoch overflows; use a smaller lr."
        if self.scale == 0:  # in truth, or below float64's range: the limit is not known
            return f"An epoch ends at {self.fixed_point:.6g} wherever it began, to float64."
        if self.converges:
            return f"It converges: {grows}; it settles at {self.fixed_point:.6g}."
        if abs(self.scale) > 1:
            return f"It diverges: {grows}; use a smaller lr."
        return f"It does not converge: {grows}."

    def __call__(self, w: float | Tensor) -> float:
        """The weight after the updates from w; ±inf where they diverge, never NaN from a finite w."""
        return number_or_inf(self.center + (times(self.scale, float(w) - self.center) + self.drift))

    def then(self, other: EpochMap) -> EpochMap:
        """The map of these updates followed by the other's."""
        moved = other.drift + times(
            1 - other.scale, other.center - self.center
        )  # the other's drift from our centre
        drift = times(other.scale, self.drift) + moved
        return EpochMap(times(other.scale, self.scale), number_or_inf(drift), self.center)

    def after(self, epochs: int) -> EpochMap:
        """The map of this many epochs, by repeated squaring: O(log epochs), and exact near scale = 1.

        Raises:
            InputError: epochs is negative.
        """
        if epochs < 0:
            raise InputError(
                f"epochs must be 0 or more, not {epochs}; give the number of passes over the data"
            )
        power, result = self, EpochMap(center=self.center)
        while epochs:
            if epochs % 2:
                result = result.then(power)
            epochs //= 2
            power = power.then(power) if epochs else power
        return result


def times(scale: float, value: float) -> float:
    """The product, but inf · 0 is 0 (what is at the centre stays) and 0 · inf is inf (it has diverged)."""
    return number_or_inf(scale * value) if value else 0.0


def number_or_inf(value: float) -> float:
    """inf − inf comes only from weights beyond the range of float64: the loop has diverged."""
    return math.inf if math.isnan(value) else value


class Tree:
    """Maps w ↦ a w + b in order, composed in pairs, the pairs in pairs, and so on up to one.

    Node 1 of the heap is the whole, nodes 2i and 2i + 1 are the earlier and the later half of node i,
    and node 0 is the identity. There are 2^height leaves.
    """

    def __init__(self, height: int, device: torch.device) -> None:
        self.height = height
        with torch.inference_mode(False):  # a tree serves later epochs too, in that mode or not
            self.heap = torch.empty(2, 2 << self.height, dtype=torch.float64, device=device)
        self.heap[:, 0] = torch.tensor([1.0, 0.0])
        a, b = self.heap.unbind()
        (a1, a2), (b1, b2) = a.view(-1, 2).unbind(1), b.view(-1, 2).unbind(1)
        levels = [1, *(1 << depth for depth in range(self.height))]  # how many nodes have two halves, on each
        rows = (a1, a2, b1, b2, a[: 1 << self.height], b[: 1 << self.height])
        # The views are made once: making them costs as much as the products of a small level.
        self.steps = list(zip(*(row.split(levels)[:0:-1] for row in rows), strict=True))

    def leaves(self, count: int) -> tuple[Tensor, Tensor]:
        """Where the a and b of the maps belong; the places left over are made the identity."""
        a, b = self.heap[:, 1 << self.height :]
        a[count:], b[count:] = 1, 0
        return a[:count], b[:count]

    def compose(self) -> tuple[float, float]:
        """The whole: on every level (a₂, b₂) ∘ (a₁, b₁) = (a₂ a₁, a₂ b₁ + b₂)."""
        for a1, a2, b1, b2, a, b in self.steps:
            torch.addcmul(b2, a2, b1, out=b)
            torch.mul(a2, a1, out=a)
        scale, shift = self.heap[:, 1].tolist()
        return scale, shift

    def prefixes(self, counts: list[int]) -> list[tuple[float, float]]:
        """The maps of the first so many leaves: one node for each binary digit 1 of the count."""
        digits = torch.arange(self.height, -1, -1, device=self.heap.device).unsqueeze(1)
        above = torch.tensor(counts, device=self.heap.device) >> digits  # nodes of each size before the count
        nodes = ((1 << (self.height - digits)) + above - 1) * (above & 1)
        factors, terms = self.heap[:, nodes]
        scale, shift = torch.ones_like(factors[0]), torch.zeros_like(terms[0])
        for a, b in zip(factors, terms, strict=True):
            shift = torch.addcmul(b, a, shift)
            scale = a * scale
        return list(zip(scale.tolist(), shift.tolist(), strict=True))
