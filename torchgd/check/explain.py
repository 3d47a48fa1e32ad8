"""Which mistake explains every answer: the search through `torchgd.check.mistakes`, and its error model.

Two numbers are equal "to rounding" when they differ by at most ε (N + 8) · (the sum of the sizes of the terms
that were added): N − 1 additions, the division, and the few operations inside a term each round once, by at
most ε/2. ε belongs to the dtype in which the answer was computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from torchgd.check.mistakes import MISTAKES, RIGHT, Cause, Mistake, Terms
from torchgd.check.probes import OWN_DATA, Probe


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


@dataclass(frozen=True)
class Point:
    """A probe and what the function answered there: None where it failed."""

    probe: Probe
    answer: Tensor | None


@dataclass(frozen=True)
class Explanation:
    """A mistake that explains all the evidence, and the factor it comes with."""

    mistake: Mistake
    factor: Factor


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
    other = [i for i in known if counts[i] != counts[known[0]]]
    if not other:
        return None
    first, second = (_ratio(answers[i], value(i)) for i in (known[0], other[0]))
    if not (first and second and first / second > 0):
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


def explain(points: Sequence[Point], per_sample: bool, eps: float) -> Explanation | None:
    """The mistake that explains every point; one without a factor goes before one that needs it."""
    answers, counts = [point.answer for point in points], [point.probe.n for point in points]

    def factor(mistake: Mistake, slack: float) -> Factor | None:
        def value(i: int) -> Tensor:
            return _reduce(mistake(*_at(points[i].probe)), per_sample)

        def scale(i: int) -> Tensor:
            return _reduce(_scale(mistake, points[i].probe), per_sample)

        return proportion(answers, counts, value, scale, eps, slack)

    for mistakes, slack in ((MISTAKES, 4.0), (_fitted(points, per_sample, eps), 64.0)):
        found = [Explanation(mistake, found) for mistake in mistakes if (found := factor(mistake, slack))]
        if found:
            return min(found, key=lambda item: item.factor not in (Factor(1.0), Factor(1.0, 1)))
    return None


def _at(probe: Probe) -> tuple[float, Tensor, Tensor]:
    return probe.w, probe.x, probe.y


def _reduce(terms: Tensor, per_sample: bool) -> Tensor:
    return terms if per_sample or terms.dim() == 0 else terms.mean()


def _scale(mistake: Mistake, probe: Probe) -> Tensor:
    """The scale of the rounding of each term.

    The right terms know theirs. For the others it is measured: by how much the value moves when w, x or y
    move, a unit of relative change each; the signs of the moves differ so that they do not cancel in a mean.
    """
    if mistake is RIGHT:
        return probe.scale
    step = 2.0**-20
    move = 1 + step * torch.cos(torch.arange(1.0, probe.n + 1, dtype=torch.float64))
    w, x, y = _at(probe)
    terms = mistake(w, x, y)
    moved = (mistake(w * (1 + step), x, y), mistake(w, x * move, y), mistake(w, x, y * move))
    return torch.stack([terms.abs(), *((other - terms).abs() / step for other in moved)]).sum(0)


def _fitted(points: Sequence[Point], per_sample: bool, eps: float) -> Iterator[Mistake]:
    """The mistakes with a number of their own, an old w, a penalty or a bound, which the answers give."""
    known = [(point.probe, point.answer) for point in points if point.answer is not None]
    probe, answer = known[0]
    stale = float((answer.mean() / 2 + (probe.x * probe.y).mean()) / (probe.x**2).mean())
    message = f"It does not depend on w: it is the gradient at w = {stale:.6g}, whatever w it is given."
    formula = f"2 x ({stale:.6g} x − y)"
    yield Mistake(Cause.constant, formula, lambda w, x, y, r, g: 2 * x * (stale * x - y), message)
    own = [(probe, answer) for probe, answer in known if probe.data == OWN_DATA]  # of a moderate size
    yield from _penalties(own, per_sample, eps)
    yield from _clips(known, per_sample)


def _penalties(known: Sequence[tuple[Probe, Tensor]], per_sample: bool, eps: float) -> Iterator[Mistake]:
    """k · gradient + λ w, or + λ sign(w): k and λ by least squares, each equation weighed by its rounding."""
    for power, signed in ((0, False), (1, False), (0, True), (1, True)):
        rows = []
        for probe, answer in known:
            right, scale = _reduce(probe.right, per_sample), _reduce(probe.scale, per_sample)
            penalty = torch.full_like(right, math.copysign(1.0, probe.w) if signed else probe.w)
            row = torch.stack([right * probe.n**power, penalty, answer])
            rows.append((row / torch.where(scale > 0, scale, torch.inf)).reshape(3, -1))
        table = torch.cat(rows, dim=1)
        k, rate = torch.linalg.lstsq(table[:2].T, table[2]).solution.tolist()
        if abs(rate) < 1e4 * eps:
            continue
        name = "sign(w)" if signed else "w"
        message = f"A weight penalty is in it: it adds {rate:.6g} {name} to the gradient."
        if abs(k - (2 * (k > 0) - 1)) > 1e-6:
            message += f" The gradient itself is taken {k:.6g} times."
        if not signed and abs(rate - 1) < 1e-6 and k < 0:
            message = f"This is the weight after an update with lr = {-k:.6g}, not the gradient."
        yield Mistake(Cause.other_loss, "", _penalised(k, power, rate, signed), message)


def _penalised(k: float, power: int, rate: float, signed: bool) -> Terms:
    return lambda w, x, y, r, g: k * len(x) ** power * g + rate * (math.copysign(1.0, w) if signed else w)


def _clips(known: Sequence[tuple[Probe, Tensor]], per_sample: bool) -> Iterator[Mistake]:
    """The gradient, or each sample's, cut at the largest answer there is."""
    low, high = min(float(a.min()) for _, a in known), max(float(a.max()) for _, a in known)
    if low == high:
        return
    cut = high if sum(float(a.max()) == high for _, a in known) > 1 else low
    bound = max((float(a.abs().max()) for probe, a in known if probe.n == 1 or per_sample), default=0.0)
    size, answer = max((float(probe.right.mean().abs()), float(a.abs().max())) for probe, a in known)
    norm = answer * (size + 1e-6) / size
    clipped: tuple[tuple[float, Terms], ...] = (
        (cut, lambda w, x, y, r, g: g.mean().clamp(low, high)),
        (bound, lambda w, x, y, r, g: g.clamp(-bound, bound)),
        (norm, lambda w, x, y, r, g: g.mean() * _shrink(g.mean(), norm)),
    )
    for limit, terms in clipped:
        message = f"The gradient is clipped: its direction is right, but its size is cut at {limit:.6g}."
        yield Mistake(Cause.saturated, "", terms, message)


def _shrink(gradient: Tensor, norm: float) -> Tensor:
    """The factor of torch.nn.utils.clip_grad_norm_, which adds this 1e-6."""
    return (norm / (gradient.abs() + 1e-6)).clamp(max=1)
