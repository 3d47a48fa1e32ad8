"""The best learning rate: a balance of what is left of the start and where the weight settles."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from torchgd.convergence.methods import Epoch, epoch_of
from torchgd.errors import InputError
from torchgd.plan import Plan
from torchgd.samples import Numbers

AnyPlan = TypeVar("AnyPlan", bound=Plan)
NO_NOISE = 1e-9  # relative to the weight; below it the samples lie on one line


def settled_distance(epoch: Epoch, lr: float) -> float:
    """How far the settled weight is from least squares: √(bias² + spread²); inf if it does not settle."""
    distance = math.hypot(epoch.offset(lr), epoch.spread(lr))
    return math.inf if math.isnan(distance) else distance


def log_distance(epoch: Epoch, lr: float, epochs: int) -> float:
    """How far from least squares a run ends, as the logarithm of its square, relative to the weight's size.

    (factor^epochs)² + (bias² + spread²) / size²,    size² = mean y² / mean x²
    """
    start, end = 2 * epochs * epoch.log_factor(lr), settled_distance(epoch, lr) / (epoch.updates.size or 1)
    end = 2 * math.log(end) if end > NO_NOISE else -math.inf
    largest = max(start, end)
    return largest + math.log1p(math.exp(min(start, end) - largest)) if math.isfinite(largest) else largest


def best_lr(epoch: Epoch, epochs: int) -> float:
    """The rate that ends nearest to least squares after this many epochs, see :func:`log_distance`.

    It is at most the rate that forgets the start fastest, and equal to it if the samples lie on one line. The
    search begins at small rates, so that a large one where the bias changes its sign is not chosen.
    """
    fastest = epoch.fastest_lr
    if settled_distance(epoch, fastest) <= NO_NOISE * epoch.updates.size:
        return fastest
    size, lr = epoch.updates.size, 1e-6 * fastest
    lr = min(fastest, -10 * lr / (epochs * epoch.log_factor(lr)))
    for _ in range(4):  # nearly log|factor| = −H lr, bias = c lr and spread² = v lr: simple to balance
        kept = -2 * epochs * epoch.log_factor(lr) / lr
        bias, spread = epoch.offset(lr) / size / lr, (epoch.spread(lr) / size) ** 2 / lr
        lr = _model(kept, bias * bias, spread, fastest)
    for step in (1.2, 0.4, 0.1):  # then exactly: the best of three rates, or the minimum of their parabola
        rates = [min(fastest, lr * math.exp(power)) for power in (-step, 0, step)]
        left, middle, right = (log_distance(epoch, rate, epochs) for rate in rates)
        bend = left - 2 * middle + right
        if middle <= min(left, right) and 0 < bend < math.inf and rates[2] < fastest:
            lr *= math.exp(step * (left - right) / (2 * bend))
        else:
            lr = min(zip((left, middle, right), rates, strict=True))[1]
    return lr


def _model(kept: float, bias: float, spread: float, high: float) -> float:
    """The minimum of exp(−kept lr) + bias lr² + spread lr, which is convex, on (0, high]."""
    low = 0.0
    if 2 * bias * high + spread <= kept * math.exp(-min(kept * high, 700)):
        return high
    for _ in range(60):
        lr = (low + high) / 2
        rises = 2 * bias * lr + spread > kept * math.exp(-min(kept * lr, 700))
        low, high = (low, lr) if rises else (lr, high)
    return high


def auto_lr(
    x: Numbers,
    y: Numbers,
    *,
    method: str = "gd",
    batch_size: int | None = None,
    order: str = "sequential",
    loss: str = "mean",
    epochs: int = 100,
    seed: int = 0,
) -> tuple[float, str]:
    """Choose the best learning rate for a number of epochs, and say why.

    A large lr forgets the start soon, a small one settles nearer to least squares. The best one ends nearest,
    counting what is left of the start, factor^epochs, and the bias and spread of the settled weight. Full
    batch: 1/(2 mean x²), which lands on least squares in one step. Arguments and errors as for
    :func:`torchgd.stability`.

    Example:
        >>> from torchgd import auto_lr, course
        >>> auto_lr(*course(), method="gd")
        (0.10714285714285714, 'lr 0.107143 = 1/(2 mean x²): full batch lands on least squares in one step')
    """
    if epochs < 1:
        raise InputError(f"epochs is {epochs}; give a whole number, 1 or more")
    epoch = epoch_of(x, y, method=method, batch_size=batch_size, order=order, loss=loss, seed=seed)
    lr = best_lr(epoch, epochs)
    if method == "gd":
        formula = {"mean": "1/(2 mean x²)", "half": "1/mean x²", "sum": "1/(2 Σx²)"}[loss]
        return lr, f"lr {lr:.6g} = {formula}: full batch lands on least squares in one step"
    settled = settled_distance(epoch, lr)
    if settled <= NO_NOISE * epoch.updates.size:
        return lr, f"lr {lr:.6g} forgets the start fastest, and every lr settles at least squares"
    left = math.exp(max(-700.0, epochs * epoch.log_factor(lr)))
    why = f"is the best for {epochs} epochs: they leave {left:.2g} of the start, and it settles {settled:.2g}"
    return lr, f"lr {lr:.6g} {why} from least squares, with a larger lr farther"


def with_lr(plan: AnyPlan, x: Numbers, y: Numbers, epochs: int) -> tuple[AnyPlan, str]:
    """The plan with a learning rate (if it has none, that of :func:`auto_lr`), and the reason."""
    if plan.lr is not None:
        return plan, ""
    lr, why = auto_lr(x, y, epochs=epochs, **plan.sampling)
    return replace(plan, lr=lr), why
