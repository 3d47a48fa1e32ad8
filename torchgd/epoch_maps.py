"""An epoch of y = w·x as one affine map w ↦ a w + b, and the composition of such maps."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from torchgd.errors import InputError

NEAR_ONE = 1 / 8  # up to this |1 − scale|, 1 − scale is stored beside the scale


@dataclass(frozen=True)
class EpochMap:
    """What a run of updates does to the weight: w ↦ center + scale · (w − center) + drift.

    Args:
        scale: the product of the factors of all updates, without unit; ±inf above float64's range.
        drift: how far the updates move a weight that starts at the centre; in units of w.
        center: the weight about which the map is written; in units of w.
        lost: 1 − scale, the part of the error that is lost. At a small lr the scale is 1 to rounding, and
            only this says what the updates do. If it is not given, it is taken from the scale.

    Example:
        >>> halve = EpochMap(0.5, 1.0)  # w ↦ w/2 + 1
        >>> halve(4.0), halve.then(halve)(4.0), halve.after(100)(4.0), halve.fixed_point
        (3.0, 2.5, 2.0, 2.0)
    """

    scale: float = 1.0
    drift: float = 0.0
    center: float = 0.0
    lost: float = math.nan

    def __post_init__(self) -> None:
        if not abs(self.lost) <= NEAR_ONE:  # then 1 − scale loses no digits
            object.__setattr__(self, "lost", 1 - self.scale)

    @property
    def shift(self) -> float:
        """The constant of the map written as w ↦ scale · w + shift."""
        return number_or_inf(self.drift + times(self.lost, self.center))

    @property
    def fixed_point(self) -> float:
        """The weight that the map leaves where it is, shift / (1 − scale); NaN where scale is 1."""
        return self.center + self.drift / self.lost if self.lost else math.nan

    @property
    def converges(self) -> bool:
        """Whether repeated epochs end at the fixed point, from any weight: |scale| < 1."""
        return self.lost > 0 and self.scale > -1 and math.isfinite(self.drift)

    @property
    def verdict(self) -> str:
        """One sentence: whether repeated epochs converge."""
        near_one = f"{self.scale:.6g}" == "1" and self.lost
        factor = f"1 {'+-'[self.lost > 0]} {abs(self.lost):.3g}" if near_one else f"{self.scale:.6g}"
        grows = f"an epoch multiplies the error by {factor}"
        if not math.isfinite(self.drift):
            return "It diverges: an epoch overflows; use a smaller lr."
        if self.scale == 0:  # exactly, or because it underflowed
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
        """The map of these updates followed by the other's.

        scale = s₂ s₁,    drift = s₂ d₁ + d₂ (from one centre),    1 − s₂ s₁ = lost₁ + s₁ lost₂
        """
        # The other's drift from our centre.
        moved = other.drift + times(other.lost, other.center - self.center)
        drift = times(other.scale, self.drift) + moved
        lost = self.lost + times(self.scale, other.lost)
        return EpochMap(times(other.scale, self.scale), number_or_inf(drift), self.center, lost)

    def after(self, epochs: int) -> EpochMap:
        """The map of k epochs: scaleᵏ and drift · (1 − scaleᵏ) / (1 − scale), exact near scale 1 too.

        Raises:
            InputError: epochs is negative.
        """
        if epochs < 0:
            raise InputError(
                f"epochs must be 0 or more, not {epochs}; give the number of passes over the data"
            )
        if epochs <= 1:
            return self if epochs else EpochMap(center=self.center)
        lost = math.nan
        try:
            if abs(self.lost) <= NEAR_ONE:
                logarithm = epochs * math.log1p(-self.lost)
                scale, lost = math.exp(logarithm), -math.expm1(logarithm)
            else:
                scale = self.scale**epochs
        except OverflowError:
            scale = -math.inf if self.scale < 0 and epochs % 2 else math.inf
        gone = 1 - scale if math.isnan(lost) else lost
        drift = times(number_or_inf(gone / self.lost) if self.lost else epochs, self.drift)
        return EpochMap(scale, drift, self.center, lost)


def times(scale: float, value: float) -> float:
    """The product, but inf · 0 is 0 (what is at the centre stays) and 0 · inf is inf (it has diverged)."""
    return number_or_inf(scale * value) if value else 0.0


def number_or_inf(value: float) -> float:
    """The value, or inf for NaN: inf − inf comes only from weights that have left the range of float64."""
    return math.inf if math.isnan(value) else value


def compose(scale: Tensor, *shifts: Tensor) -> tuple[Tensor, ...]:
    """Join the maps e ↦ scale·e + shift along the last axis, the first map first.

        scale = s₁ ⋯ sₘ,    shift = Σ dᵢ · sᵢ₊₁ ⋯ sₘ

    Args:
        scale: the factors, shape (…, m).
        shifts: one shift for each factor, shape (…, m); several such arrays if they share the factors.
            If a shift is 1 − scale, its joined shift is 1 − the joined scale, without loss of digits.

    Returns:
        The joined scale and each joined shift, shape (…).

    Example:
        >>> scale, shift = compose(torch.tensor([0.5, 4.0]), torch.tensor([1.0, 3.0]))  # 4 (w/2 + 1) + 3
        >>> scale.item(), shift.item()
        (2.0, 7.0)
    """
    return compose_reversed(*(values.flip(-1) for values in (scale, *shifts)))


def compose_reversed(scale: Tensor, *shifts: Tensor) -> tuple[Tensor, ...]:
    """What :func:`compose` does, with the last map first; the shifts are overwritten."""
    m = scale.shape[-1]
    later = scale.new_empty(*scale.shape[:-1], m + 1)
    later.select(-1, 0).fill_(1)
    products(scale, out=later.narrow(-1, 1, m))
    after = later.narrow(-1, 0, m)
    return later.select(-1, m), *(shift.mul_(after).sum(-1) for shift in shifts)


def products(factors: Tensor, out: Tensor | None = None) -> Tensor:
    """The product of the first factor, of the first two, and so on along the last axis.

    A product below the range of normal numbers is set to 0, because a CPU takes thirty times as long for it.
    """
    flushed = _SMALL * 1.5 == 0
    torch.set_flush_denormal(True)
    try:
        return torch.cumprod(factors, -1, out=out)
    finally:
        torch.set_flush_denormal(flushed)


_SMALL = sys.float_info.min / 4  # times 1.5 it is 0 in a thread that flushes such numbers
