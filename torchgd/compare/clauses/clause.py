"""What a clause is: a check, its name, the harm of breaking it, and which other one would explain that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from torchgd.compare.subject import Subject


class Severity(str, Enum):
    """The harm that a broken clause does, the worst first."""

    silent = "breaks training in silence"
    feature = "breaks a feature"
    refusal = "refuses, or takes what it should refuse"


@dataclass(frozen=True)
class Clause:
    """One clause: its check returns the evidence or raises, maybe because one in `explained_by` is broken."""

    check: Callable[[Subject], str]
    name: str
    severity: Severity
    explained_by: tuple[str, ...]
    may_refuse: bool  # an optimizer may say in words that it does not support this
    once: bool  # not tried again with weight decay, momentum and their like
    needs_a_move: bool  # not to be judged where no step moves


def clause(
    name: str,
    severity: Severity,
    *,
    explained_by: tuple[str, ...] = (),
    may_refuse: bool = False,
    once: bool = False,
    needs_a_move: bool = True,
) -> Callable[[Callable[[Subject], str]], Clause]:
    """Make a clause of its check."""
    return lambda check: Clause(check, name, severity, explained_by, may_refuse, once, needs_a_move)
