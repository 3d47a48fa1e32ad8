"""Why did it diverge? Compares the measured growth with that of each mistake."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchgd.convergence.certificate import Certificate, stability
from torchgd.convergence.epochs import FixedOrder, Updates
from torchgd.convergence.fixed_runs import FixedRun
from torchgd.convergence.random_runs import RandomRun, with_one_scale
from torchgd.convergence.suspects import Cause, Suspect, named
from torchgd.errors import InputError
from torchgd.history import History
from torchgd.moments import float64
from torchgd.samples import Numbers, samples

OUTLIER = 10  # times the median |x|, and 3 times the next
UNITS = 30  # times the limit; such an lr was chosen for other data
OVERFLOW = 80.0  # e⁸⁰: float32 ends there within one epoch


@dataclass(frozen=True)
class Divergence:
    """The explanation of a divergence; ``str()`` gives the message.

    Attributes:
        cause: a :class:`Cause`; SEVERAL where the weights fit more than one.
        causes: all causes that the weights fit, the commonest first.
        epoch: the last epoch after which the weight was finite.
        measured, predicted: the growth of the error in an epoch; measured is None if epoch 1 overflowed.
        limit: every learning rate below it converges.
        lr: the learning rate to use, the certificate's best.
        message: all of this in words, with what to do.
    """

    cause: Cause
    causes: tuple[Cause, ...]
    epoch: int
    measured: float | None
    predicted: float
    limit: float
    lr: float
    message: str

    def __str__(self) -> str:
        return self.message


def explain_divergence(
    weights: History | Tensor | Sequence[float],
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
    certificate: Certificate | None = None,
) -> Divergence:
    """Explain a run of y = w·x that diverged, from its weights alone.

    The weights are compared with what the run was meant to do, then with what each mistake would have done
    (see :mod:`torchgd.convergence.suspects`): in a fixed order epoch by epoch, up to rounding; in a random
    order by the growth of the whole run, with simulated runs. An unusual growth alone does not make a right
    run a mistake. If two mistakes fit, both are named; if none fits, the message says so.

    Args:
        weights: the weight before the first epoch and after each, shape (epochs + 1,); those from the first
            non-finite one on are ignored, and w0 alone means that the first epoch overflowed.
            Or the :class:`~torchgd.history.History` of the run.
        x, y: the samples, shape (n,) each.
        lr, method, batch_size, order, loss, seed: as the run was meant, see :func:`torchgd.stability`.
        epochs: the epochs that were asked for; the advised lr is the best for them.
        certificate: of the same arguments, if it exists already.

    Raises:
        InputError: as :func:`torchgd.stability`; or no weight, or the first is not finite.

    Example:
        >>> import torch
        >>> from torchgd import course, explain_divergence
        >>> weights = [2 - (-4 / 3) ** epoch for epoch in range(20)]  # lr 0.25
        >>> explain_divergence(weights, *course(), lr=0.25).cause.value
        'the learning rate is too large'
    """
    if isinstance(weights, History):
        weights = weights.weight
    values = torch.as_tensor(weights, dtype=torch.float64).flatten().tolist()
    finite = list(itertools.takewhile(math.isfinite, values))
    if not finite:
        raise InputError(f"weights begins with {values[:1]}; give w0, finite, then the weight of each epoch")
    x, y = samples(x, y)
    asked = {"method": method, "batch_size": batch_size, "order": order, "loss": loss, "seed": seed}
    if certificate is None:
        certificate = stability(x, y, lr, epochs=epochs, **asked)  # type: ignore[call-overload]
    found = _found(finite, x, y, lr, certificate)

    grown = len(finite) < 3 or abs(finite[-1] - finite[-2]) > abs(finite[1] - finite[0])
    causes: tuple[Cause, ...]
    as_meant = [one.cause for one in found.suspects] == [Cause.LR]
    if len(finite) == len(values) and (not grown or (as_meant and certificate.converges)):
        causes, why = (Cause.NONE,), "The steps did not grow."
    elif as_meant:
        cause, why = _why_too_large(certificate, x, y)
        causes = (cause,)
    else:
        causes = tuple(dict.fromkeys(one.cause for one in found.suspects)) or (Cause.GRADIENT,)
        why = found.note or (found.suspects[0].sentence(lr) if found.suspects else _UNKNOWN)
        if len(causes) > 1:
            why = "; or ".join(cause.value for cause in causes)
            why = f"The weights fit {why}: they alone do not tell which."

    cause = causes[0] if len(causes) == 1 else Cause.SEVERAL
    end = f"after epoch {len(finite) - 1} the weight is {finite[-1]:.6g}"
    end += "" if 1 < len(finite) == len(values) else ", an epoch later it is not finite"
    grew = "overflowed" if found.measured is None else f"multiplied the error by {found.measured:.6g}"
    sentences = (
        f"{cause.value.capitalize()}: {end}.",
        f"An epoch {grew}, predicted {found.predicted:.6g};",
        f"lr {lr:.6g} is {lr / certificate.limit:.6g} times the limit {certificate.limit:.6g}.",
        why,
        f"Use lr {certificate.best_lr:.6g}.",
    )
    message = " ".join(filter(None, sentences))
    return Divergence(
        cause,
        causes,
        len(finite) - 1,
        found.measured,
        found.predicted,
        certificate.limit,
        certificate.best_lr,
        message,
    )


_UNKNOWN = (
    "The weights fit neither this update nor a known mistake: check the gradient with torchgd check, "
    "and the line that changes the weight."
)


@dataclass(frozen=True)
class _Found:
    """The suspects that the weights fit, the growth of the error in an epoch, and maybe a sentence."""

    suspects: list[Suspect]
    measured: float | None
    predicted: float
    note: str = ""


def _found(w: list[float], x: Tensor, y: Tensor, lr: float, certificate: Certificate) -> _Found:
    """Compare the finite weights of a run with what was meant and with each suspect."""
    updates = Updates.of(x, y, certificate.batch_size, certificate.loss)
    size, n, order = certificate.batch_size, certificate.n, certificate.order
    sizes = torch.tensor([size] * (n // size) + [n % size] * (n % size > 0))
    meant, others = Suspect(Cause.LR), named(sizes, n, certificate.loss)
    epoch = FixedOrder(updates)  # for a random order: the typical epoch
    predicted = epoch.factor(lr)
    if len(w) < 2:

        def overflows(one: Suspect) -> bool:
            return float(torch.log(torch.abs(1 - lr * one.times * epoch.h)).sum()) > OVERFLOW

        plain = [one for one in others if not one.momentum and one.power == 1]
        fit = [meant] if overflows(meant) else [one for one in plain if overflows(one)]
        return _Found(fit, None, predicted)
    x, y = (values.detach().to("cpu", torch.float64) for values in (x, y))
    left = y - updates.least_squares * x
    powers = {p: replace(updates, squares=x ** (p + 1), residuals=x**p * left) for p in (0, 1, 2)}
    if order == "sequential" or (size == n and order == "shuffled"):
        run = FixedRun(w, powers, lr)
        moved = len(w) > 2 and w[-2] != w[-3]
        measured = (w[-1] - w[-2]) / (w[-2] - w[-3]) if moved else _growth(run.e)
        fit, note = ([meant], "") if run.fits(meant, unsure=True) else run.suspects(others)
        return _Found(fit, measured, predicted, note)
    if size == 1 and order == "shuffled" and (told := with_one_scale(w, powers, lr, meant, others)):
        return _Found(*told)
    stretch = RandomRun.of(w, powers, lr, drawn=order == "replacement")
    if stretch is None:
        e = [weight - updates.least_squares for weight in w]
        return _Found([meant], _growth(e), predicted)
    fit, predicted = stretch.suspects(meant, others)
    return _Found(fit, stretch.measured, predicted)


def _growth(e: list[float]) -> float | None:
    """The geometric mean of the growth of the error in an epoch."""
    return abs(e[-1] / e[0]) ** (1 / (len(e) - 1)) if len(e) > 1 and e[0] else None


def _why_too_large(certificate: Certificate, x: Tensor, y: Tensor) -> tuple[Cause, str]:
    """The cause if the update was right: why is the limit so small?"""

    def limit(x: Tensor, y: Tensor, loss: str) -> float:
        """The limit on other data or with another loss; 0 if this learning rate is not below it."""
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
