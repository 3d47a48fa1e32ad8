"""The answers of the user's code at all points, brought into one shape and one precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchgd.check.explain import close
from torchgd.check.mistakes import Cause
from torchgd.check.probes import YOUR_DATA
from torchgd.check.report import Diagnosis
from torchgd.check.subject import Answer, Due, Subject, Values


@dataclass(frozen=True)
class Answered:
    """A point and what the function answered there: None where it failed."""

    point: Any
    values: Values | None


@dataclass
class Answers:
    """What the subject answered, at the points where its dtype can hold what is right."""

    subject: Subject
    each: bool  # a gradient for each sample
    dtype: torch.dtype
    eps: float
    points: list[Answered] = field(default_factory=list)
    failures: list[tuple[Any, Diagnosis]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(self.points[0].point.due(False))

    @property
    def n(self) -> int:
        """The number of the user's samples."""
        return self.subject.n or next(
            int(a.point.n) for a in reversed(self.points) if a.point.data == YOUR_DATA
        )

    def due(self, point: Any, name: str) -> Due:
        return self.subject.due(point, self.each)[name]

    def right_at(self, answered: Answered, name: str) -> bool:
        due = self.due(answered.point, name)
        return answered.values is not None and self.close(answered, answered.values[name], due)

    def close(self, answered: Answered, value: Tensor, due: Due) -> bool:
        exact = self.dtype is torch.float64 and not self.subject.accuracy
        eps = self.eps * (self.subject.roundings if exact else 1)
        return close(value, due.value, due.scale, answered.point.n, eps)

    def error(self, name: str) -> float:
        """The largest error relative to the terms that are added or, where these are unknown, to the sum."""
        errors = [0.0]
        for answered in self.points:
            due = self.due(answered.point, name)
            if answered.values is None:
                return float("inf")
            terms = due.scale if self.subject.terms_known else due.value.abs().max().expand(due.value.shape)
            error = (answered.values[name] - due.value).abs() / terms
            errors.append(float(torch.where(terms > 0, error, 0.0).max()))
        return max(errors)


def gather(subject: Subject) -> Answers | Diagnosis:
    """Call the subject at all its points; the diagnosis where the answers cannot be compared at all."""
    calls = [(point, subject.call(point)) for point in subject.points]
    changed = next((answer.changed for _, answer in calls if answer.changed), "")
    if changed:
        message = f"It changes {changed} in place, so that the next call sees other numbers. Work on a copy."
        return Diagnosis(Cause.mutates_input, message)
    several = [(p, answer.values) for p, answer in calls if p.n > 1 and answer.values is not None]
    several = several or [(p, answer.values) for p, answer in calls if answer.values is not None]
    if not several:
        return next(answer.failure for point, answer in calls[::-1] if answer.failure)
    first, values = several[0]
    each = all(values[name].shape == (first.n, *d.value.shape) for name, d in first.due(False).items())
    for point, values in several:
        for name, due in point.due(each).items():
            if values[name].shape != due.value.shape:
                shapes = tuple(values[name].shape), tuple(due.value.shape)
                return Diagnosis(Cause.wrong_shape, subject.misshapen(name, point, *shapes))
    dtypes = frozenset().union(*(answer.dtypes for _, answer in calls))
    dtype, eps = precision(dtypes, [value for _, values in several for value in values.values()])
    answers = Answers(subject, each, dtype, subject.accuracy or eps)
    for point, answer in calls:
        if point.fits(dtype):
            fitted = fit(answer, point, each)
            if isinstance(fitted, Diagnosis):
                answers.failures.append((point, fitted))
            answers.points.append(Answered(point, None if isinstance(fitted, Diagnosis) else fitted))
    if all(answered.values is None for answered in answers.points if answered.point.n > 1):
        point, failure = answers.failures[0]
        return Diagnosis(
            failure.cause, f"{failure.message[:-1]} at {point.place_name}, where the gradient is finite."
        )
    return answers


def fit(answer: Answer, point: Any, each: bool) -> Values | Diagnosis:
    """The values in the shapes that are due and finite, or what is the matter; N = 1 has both shapes."""
    if answer.values is None:
        return answer.failure or Diagnosis(Cause.raises, "It gives no answer.")
    fitted = {}
    for name, due in point.due(each).items():
        value = answer.values[name]
        of = f" for {name}" if name else ""
        if value.numel() != due.value.numel():
            return Diagnosis(Cause.wrong_shape, f"It returns shape {tuple(value.shape)}{of}.")
        if not bool(value.isfinite().all()):
            number = float(value[~value.isfinite()].flatten()[0])
            return Diagnosis(Cause.non_finite, f"It returns {number}{of}.")
        fitted[name] = value.reshape(due.value.shape)
    return fitted


def precision(dtypes: frozenset[torch.dtype], values: Sequence[Tensor]) -> tuple[torch.dtype, float]:
    """The dtype in which the answers were computed: numbers that all fit float32 are not float64."""
    floating = [dtype for dtype in dtypes if dtype.is_floating_point]
    if not floating:
        return torch.int64, torch.finfo(torch.float64).eps
    dtype = max(floating, key=lambda d: torch.finfo(d).eps)
    every = torch.cat([value.flatten() for value in values])
    every = every[every.isfinite()]
    fits = [bool((every == every.to(shorter).double()).all()) for shorter in (torch.float32, torch.bfloat16)]
    if dtype is torch.float64 and fits == [True, False]:
        dtype = torch.float32
    return dtype, torch.finfo(dtype).eps
