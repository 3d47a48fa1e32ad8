"""The gradients of all parameters of a module, written by hand as f(parameters, x, y), against autograd.

Every parameter is diagnosed on its own; what is right comes from autograd in float64, at the points of
`model_points`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchgd.check.calling import raised
from torchgd.check.gather import Answers
from torchgd.check.hand_in import hand_ins
from torchgd.check.mistakes import Cause
from torchgd.check.model_points import Exact, LossFunction, ModelPoint, seeded
from torchgd.check.report import Diagnosis
from torchgd.check.subject import Answer, Candidate, Subject
from torchgd.errors import InputError
from torchgd.samples import loss_name

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


class ModelGradient(Subject):
    """f, which gives a dict of gradients with the names of the parameters."""

    def __init__(
        self, f: Callable[..., Any], function: str, points: Sequence[ModelPoint], summed: bool
    ) -> None:
        self.f, self.function, self.points, self.summed = f, function, points, summed
        point = points[-1]
        self.squared = loss_name(point.loss_fn).lower().replace("_", "") == "mseloss"
        self.ways = hand_ins(f, function, point.model)
        self.way = self.ways[0]

    def prepare(self) -> Diagnosis | None:
        failures = []
        for way in self.ways:
            self.way = way
            failure = self.call(self.points[-1]).failure
            if failure is None:
                break
            failures.append(failure)
        else:
            detached = [failure for failure in failures if failure.cause is Cause.detached]
            return [*detached, failures[0]][0]
        if self.points[-1].seed is not None and not self._draws(self.points[-1]):
            raise InputError(
                "two calls of the model give two gradients, as dropout does; call model.eval() first"
            )
        self.form = self.way.name
        return None

    def _draws(self, point: ModelPoint) -> bool:
        """Whether f draws random numbers, as the model does."""
        with seeded(0):
            before = torch.random.get_rng_state()
            self.f(*self.way.give({**point.frozen, **point.parameters}, point.x, point.y)[0])
            return not torch.equal(before, torch.random.get_rng_state())

    def call(self, point: ModelPoint) -> Answer:
        order = [name for name, _ in point.model.named_parameters()]
        every = {**point.frozen, **point.parameters}
        arguments, leaves = self.way.give({name: every[name] for name in order}, point.x, point.y)
        try:
            with torch.enable_grad(), seeded(point.seed), Exact():
                raw = self.f(*arguments)
        except (Exception, SystemExit) as error:
            return Answer(failure=raised(self.f, error))
        now = dict(zip(self.way.names, map(torch.as_tensor, leaves), strict=True))
        now |= {"x": torch.as_tensor(arguments[-2]), "y": torch.as_tensor(arguments[-1])}
        was = {**every, "x": point.x, "y": point.y}
        changed = " and ".join(name for name, value in now.items() if not torch.equal(value, was[name]))
        values = self.way.take(raw, leaves, list(point.parameters))
        if isinstance(values, Diagnosis):
            return Answer(failure=values, changed=changed)
        dtypes = frozenset(value.dtype for value in values.values())
        return Answer({name: value.double() for name, value in values.items()}, dtypes, changed=changed)

    def misshapen(self, name: str, point: ModelPoint, shape: tuple[int, ...], due: tuple[int, ...]) -> str:
        mend = "; it is transposed" if shape == due[::-1] else ""
        return f"It gives {name} a gradient of shape {shape} where {due} is due{mend}."

    def candidates(self, answers: Answers, name: str) -> Iterator[Sequence[Candidate]]:
        if answers.each:
            return
        message = "The input of its factor is missing: this is the derivative by the prediction alone."
        shape = answers.points[0].point.parameters[name].shape
        yield [Candidate(Cause.missing_input, message, lambda p: p.by_prediction.expand(shape))]
        if len(shape) == 2 and shape[0] == shape[1] > 1:
            message = "It is the right gradient, but transposed."
            yield [Candidate(Cause.wrong_shape, message, lambda p: p.right[name].mT)]
        for other in answers.names:
            if other != name and answers.points[0].point.parameters[other].shape == shape:
                message = f"This is the gradient of {other}."
                yield [Candidate(Cause.wrong_variable, message, partial(_of_other, other))]
        for message, part in _PARTS:
            yield [Candidate(Cause.part_of_the_data, message, partial(_of_part, part, name))]
        for loss, loss_fn in _OTHER_LOSSES:
            yield [_other(f"This is the gradient of {loss}.", partial(_of_loss, loss_fn, name))]
        message = "Only the sign of the gradient is left: its size is lost."
        yield [Candidate(Cause.saturated, message, lambda p: p.right[name].sign())]
        message = "The gradient is divided by its norm: its direction is right, its size is not."
        yield [Candidate(Cause.saturated, message, lambda p: p.right[name] / p.right[name].norm())]
        known = [(a.point, a.values[name]) for a in answers.points if a.values]
        yield [_penalty(name, [point for point, _ in known], [value for _, value in known])]

    def explain_together(self, answers: Answers, wrong: Mapping[str, Diagnosis]) -> Diagnosis | None:
        """One reason for all that is wrong, or where it is wrong first; None: each parameter keeps its own.

        This is called once, when at least one gradient is wrong and the answers can be compared.

        Args:
            answers: ``answers.points`` are pairs of a `ModelPoint` (``model``, ``loss_fn``, ``parameters``,
                ``x``, ``y`` in float64, and ``right`` by autograd) and ``values``, what f gave there by
                name in float64 (None where it failed); ``answers.each`` says that they are of each sample,
                ``answers.eps`` in which precision they are; `answers.close` compares to rounding.
            wrong: by the name of each wrong parameter, what it is called on its own.
        """
        return None


def _of_other(other: str, point: ModelPoint) -> Tensor:
    return point.right[other]


def _of_part(part: slice, name: str, point: ModelPoint) -> Tensor:
    with suppress(RuntimeError, ValueError, IndexError):  # a batch norm takes no single sample
        return point.gradients(point.x[part], point.y[part])[name]
    return torch.full_like(point.right[name], torch.nan)


def _of_loss(loss_fn: LossFunction, name: str, point: ModelPoint) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return point.gradients(point.x, point.y, loss_fn=loss_fn)[name]
        except (RuntimeError, ValueError, IndexError, UserWarning):  # a loss for targets of another kind
            return torch.full_like(point.right[name], torch.nan)


def _penalty(name: str, points: Sequence[ModelPoint], answers: Sequence[Tensor]) -> Candidate:
    """k · gradient + λ · parameter, k and λ by least squares."""
    sides = (
        torch.cat([p.right[name].flatten() for p in points]),
        torch.cat([p.parameters[name].flatten() for p in points]),
    )
    given = torch.cat([answer.flatten() for answer in answers])
    k, rate = torch.linalg.lstsq(torch.stack(sides, dim=1), given).solution.tolist()
    message = f"A weight penalty is in it: it adds {rate:.6g} times the parameter to the gradient."
    return _other(message, lambda p: k * p.right[name] + rate * p.parameters[name])


def _other(message: str, value: Callable[[ModelPoint], Tensor]) -> Candidate:
    return Candidate(Cause.other_loss, message, value)
