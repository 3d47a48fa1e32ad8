"""Is my gradient right? And if not: which mistake is it?

    report = check_gradient(f, x, y)

calls f(w, x, y) at points where no mistake can hide (`torchgd.check.probes`), compares it with the exact
derivative, autograd and central differences, and names what is wrong (`torchgd.check.diagnose`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchgd.check.calling import GradientFunction
from torchgd.check.diagnose import examine
from torchgd.check.model import ModelGradient
from torchgd.check.model_points import LossFunction, model_points
from torchgd.check.probes import own_probes, your_probes
from torchgd.check.report import GradientReport
from torchgd.check.signature import function_of_weight
from torchgd.check.weight import WeightGradient
from torchgd.errors import InputError
from torchgd.samples import as_tensor, check_finite, vectors

MOST_SAMPLES = 10_000  # of the data are tried


def check_gradient(
    f: GradientFunction,
    x: Any,
    y: Any,
    w: float | Tensor = 1.0,
    *,
    per_sample: bool | None = None,
    reduction: str = "mean",
    model: nn.Module | None = None,
    loss_fn: LossFunction | None = None,
    seed: int = 0,
) -> GradientReport:
    """Check a gradient of the squared error that somebody wrote by hand, and name the mistake in it.

    What is right: dC/dw = (1/n) Σ 2 xᵢ (w xᵢ − yᵢ), or for each sample dℓᵢ/dw = 2 xᵢ (w xᵢ − yᵢ).

    Args:
        f: the gradient, called as f(w, x, y); or as f(x, y), where w is a global that it reads. It may take
            tensors, lists, numpy arrays or one sample at a time, which the report says, and return one
            number or one for each sample.
        x: the inputs, n numbers.
        y: the targets, n numbers.
        w: a weight that matters to you, e.g. the one before training.
        per_sample: whether one gradient for each sample is due; as f answers, if not given.
        reduction: "mean" or "sum" over the samples, whichever your cost has.
        model: any module instead of y = w·x. Then x and y have n rows, and f takes the parameters in a dict,
            f(parameters, x, y), or one by one, f(W1, b1, …, x, y), as tensors or arrays; it returns their
            gradients in a dict, or in the order of ``named_parameters()``, or leaves them in ``.grad``; of
            the same shapes or, for each sample, with n rows of them. Where x has several columns and there
            is no model, it is y = x θ, with w as the start of θ.
        loss_fn: its loss, called as loss_fn(model(x), y), or with the dict of parameters as a third
            argument, for a penalty; the mean squared error if not given.
        seed: of the random points.

    Returns:
        A report: ``ok``, ``cause``, ``factor``, ``message``, ``line`` and ``evidence``; print it.

    Raises:
        InputError: x, y or w are not finite numbers of the same shape, or f takes other arguments.

    Example:
        >>> def half(w, x, y):
        ...     return (x * (w * x - y)).mean()
        >>> report = check_gradient(half, [1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
        >>> report.ok, report.cause.value, report.factor
        (False, 'factor', 0.5)

    Source: Nocedal and Wright, Numerical Optimization, section 8.1, finite differences (2006).
    """
    name = getattr(f, "__name__", type(f).__name__)
    if reduction not in ("mean", "sum"):
        raise InputError(f"reduction is {reduction!r}; give 'mean' or 'sum'")
    summed = reduction == "sum"
    if model is None and (columns := _columns(x)) > 1:
        model = _Theta(columns, as_tensor(y, "y").dim(), w)
    if model is not None:
        return examine(
            ModelGradient(f, name, model_points(model, loss_fn, x, y, seed, summed), summed), per_sample
        )
    f, names, note = function_of_weight(f, name)
    n = len(x) if hasattr(x, "__len__") else 0
    if n > MOST_SAMPLES and hasattr(y, "__len__") and len(y) == n:
        stride = -(-n // MOST_SAMPLES)
        x, y = x[::stride], y[::stride]
    probes = [*own_probes(seed), *your_probes(*_data(w, x, y), seed)]
    return examine(WeightGradient(f, name, names, probes, x, summed, note, n), per_sample)


class _Theta(nn.Module):
    """y = x θ with a vector of weights, for a function f(theta, x, y)."""

    def __init__(self, columns: int, dim: int, start: Any) -> None:
        super().__init__()
        theta = torch.as_tensor(start, dtype=torch.float64).flatten()
        theta = theta if len(theta) == columns else torch.ones(columns, dtype=torch.float64)
        self.theta = nn.Parameter(theta.reshape(columns, *[1] * (dim - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.theta


def _columns(x: Any) -> int:
    """The number of columns of x; 0 where it is not a table."""
    shape = tuple(x.shape) if hasattr(x, "shape") else ()
    if not shape and isinstance(x, list | tuple) and x and isinstance(x[0], list | tuple):
        shape = (len(x), len(x[0]))
    return shape[1] if len(shape) == 2 else 0


def _data(w: Any, x: Any, y: Any) -> tuple[float, Tensor, Tensor]:
    """The numbers in float64 on the CPU, or InputError."""
    weight = as_tensor(w, "w")
    if weight.dim() or not weight.isfinite():
        raise InputError(f"w is {w!s:.60}; give one finite number")
    x, y = (values.cpu().double() for values in vectors(x, y))
    check_finite(x, "x")
    check_finite(y, "y")
    return float(weight), x, y
