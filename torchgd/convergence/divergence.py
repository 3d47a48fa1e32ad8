"""Why did it diverge? The measured growth beside what each mistake would have done."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from torchgd.convergence.certificate import Certificate, stability
from torchgd.convergence.epochs import FixedOrder, Updates
from torchgd.errors import InputError
from torchgd.moments import float64
from torchgd.samples import Numbers, samples

SAME = 0.01  # two growths are the same if they differ by 1 % an epoch
OUTLIER = 10  # times the median |x|, and 3 times the next
UNITS = 30  # times the limit: an lr that was chosen for other data
NOISE = 10  # times what the noise of the samples leaves of an error
OVERFLOW = 80.0  # e⁸⁰: float32 ends there within one epoch


class Cause(str, Enum):
    """What made a run diverge. A bad start is none: the factor of an epoch does not depend on w0."""

    NONE = "it did not diverge"
    LR = "the learning rate is too large"
    SUM = "the sum instead of the mean"
    TWICE = "a gradient twice as large"
    SIGN = "the gradient added instead of subtracted"
    OUTLIER = "one sample's x"
    UNITS = "the unit of x"
    GRADIENT = "another gradient"


@dataclass(frozen=True)
class Divergence:
    """The explanation of a divergence; ``str()`` gives the message.

    Attributes:
        cause: a :class:`Cause`.
        epoch: the last epoch after which the weight was finite.
        measured, predicted: the growth of the error in an epoch; measured is None if the first overflowed.
        limit: the learning rates below it converge.
        lr: the learning rate to use, the certificate's best.
        message: all of this in words, with the mend.
    """

    cause: Cause
    epoch: int
    measured: float | None
    predicted: float
    limit: float
    lr: float
    message: str

    def __str__(self) -> str:
        return self.message


def explain_divergence(
    weights: Tensor | Sequence[float],
    x: Numbers,
    y: Numbers,
    lr: float,
    *,
    method: str = "gd",
    batch_size: int | None = None,
    order: str = "sequential",
    loss: str = "mean",
    epochs: int = 100,
    seed: int = 0,
) -> Divergence:
    """Explain a run of y = w·x that diverged, from its weights alone.

    The growth of the error that was measured is compared with the growth that each cause predicts,
    |Π (1 − lr h_B)| with that cause's h.

    Args:
        weights: the weight before the first epoch and after each, shape (epochs + 1,), as far as it
            goes: from a non-finite one on they do not count, and w0 alone is a run that overflowed at once.
        x, y: the samples, shape (n,) each.
        lr, method, batch_size, order, loss, seed: as the run was meant, see :func:`torchgd.stability`.
        epochs: that were asked for, for which the lr to use is the best.

    Raises:
        InputError: as :func:`torchgd.stability`; or no weight, or the first is not finite.

    Example:
        >>> import torch
        >>> from torchgd import course, explain_divergence
        >>> weights = [2 - (-4 / 3) ** epoch for epoch in range(20)]  # lr 0.25
        >>> explain_divergence(weights, *course(), lr=0.25).cause.value
        'the learning rate is too large'
    """
    values = torch.as_tensor(weights, dtype=torch.float64).flatten().tolist()
    finite = list(itertools.takewhile(math.isfinite, values))
    if not finite:
        raise InputError(f"weights begins with {values[:1]}; give w0, finite, then the weight of each epoch")
    x, y = samples(x, y)
    asked = {"method": method, "batch_size": batch_size, "order": order, "loss": loss, "seed": seed}
    certificate = stability(x, y, lr, epochs=epochs, **asked)  # type: ignore[arg-type]
    fixed, one_scale = method == "gd" or order == "sequential", certificate.almost_sure is None
    run = _Run(finite, x, y, certificate.batch_size, fixed=fixed, one_scale=one_scale)
    predicted = run.epoch(loss).factor(lr)
    measured = run.growth(loss, lr)

    mistakes = ((Cause.SUM, "sum", 1), (Cause.SIGN, loss, -1), (Cause.TWICE, loss, 2))
    grown = len(finite) < 3 or abs(finite[-1] - finite[-2]) > abs(finite[1] - finite[0])
    as_meant = run.misfit(loss, lr) <= 1
    if len(finite) == len(values) and (not grown or (as_meant and certificate.converges)):
        cause, why = Cause.NONE, "The steps did not grow."
    elif as_meant:
        cause, why = _why_too_large(certificate, x, y)
    else:
        misfits = [(run.misfit(of, times * lr), cause) for cause, of, times in mistakes]
        misfit, cause = min(misfits, key=lambda pair: pair[0])
        cause = cause if misfit <= 1 else Cause.GRADIENT
        why = _MENDS[cause].format(certificate.batch_size)

    end = f"after epoch {len(finite) - 1} the weight is {finite[-1]:.6g}"
    end += "" if 1 < len(finite) == len(values) else ", an epoch later it is not finite"
    grew = "overflowed" if measured is None else f"multiplied the error by {measured:.6g}"
    sentences = (
        f"{cause.value.capitalize()}: {end}.",
        f"An epoch {grew}, predicted {predicted:.6g};",
        f"lr {lr:.6g} is {lr / certificate.limit:.6g} times the limit {certificate.limit:.6g}.",
        why,
        f"Use lr {certificate.best_lr:.6g}.",
    )
    message = " ".join(filter(None, sentences))
    return Divergence(
        cause, len(finite) - 1, measured, predicted, certificate.limit, certificate.best_lr, message
    )


_MENDS = {
    Cause.SUM: "The growth is that of the sum of the losses: you changed mean to sum; divide it by {}.",
    Cause.SIGN: "The growth is that of a step uphill: subtract the gradient, w -= lr * gradient.",
    Cause.TWICE: "The growth is that of twice the gradient: look for a 2 too many, or a lost ½.",
    Cause.GRADIENT: "The growth is that of another gradient than this loss has: check it with torchgd check.",
}


class _Run:
    """The finite weights of a run, beside what other losses and learning rates would have made."""

    def __init__(
        self, weights: list[float], x: Tensor, y: Tensor, batch_size: int, *, fixed: bool, one_scale: bool
    ) -> None:
        self.weights, self.x, self.y, self.batch_size = weights, x, y, batch_size
        self.fixed = fixed  # every epoch is the same map
        self.one_scale = one_scale  # or has the same scale at least, as every order of single samples has

    def epoch(self, loss: str) -> FixedOrder:
        """In a random order too: what an epoch typically does is what it does in this order."""
        return FixedOrder(Updates.of(self.x, self.y, self.batch_size, loss))

    def growth(self, loss: str, lr: float) -> float | None:
        """The measured factor of the error: from the last steps, or in a random order the geometric mean."""
        w = self.weights
        if len(w) == 1:
            return None
        if self.fixed and len(w) > 2 and w[-2] != w[-3]:
            return (w[-1] - w[-2]) / (w[-2] - w[-3])
        ratio = self._ratio(self.epoch(loss), lr)
        return ratio if self.fixed else abs(ratio) ** (1 / (len(w) - 1))

    def misfit(self, loss: str, lr: float) -> float:
        """How far the weights are from what this loss and lr predict: up to 1 where these explain them."""
        epoch, epochs = self.epoch(loss), len(self.weights) - 1
        expected = epoch.log_factor(lr)
        if epochs == 0:
            return 0.0 if expected > OVERFLOW else math.inf
        ratio = self._ratio(epoch, lr)
        slack = SAME
        if not self.fixed:  # the noise of both ends
            slack += math.log(NOISE) / epochs
        if not self.one_scale:  # and four standard deviations of the sum of the logarithms
            logs = torch.log(torch.abs(1 - lr * epoch.h))
            slack += 4 * logs.std(correction=0).item() * math.sqrt(len(logs) / epochs)
        elif self.fixed:
            if (ratio < 0) != (epoch.factor(lr) < 0 and epochs % 2 == 1):
                return math.inf
        elif abs(ratio) > NOISE:  # far beyond the noise the last epoch shows the sign
            before, after = (weight - epoch.updates.least_squares for weight in self.weights[-2:])
            if (before * after < 0) != (epoch.factor(lr) < 0):
                return math.inf
        return abs(math.log(abs(ratio)) / epochs - expected) / slack if ratio else math.inf

    def _ratio(self, epoch: FixedOrder, lr: float) -> float:
        """The last error over the first; in a fixed order the distance from the fixed point."""
        centre = epoch.updates.least_squares
        if self.fixed:
            centre += epoch.offset(lr)
        start = self.weights[0] - centre
        return (self.weights[-1] - centre) / start if start else 0.0


def _why_too_large(certificate: Certificate, x: Tensor, y: Tensor) -> tuple[Cause, str]:
    """The run did what it was told to: why is its limit so small?"""

    def limit(x: Tensor, y: Tensor, loss: str) -> float:
        """The limit on other data or with another loss, or 0 if this learning rate is not below it."""
        size = min(certificate.batch_size, len(x)) if certificate.method == "minibatch" else None
        changed = stability(
            x,
            y,
            certificate.lr,
            method=certificate.method,
            batch_size=size,
            order=certificate.order,
            loss=loss,
        )
        return changed.limit if changed.converges else 0.0

    if certificate.loss == "sum" and (mean := limit(x, y, "mean")):
        return Cause.SUM, f"The sum makes the limit small: with the mean it is {mean:.6g}."
    size = x.abs()
    rms = float64(size).square().mean().sqrt().item()
    if len(x) >= 4:
        (largest, second), median = size.topk(2).values.tolist(), size.median().item()
        rest = torch.arange(len(x)) != size.argmax().cpu()
        rest = rest.to(x.device)
        if largest > max(OUTLIER * median, 3 * second) and (
            other := limit(x[rest], y[rest], certificate.loss)
        ):
            at = int(size.argmax())
            why = (
                f"x[{at}] = {x[at].item():.6g} is far from the rest (median |x| {median:.6g}), and without it"
            )
            return Cause.OUTLIER, f"{why} the limit is {other:.6g}: look at that sample."
    unit = 10.0 ** round(math.log10(rms))
    if (
        unit >= 10
        and certificate.lr >= UNITS * certificate.limit
        and (other := limit(x / unit, y, certificate.loss))
    ):
        why = f"x is of the size of {unit:.6g}, and lr is in units of 1/x²: scale x by {1 / unit:.6g}"
        return Cause.UNITS, f"{why}, which makes the limit {other:.6g}; or keep x."
    return Cause.LR, ""
