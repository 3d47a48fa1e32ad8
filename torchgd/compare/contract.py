"""Does an optimizer keep the contract of torch.optim.Optimizer? One finding for each clause of it.

The contract is what the documentation of torch.optim says and what its own classes do. Where they
are lax (torch.optim.SGD takes lr = NaN in silence), the finding says failed of them too.

Source: https://docs.pytorch.org/docs/stable/optim.html (2025).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from torch.optim import Optimizer

from torchgd.compare.clauses import gradients, options, precision, state, steps, surroundings, tensors
from torchgd.compare.clauses.clause import Clause, Severity
from torchgd.compare.isolation import OutOfTimeError, alone, limited
from torchgd.compare.refusal import deliberate, words_of
from torchgd.compare.scenario import BrokenError, CrashError, Factory, NotApplicableError, parameter
from torchgd.compare.subject import Subject
from torchgd.compare.ways import first_way, with_options
from torchgd.errors import InputError

CONTRACT = tuple(
    value
    for module in (steps, gradients, options, state, tensors, precision, surroundings)
    for value in vars(module).values()
    if isinstance(value, Clause)
)


class Outcome(str, Enum):
    """What a clause came to."""

    passed = "passed"
    failed = "failed"
    not_applicable = "not applicable"


@dataclass(frozen=True, repr=False)
class Finding:
    """What one clause of the contract came to; false where it failed, and its `str` says it in a sentence.

    Attributes:
        name: the clause.
        outcome: passed, failed or not applicable.
        evidence: in words, with the numbers.
        severity: the harm that it does when it fails.
    """

    name: str
    outcome: Outcome
    evidence: str
    severity: Severity = Severity.silent

    @property
    def ok(self) -> bool:
        """Whether the clause has not failed."""
        return self.outcome is not Outcome.failed

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"Finding({self.name}: {self.outcome.value})"

    def __str__(self) -> str:
        harm = f" ({self.severity.value})" if not self.ok else ""
        return f"{self.name}: {self.outcome.value}{harm}: {self.evidence}"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The failed ones first, the worst first; then the passed ones, then the ones not applicable."""
    outcomes, harms = [Outcome.failed, Outcome.passed, Outcome.not_applicable], list(Severity)
    return sorted(findings, key=lambda f: (outcomes.index(f.outcome), 0 if f.ok else harms.index(f.severity)))


def check_optimizer(
    factory: Factory, *, seconds: float = 60.0, on_progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Check an optimizer against every clause of the contract of torch.optim.Optimizer.

    Args:
        factory: ``factory(params, **options)`` makes the optimizer; a class of optimizers is one, and so
            is ``functools.partial(torch.optim.SGD, lr=0.1)``. Where it does not take an option (lr,
            maximize, foreach), the clauses about that option are not applicable. A clause is tried with
            weight_decay, momentum, nesterov and amsgrad too, where they are taken.
        seconds: the time limit; the clauses that it cuts off are not applicable.
        on_progress: called with the number of clauses done and of all.

    Returns:
        One finding for each clause, always in the same order. A clause that fails where an earlier
        one, which would explain it, has failed is not applicable, and its evidence names the other.

    Raises:
        InputError: ``factory(params)`` raises, or makes no Optimizer.

    Example:
        >>> from torch.optim import Adagrad
        >>> for finding in by_severity(check_optimizer(Adagrad)):
        ...     if not finding:
        ...         print(finding.name, finding.severity.value, sep=": ")
        shared state: breaks a feature
        lr refused: refuses, or takes what it should refuse

    Source: https://docs.pytorch.org/docs/stable/optim.html (2025).
    """
    examination = Examination(factory, seconds)
    for number, clause in enumerate(CONTRACT, start=1):
        examination.finding(clause)
        if on_progress is not None:
            on_progress(number, len(CONTRACT))
    return [examination.finding(clause) for clause in CONTRACT]


class Examination:
    """The findings about one optimizer, each made when it is asked for, alone, and once."""

    def __init__(self, factory: Factory, seconds: float = 60.0) -> None:
        self._factory, self._seconds = factory, seconds
        self._subjects = list[Subject]()
        self._findings: dict[str, Finding] = {}
        self._masked = set[str]()

    def finding(self, clause: Clause) -> Finding:
        """What this clause came to."""
        if clause.name not in self._findings:
            found = self._examine(clause)
            cause = None if found.ok else self._cause(clause)
            if cause is not None:
                self._masked.add(clause.name)
                why = f"cannot be judged without {cause!r} ({found.evidence})"
                found = replace(found, outcome=Outcome.not_applicable, evidence=why)
            self._findings[clause.name] = found
        return self._findings[clause.name]

    def _cause(self, clause: Clause) -> str | None:
        """The broken clause that would explain why this one is broken."""
        if clause.needs_a_move and self._subjects and not self._subjects[0].start:
            return "update"
        for other in CONTRACT:
            if other.name in clause.explained_by and (
                not self.finding(other).ok or other.name in self._masked
            ):
                return other.name
        return None

    def _examine(self, clause: Clause) -> Finding:
        """Run one clause, on the optimizer as made and then with more options."""
        started = time.monotonic()
        try:
            with limited(self._seconds):
                if not self._subjects:
                    self._subjects = _tried(self._factory, started + self._seconds)
                plain, *more = self._subjects
                found = _judge(clause, plain)
                for subject in more if found.outcome is Outcome.passed and not clause.once else ():
                    other = _judge(clause, subject)
                    if not other.ok:
                        words = ", ".join(f"{name}={value}" for name, value in subject.options.items())
                        return replace(other, evidence=f"with {words}: {other.evidence}")
                return found
        except OutOfTimeError:
            told = "the time limit was reached"
            return Finding(clause.name, Outcome.not_applicable, told, clause.severity)
        finally:
            self._seconds -= time.monotonic() - started


def _tried(factory: Factory, deadline: float) -> list[Subject]:
    """The optimizer as made and, if it takes them, with more options."""
    try:
        with alone():
            optimizer = factory([parameter()])
    except Exception as error:  # anyone's code, again
        told = f"factory(params) raised {words_of(error)}"
        raise InputError(f"{told}; give the options it needs by functools.partial") from error
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"factory(params) made a {type(optimizer).__name__}; it must make an Optimizer")
    plain = first_way(factory, deadline)
    more = with_options(plain)
    return [plain, more] if more else [plain]


def _judge(clause: Clause, subject: Subject) -> Finding:
    """Run one clause alone: whatever the optimizer raises is evidence."""
    outcome, severity = Outcome.failed, clause.severity
    try:
        with alone():
            evidence, outcome = clause.check(subject), Outcome.passed
    except CrashError as crash:
        evidence, severity = str(crash), _loud(clause)
    except BrokenError as broken:
        evidence = str(broken)
    except NotApplicableError as why:
        evidence, outcome = str(why), Outcome.not_applicable
    except Exception as error:  # the optimizer is anyone's code, and may raise anything
        if time.monotonic() > subject.deadline:
            raise OutOfTimeError from error
        evidence, severity = f"raised {words_of(error)}", _loud(clause)
        if clause.may_refuse and deliberate(error):
            evidence, outcome = f"refused: {words_of(error)}", Outcome.not_applicable
    return Finding(clause.name, outcome, evidence, severity)


def _loud(clause: Clause) -> Severity:
    """An exception is not silent; where an optimizer may refuse, it refuses, though in words of no use."""
    return (
        Severity.refusal
        if clause.may_refuse
        else max(clause.severity, Severity.feature, key=list(Severity).index)
    )
