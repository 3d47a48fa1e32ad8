"""What may have made a run of y = w·x diverge: each suspect is another update.

With e = w − w* and the h and r of :mod:`torchgd.convergence.epochs`, every update here is

    g = t (h e − r) + d (e + w*),    v ← m v + g,    e ← e − lr v    (Nesterov: e − lr (g + m v))

with t times the gradient of the batch, weight decay d and momentum m; as the run was meant, t = 1, d = m = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from torchgd.convergence.linear_epochs import joined


class Cause(str, Enum):
    """What made a run diverge. A bad start is not a cause: an epoch's factor does not depend on w0."""

    NONE = "it did not diverge"
    LR = "the learning rate is too large"
    SUM = "the sum instead of the mean"
    HALF_SUM = "half of the sum instead of the mean"
    TWICE = "a gradient twice as large"
    HALF = "a gradient half as large"
    SIGN = "the gradient added instead of subtracted"
    ALL_SAMPLES = "the batch's sum divided by the number of all samples"
    TIMES = "another learning rate, or a multiple of the gradient"
    POWER = "a gradient with another power of x"
    ZERO_GRAD = "gradients that add up, since zero_grad is missing"
    MOMENTUM = "momentum"
    DECAY = "weight decay"
    SCHEDULE = "a learning rate that changes from epoch to epoch"
    OPTIMIZER = "the update of another optimizer"
    SEVERAL = "several causes fit"
    OUTLIER = "one sample's x"
    UNITS = "the unit of x"
    GRADIENT = "another gradient or update"


@dataclass(frozen=True)
class Suspect:
    """One update that the run may have made: a gradient times ``times`` (a number, or one for each batch).

    ``power`` is that of x in the gradient, x^power (w x − y).
    """

    cause: Cause
    times: float | Tensor = 1.0
    momentum: float = 0.0
    nesterov: bool = False
    decay: float = 0.0
    power: int = 1

    def sentence(self, lr: float) -> str:
        """What its steps are, and what to change."""
        times = float(_times(self).flatten()[0])
        name = "Nesterov's momentum" if self.nesterov else "momentum"
        where = "x is missing" if self.power == 0 else f"x stands in it to the power {self.power}"
        numbers = {"times": times, "rate": lr * times, "momentum": self.momentum, "decay": self.decay}
        return _SENTENCES[self.cause].format(name=name, where=where, **numbers)


_SENTENCES = {
    Cause.SUM: "The steps are those of the sum of the losses: divide the gradient by the batch's size.",
    Cause.HALF_SUM: "The steps are those of ½ Σ, without 1/n: divide the gradient by the batch's size.",
    Cause.SIGN: "The steps go uphill: subtract the gradient, w -= lr * gradient.",
    Cause.TWICE: "The steps are those of twice the gradient: look for a 2 too many, or a lost ½.",
    Cause.HALF: "The steps are those of half the gradient: look for a lost 2, or a ½ too many.",
    Cause.ALL_SAMPLES: "The steps are those of the batch's sum over all n: divide by the batch's size.",
    Cause.TIMES: "The steps are those of {times:.6g} times the gradient, or of lr {rate:.6g}.",
    Cause.POWER: "The steps are those of another gradient: {where}; it is 2 x (w x - y).",
    Cause.ZERO_GRAD: "Each step holds all gradients so far: call optimizer.zero_grad() before backward().",
    Cause.MOMENTUM: "The steps are those of {name} {momentum:.6g}: its limit is not that of plain descent.",
    Cause.DECAY: "The steps are those of weight decay {decay:.6g} added to the gradient.",
}

MULTIPLES = (3.0, 4.0, 5.0, 10.0, 100.0, 1000.0, 0.1, 0.01)
MOMENTA = (0.9, 0.99, 0.95, 0.5, 0.8, 0.7, 0.6, 0.85, 0.98, 0.999, 0.1, 0.2, 0.3, 0.4)
DECAYS = (0.1, 0.01, 1.0, 0.5, 0.001, 10.0)


def named(sizes: Tensor, n: int, loss: str) -> list[Suspect]:
    """The suspects without unknown numbers, the commonest first; sizes are those of the batches."""
    size = sizes.double()
    found = [Suspect(Cause.SIGN, -1.0), Suspect(Cause.TWICE, 2.0), Suspect(Cause.HALF, 0.5)]
    if loss != "sum" and bool((size > 1).any()):
        found = [Suspect(Cause.SUM, size), *found, Suspect(Cause.SIGN, -size)]
        if loss == "mean":
            found.append(Suspect(Cause.HALF_SUM, size / 2))
        found.append(Suspect(Cause.ALL_SAMPLES, size / n))
    found += [Suspect(Cause.ZERO_GRAD, momentum=1.0), Suspect(Cause.POWER, power=0)]
    found += [Suspect(Cause.POWER, power=2)]
    known = [_times(one).expand(len(size)) for one in found]
    for times in (*MULTIPLES, 1.0 / n, float(n)):
        if not any(bool((other == times).all()) for other in known):
            found.append(Suspect(Cause.TIMES, times))
    return [one for one in found if one.momentum or one.power != 1 or bool((_times(one) != 1).any())]


def _times(one: Suspect) -> Tensor:
    return torch.as_tensor(one.times, dtype=torch.float64)


def guessed() -> list[Suspect]:
    """Momentum and weight decay with the usual numbers."""
    momenta = [Suspect(Cause.MOMENTUM, momentum=m, nesterov=n) for n in (False, True) for m in MOMENTA]
    return momenta + [Suspect(Cause.DECAY, decay=d) for d in DECAYS]


def epoch_matrix(
    h: Tensor, r: Tensor, lr: float, suspect: Suspect, centre: float
) -> tuple[Tensor, float, float]:
    """An epoch as a matrix on (e, v, 1), the largest growth within it, and the sum of all |shift|."""
    steps = _steps(h, r, lr, suspect, centre)
    grown = torch.log(steps[..., 0, 0].abs() + steps[..., 0, 1].abs()).clamp_min(0).sum().item()
    return joined(steps), math.exp(min(grown, 600.0)), steps[..., 0, 2].abs().sum().item()


def epoch_matrices(h: Tensor, r: Tensor, lr: float, suspects: Sequence[Suspect], centre: float) -> Tensor:
    """The epochs of many suspects, shape (suspects, 3, 3)."""
    return joined(torch.stack([_steps(h, r, lr, one, centre) for one in suspects]))


def _steps(h: Tensor, r: Tensor, lr: float, suspect: Suspect, centre: float) -> Tensor:
    """The updates of an epoch as matrices on (e, v, 1), shape (batches, 3, 3)."""
    times = _times(suspect).expand_as(h)
    a, b = times * h + suspect.decay, suspect.decay * centre - times * r  # g = a e + b
    m = suspect.momentum
    own, factor = (1.0, m) if suspect.nesterov else (0.0, 1.0)
    scale, zero = lr * (own + factor), torch.zeros_like(h)
    one = zero + 1.0
    rows = [1 - scale * a, zero - lr * factor * m, -scale * b, a, zero + m, b, zero, zero, one]
    steps: Tensor = torch.stack(rows, -1).unflatten(-1, (3, 3))
    return steps
