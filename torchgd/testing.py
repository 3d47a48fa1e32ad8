"""The contract of an optimizer in a test-suite of pytest: one test for each clause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torchgd.compare.contract import CONTRACT, Examination, Outcome
from torchgd.errors import InputError

if TYPE_CHECKING:
    from pytest import ParameterSet  # noqa: PT013

    from torchgd.compare.clauses.clause import Clause
    from torchgd.compare.scenario import Factory


def optimizer_contract(
    factory: Factory, *, known: Mapping[str, str] | Iterable[str] = (), seconds: float = 60.0, **options: Any
) -> list[ParameterSet]:
    """Make the parameters of one test for each clause of the contract of torch.optim.Optimizer.

    A broken clause fails, with its evidence as the message; a clause that does not apply is skipped.

    Args:
        factory: ``factory(params, **options)`` makes the optimizer; a class of optimizers is one.
        known: the names of clauses that are known to be broken, or name → reason: these tests are expected to
            fail; one that passes is reported as a failure, so that you remove it from the list.
        seconds: the time limit for all clauses together.
        options: arguments of the factory.

    Returns:
        Parameters for ``pytest.mark.parametrize``; each holds a function to call.

    Raises:
        InputError: pytest is not installed, or a known exception is not a clause.

    Example:
        >>> import pytest
        >>> @pytest.mark.parametrize(
        ...     "clause", optimizer_contract(torch.optim.SGD, known=["lr refused"], lr=0.1)
        ... )
        ... def test_contract(clause):
        ...     clause()

    Source: https://docs.pytest.org/en/stable/how-to/parametrize.html (2025).
    """
    try:
        import pytest
    except ImportError as error:
        raise InputError("optimizer_contract needs pytest; install it: pip install pytest") from error
    names = [clause.name for clause in CONTRACT]
    reasons = dict(known) if isinstance(known, Mapping) else dict.fromkeys(known, "known")
    for name in reasons:
        if name not in names:
            raise InputError(f"known: {name!r} is not a clause; the clauses are {', '.join(names)}")
    examination = Examination(partial(factory, **options) if options else factory, seconds)

    def check(clause: Clause) -> None:
        finding = examination.finding(clause)
        if not finding:
            pytest.fail(str(finding), pytrace=False)
        if finding.outcome is Outcome.not_applicable:
            pytest.skip(finding.evidence)

    marks = {name: pytest.mark.xfail(reason=reason, strict=True) for name, reason in reasons.items()}
    return [
        pytest.param(partial(check, clause), id=clause.name, marks=marks.get(clause.name, ()))
        for clause in CONTRACT
    ]
