"""What a check found, and how it is printed at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from torchgd.check.mistakes import Cause

_ROWS, _WRONG = 10, 4  # of the evidence in print, and how many of them are wrong ones, where there are


@dataclass(frozen=True)
class Diagnosis:
    """The name of what is wrong, in a word and in a sentence or two."""

    cause: Cause
    message: str
    factor: float | None = None
    factor_name: str = ""


@dataclass(frozen=True)
class Evidence:
    """One comparison: what the function answered at one point, and what autograd and differences say."""

    data: str
    n: int
    at: str  # the weight; empty where there are several
    entry: str  # which sample, parameter or input; empty where there is one answer
    hand: float
    autograd: float
    difference: float
    ok: bool


@dataclass(frozen=True)
class GradientReport(Diagnosis):
    """What is wrong with a gradient, with its evidence; true where it is right; ``print`` it.

    ``factor`` is the number by which the answer is too large on the given data, ``factor_name`` the same as a
    formula in N; ``line`` is what to write instead; ``form`` says in which form the function took its inputs.
    """

    function: str = ""
    line: str | None = None
    form: str = ""
    rows: Callable[[], Iterable[Evidence]] = field(default=tuple, repr=False, compare=False)

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """What was compared, the user's data first; computed when it is first asked for."""
        return tuple(self.rows())

    @property
    def ok(self) -> bool:
        return self.cause is Cause.correct

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        said = ("function", "message", "factor", "factor_name", "line", "form")
        evidence = [asdict(row) for row in self.evidence]
        return {
            "ok": self.ok,
            "cause": self.cause.value,
            **{name: getattr(self, name) for name in said},
            "evidence": evidence,
        }

    def __str__(self) -> str:
        verdict = "right" if self.ok else "roughly right" if self.cause is Cause.approximate else "wrong"
        lines = [f"{self.function}: {verdict}" + ("" if self.ok else f" ({self.cause.value})")]
        lines += textwrap.wrap(self.message, 78, initial_indent="  ", subsequent_indent="  ")
        if self.line:
            lines += ["  Write:", f"    {self.line}"]
        if self.form:
            lines.append(f"  It was given {self.form}.")
        return "\n".join(lines + (["", *self._table()] if self.evidence else []))

    def _table(self) -> list[str]:
        """The first rows, and among them some that are wrong, at most 80 columns wide."""
        first, rest = self.evidence[:_ROWS], self.evidence[_ROWS:]
        missing = max(0, _WRONG - sum(not row.ok for row in first))
        wrong = [row for row in rest if not row.ok][:missing]
        rows = [*first[: _ROWS - len(wrong)], *wrong]
        at = 10 if any(row.at for row in rows) else 0
        entry = min(max(len(row.entry) for row in rows), 20 - at)
        names = [row.entry if len(row.entry) <= entry else "…" + row.entry[1 - entry :] for row in rows]
        columns = f"{'yours':>12} {'autograd':>12} {'difference':>12}"
        head = f"  {'data':<9} {'N':>4}{'w' if at else '':>{at}} {'':<{entry}} {columns}"
        body = []
        for row, name in zip(rows, names, strict=True):
            numbers = (f"{value:>12.6g}" for value in (row.hand, row.autograd, row.difference))
            body.append(f"  {row.data:<9} {row.n:>4}{row.at:>{at}} {name:<{entry}} {' '.join(numbers)}")
            body[-1] += "" if row.ok else "  ✗"
        return [head, *body]
