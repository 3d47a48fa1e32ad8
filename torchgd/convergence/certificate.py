"""Will it converge? What can be said of a run of y = w·x before its first step."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from torchgd.convergence.epochs import FixedOrder, Intervals, rounding
from torchgd.convergence.methods import Epoch, epoch_of
from torchgd.convergence.rate import NO_NOISE, best_lr
from torchgd.epoch_maps import EpochMap
from torchgd.errors import InputError
from torchgd.samples import Numbers, as_tensor

if TYPE_CHECKING:
    from torchgd.convergence.linear_certificate import LinearCertificate


@dataclass(frozen=True)
class Certificate:
    """What one epoch at this learning rate does, and what every other learning rate would do.

    In a fixed order an epoch multiplies the distance to the fixed point by ``factor``; with batches of one
    sample every order has the same factor. With a random scale (replacement, shuffled mini-batches)
    ``factor`` is its root mean square, and ``intervals`` are those of the mean square.

    Attributes:
        method, order, loss, batch_size, n: what was asked; batch_size in samples.
        lr: the learning rate, in units of 1/x².
        limit: the right end of the first interval: every lr below it converges.
        intervals: all the lr that converge, as open intervals (low, high).
        almost_sure: for a random scale, the lr where almost every run shrinks, E log|scale| < 0; else None.
        limit_error: the relative error of a simulated limit; 0 if it is exact.
        best_lr, best_factor: the lr that ends nearest to least squares after the epochs that were asked for,
            see :func:`torchgd.auto_lr`, and its factor.
        fastest_lr: the smallest lr with the least |factor|, which forgets the start fastest. In a fixed
            order one epoch then forgets the start, and all samples but the last ones.
        factor: the epoch's factor at lr.
        epoch_map: the epoch's map at lr, that of the mean weight where the order is random.
        converges: whether lr lies in one of the intervals.
        epochs: the fewest with |factor|^epochs ≤ tolerance; None if never.
        tolerance: the part of the starting distance that may remain.
        fixed_point: where the weight settles, a mean where the order is random; inf if beyond float64.
        accuracy: the largest distance from there that rounding in the data's dtype may leave; None if
            rounding adds more than an epoch removes.
        spread: the standard deviation of the settled weight at the ends of epochs; 0 in a fixed order,
            None if infinite.
        least_squares: w* = Σxy / Σx².
        standard_error: of least squares, by the noise of the samples; 0 if they lie on one line.
        bias: |fixed_point − least_squares|.
        basis: "exact", or which part is simulated.
    """

    method: str
    order: str
    loss: str
    batch_size: int
    n: int
    lr: float
    limit: float
    limit_error: float
    intervals: Intervals
    almost_sure: Intervals | None
    best_lr: float
    best_factor: float
    fastest_lr: float
    factor: float
    epoch_map: EpochMap
    converges: bool
    epochs: int | None
    tolerance: float
    fixed_point: float
    accuracy: float | None
    spread: float | None
    least_squares: float
    standard_error: float
    bias: float
    basis: str
    dtype: str

    def weight_after(self, epochs: int, w0: float) -> float:
        """Deprecated: ``epoch_map.after(epochs)(w0)``."""
        warnings.warn("weight_after is now epoch_map.after(epochs)(w0)", DeprecationWarning, stacklevel=2)
        return self.epoch_map.after(epochs)(w0)

    @property
    def far(self) -> bool:
        """Whether it settles farther from least squares than the noise of the samples explains."""
        distance = math.hypot(self.bias, self.spread or 0.0)
        return self.converges and distance > max(self.standard_error, NO_NOISE * abs(self.least_squares))

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        inside = next((interval for interval in self.intervals if interval[0] < self.lr < interval[1]), None)
        if inside and inside[0] > 0:
            where = (
                f"lr {self.lr:.6g} is beyond the limit {self.limit:.6g}, but on the island {_between(inside)}"
            )
        else:
            where = f"lr {self.lr:.6g} is {times(self.lr / self.limit)} the limit {self.limit:.6g}"
        size = " in the mean square" if self.almost_sure else ""
        if not self.converges:
            return self._diverges(size, where)
        text = f"It converges{size} in {self.epochs} epoch{'s' * (self.epochs != 1)}"
        text += f" to {self.tolerance:g} of the starting error: {where}"
        if self.bias > NO_NOISE * abs(self.least_squares):
            text += f"; it settles at {self.fixed_point:.6g}, {self.bias:.3g} from"
            text += f" least squares {self.least_squares:.6g}"
        if self.spread and self.spread > NO_NOISE * abs(self.least_squares):
            text += f"; it continues to vary by ±{self.spread:.3g}"
        if self.far:
            text += (
                f"; the noise of the samples explains {self.standard_error:.3g}: lr is too large for steps"
            )
            text += f" of {self.batch_size} sample{'s' * (self.batch_size != 1)}, use lr {self.best_lr:.6g}"
        return f"{text}{self._rounding}."

    def _diverges(self, size: str, where: str) -> str:
        mend = f"{where}; use lr {self.best_lr:.6g}"
        if abs(self.factor) < 1:
            text = f"It does not converge: an epoch would multiply the error by {self.factor:.6g}"
            return f"{text}, but only within a rounding of this lr; {mend}."
        does = "does not converge" if f"{abs(self.factor):.6g}" == "1" else "diverges"
        text = f"It {does}{size}: an epoch multiplies the error by {self.factor:.6g}; {mend}"
        if self.almost_sure and any(low < self.lr < high for low, high in self.almost_sure):
            text += "; almost every run shrinks nevertheless, with rare excursions of unlimited size"
        return text + "."

    @property
    def _rounding(self) -> str:
        """What rounding does to a run that would converge, if that matters."""
        if self.accuracy is None:
            what = "it adds more than an epoch removes" if self.lr > self.limit else "the steps are too small"
            return f"; but a run in {self.dtype} will not: {what}"
        if self.accuracy <= self.tolerance * abs(self.fixed_point):
            return ""
        return f"; rounding in {self.dtype} leaves up to ±{self.accuracy:.2g}"

    def to_dict(self) -> dict[str, Any]:
        """All fields and the verdict, for JSON."""
        fields = {key: value for key, value in asdict(self).items() if key != "epoch_map"}
        return {**fields, "lost": self.epoch_map.lost, "shift": self.epoch_map.drift, "verdict": self.verdict}


@overload
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
    epochs: int = 100,
    seed: int = 0,
    bias: Literal[False] = False,
) -> Certificate: ...
@overload
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
    epochs: int = 100,
    seed: int = 0,
    bias: Literal[True],
) -> LinearCertificate: ...
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
    epochs: int = 100,
    seed: int = 0,
    bias: bool = False,
) -> Certificate | LinearCertificate:
    """Certify a run of y = w·x before its first step.

        epoch: e ← Π_B (1 − lr h_B) · e + shift,    h_B = 2 mean x² over the batch B,    converges if |Π| < 1

    Args:
        x, y: the samples, shape (n,) each. With x of shape (n, d), or a bias, the answer is the
            :class:`~torchgd.convergence.linear_certificate.LinearCertificate` of :func:`linear_stability`.
        lr: the learning rate, in units of 1/x²; the best one if not given.
        method: "gd" (all samples an update), "sgd" (one) or "minibatch".
        batch_size: samples in a mini-batch, for "minibatch" only.
        order: "sequential", "shuffled" or "replacement"; "gd" ignores it.
        loss: what is descended: the "mean" of the squares, "half" of it, or their "sum" over the batch.
        tolerance: the part of the starting distance that may be left, for ``Certificate.epochs``.
        epochs: of the run, for which the best lr is chosen.
        seed: of the simulation, if there is no formula (see ``Certificate.basis``).
        bias: certify y = w·x + b.

    Raises:
        InputError: x or y has a wrong shape or a value that is not finite, x is 0 everywhere, an argument
            is out of its range.

    Example:
        >>> from torchgd import course, stability
        >>> stability(*course(), lr=0.25).converges, stability(*course()).limit
        (False, 0.21428571428571427)
    """
    asked = {"method": method, "batch_size": batch_size, "order": order, "loss": loss}
    if bias or as_tensor(x, "x").dim() == 2:
        from torchgd.convergence.linear_certificate import linear_stability

        return linear_stability(x, y, lr, bias=bias, tolerance=tolerance, epochs=epochs, **asked)  # type: ignore[arg-type]
    epoch = epoch_of(x, y, seed=seed, **asked)  # type: ignore[arg-type]
    return certify(epoch, lr, method=method, order=order, tolerance=tolerance, epochs=epochs)


def certify(
    epoch: Epoch, lr: float | None, *, method: str, order: str, tolerance: float, epochs: int = 100
) -> Certificate:
    """The certificate of an epoch, see :func:`stability`."""
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise InputError(f"lr is {lr!r}; give a finite number above 0")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance!r}; give a number between 0 and 1, e.g. 1e-6")
    if epochs < 1:
        raise InputError(f"epochs is {epochs}; give a whole number, 1 or more")
    updates, best = epoch.updates, best_lr(epoch, epochs)
    chosen = best if lr is None else lr
    log_factor, offset, spread = epoch.log_factor(chosen), epoch.offset(chosen), epoch.spread(chosen)
    factor = epoch.factor(chosen)
    converges = log_factor < 0 and any(low < chosen < high for low, high in epoch.intervals)
    grown, left = rounding(epoch if isinstance(epoch, FixedOrder) else FixedOrder(updates), chosen)
    shrinks = -math.expm1(log_factor) - grown if log_factor < 700 else -math.inf
    return Certificate(
        method=method,
        order=order,
        loss=updates.loss,
        batch_size=updates.batch_size,
        n=len(updates.squares),
        lr=chosen,
        limit=epoch.intervals[0][1],
        limit_error=epoch.limit_error,
        intervals=epoch.intervals,
        almost_sure=epoch.almost_sure,
        best_lr=best,
        best_factor=factor if lr is None else epoch.factor(best),
        fastest_lr=epoch.fastest_lr,
        factor=factor,
        epoch_map=epoch.map(chosen),
        converges=converges,
        epochs=_epochs_to(tolerance, log_factor) if converges else None,
        tolerance=tolerance,
        fixed_point=updates.least_squares + offset,
        accuracy=left / shrinks if converges and shrinks > 0 else None,
        spread=spread if math.isfinite(spread) else None,
        least_squares=updates.least_squares,
        standard_error=math.sqrt(updates.noise / max(1, len(updates.x) - 1) / updates.squares.mean().item()),
        bias=abs(offset),
        basis=epoch.basis(chosen),
        dtype=str(updates.dtype).removeprefix("torch."),
    )


def _epochs_to(tolerance: float, log_factor: float) -> int | None:
    """The fewest epochs with factor^epochs ≤ tolerance."""
    return max(1, math.ceil(math.log(tolerance) / log_factor)) if log_factor < 0 else None


def _between(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.6g} … {interval[1]:.6g}"


def times(ratio: float) -> str:
    """A learning rate over its limit in words."""
    text = f"{ratio:.6g}"
    return f"{text} times" if text != "1" else "just below" if ratio < 1 else "just above"
