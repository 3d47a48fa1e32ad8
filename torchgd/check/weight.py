"""The gradient of one weight, y = w·x with the squared error, written as f(w, x, y)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgd.check.calling import GradientFunction, call, choose_form, takes_lists
from torchgd.check.candidates import fitted, of_the_table
from torchgd.check.gather import Answers
from torchgd.check.mistakes import Cause
from torchgd.check.probes import Probe
from torchgd.check.report import Diagnosis
from torchgd.check.subject import Answer, Candidate, Due, Subject

_FORMULA_AT_FAULT = set(Cause) - {
    *(Cause.correct, Cause.approximate, Cause.unknown, Cause.nondeterministic, Cause.mutates_input),
    *(Cause.raises, Cause.detached, Cause.non_finite, Cause.wrong_dtype),
}


class WeightGradient(Subject):
    """f, called in the form that it takes; ``names`` are those that f gives to w, x and y."""

    squared = True
    terms_known = True
    rough = 0.05
    same = "It gives the same answer at every w: does it use a w of its own, a global or an old one?"

    def __init__(
        self,
        f: GradientFunction,
        name: str,
        names: list[str],
        probes: Sequence[Probe],
        given: Any,
        summed: bool,
        elsewhere: str,
        n: int,
    ) -> None:
        self.f, self.function, self.names, self.points, self.summed = f, name, names, probes, summed
        self.given = given  # x, as the user has it
        self.elsewhere = elsewhere  # where f finds its weight
        self.n = n
        if n > max(probe.n for probe in probes):
            self.note = f" Of your {n:,} samples {probes[-1].n:,} were tried."

    def prepare(self) -> Diagnosis | None:
        device = self.given.device if isinstance(self.given, Tensor) else torch.device("cpu")
        found = choose_form(self.f, self.points[0], self.given, device)
        if isinstance(found, Diagnosis):
            return found
        self.chosen, self.form = found, found.name + self.elsewhere
        return None

    def call(self, point: Probe) -> Answer:
        return call(self.f, self.chosen, point)

    def due(self, point: Probe, each: bool) -> Mapping[str, Due]:
        due = point.due(each)
        return {"": due[""] * point.n} if self.summed and not each else due

    def misshapen(self, name: str, point: Probe, shape: tuple[int, ...], due: tuple[int, ...]) -> str:
        n = point.n
        said = (
            f"It returns shape {shape} for {n} samples: () is due, or ({n},) for a gradient of each sample."
        )
        if shape == (n, n):
            return said + " (N, 1) against (N,) has made a table of all pairs: flatten both to (N,)."
        if all(size == 1 for size in shape):
            return said + " Take the number out of its brackets: reshape(()) or [0]."
        return said

    def candidates(self, answers: Answers, name: str) -> Iterator[Sequence[Candidate]]:
        yield of_the_table(answers.each)
        known = [(a.point, a.values[name]) for a in answers.points if a.values and a.point.tells(answers.eps)]
        yield fitted(known, answers.each, answers.eps)

    def line(self, cause: Cause, each: bool) -> str | None:
        if cause not in _FORMULA_AT_FAULT:
            return None
        w, x, y = self.names
        if takes_lists(self.f, self.points[0]):
            terms = f"2 * a * ({w} * a - b) for a, b in zip({x}, {y})"
            mean = "" if self.summed else f" / len({x})"
            return f"return [{terms}]" if each else f"return sum({terms}){mean}"
        terms = f"2 * {x} * ({w} * {x} - {y})"
        return f"return {terms}" if each else f"return ({terms}).{'sum' if self.summed else 'mean'}()"
