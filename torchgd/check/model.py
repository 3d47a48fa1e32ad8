"""The gradients of all parameters of a module, written by hand as f(parameters, x, y), against autograd.

Every parameter is diagnosed on its own; what is right comes from autograd in float64, at the points of
`model_points`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from torchgd.check.calling import raised
from torchgd.check.diagnose import factor_diagnosis
from torchgd.check.gather import Answers
from torchgd.check.hand_in import hand_ins
from torchgd.check.mistakes import Cause
from torchgd.check.model_points import Exact, ModelPoint, seeded
from torchgd.check.report import Diagnosis
from torchgd.check.search import explain
from torchgd.check.subject import Answer, Subject
from torchgd.errors import InputError
from torchgd.samples import loss_name


class ModelGradient(Subject):
    """f, which gives a dict of gradients with the names of the parameters."""

    # Inside a network larger numbers cancel than the gradients show, as in 1 − tanh² or a batch norm of two
    # samples: 150 times the rounding was seen in right spellings; a mistake is above 1e-9 of the gradient.
    roundings = 500

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

    def explain_together(self, answers: Answers, wrong: Mapping[str, Diagnosis]) -> Diagnosis | None:
        """The mutants of the right backward pass that give these answers, or where it is wrong first."""
        if answers.each:
            return None
        known = [(a.point, a.values) for a in answers.points if a.values]
        points, given = [point for point, _ in known], [values for _, values in known]
        traced, found = explain(points, given, answers.eps, partial(factor_diagnosis, answers=answers))
        if not traced:
            self.note = " The model cannot be traced, so that each parameter is compared on its own."
        own = {diagnosis.cause for diagnosis in wrong.values()}
        if found and found.cause is Cause.unknown and own != {Cause.unknown}:
            return None
        return None if found and found.cause is Cause.saturated and Cause.constant in own else found
