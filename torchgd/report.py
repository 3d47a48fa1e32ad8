"""What a check found, and how it is printed at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from torchgd.mistakes import Cause

_ROWS = 10  # of evidence, in print


@dataclass(frozen=True)
class Evidence:
    """One comparison: what the function answered at one point, and what autograd and differences say."""

    data: str
    n: int
    at: str  # the weight, or the place in the parameters
    entry: str  # which sample or parameter; empty where there is one answer
    hand: float
    autograd: float
    difference: float
    ok: bool


@dataclass(frozen=True)
class GradientReport:
    """The verdict on a gradient, with its evidence; ``print`` it, or read the attributes.

    ``factor`` is the number by which the answer is too large on the given data, ``factor_name`` the same as a
    formula in N; ``line`` is what to write instead; ``form`` says in which form the function took its inputs.
    """

    function: str
    cause: Cause
    message: str
    factor: float | None = None
    factor_name: str = ""
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
        """The rows that say most: those on the user's data, then where it fails."""
        wrong = [row for row in self.evidence if not row.ok and row.data == "own data"]
        rows = [row for row in self.evidence if row.data != "own data"][: _ROWS - min(len(wrong), 3)]
        rows += wrong[: _ROWS - len(rows)]
        entry = max(len(row.entry) for row in rows)
        head = (
            f"  {'data':<9} {'N':>4} {'w':>9} {'':<{entry}} {'yours':>12} {'autograd':>12} {'difference':>12}"
        )
        body = [
            f"  {row.data:<9} {row.n:>4} {row.at:>9} {row.entry:<{entry}} {row.hand:>12.6g} "
            f"{row.autograd:>12.6g} {row.difference:>12.6g}{'' if row.ok else '  ✗'}"
            for row in rows
        ]
        return [head, *body]
