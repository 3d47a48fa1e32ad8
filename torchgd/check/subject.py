"""What is checked: how it is called, and what is right at which points.

Three kinds: the gradient of one weight, those of a module's parameters, the backward of an autograd.Function.
They differ in what stands here; gathering, diagnosing and reporting are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchgd.check.explain import Factor
from torchgd.check.mistakes import Cause
from torchgd.check.report import Diagnosis

if TYPE_CHECKING:
    from torchgd.check.gather import Answers

Values = dict[str, Tensor]  # by the name of a parameter or an input; "" for the one weight


@dataclass(frozen=True)
class Due:
    """What is right, and the scale of its rounding, element by element."""

    value: Tensor
    scale: Tensor

    def __mul__(self, count: int) -> Due:
        return Due(self.value * count, self.scale * count)


class Point:
    """Where a gradient is judged; ``data`` is one of the kinds of `probes`, ``x`` identifies the samples."""

    data: str
    x: Any
    at = ""  # the weight, where there is one

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def place_name(self) -> str:
        """Where this is, in a sentence."""
        return f"N = {self.n}" + (f" and w = {self.at}" if self.at else "")

    def due(self, each: bool) -> Mapping[str, Due]:
        """What is right for each name: the gradient of the cost, or those of each sample's loss."""
        raise NotImplementedError

    def references(self, name: str, index: tuple[int, ...], each: bool) -> tuple[float, float]:
        """One element of what is right, by autograd and by central differences."""
        raise NotImplementedError

    def entry(self, name: str, index: tuple[int, ...], each: bool) -> str:
        """What to call one element in the evidence."""
        place = name + (str(list(index[each:])) if index[each:] else "")
        return ((f"{index[0]}: " if place else f"sample {index[0]}") if each else "") + place

    def tells(self, eps: float) -> bool:
        """Whether mistakes can be told apart here."""
        return True

    def fits(self, dtype: torch.dtype) -> bool:
        """Whether the dtype can hold all that a right gradient meets on its way."""
        return True


@dataclass(frozen=True)
class Answer:
    """What one call gave: values in float64, with the dtypes they came in; or why there are none."""

    values: Values | None = None
    dtypes: frozenset[torch.dtype] = frozenset()
    failure: Diagnosis | None = None
    changed: str = ""  # the names of the inputs that the call changed in place


@dataclass(frozen=True)
class Candidate:
    """What a gradient may be instead of right, up to a factor k · Nᵖ: a value at each point."""

    cause: Cause
    message: str
    value: Callable[[Any], Tensor]
    scale: Callable[[Any], Tensor] | None = None  # of its rounding; measured by what is due, if not given
    formula: str = ""  # what it computes, where the message does not say it all
    times: tuple[str, Callable[[int], float]] | None = None  # its name and value beside what is right
    slack: float = 16.0  # how many roundings are allowed


class Subject:
    """One gradient that somebody wrote, with the points at which it is judged."""

    function: str
    points: Sequence[Any]
    form = ""  # in which the function takes its inputs
    summed = False  # the sum over the samples is due, not the mean
    squared = False  # the loss is a squared error, so that a 2 and a ½ have their sentences
    n = 0  # the number of the user's samples, where not all of them are at a point
    note = ""  # what else the report should say
    roundings = 1  # how many times the rounding of one line is allowed, in float64
    accuracy = 0.0  # of what is right, where that is coarser than the rounding of the answers
    terms_known = False  # the scale is that of the terms that are added, and of nothing else
    rough = 1e-3  # an error larger than this, relative to the terms, is not an approximation
    same = "It is the same at all parameters: does it use old ones?"

    def prepare(self) -> Diagnosis | None:
        """Find out how it is called and where, or why it cannot be."""
        return None

    def call(self, point: Any) -> Answer:
        """The user's code at one point, on copies."""
        raise NotImplementedError

    def due(self, point: Any, each: bool) -> Mapping[str, Due]:
        """What is right at a point, by name."""
        due: Mapping[str, Due] = point.due(each)
        return due

    def misshapen(self, name: str, point: Any, shape: tuple[int, ...], due: tuple[int, ...]) -> str:
        """What to say of an answer of the wrong shape."""
        raise NotImplementedError

    def special(self, answers: Answers, name: str) -> Diagnosis | None:
        """What this kind has to say of a wrong gradient before any factor or candidate is tried."""
        return None

    def candidates(self, answers: Answers, name: str) -> Iterator[Sequence[Candidate]]:
        """The mistakes that may explain the answers, in groups: one of the first group that has one wins."""
        return iter(())

    def explain_together(self, answers: Answers, wrong: Mapping[str, Diagnosis]) -> Diagnosis | None:
        """One reason for all that is wrong, where there is one; else each has its own."""
        return None

    def line(self, cause: Cause, each: bool) -> str | None:
        """The right line to write, in the words of the user's function."""
        return None


def named(mistake: Candidate, factor: Factor, n: int) -> Diagnosis:
    """The diagnosis that a candidate gives when it explains the answers with this factor."""
    if mistake.times:
        name, times = mistake.times
        return Diagnosis(mistake.cause, mistake.message, factor.value(n) * times(n) if n > 1 else None, name)
    if not mistake.formula:
        return Diagnosis(mistake.cause, mistake.message)
    words = {Factor(1.0): "", Factor(-1.0): "minus "}.get(factor, f"{factor.name} times ")
    message = f"{mistake.message} It computes {words}{mistake.formula}."
    value, name = (factor.value(n), factor.name) if words else (None, "")
    return Diagnosis(mistake.cause, message, value, name)
