"""Will it converge? What can be said of a run of y = w·x before its first step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from torchgd.convergence.epochs import FixedOrder, Intervals
from torchgd.convergence.methods import Epoch, epoch_of
from torchgd.errors import InputError
from torchgd.plan import Plan
from torchgd.samples import Numbers

NO_NOISE = 1e-9  # relative to w*: below it the samples lie on one line
FORGOTTEN = 1e-6  # what auto_lr leaves of the starting error
AnyPlan = TypeVar("AnyPlan", bound=Plan)


@dataclass(frozen=True)
class Certificate:
    """What one epoch at this learning rate does, and what every other learning rate would do.

    In a fixed order an epoch multiplies the distance to the fixed point by ``factor``; per sample it is the
    same in every order. With a random scale (replacement, shuffled mini-batches) ``factor`` is its root mean
    square, and ``intervals`` are those of the mean square.

    Attributes:
        method, order, loss, batch_size, n: what was asked; batch_size in samples.
        lr: the learning rate, in units of 1/x².
        limit: the right end of the first interval: every lr below it converges.
        intervals: all the lr that converge, as open intervals (low, high).
        almost_sure: where E log|scale| < 0, for a random scale; else None.
        best_lr, best_factor: the smallest lr with the least |factor|. In a fixed order the factor is 0
            there: one epoch forgets the start.
        factor: the epoch's factor at lr.
        lost, shift: the epoch takes the (mean) error e = w − w* to (1 − lost) e + shift.
        converges: whether |factor| < 1.
        epochs: until |factor|^epochs ≤ tolerance; None if never.
        tolerance: the part of the starting distance that may be left.
        fixed_point: where the weight settles, a mean where the order is random.
        spread: the standard deviation of the settled weight at the ends of epochs; 0 in a fixed order,
            None if infinite.
        least_squares: w* = Σxy / Σx².
        bias: |fixed_point − least_squares|.
        basis: "exact", or how much of it is a simulation.
    """

    method: str
    order: str
    loss: str
    batch_size: int
    n: int
    lr: float
    limit: float
    intervals: Intervals
    almost_sure: Intervals | None
    best_lr: float
    best_factor: float
    factor: float
    lost: float
    shift: float
    converges: bool
    epochs: int | None
    tolerance: float
    fixed_point: float
    spread: float | None
    least_squares: float
    bias: float
    basis: str

    def weight_after(self, epochs: int, w0: float) -> float:
        """The weight (its mean, where the order is random) after so many epochs from w0; inf if it overflows.

        e_k = (1 − lost)^k e_0 + (1 − (1 − lost)^k) / lost · shift,    e = w − least_squares
        """
        log_kept = math.log1p(-self.lost) if self.lost < 1 else math.nan
        try:
            kept = math.exp(epochs * log_kept) if self.lost < 1 else (1 - self.lost) ** epochs
        except OverflowError:
            return math.inf
        gone = -math.expm1(epochs * log_kept) if self.lost < 1 else 1 - kept
        moved = self.shift * (gone / self.lost if self.lost else epochs)
        return self.least_squares + kept * (w0 - self.least_squares) + moved

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        inside = next((interval for interval in self.intervals if interval[0] < self.lr < interval[1]), None)
        if inside and inside[0] > 0:
            where = (
                f"lr {self.lr:.6g} is beyond the limit {self.limit:.6g}, but on the island {_between(inside)}"
            )
        else:
            where = f"lr {self.lr:.6g} is {_times(self.lr / self.limit)} the limit {self.limit:.6g}"
        size = " in the mean square" if self.almost_sure else ""
        if not self.converges:
            does = "does not converge" if f"{abs(self.factor):.6g}" == "1" else "diverges"
            text = f"It {does}{size}: an epoch multiplies the error by {self.factor:.6g}; {where}"
            text += f"; use lr {self.best_lr:.6g}"
            if self.almost_sure and any(low < self.lr < high for low, high in self.almost_sure):
                text += "; almost every run shrinks all the same, between rare excursions without bound"
            return text + "."
        epochs = f"{self.epochs} epoch" + "s" * (self.epochs != 1)
        text = f"It converges{size} in {epochs} to {self.tolerance:g} of the starting error: {where}"
        if self.bias > NO_NOISE * abs(self.least_squares):
            text += f"; it settles at {self.fixed_point:.6g}, {self.bias:.3g} from"
            text += f" least squares {self.least_squares:.6g}"
        if self.spread and self.spread > NO_NOISE * abs(self.least_squares):
            text += f"; it goes on to vary by ±{self.spread:.3g}"
        return text + "."

    def to_dict(self) -> dict[str, Any]:
        """All fields and the verdict, for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def stability(
    x: Numbers,
    y: Numbers,
    lr: float | None = None,
    *,
    method: str = "gd",
    batch_size: int | None = None,
    order: str = "sequential",
    loss: str = "mean",
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Certificate:
    """Certify a run of y = w·x before its first step.

        epoch: e ← Π_B (1 − lr h_B) · e + shift,    h_B = 2 mean x² over the batch B,    converges if |Π| < 1

    Args:
        x, y: the samples, shape (n,) each.
        lr: the learning rate, in units of 1/x²; the best one if not given.
        method: "gd" (all samples an update), "sgd" (one) or "minibatch".
        batch_size: samples in a mini-batch, for "minibatch" only.
        order: "sequential", "shuffled" or "replacement"; "gd" has no order.
        loss: what is descended: the "mean" of the squares, "half" of it, or their "sum" over the batch.
        tolerance: the part of the starting distance that may be left, for ``epochs``.
        seed: of the simulation, where there is no formula (see ``Certificate.basis``).

    Raises:
        InputError: x or y has a wrong shape or a value that is not finite, x is 0 everywhere, an argument
            is out of its range.

    Example:
        >>> from torchgd import course, stability
        >>> stability(*course(), lr=0.25).converges, stability(*course()).limit
        (False, 0.21428571428571427)
    """
    epoch = epoch_of(x, y, method=method, batch_size=batch_size, order=order, loss=loss, seed=seed)
    return certify(epoch, lr, method=method, order=order, tolerance=tolerance)


def certify(epoch: Epoch, lr: float | None, *, method: str, order: str, tolerance: float) -> Certificate:
    """The certificate of an epoch, see :func:`stability`."""
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise InputError(f"lr is {lr!r}; give a finite number above 0")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance!r}; give a number between 0 and 1, e.g. 1e-6")
    chosen = epoch.best_lr if lr is None else lr
    log_factor = epoch.log_factor(chosen)
    lost, (shift, spread) = epoch.lost(chosen), epoch.shift(chosen)
    place = shift / lost if lost else math.copysign(math.inf, shift)
    return Certificate(
        method=method,
        order=order,
        loss=epoch.updates.loss,
        batch_size=epoch.updates.batch_size,
        n=len(epoch.updates.squares),
        lr=chosen,
        limit=epoch.intervals[0][1],
        intervals=epoch.intervals,
        almost_sure=epoch.almost_sure,
        best_lr=epoch.best_lr,
        best_factor=0.0 if isinstance(epoch, FixedOrder) else epoch.factor(epoch.best_lr),
        factor=epoch.factor(chosen),
        lost=lost,
        shift=shift,
        converges=log_factor < 0,
        epochs=_epochs_to(tolerance, log_factor),
        tolerance=tolerance,
        fixed_point=epoch.updates.least_squares + place,
        spread=spread if math.isfinite(spread) else None,
        least_squares=epoch.updates.least_squares,
        bias=abs(place),
        basis=epoch.basis,
    )


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
    """Choose a learning rate for so many epochs, and say why.

    Full batch: 1/(2 mean x²), which lands on least squares in one step. Otherwise the smallest lr that leaves
    10⁻⁶ of the starting error, because a smaller lr settles nearer to least squares; at most the best lr,
    up to which a larger lr only forgets faster. Arguments and errors as for :func:`stability`.

    Example:
        >>> from torchgd import auto_lr, course
        >>> auto_lr(*course(), method="gd")
        (0.10714285714285714, 'lr 0.107143 = 1/(2 mean x²): full batch lands on least squares in one step')
    """
    if epochs < 1:
        raise InputError(f"epochs is {epochs}; give a whole number, 1 or more")
    epoch = epoch_of(x, y, method=method, batch_size=batch_size, order=order, loss=loss, seed=seed)
    best = epoch.best_lr
    if method == "gd":
        formula = {"mean": "1/(2 mean x²)", "half": "1/mean x²", "sum": "1/(2 Σx²)"}[loss]
        return best, f"lr {best:.6g} = {formula}: full batch lands on least squares in one step"
    enough = math.log(FORGOTTEN) / epochs
    if epoch.log_factor(best) > enough:
        why = f"forgets the start fastest, and {epochs} epochs leave more than 1e-06 of it"
        return best, f"lr {best:.6g} {why}"
    lr = _smallest(epoch, enough)
    why = f"is the smallest that leaves 1e-06 of the starting error after {epochs} epochs"
    return lr, f"lr {lr:.6g} {why}: a smaller lr settles nearer to least squares"


def with_lr(plan: AnyPlan, x: Numbers, y: Numbers, epochs: int) -> tuple[AnyPlan, str]:
    """The plan with its learning rate: its own, or else the one that :func:`auto_lr` chooses, and why."""
    if plan.lr is not None:
        return plan, ""
    lr, why = auto_lr(x, y, epochs=epochs, **plan.sampling)
    return replace(plan, lr=lr), why


def _smallest(epoch: Epoch, enough: float) -> float:
    """The smallest lr with log|factor| ≤ enough; log|factor| is nearly proportional to a small lr."""
    low, high = 0.0, epoch.best_lr
    lr = 1e-6 * high
    for _ in range(100):
        if high - low <= 1e-12 * high:
            break
        if not low < lr < high:
            lr = (low + high) / 2
        value = epoch.log_factor(lr)
        low, high = (low, lr) if value <= enough else (lr, high)
        # Aim a little beyond the chord from 0, on the other side: both ends of the bracket then close in.
        lr *= enough / value * (1 - 1e-13 if value <= enough else 1 + 1e-13)
    return high


def _epochs_to(tolerance: float, log_factor: float) -> int | None:
    """The fewest epochs with factor^epochs ≤ tolerance."""
    return max(1, math.ceil(math.log(tolerance) / log_factor)) if log_factor < 0 else None


def _between(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.6g} … {interval[1]:.6g}"


def _times(ratio: float) -> str:
    text = f"{ratio:.6g}"
    return f"{text} times" if text != "1" else "just below" if ratio < 1 else "just above"
