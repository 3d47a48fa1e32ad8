"""The gradients of all parameters of a module, written by hand, against autograd.

Every parameter is judged on its own, with the engine of `explain`; what is right comes from autograd in
float64, at the points of `model_points`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchgd.check.calling import as_tensor, raised
from torchgd.check.explain import Factor, close, proportion
from torchgd.check.mistakes import Cause
from torchgd.check.model_points import LossFunction, ModelPoint, Parameters, model_points
from torchgd.check.report import Evidence, GradientReport
from torchgd.check.verdict import Verdict, factor_verdict, precision

_OTHER_LOSSES: tuple[tuple[str, LossFunction], ...] = (
    ("the absolute error (l1_loss)", functional.l1_loss),
    ("the squared error (mse_loss)", functional.mse_loss),
    ("half the squared error", lambda prediction, y: functional.mse_loss(prediction, y) / 2),
    ("the Huber loss (smooth_l1_loss)", functional.smooth_l1_loss),
    ("the root of the mean squared error", lambda prediction, y: functional.mse_loss(prediction, y).sqrt()),
    ("the fourth power of the error", lambda prediction, y: ((prediction - y) ** 4).mean()),
)
_PARTS = (
    ("Only the first sample counts.", slice(0, 1)),
    ("Only the last sample counts.", slice(-1, None)),
    ("The first sample is left out.", slice(1, None)),
    ("The last sample is left out.", slice(0, -1)),
)
Values = Callable[[ModelPoint, str], Tensor]
Candidate = tuple[Cause, str, Values]
_ROUGH = 1e-3


def check_model(
    f: Callable[..., Any],
    x: Tensor,
    y: Tensor,
    model: nn.Module,
    loss_fn: LossFunction | None = None,
    *,
    per_sample: bool | None = None,
    seed: int = 0,
) -> GradientReport:
    """`torchgd.check_gradient` for a module: f(parameters, x, y) gives a dict of gradients."""
    name = getattr(f, "__name__", type(f).__name__)
    points = model_points(model, loss_fn or functional.mse_loss, x, y, seed)
    gathered = _gather(f, points)
    if isinstance(gathered, Verdict):
        return GradientReport(name, gathered.cause, gathered.message)
    kept, answers, each, eps = gathered
    judged = {key: _judge(key, kept, values, each, eps) for key, values in answers.items()}
    wrong = {key: verdict for key, verdict in judged.items() if verdict.cause is not Cause.correct}
    verdict = next(iter(wrong.values())) if wrong else _correct(len(kept), each, per_sample)
    if not wrong and len(kept) < len(points):
        verdict = Verdict(Cause.lucky, "It is right, but it fails where there is one sample only.")
    message = verdict.message
    if wrong:
        alike = [key for key, other in wrong.items() if other == verdict]
        others = [f"{key}: {other.cause.value}" for key, other in wrong.items() if other != verdict]
        right = [key for key in judged if key not in wrong]
        message = f"{', '.join(alike)}: {message}" + (f" Also {', '.join(others)}." if others else "")
        message += f" Right: {', '.join(right)}." if right else ""
    rows = partial(_evidence, kept, answers, each, eps)
    return GradientReport(
        name, verdict.cause, message, verdict.factor, verdict.factor_name, form="a dict of tensors", rows=rows
    )


def _gather(
    f: Callable[..., Any], points: Sequence[ModelPoint]
) -> tuple[list[ModelPoint], dict[str, list[Tensor]], bool, float] | Verdict:
    """The points with an answer, the answers by parameter, whether they are of each sample, and their ε."""
    kept, given = [], []
    for point in points:
        answer = _call(f, point)
        if isinstance(answer, Verdict):
            if point.n == 1:
                continue  # a mean over all but one of a single sample, say; what is left will tell
            return answer
        kept.append(point)
        given.append(answer)
    again = _call(f, kept[0])
    if isinstance(again, Verdict):
        return again
    if any(not torch.equal(again[name], value) for name, value in given[0].items()):
        return Verdict(
            Cause.nondeterministic, "Two calls with the same numbers give two answers: is it random?"
        )
    first = kept[0].parameters
    each = all(given[0][name].shape == (kept[0].n, *p.shape) for name, p in first.items())
    for point, answer in zip(kept, given, strict=True):
        for name, p in first.items():
            shape, due = answer[name].shape, (point.n, *p.shape) if each else p.shape
            if shape != due:
                mend = "; it is transposed" if shape == due[::-1] else ""
                message = (
                    f"It gives {name} a gradient of shape {tuple(shape)} where {tuple(due)} is due{mend}."
                )
                return Verdict(Cause.wrong_shape, message)
    every = [value for answer in given for value in answer.values()]
    _, eps = precision({value.dtype for value in every}, [value.double() for value in every])
    return kept, {name: [answer[name].double() for answer in given] for name in first}, each, eps


def _call(f: Callable[..., Any], point: ModelPoint) -> Parameters | Verdict:
    """One call, on copies; the answer by the names of the parameters."""
    parameters, x, y = (
        {name: p.clone() for name, p in point.parameters.items()},
        point.x.clone(),
        point.y.clone(),
    )
    try:
        with torch.enable_grad():
            raw = f(parameters, x, y)
    except (Exception, SystemExit) as error:
        problem = raised(f, error)
        return Verdict(problem.cause, f"It {problem.text}.")
    if not (torch.equal(x, point.x) and torch.equal(y, point.y)):
        return Verdict(Cause.mutates_input, "It changes x or y in place: work on a copy.")
    if any(not torch.equal(parameters[name], p) for name, p in point.parameters.items()):
        return Verdict(Cause.mutates_input, "It changes a parameter in place: work on a copy.")
    if not isinstance(raw, Mapping):
        kind = "None: a return is missing" if raw is None else f"a {type(raw).__name__}"
        return Verdict(Cause.wrong_dtype, f"It returned {kind}; a dict from the parameters' names is due.")
    names = ", ".join(point.parameters)
    if set(raw) != set(point.parameters):
        return Verdict(
            Cause.wrong_shape, f"It gives gradients for {', '.join(map(str, raw))}; due are {names}."
        )
    try:
        answer = {name: as_tensor(raw[name]) for name in point.parameters}
    except (TypeError, ValueError, RuntimeError):
        lost = any(value is None for value in raw.values())
        cause = Cause.detached if lost else Cause.wrong_dtype
        return Verdict(cause, "It gives None for a parameter." if lost else "It gives a parameter no number.")
    for name, value in answer.items():
        if not bool(value.isfinite().all()):
            return Verdict(Cause.non_finite, f"It gives {name} a gradient that is NaN or infinite.")
    return answer


def _judge(
    name: str, points: Sequence[ModelPoint], answers: Sequence[Tensor], each: bool, eps: float
) -> Verdict:
    """The verdict on one parameter."""
    due = [point.due(name, each) for point in points]
    if all(close(a, v, s, p.n, eps) for p, a, (v, s) in zip(points, answers, due, strict=True)):
        return Verdict(Cause.correct, "")
    if not any(bool(answer.any()) for answer in answers):
        return factor_verdict(Factor(0.0), points[-1].n, each)
    kept = [i for i, (v, s) in enumerate(due) if not close(torch.zeros_like(v), v, s, points[i].n, eps)]

    def factor_of(values: Values) -> Factor | None:
        def value(i: int) -> Tensor:
            return values(points[kept[i]], name)

        def scale(i: int) -> Tensor:
            return due[kept[i]][1] + value(i).abs().max()

        counts = [points[i].n for i in kept]
        return proportion([answers[i] for i in kept], counts, value, scale, eps, slack=16.0)

    factor = factor_of(lambda point, name: point.due(name, each)[0])
    if factor and factor != Factor(1.0):
        square = points[0].loss_fn is functional.mse_loss or isinstance(points[0].loss_fn, nn.MSELoss)
        return factor_verdict(factor, points[-1].n, each, square=square)
    penalty = _penalty(name, [points[i] for i in kept], [answers[i] for i in kept])
    for cause, message, values in () if each else (*_candidates(name, points[0]), penalty):
        if factor_of(values):
            return Verdict(cause, message)
    same = [i for i in range(len(points) - 1) if points[i].x is points[i + 1].x]
    if all(torch.equal(answers[i], answers[i + 1]) for i in same):
        return Verdict(Cause.constant, "It is the same at all parameters: does it use old ones?")
    error = max(
        float((a - v).abs().max()) / float(s.max()) for a, (v, s) in zip(answers, due, strict=True) if s.any()
    )
    if error < _ROUGH:
        return Verdict(Cause.approximate, f"It is right only roughly, to {int(-math.log10(error))} digits.")
    return Verdict(Cause.unknown, "It is wrong, and no known mistake explains all the evidence.")


def _candidates(name: str, point: ModelPoint) -> Iterator[Candidate]:
    """What the gradient of one parameter may be instead."""
    message = "The input of its factor is missing: this is the derivative by the prediction alone."
    yield Cause.missing_input, message, lambda p, name: p.by_prediction.expand(p.parameters[name].shape)
    for other, parameter in point.parameters.items():
        if other != name and parameter.shape == point.parameters[name].shape:
            yield Cause.wrong_variable, f"This is the gradient of {other}.", partial(_of_other, other)
    for message, part in _PARTS:
        yield Cause.part_of_the_data, message, partial(_of_part, part)
    for loss, loss_fn in _OTHER_LOSSES:
        yield Cause.other_loss, f"This is the gradient of {loss}.", partial(_of_loss, loss_fn)
    message = "Only the sign of the gradient is left: its size is lost."
    yield Cause.saturated, message, lambda p, name: p.right[name].sign()
    message = "The gradient is divided by its norm: its direction is right, its size is not."
    yield Cause.saturated, message, lambda p, name: p.right[name] / p.right[name].norm()


def _of_other(other: str, point: ModelPoint, name: str) -> Tensor:
    return point.right[other]


def _of_part(part: slice, point: ModelPoint, name: str) -> Tensor:
    return point.gradients(point.x[part], point.y[part])[name]


def _of_loss(loss_fn: LossFunction, point: ModelPoint, name: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return point.gradients(point.x, point.y, loss_fn=loss_fn)[name]
        except (RuntimeError, ValueError, IndexError, UserWarning):  # a loss for targets of another kind
            return torch.full_like(point.right[name], math.nan)


def _penalty(name: str, points: Sequence[ModelPoint], answers: Sequence[Tensor]) -> Candidate:
    """k · gradient + λ · parameter, k and λ by least squares."""
    sides = (
        torch.cat([p.right[name].flatten() for p in points]),
        torch.cat([p.parameters[name].flatten() for p in points]),
    )
    given = torch.cat([answer.flatten() for answer in answers])
    k, rate = torch.linalg.lstsq(torch.stack(sides, dim=1), given).solution.tolist()
    message = f"A weight penalty is in it: it adds {rate:.6g} times the parameter to the gradient."
    return Cause.other_loss, message, lambda p, name: k * p.right[name] + rate * p.parameters[name]


def _correct(points: int, each: bool, per_sample: bool | None) -> Verdict:
    if per_sample is not None and per_sample != each:
        given, due = (
            ("each sample's gradient", "their mean") if each else ("the mean", "each sample's gradient")
        )
        return Verdict(Cause.reduction, f"It returns {given}, and right, where {due} is due.")
    kind = " for each sample" if each else ""
    return Verdict(
        Cause.correct, f"It is right{kind} to rounding, for all parameters, at all {points} points tried."
    )


def _evidence(
    points: Sequence[ModelPoint], answers: Mapping[str, Sequence[Tensor]], each: bool, eps: float
) -> Iterator[Evidence]:
    """Of each parameter at each point, the entry that differs most; from the last point, the user's data."""
    for i in reversed(range(len(points))):
        point = points[i]
        for name, values in answers.items():
            exact, scale = point.due(name, each)
            worst = int((values[i] - exact).abs().argmax())
            index = [int(k) for k in torch.unravel_index(torch.tensor(worst), exact.shape)]
            sample = index.pop(0) if each else None
            yield Evidence(
                data=point.data,
                n=point.n,
                at="",
                entry=("" if sample is None else f"{sample}: ") + name + (f"{index}" if index else ""),
                hand=float(values[i].flatten()[worst]),
                autograd=float(exact.flatten()[worst]),
                difference=point.difference(name, index, sample),
                ok=close(values[i], exact, scale, point.n, eps),
            )
