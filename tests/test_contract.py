"""check_optimizer on torch.optim's own optimizers, on ours, and on a set with one defect each."""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from broken_optimizers import BROKEN, ClosureWithoutGrad, GoesNowhere, GroupLrIgnored, MaximizeIgnored, Sound
from torch import Tensor, nn
from torch.optim import Optimizer

from torchgd import (
    GradientDescent,
    InputError,
    MiniBatchGradientDescent,
    StochasticGradientDescent,
    check_optimizer,
)
from torchgd.compare.contract import CONTRACT, Examination, Finding, Outcome, by_severity
from torchgd.testing import optimizer_contract

# torch.optim.SGD(fused=True) on the CPU, mended in 2.14
FUSED_SGD = {"fused"} if torch.__version__ < "2.14" else set()


def names(findings: list[Finding], outcome: Outcome) -> set[str]:
    return {finding.name for finding in findings if finding.outcome is outcome}


# What torch.optim's own classes break (failed) and do not offer (not applicable). Each failure was looked
# at by hand: they take lr = inf in silence and share a loaded state with the optimizer that it came from;
# SGD(fused=True) leaves whole vectors of bfloat16 where they are; Rprop's lr is that of its first step only;
# a copied LBFGS lacks an attribute, and it flattens gradients by view(-1).
USUAL = {"lr refused", "shared state"}
DENSE = {"sparse gradients"}
NOT_FUSED = {"sparse gradients", "fused"}
TORCH: dict[str, tuple[Callable[..., Optimizer], set[str], set[str]]] = {
    "SGD": (torch.optim.SGD, USUAL | FUSED_SGD, set()),
    "SGD momentum": (partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True), USUAL | FUSED_SGD, set()),
    "Adam": (torch.optim.Adam, USUAL, DENSE),
    "AdamW": (torch.optim.AdamW, USUAL, DENSE),
    "RMSprop": (torch.optim.RMSprop, USUAL, NOT_FUSED),
    "Adagrad": (torch.optim.Adagrad, USUAL, set()),
    "Adadelta": (torch.optim.Adadelta, USUAL, NOT_FUSED),
    "Rprop": (
        torch.optim.Rprop,
        USUAL | {"lr 0", "lr changed"},
        NOT_FUSED | {"group options", "weight decay"},
    ),
    "NAdam": (torch.optim.NAdam, USUAL, NOT_FUSED),
    "LBFGS": (
        torch.optim.LBFGS,
        {"lr refused", "deepcopy and pickle", "non-contiguous"},
        {
            *(
                "lr changed",
                "no gradient",
                "param groups",
                "group options",
                "add_param_group",
                "weight decay",
            ),
            *("foreach", "fused", "torch.compile", "GradScaler", ".grad untouched"),
            *(() if "maximize" in inspect.signature(torch.optim.LBFGS).parameters else ("maximize",)),
        },
    ),
    "SparseAdam": (
        torch.optim.SparseAdam,
        USUAL,
        {"sparse gradients", "weight decay", "complex", "foreach", "fused", "GradScaler"},
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch_optimizers(name: str) -> None:
    factory, failed, not_applicable = TORCH[name]
    findings = check_optimizer(factory)
    assert names(findings, Outcome.failed) == failed
    assert names(findings, Outcome.not_applicable) == not_applicable


OURS: dict[str, Callable[..., Optimizer]] = {
    "full batch": GradientDescent,
    "full batch foreach": partial(GradientDescent, lr=0.3, foreach=True),
    "per sample shuffled": partial(StochasticGradientDescent, order="shuffled", generator=torch.Generator()),
    "mini-batch": partial(MiniBatchGradientDescent, batch_size=2),
    "sound": Sound,
}


@pytest.mark.parametrize("name", OURS)
def test_ours_and_the_sound_one_pass_every_clause(name: str) -> None:
    findings = check_optimizer(OURS[name])
    others = {finding.name for finding in findings if finding.outcome != "passed"}
    assert others <= {"fused", "foreach", "weight decay", "group options"}
    assert all(findings)  # a finding is true where nothing failed
    assert [finding.name for finding in findings] == [clause.name for clause in CONTRACT]
    assert all(finding.evidence for finding in findings)


@pytest.mark.parametrize(("broken", "name"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_a_broken_optimizer_is_found_by_name_and_by_nothing_else(broken: type[Optimizer], name: str) -> None:
    examination = Examination(broken)
    # a compilation takes as long as all other clauses; the clause is tried where a step is at fault
    clauses = [clause for clause in CONTRACT if name == "torch.compile" or clause.name != "torch.compile"]
    assert {clause.name for clause in clauses if not examination.finding(clause)} == {name}


def test_every_clause_has_an_optimizer_that_breaks_it() -> None:
    assert {name for _, name in BROKEN} == {clause.name for clause in CONTRACT}


def test_two_defects_are_two_findings() -> None:
    class Both(ClosureWithoutGrad, MaximizeIgnored):
        pass

    assert names(check_optimizer(Both), Outcome.failed) == {"closure gradient", "maximize"}


def test_a_subclass_of_torchs_own_is_judged_by_what_it_changes() -> None:
    torch.optim.SGD([torch.zeros(1)], lr=0.1).step()  # from here on its step runs hooks of its own

    class Wrapped(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            with torch.no_grad():
                loss = None if closure is None else closure()
            super().step()
            return loss

    assert names(check_optimizer(Wrapped), Outcome.failed) == USUAL | FUSED_SGD | {"closure gradient"}


def test_what_another_defect_explains_is_not_judged() -> None:
    class OnlyFirst(GroupLrIgnored):
        def move(self, params: list[Tensor], directions: list[Tensor], group: dict[str, Any]) -> None:
            if group is self.param_groups[0]:
                super().move(params, directions, group)

    findings = {finding.name: finding for finding in check_optimizer(OnlyFirst)}
    assert findings["param groups"].outcome is Outcome.failed
    assert findings["add_param_group"].outcome is Outcome.not_applicable
    assert findings["add_param_group"].evidence == (
        "cannot be judged without 'param groups' (the added parameter does not move)"
    )


def test_standing_still_passes_no_comparison() -> None:
    still = {finding.name: finding for finding in check_optimizer(GoesNowhere)}
    assert {name for name, finding in still.items() if finding.outcome is Outcome.passed} == {
        *("closure gradient", "closure loss", ".grad untouched", "schedulers", "hooks", "lr refused", "lr 0"),
        *("unknown option", "shared state", "grad mode and dice"),
    }
    assert still["complex"].evidence == (
        "cannot be judged without 'update' (complex against its two parts: the parameter did not move)"
    )


def test_options_that_the_factory_does_not_take_are_not_applicable() -> None:
    findings = check_optimizer(lambda params: torch.optim.SGD(params, lr=0.1))
    assert names(findings, Outcome.failed) == set()
    assert names(findings, Outcome.not_applicable) == {
        *("maximize", "foreach", "fused", "lr refused", "lr as tensor", "weight decay", "group options")
    }
    assert {f.evidence for f in findings if f.name == "maximize"} == {"the factory takes no maximize"}


def test_a_refusal_in_words_is_not_a_crash() -> None:
    class Refuses(Sound):
        def takes_part(self, p: Tensor) -> bool:
            if p.grad is not None and p.grad.is_sparse:
                raise RuntimeError("no sparse gradients, please")
            return super().takes_part(p)

    findings = check_optimizer(Refuses)
    assert names(findings, Outcome.failed) == set()
    (sparse,) = (finding for finding in findings if finding.name == "sparse gradients")
    assert sparse.outcome is Outcome.not_applicable
    assert sparse.evidence == "refused: RuntimeError: no sparse gradients, please"


CLAUSES = optimizer_contract(ClosureWithoutGrad, known={"closure gradient": "by design"}, lr=0.2)


@pytest.mark.parametrize("clause", CLAUSES)
def test_three_lines_in_a_suite_of_your_own(clause: Callable[[], None]) -> None:
    clause()


def test_a_broken_clause_fails_with_its_evidence() -> None:
    by_name: dict[Any, Any] = {case.id: case.values[0] for case in optimizer_contract(ClosureWithoutGrad)}
    assert list(by_name) == [clause.name for clause in CONTRACT]
    with pytest.raises(
        pytest.fail.Exception, match=r"^closure gradient: failed \(breaks a feature\): the closure"
    ):
        by_name["closure gradient"]()
    with pytest.raises(pytest.skip.Exception, match=r"^the factory takes no fused$"):
        by_name["fused"]()
    with pytest.raises(InputError, match=r"^known: 'Update' is not a clause; the clauses are update, "):
        optimizer_contract(Sound, known=["Update"])


# Sound optimizers of other kinds: nothing of theirs may be called broken.


class StartsLate(Sound):
    """Its first two steps only take notes."""

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        memory = self.memory(p)
        memory["step"] = memory.get("step", torch.zeros(())) + 1
        direction = super().direction(p, group)
        return direction if memory["step"] > 2 else torch.zeros_like(direction)


class NeedsItsClosure(Sound):
    def step(self, closure: Any = None) -> Any:
        if closure is None:
            raise RuntimeError("this optimizer needs a closure")
        return super().step(closure)


class SwitchedOff(Sound):
    """It refuses a step before train() is called, as schedule-free ones do."""

    def train(self) -> None:
        for group in self.param_groups:
            group["on"] = True

    def step(self, closure: Any = None) -> Any:
        if not self.param_groups[0].get("on"):
            raise RuntimeError("call train() first")
        return super().step(closure)


class RoundsAtRandom(Sound):
    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        direction = super().direction(p, group)
        return direction * (1 + 0.1 * torch.rand(p.shape, dtype=direction.real.dtype))


class KnowsFloat32Only(Sound):
    def takes_part(self, p: Tensor) -> bool:
        if p.dtype is not torch.float32:
            raise RuntimeError("float32, please")
        return super().takes_part(p)


class CentresRows(Sound):
    """A method for matrices: complex numbers as three dimensions would be another one."""

    def gradient(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        grad = super().gradient(p, group)
        return grad - 0.5 * grad.mean(-1, keepdim=True) if p.dim() > 1 else grad


class ChoosesItsLr(Sound):
    """lr = None: it takes its own."""

    def __init__(self, params: Any, lr: Any = None, **options: Any) -> None:
        super().__init__(params, 0.1 if lr is None else lr, **options)
        for group in self.param_groups:
            group["lr"] = None

    def lr(self, group: dict[str, Any]) -> float:
        return 0.1


class OwnException(Sound):
    def check(self, lr: float) -> None:
        class BadRateError(Exception):
            pass

        if not (math.isfinite(lr) and lr >= 0):
            raise BadRateError(f"lr is {lr}")


class WarnsOnce(Sound):
    def step(self, closure: Any = None) -> Any:
        warnings.warn("this optimizer is for research", stacklevel=1)
        return super().step(closure)


KINDS: dict[type[Optimizer], tuple[str, str]] = {
    StartsLate: ("update", "starts at step 3"),
    NeedsItsClosure: ("update", "driven by step(closure)"),
    SwitchedOff: ("update", "in train() mode"),
    RoundsAtRandom: ("non-contiguous", "its updates are random"),
    KnowsFloat32Only: ("update", "in float32"),
    CentresRows: ("complex", "the update depends on the shape"),
    ChoosesItsLr: ("schedulers", "its lr is None"),
    OwnException: ("lr refused", "BadRateError, which is not a ValueError"),
    WarnsOnce: ("schedulers", "without a warning"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_false_alarm_about_a_sound_optimizer_of_another_kind(kind: type[Optimizer]) -> None:
    examination = Examination(kind)
    clauses = {clause.name: clause for clause in CONTRACT if clause.name != "torch.compile"}
    assert [str(found) for found in map(examination.finding, clauses.values()) if not found] == []
    clause, words = KINDS[kind]
    assert words in examination.finding(clauses[clause]).evidence


def test_what_foreach_rounds_in_bfloat16_is_told() -> None:
    (found,) = (f for f in check_optimizer(torch.optim.SGD) if f.name == "foreach")
    assert "float64 and float32 bit for bit" in found.evidence
    assert "torch._foreach_mul_ rounds its factor to the tensor's dtype" in found.evidence
    assert "0.9 is 0.8984375 in bfloat16" in found.evidence  # 0.11100110 in binary: 8 bits


def test_an_optimizer_that_never_ends_meets_the_time_limit() -> None:
    class Hangs(Sound):
        def step(self, closure: Any = None) -> Any:
            while True:
                pass

    findings = check_optimizer(Hangs, seconds=0.2)
    assert {finding.evidence for finding in findings} == {"the time limit was reached"}


def test_a_patched_class_and_grad_mode_are_put_back() -> None:
    class Patches(Sound):
        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            type(self).lr = lambda self, group: 1e9  # type: ignore[method-assign]
            torch.set_grad_enabled(False)
            return loss

    before = dict(vars(Patches))
    assert "grad mode and dice" in names(check_optimizer(Patches), Outcome.failed)
    assert dict(vars(Patches)) == before
    assert torch.is_grad_enabled()


def test_the_worst_comes_first() -> None:
    class Both(ClosureWithoutGrad, MaximizeIgnored):
        def check(self, lr: float) -> None: ...

    told = [finding.name for finding in by_severity(check_optimizer(Both)) if not finding]
    assert told == ["maximize", "closure gradient", "lr refused"]


def test_evidence_names_the_numbers() -> None:
    start = (1.0, -2.0, 3.0, -0.5, 0.75, -1.25)
    height = sum(p**2 / 2 + math.sqrt(1 + p**2) for p in start) / 2
    slopes = [(p + p / math.sqrt(1 + p**2)) / 2 for p in start]
    evidence = {f.name: f.evidence for f in check_optimizer(partial(torch.optim.SGD, lr=0.1))}
    assert evidence["closure loss"] == f"returned {height:.6g}"
    gain = -0.1 * sum(slope**2 for slope in slopes)  # Δp · g with Δp = −lr g
    assert evidence["update"] == f"one step goes down the gradient: Δp · gradient = {gain:.3g}"
    assert evidence["lr refused"] == "accepted in silence: lr = nan, lr = inf"


def test_the_check_leaves_no_trace() -> None:
    generator, muted = torch.get_rng_state(), logging.root.manager.disable
    filters, dtype = list(warnings.filters), torch.get_default_dtype()
    check_optimizer(torch.optim.Adam)
    assert torch.equal(torch.get_rng_state(), generator)
    assert logging.root.manager.disable == muted
    assert warnings.filters == filters
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            lambda params: nn.Linear(1, 1),
            "factory(params) made a Linear; it must make an Optimizer",
        ),
        (
            MiniBatchGradientDescent,
            "factory(params) raised TypeError: MiniBatchGradientDescent.__init__() missing 1 required "
            "keyword-only argument: 'batch_size'; give the options it needs by functools.partial",
        ),
        (
            partial(torch.optim.SGD, lr=-1.0),
            "factory(params) raised ValueError: Invalid learning rate: -1.0; "
            "give the options it needs by functools.partial",
        ),
    ],
    ids=["no optimizer", "an argument missing", "a bad value"],
)
def test_a_factory_that_makes_no_optimizer(factory: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        check_optimizer(factory)
    assert str(error.value) == message
