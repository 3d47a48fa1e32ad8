"""Is my gradient right? And if not: which mistake is it?

    report = check_gradient(f, x, y)

calls f(w, x, y) at points where no mistake can hide (`torchgd.check.probes`), compares it with the exact
derivative, autograd and central differences, and names what is wrong (`torchgd.check.verdict`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchgd.check.calling import GradientFunction, Problem, call, choose_form, takes_lists
from torchgd.check.explain import close
from torchgd.check.mistakes import Cause
from torchgd.check.model import check_model
from torchgd.check.model_points import LossFunction
from torchgd.check.probes import OWN_DATA, own_probes, your_probes
from torchgd.check.report import Evidence, GradientReport
from torchgd.check.verdict import Answers, Verdict, gather, judge
from torchgd.errors import InputError
from torchgd.samples import as_tensor, check_finite, vectors

_ROLES = (
    {"w", "weight", "weights", "theta"},
    {"x", "xs", "x_data", "inputs"},
    {"y", "ys", "y_data", "targets"},
)
_FORMULA_AT_FAULT = set(Cause) - {
    *(Cause.correct, Cause.approximate, Cause.unknown, Cause.nondeterministic, Cause.mutates_input),
    *(Cause.raises, Cause.detached, Cause.non_finite, Cause.wrong_dtype),
}


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
        f: the gradient, called as f(w, x, y). It may take tensors, lists, numpy arrays or one sample at a
            time, which the report says, and return one number or one for each sample.
        x: the inputs, n numbers.
        y: the targets, n numbers.
        w: a weight that matters to you, e.g. the one before training.
        per_sample: whether one gradient for each sample is due; as f answers, if not given.
        reduction: "mean" or "sum" over the samples, whichever your cost has.
        model: any module with named parameters instead of y = w·x. Then w is not looked at, x and y are
            tensors of n rows, and f(parameters, x, y) takes the dict of parameters and returns a dict of
            gradients with the same names, of the same shapes or, for each sample, with n rows of them.
        loss_fn: its loss, called as loss_fn(model(x), y); the mean squared error if not given.
        seed: of the random points.

    Returns:
        A report: ``ok``, ``cause``, ``factor``, ``message``, ``line`` and ``evidence``; print it.

    Raises:
        InputError: x, y or w are no finite numbers of the same shape, or f cannot be called as f(w, x, y).

    Example:
        >>> def half(w, x, y):
        ...     return (x * (w * x - y)).mean()
        >>> report = check_gradient(half, [1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
        >>> report.ok, report.cause.value, report.factor
        (False, 'factor', 0.5)

    Source: Nocedal and Wright, Numerical Optimization, section 8.1, finite differences (2006).
    """
    name = getattr(f, "__name__", type(f).__name__)
    names = _signature(f, name)
    if model is not None:
        return check_model(f, x, y, model, loss_fn, per_sample=per_sample, seed=seed)
    if reduction not in ("mean", "sum"):
        raise InputError(f"reduction is {reduction!r}; give 'mean' or 'sum'")
    device = x.device if isinstance(x, Tensor) else torch.device("cpu")
    probes = [*own_probes(seed), *your_probes(*_data(w, x, y), seed)]
    form = choose_form(f, probes[0], x, device)
    if isinstance(form, Problem):
        return GradientReport(name, form.cause, f"It {form.text}.")
    answers = gather(probes, [call(f, form, probe) for probe in probes], reduction)
    if isinstance(answers, Verdict):
        return GradientReport(name, answers.cause, answers.message, form=form.name)
    due = answers.per_sample if per_sample is None else per_sample
    verdict = judge(f, form, answers, due)
    line = None
    if verdict.cause in _FORMULA_AT_FAULT:
        line = _line(names, takes_lists(f, probes[0]), due, reduction)
    return GradientReport(
        function=name,
        cause=verdict.cause,
        message=verdict.message,
        factor=verdict.factor,
        factor_name=verdict.factor_name,
        line=line,
        form=form.name,
        rows=partial(_evidence, answers),
    )


def _signature(f: GradientFunction, name: str) -> list[str]:
    """The names that f gives to w, x and y; InputError where it takes others, or these in another order."""
    if not callable(f):
        raise InputError(f"{name} is no function; give the gradient as a function f(w, x, y)")
    if isinstance(f, type) and issubclass(f, torch.autograd.Function):
        raise InputError(f"{name} is an autograd.Function; give it to check_function with its inputs")
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # some builtins have none
        return list("wxy")
    try:
        signature.bind(0, 0, 0)
    except TypeError:
        raise InputError(
            f"{name}{signature} cannot be called as f(w, x, y); write def {name}(w, x, y)"
        ) from None
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in signature.parameters.values() if parameter.kind in named]
    roles = [next((role for role, words in enumerate(_ROLES) if n.lower() in words), None) for n in names[:3]]
    if roles != [0, 1, 2] and sorted(role for role in roles if role is not None) == [0, 1, 2]:
        raise InputError(f"{name}{signature} has its arguments in another order; write {name}(w, x, y)")
    return names[:3] if len(names) >= 3 else list("wxy")


def _data(w: Any, x: Any, y: Any) -> tuple[float, Tensor, Tensor]:
    """The numbers in float64 on the CPU, or InputError."""
    weight = as_tensor(w, "w")
    if weight.dim() or not weight.isfinite():
        raise InputError(f"w is {w!s:.60}; give one finite number")
    x, y = (values.cpu().double() for values in vectors(x, y))
    check_finite(x, "x")
    check_finite(y, "y")
    return float(weight), x, y


def _evidence(answers: Answers) -> Iterator[Evidence]:
    """The user's data first; of a gradient for each sample, the three samples that differ most."""
    each = answers.per_sample
    for point in sorted(answers.points, key=lambda point: point.probe.data == OWN_DATA):
        probe = point.probe
        exact, scale = (values.reshape(-1) for values in answers.target(probe))
        hand = torch.full_like(exact, math.nan) if point.answer is None else point.answer.reshape(-1)
        count = probe.n if answers.reduction == "sum" and not each else 1
        error = (hand - exact).abs().nan_to_num(math.inf)
        for i in sorted(error.topk(min(3, len(error))).indices.tolist()):
            yield Evidence(
                data=probe.data,
                n=probe.n,
                at=f"{probe.w:.6g}",
                entry=f"sample {i}" if each else "",
                hand=float(hand[i]),
                autograd=float(probe.autograd[each].reshape(-1)[i]) * count,
                difference=float(probe.difference[each].reshape(-1)[i]) * count,
                ok=close(hand[i], exact[i], scale[i], probe.n, answers.eps),
            )


def _line(names: list[str], lists: bool, each: bool, reduction: str) -> str:
    """The right line in the words of the user's function."""
    w, x, y = names
    if lists:
        terms = f"2 * a * ({w} * a - b) for a, b in zip({x}, {y})"
        mean = "" if reduction == "sum" else f" / len({x})"
        return f"return [{terms}]" if each else f"return sum({terms}){mean}"
    terms = f"2 * {x} * ({w} * {x} - {y})"
    return f"return {terms}" if each else f"return ({terms}).{reduction}()"
