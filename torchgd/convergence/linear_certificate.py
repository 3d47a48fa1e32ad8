"""Will it converge? y = w·x (+ b) with several features, before the first step.

The update on a batch B changes the error e = w − w* (w* a least-squares solution) by a matrix,

    e ← (I − lr H_B) e + lr r_B,    H_B = s mean x xᵀ,    r_B = s mean x (y − w*·x)    (means over B),

with s = 2 for the mean loss, 1 for half of it, 2b for the sum over b samples; a bias is a feature that is 1.
An epoch in a fixed order is the product of these, one affine map of the weights; it converges if the
largest absolute eigenvalue, the spectral radius, is below 1. If features are collinear, everything is said
of the directions that the data determine, because updates never move the others.

Source: B. T. Polyak, Introduction to Optimization (1987), chapter 1.4; D. P. Bertsekas, Nonlinear
Programming (1999), chapter 1.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from torchgd.convergence.certificate import times
from torchgd.convergence.linear_epochs import LinearEpoch, best_rate, limit_of
from torchgd.errors import InputError
from torchgd.features import collinear, standardization, table
from torchgd.plan import Plan
from torchgd.samples import Numbers

PARTS = {"mean": 2.0, "half": 1.0}


@dataclass(frozen=True)
class LinearCertificate:
    """What gradient descent on y = w·x (+ b) does at this learning rate; ``str()`` gives the sentence.

    Attributes:
        plan: method, batch size, order and loss, and the learning rate.
        names: of the weights; the bias, if there is one, comes last.
        eigenvalues: of the Hessian of the whole loss, ascending; only of directions that the data determine.
        slow, fast: unit vectors, a number for each weight, along which the error shrinks slowest and fastest.
        condition: the largest eigenvalue over the smallest.
        limit: every lr below it converges.
        limit_proved: whether a larger lr is known not to converge; else ``limit`` is only a safe bound.
        factor: what an epoch leaves of the error in the long run: the spectral radius of its matrix; with
            replacement the root of that of the mean square. None if it is not known (shuffled).
        converges: whether it converges; None if it is not known.
        best_lr, best_epochs: the lr to use, and the epochs that it needs to reach the tolerance.
        epochs: the epochs that this lr needs; None if never, or not known.
        tolerance: the part of the starting error that may remain.
        least_squares, fixed_point: the best weights, and where a fixed order settles (None elsewhere).
        collinear: the names of the features that are an exact combination of others.
        standardized: the certificate with every feature standardised, or None.
        scale: the size of each feature, its root mean square.

    Example:
        >>> linear_stability([[1.0], [2.0], [3.0]], [2.0, 4.0, 6.0], lr=0.2).converges
        False
    """

    plan: Plan
    names: tuple[str, ...]
    eigenvalues: tuple[float, ...]
    slow: tuple[float, ...]
    fast: tuple[float, ...]
    condition: float
    limit: float
    limit_proved: bool
    factor: float | None
    converges: bool | None
    best_lr: float
    best_epochs: int | None
    epochs: int | None
    tolerance: float
    least_squares: tuple[float, ...]
    fixed_point: tuple[float, ...] | None
    collinear: tuple[str, ...]
    scale: tuple[float, ...]
    standardized: LinearCertificate | None = None
    _epoch: LinearEpoch | None = field(default=None, repr=False, compare=False)

    def weights_after(self, epochs: int, start: Sequence[float]) -> Tensor:
        """The weights after this many epochs in a fixed order, from these weights; shape (d,)."""
        if self._epoch is None:
            raise InputError(f"the weights of a {self.plan.order} order are not known before it is drawn")
        return self._epoch.after(epochs, torch.tensor(start, dtype=torch.float64), self.plan.rate)

    @property
    def verdict(self) -> str:
        """The answer in one sentence or two."""
        lr, where = self.plan.rate, f"the limit {self.limit:.6g}"
        if self.converges is None:
            text = (
                f"It is not known: lr {lr:.6g} is above {self.limit:.6g}, below which every order converges"
            )
        elif not self.converges:
            grown = f"{self.factor:.6g}" if self.factor and math.isfinite(self.factor) else "more than 1e300"
            text = f"It diverges: an epoch multiplies the error by {grown}; lr {lr:.6g} is"
            text += f" {times(lr / self.limit)} {where}; use lr {self.best_lr:.6g}"
        else:
            took = f" in {_epochs(self.epochs)} to {self.tolerance:g} of the starting error"
            text = f"It converges{took if self.epochs else ''}: lr {lr:.6g} is {times(lr / self.limit)}"
            text += f" {where}" if self.limit_proved else " the bound below which every order converges"
        return f"{text}; the condition number is {self.condition:.4g}.{self._collinear}{self._advice}"

    def __str__(self) -> str:
        return self.verdict

    def to_dict(self) -> dict[str, Any]:
        """All fields and the sentence, for JSON."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if not one.name.startswith("_")}
        other = None if self.standardized is None else self.standardized.to_dict()
        return {**own, "plan": asdict(self.plan), "standardized": other, "verdict": self.verdict}

    def __repr__(self) -> str:
        return f"<LinearCertificate: {self.verdict}>"

    @property
    def _collinear(self) -> str:
        if len(self.eigenvalues) == len(self.names):
            return ""
        text = f" The samples do not determine all {len(self.names)} weights"
        if self.collinear:
            text = f" {', '.join(self.collinear)}: made up of the others, so the best weights are not unique"
        return f"{text}; gradient descent finds those nearest to its start."

    @property
    def _advice(self) -> str:
        """What standardising would do, if it helps; else the slow direction."""
        other, slow, fast = self.standardized, self.direction("slow"), self.direction("fast")
        if other is None or (self.best_epochs or 0) <= 2 * (other.best_epochs or 0):
            return f" The slow direction is {slow}." if len(self.eigenvalues) > 1 else ""
        text = f" {self._largest}{fast} sets the limit, and {slow} is slow"
        text += f": {_epochs(self.best_epochs)} at the best lr {self.best_lr:.3g}."
        text += f" Standardised (--standardize): limit {other.limit:.3g}, {_epochs(other.best_epochs)}"
        return f"{text} at lr {other.best_lr:.3g}."

    @property
    def _largest(self) -> str:
        """A column that is much larger than the others."""
        at = max(range(len(self.scale)), key=lambda i: self.scale[i])
        rest = max((size for i, size in enumerate(self.scale) if i != at), default=math.inf)
        times = self.scale[at] / rest if rest else math.inf
        return f"Column {self.names[at]} is {times:.3g} times the others: " if 10 <= times < math.inf else ""

    def direction(self, which: str) -> str:
        """The slow or the fast direction by the names of its largest parts."""
        parts = self.slow if which == "slow" else self.fast
        order = sorted(range(len(parts)), key=lambda i: -abs(parts[i]))
        large = [i for i in order if abs(parts[i]) >= 0.3 * abs(parts[order[0]])][:3]
        if len(large) == 1:
            return self.names[large[0]]
        return " ".join(f"{parts[i]:+.2f} {self.names[i]}" for i in large).removeprefix("+")


def _epochs(count: int | None) -> str:
    if count is None:
        return "epochs without end"
    return f"{count:.3g} epochs" if count >= 10_000 else f"{count} epoch{'s' * (count != 1)}"


def linear_stability(
    x: Numbers,
    y: Numbers,
    lr: float | None = None,
    *,
    bias: bool = True,
    names: Sequence[str] | None = None,
    method: str = "gd",
    batch_size: int | None = None,
    order: str = "sequential",
    loss: str = "mean",
    tolerance: float = 1e-6,
    epochs: int = 100,
    advise: bool = True,
) -> LinearCertificate:
    """Certify gradient descent on y = w·x (+ b) with several features, before its first step.

        full batch: converges if lr < 2/λmax;    best lr 2/(λmin + λmax);    factor max |1 − lr λ|
        in a fixed order: if the spectral radius of Π (I − lr H_B) is below 1
        with replacement: if that of the map of the mean square is below 1

    Args:
        x, y: the samples, shapes (n, d) and (n,).
        lr: the learning rate; the best one if not given.
        bias: whether the model has a bias, w·x + b.
        names: of the features; those of a DataFrame's columns, or x0, x1, … if not given.
        method, batch_size, order, loss, tolerance, epochs: as for :func:`torchgd.stability`.
        advise: whether to say what standardised features would change (full batch).

    Raises:
        InputError: the shapes do not fit, a number is not finite, every feature is 0, or an argument is out
            of its range.

    Example:
        >>> import torch
        >>> certificate = linear_stability(torch.tensor([[1.0], [2.0], [3.0]]), [2.0, 4.0, 6.0], loss="sum")
        >>> [
        ...     round(value, 4)
        ...     for value in (*certificate.eigenvalues, certificate.condition, certificate.limit)
        ... ]
        [0.7212, 33.2788, 46.145, 0.0601]

    Source: 《PyTorch深度学习实践》, lecture 5 (2020); the module's docstring.
    """
    plan = Plan(method=method, batch_size=batch_size, order=order, loss=loss, lr=lr)
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance!r}; give a number between 0 and 1, e.g. 1e-6")
    features, targets = table(x, y)
    named = tuple(names or [str(name) for name in getattr(x, "columns", ())])
    named = named or tuple(f"x{i}" for i in range(features.shape[1]))
    if len(named) != features.shape[1]:
        raise InputError(
            f"names has {len(named)} names, but x has {features.shape[1]} columns; give one each"
        )
    scale = features.square().mean(0).sqrt()
    data = torch.cat([features, features.new_ones(len(features), 1)], 1) if bias else features
    named += ("bias",) * bias
    size = plan.batch_size_of(len(data))
    epoch = LinearEpoch(data, targets, size, lambda b: PARTS.get(loss, 2.0 * b))
    values = epoch.eigenvalues
    limit, proved, radius = limit_of(epoch, plan.order)
    best = best_rate(epoch, plan.order, limit, radius, epochs)
    rate = best if lr is None else lr
    plan = replace(plan, lr=rate)

    def factor_of(some: float) -> float | None:
        return None if radius is None else radius(torch.tensor([some], dtype=torch.float64))[0].item()

    factor = factor_of(rate)
    converges = factor < 1 if factor is not None else True if rate < limit else None
    fixed = plan.order == "sequential" and converges
    return LinearCertificate(
        plan=plan,
        names=named,
        eigenvalues=tuple(values.flip(0).tolist()),
        slow=_unit(epoch.basis[:, -1]),
        fast=_unit(epoch.basis[:, 0]),
        condition=(values[0] / values[-1]).item(),
        limit=limit,
        limit_proved=proved,
        factor=factor,
        converges=converges,
        best_lr=best,
        best_epochs=_epochs_to(tolerance, factor_of(best)),
        epochs=_epochs_to(tolerance, factor),
        tolerance=tolerance,
        least_squares=tuple(epoch.best.tolist()),
        fixed_point=tuple((epoch.best + epoch.settled(rate)).tolist()) if fixed else None,
        collinear=collinear(data, named, bias=bias),
        scale=tuple(scale.tolist()),
        standardized=_standardized(features, targets, named, bias, plan, tolerance)
        if advise and method == "gd"
        else None,
        _epoch=epoch if plan.order == "sequential" else None,
    )


def _standardized(
    x: Tensor, y: Tensor, names: tuple[str, ...], bias: bool, plan: Plan, tolerance: float
) -> LinearCertificate | None:
    """The best certificate of standardised features; None if one of them does not vary."""
    shift, scale = standardization(x, bias=bias)
    if not scale.all():
        return None
    return linear_stability(
        (x - shift) / scale,
        y,
        bias=bias,
        names=names[: x.shape[1]],
        loss=plan.loss,
        tolerance=tolerance,
        advise=False,
    )


def _unit(vector: Tensor) -> tuple[float, ...]:
    """The vector or its opposite, so that its largest part is positive."""
    return tuple((vector * vector[vector.abs().argmax()].sign()).tolist())


def _epochs_to(tolerance: float, factor: float | None) -> int | None:
    """The fewest epochs with factor^epochs ≤ tolerance."""
    if factor is None or not factor < 1:
        return None
    return max(1, math.ceil(math.log(tolerance) / math.log(factor) - 1e-9)) if factor > 0 else 1
