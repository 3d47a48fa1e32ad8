"""How two gradients are compared: equal, or one a multiple of the other.

Two numbers are equal "to rounding" when they differ by at most ε (N + 8) · (the sum of the sizes of the terms
that were added): N − 1 additions, the division, and the few operations inside a term each round once, by at
most ε/2. ε belongs to the dtype in which the answer was computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factor:
    """k · Nᵖ."""

    k: float
    power: int = 0

    def value(self, n: int) -> float:
        return self.k * float(n) ** self.power

    @property
    def name(self) -> str:
        """2, ½, −1, N, 2/N, N/2, N²/3, 0.7353 …"""
        ratio = Fraction(self.k).limit_denominator(24)
        exact = float(ratio) == self.k
        above, below = (str(ratio.numerator), str(ratio.denominator)) if exact else (f"{self.k:.7g}", "1")
        symbol = "N" + {2: "²", 3: "³"}.get(abs(self.power), "")
        if self.power > 0:
            above = {"1": symbol, "-1": f"-{symbol}"}.get(above, f"{above} {symbol}")
        elif self.power < 0:
            below = symbol if below == "1" else f"({below} {symbol})"
        name = above if below == "1" else f"{above}/{below}"
        return {"1/2": "½", "-1/2": "−½"}.get(name, name.replace("-", "−"))


def close(answer: Tensor, value: Tensor, scale: Tensor, n: int, eps: float) -> bool:
    """Equal to rounding."""
    return bool(((answer - value).abs() <= eps * (n + 8) * scale).all())


def proportion(
    answers: Sequence[Tensor | None],
    counts: Sequence[int],
    value: Callable[[int], Tensor],
    scale: Callable[[int], Tensor],
    eps: float,
    slack: float,
) -> Factor | None:
    """The k and p of answer = k · Nᵖ · value, if they are the same at every point i; else None.

    What is fitted to the answers carries their rounding too: ``slack`` times the rounding is allowed.
    """
    known = [i for i, answer in enumerate(answers) if answer is not None and bool(answer.any())]
    if not known or not (first := _ratio(answers[known[0]], value(known[0]))):
        return None
    power = 0
    other = [i for i in known if counts[i] != counts[known[0]]]
    if other:
        second = _ratio(answers[other[0]], value(other[0]))
        if not (second and first / second > 0):
            return None
        exact = math.log(first / second) / math.log(counts[known[0]] / counts[other[0]])
        power = round(exact)
        if abs(power) > 3 or abs(exact - power) > 1e-2:
            return None
    k = first / counts[known[0]] ** power
    over, under = 0.0, 0.0
    for i, (answer, n) in enumerate(zip(answers, counts, strict=True)):
        due = value(i) * float(n) ** power
        if answer is None or not bool(due.isfinite().all()):
            if answer is not None or bool(due.isfinite().all()):
                return None
            continue
        size = scale(i) * float(n) ** power
        if not close(answer, k * due, slack * abs(k) * size, n, eps):
            return None
        unit = torch.where(size > 0, size, 1.0)
        over += float((answer / unit * (due / unit)).sum())
        under += float((due / unit * (due / unit)).sum())
    return Factor(simplest(over / under, 16 * eps), power)


def simplest(k: float, tolerance: float) -> float:
    """The ratio of small numbers that k is, to this relative tolerance: 2, not 1.9999999999999998; else k."""
    ratio = Fraction(k).limit_denominator(24)
    return float(ratio) if abs(ratio.numerator) <= 24 and abs(ratio - k) <= tolerance * abs(k) else k


def _ratio(answer: Tensor | None, value: Tensor) -> float:
    """The k that fits answer = k · value best; 0 where there is none."""
    if answer is None or not bool(value.isfinite().all()):
        return 0.0
    under = float((value * value).sum())
    return float((answer * value).sum()) / under if under > 0 else 0.0
