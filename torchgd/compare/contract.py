"""Does an optimizer keep the contract of torch.optim.Optimizer? One finding for each clause of it.

The contract is what the documentation of torch.optim says and what its own classes do. Where they
are lax (torch.optim.SGD takes lr = NaN in silence), the finding says failed of them too.

Source: https://docs.pytorch.org/docs/stable/optim.html (2025).
"""

from __future__ import annotations

import dis
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from torch.optim import Optimizer

from torchgd.compare import clauses
from torchgd.compare.scenario import BrokenError, Factory, NotApplicableError, parameter
from torchgd.errors import InputError


class Outcome(str, Enum):
    """What a clause came to."""

    passed = "passed"
    failed = "failed"
    not_applicable = "not applicable"


@dataclass(frozen=True)
class Finding:
    """What one clause of the contract came to: its name, the outcome, and the evidence in words."""

    name: str
    outcome: Outcome
    evidence: str


@dataclass(frozen=True)
class Clause:
    """One clause: its check returns the evidence or raises, maybe because one in `explained_by` does."""

    name: str
    check: Callable[[Factory], str]
    explained_by: tuple[str, ...] = ("update",)
    may_refuse: bool = False  # an optimizer may say in words that it does not support this


CONTRACT = (
    Clause("update", clauses.update, explained_by=(), may_refuse=True),
    Clause("closure gradient", clauses.closure_gradient),
    Clause("closure loss", clauses.closure_loss, ("update", "closure gradient")),
    Clause(".grad untouched", clauses.grad_untouched),
    Clause("None gradients", clauses.none_gradients),
    Clause("sparse gradients", clauses.sparse_gradients, may_refuse=True),
    Clause("param groups", clauses.param_groups, may_refuse=True),
    Clause("state_dict", clauses.state_dict),
    Clause("deepcopy and pickle", clauses.deepcopy_and_pickle, ("update", "state_dict")),
    Clause("schedulers", clauses.schedulers),
    Clause("maximize", clauses.maximize),
    Clause("foreach", clauses.foreach, may_refuse=True),
    Clause("hooks", clauses.hooks),
    Clause("lr refused", clauses.lr_refused, explained_by=()),
    Clause("frozen parameters", clauses.frozen_parameters, ("update", "None gradients")),
    Clause("complex", clauses.complex_parameters, may_refuse=True),
    Clause("non-contiguous", clauses.non_contiguous),
    Clause("add_param_group", clauses.add_param_group, ("update", "param groups"), may_refuse=True),
    Clause("lr as tensor", clauses.lr_as_tensor, may_refuse=True),
    Clause("torch.compile", clauses.compiled),
)


def check_optimizer(factory: Factory) -> list[Finding]:
    """Check an optimizer against every clause of the contract of torch.optim.Optimizer.

    Args:
        factory: ``factory(params, **options)`` makes the optimizer; a class of optimizers is one, and so
            is ``functools.partial(torch.optim.SGD, lr=0.1)``. Where it does not take an option (lr,
            maximize, foreach), the clauses about that option are not applicable.

    Returns:
        One finding for each clause, always in the same order. A clause that fails where an earlier
        one, which would explain it, has failed is not applicable, and its evidence names the other.

    Raises:
        InputError: ``factory(params)`` raises, or makes no Optimizer.

    Example:
        >>> from torch.optim import SGD
        >>> for finding in check_optimizer(SGD):
        ...     if finding.outcome is Outcome.failed:
        ...         print(finding.name, finding.evidence, sep=": ")
        lr refused: accepted in silence: lr = nan, lr = inf

    Source: https://docs.pytorch.org/docs/stable/optim.html (2025).
    """
    try:
        optimizer = factory([parameter()])
    except Exception as error:  # anyone's code, again
        told = f"factory(params) raised {_words(error)}"
        raise InputError(f"{told}; give the options it needs by functools.partial") from error
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"factory(params) made a {type(optimizer).__name__}; it must make an Optimizer")
    findings: dict[str, Finding] = {}
    for clause in CONTRACT:
        finding = _examine(clause, factory)
        causes = [name for name in clause.explained_by if findings[name].outcome is not Outcome.passed]
        if finding.outcome is Outcome.failed and causes:
            why = f"cannot be judged without {causes[0]!r} ({finding.evidence})"
            finding = Finding(clause.name, Outcome.not_applicable, why)
        findings[clause.name] = finding
    return list(findings.values())


def _examine(clause: Clause, factory: Factory) -> Finding:
    """Run one clause: whatever the optimizer raises is evidence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Finding(clause.name, Outcome.passed, clause.check(factory))
    except BrokenError as broken:
        return Finding(clause.name, Outcome.failed, str(broken))
    except NotApplicableError as why:
        return Finding(clause.name, Outcome.not_applicable, str(why))
    except Exception as error:  # the optimizer is anyone's code, and may raise anything
        if clause.may_refuse and _deliberate(error):
            return Finding(clause.name, Outcome.not_applicable, f"refused: {_words(error)}")
        return Finding(clause.name, Outcome.failed, f"raised {_words(error)}")


def _words(error: Exception) -> str:
    """An exception in one line of no more than two hundred letters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _deliberate(error: Exception) -> bool:
    """Whether a `raise` statement spoke, and not an operation that failed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
