"""What the gradient of one weight may be: the table of `mistakes`, and those with a number of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from torchgd.check.mistakes import MISTAKES, Cause, Mistake, Terms
from torchgd.check.probes import OWN_DATA, Probe
from torchgd.check.subject import Candidate

Known = Sequence[tuple[Probe, Tensor]]  # the answers that there are


def of_the_table(each: bool) -> list[Candidate]:
    """The mistakes that people make."""
    return [_candidate(mistake, each, slack=4.0) for mistake in MISTAKES]


def fitted(known: Known, each: bool, eps: float) -> list[Candidate]:
    """An old w, a penalty or a bound, which the answers give: what is fitted carries their rounding too."""
    mistakes = _fitted(known, each, eps) if known else ()
    return [_candidate(mistake, each, slack=64.0) for mistake in mistakes]


def _candidate(mistake: Mistake, each: bool, slack: float) -> Candidate:
    def value(probe: Probe) -> Tensor:
        return _reduce(mistake(*_at(probe)), each)

    def scale(probe: Probe) -> Tensor:
        return _reduce(_scale(mistake, probe), each)

    return Candidate(mistake.cause, mistake.message, value, scale, mistake.formula, mistake.times, slack)


def _at(probe: Probe) -> tuple[float, Tensor, Tensor]:
    return probe.w, probe.x, probe.y


def _reduce(terms: Tensor, each: bool) -> Tensor:
    return terms if each or terms.dim() == 0 else terms.mean()


def _scale(mistake: Mistake, probe: Probe) -> Tensor:
    """The scale of the rounding of each term, measured: by how much the value moves when w, x or y move.

    Each moves by a unit of relative change; the signs differ so that the moves do not cancel in a mean.
    """
    step = 2.0**-20
    move = 1 + step * torch.cos(torch.arange(1.0, probe.n + 1, dtype=torch.float64))
    w, x, y = _at(probe)
    terms = mistake(w, x, y)
    moved = (mistake(w * (1 + step), x, y), mistake(w, x * move, y), mistake(w, x, y * move))
    return torch.stack([terms.abs(), *((other - terms).abs() / step for other in moved)]).sum(0)


def _fitted(known: Known, each: bool, eps: float) -> Iterator[Mistake]:
    probe, answer = known[0]
    stale = float((answer.mean() / 2 + (probe.x * probe.y).mean()) / (probe.x**2).mean())
    message = f"It does not depend on w: it is the gradient at w = {stale:.6g}, whatever w it is given."
    formula = f"2 x ({stale:.6g} x − y)"
    yield Mistake(Cause.constant, formula, lambda w, x, y, r, g: 2 * x * (stale * x - y), message)
    own = [(probe, answer) for probe, answer in known if probe.data == OWN_DATA]  # of a moderate size
    yield from _penalties(own, each, eps)
    yield from _clips(known, each)


def _penalties(known: Known, each: bool, eps: float) -> Iterator[Mistake]:
    """k Nᵖ · gradient + λ w, λ sign(w) or these over N: k and λ by least squares, weighed by the rounding."""
    for signed, over, power in product((False, True), (0, 1), (0, 1)):
        rows = []
        for probe, answer in known:
            right, scale = _reduce(probe.right, each), _reduce(probe.scale, each)
            penalty = (math.copysign(1.0, probe.w) if signed else probe.w) / probe.n**over
            row = torch.stack([right * probe.n**power, torch.full_like(right, penalty), answer])
            rows.append((row / torch.where(scale > 0, scale, torch.inf)).reshape(3, -1))
        table = torch.cat(rows, dim=1)
        k, rate = torch.linalg.lstsq(table[:2].T, table[2]).solution.tolist()
        misfit = float((k * table[0] + rate * table[1] - table[2]).abs().max())
        if abs(rate) < 1e4 * eps or misfit > 1e6 * eps * float(table.abs().max()):
            continue
        name = ("sign(w)" if signed else "w") + ("/N" if over else "")
        message = f"A weight penalty is in it: it adds {rate:.6g} {name} to the gradient."
        if abs(k - (2 * (k > 0) - 1)) > 1e-6:
            message += f" The gradient itself is taken {k:.6g} times."
        if name == "w" and abs(rate - 1) < 1e-6 and k < 0:
            message = f"This is the weight after an update with lr = {-k:.6g}, not the gradient."
        yield Mistake(Cause.other_loss, "", _penalised(k, power, rate, signed, over), message)


def _penalised(k: float, power: int, rate: float, signed: bool, over: int) -> Terms:
    def terms(w: float, x: Tensor, y: Tensor, r: Tensor, g: Tensor) -> Tensor:
        penalty = rate * (math.copysign(1.0, w) if signed else w) / len(x) ** over
        terms: Tensor = k * float(len(x)) ** power * g + penalty
        return terms

    return terms


def _clips(known: Known, each: bool) -> Iterator[Mistake]:
    """The gradient, or each sample's, cut at the largest answer there is."""
    low, high = min(float(a.min()) for _, a in known), max(float(a.max()) for _, a in known)
    if low == high:
        return
    cut = high if sum(float(a.max()) == high for _, a in known) > 1 else low
    bound = max((float(a.abs().max()) for probe, a in known if probe.n == 1 or each), default=0.0)
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
