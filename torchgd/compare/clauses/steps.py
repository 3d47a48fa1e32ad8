"""Clauses about a step: its direction, its closure, its learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchgd.compare.clauses.clause import Severity, clause
from torchgd.compare.scenario import NotApplicableError, expect, gain, height, moved
from torchgd.compare.subject import Subject


@clause("update", Severity.silent, needs_a_move=False, may_refuse=True)
def update(s: Subject) -> str:
    """The first step that moves goes downhill."""
    if s.error:
        raise s.error
    expect(s.start > 0, "no step of the first dozen moves the parameter")
    p, start = s.parameter(), s.parameter()
    optimizer = s.make([p])
    s.descend(optimizer, [p], steps=s.start)
    down = gain(p, start)
    if not down < 0 and s.throws_dice:
        s.descend(optimizer, [p], steps=24)
        expect(height(p) < height(start), "random steps, and after two dozen of them p is not lower")
        return f"random steps, and two dozen of them go down{s.manner()}"
    expect(down < 0, f"one step along the gradient: Δp · gradient = {down:.3g}, not below 0{s.manner()}")
    return f"one step goes down the gradient: Δp · gradient = {down:.3g}{s.manner()}"


@clause("closure gradient", Severity.feature)
def closure_gradient(s: Subject) -> str:
    """step(closure) runs the closure, with gradients on."""
    p, enabled = s.parameter(), list[bool]()
    s.fill([p])

    def closure() -> Tensor:
        enabled.append(torch.is_grad_enabled())
        return s.fill([p])

    s.make([p]).step(closure)  # type: ignore[arg-type]
    expect(len(enabled) > 0, "step(closure) did not run the closure")
    expect(all(enabled), "the closure ran with gradients off, so that loss.backward() would fail in it")
    return "ran with gradients on"


@clause("closure loss", Severity.feature, explained_by=("closure gradient",))
def closure_loss(s: Subject) -> str:
    """step(closure) returns the loss of a run of the closure."""
    p, losses = s.parameter(), list[float]()
    s.fill([p])

    def closure() -> Tensor:
        loss = s.fill([p])
        losses.append(loss.item())
        return loss

    returned: Any = s.make([p]).step(closure)  # type: ignore[arg-type]
    found = returned is not None and float(returned) in losses
    expect(found, f"returned {returned}, not {losses[0] if losses else 'a loss'}")
    return f"returned {float(returned):.6g}"


@clause("lr changed", Severity.silent, explained_by=("param groups",), once=True)
def lr_changed(s: Subject) -> str:
    """A learning rate that is changed in mid-run is obeyed."""
    s.lr()
    ends = []
    for factor in (1.0, 0.5):
        p = s.parameter()
        optimizer = s.make([p])
        s.descend(optimizer, [p])
        before = p.detach().clone()
        s.set_lr(optimizer, factor)
        s.descend(optimizer, [p])
        ends.append(p)
        if torch.equal(p, before):
            raise NotApplicableError("it has arrived before")
    expect(not torch.equal(*ends), "half the lr in mid-run changes nothing")
    return "half the lr in mid-run takes other steps"


@clause("lr 0", Severity.silent, explained_by=("param groups",), may_refuse=True)
def lr_zero(s: Subject) -> str:
    """With a learning rate of 0 nothing moves."""
    s.lr()
    p = s.parameter()
    optimizer = s.make([p])
    s.set_lr(optimizer, 0.0)
    s.descend(optimizer, [p])
    way = (p - s.parameter()).abs().max().item()
    expect(not moved(p), f"with lr = 0 in its groups the parameter moved by {way:.3g}")
    return "stands still"


@clause("first gradient in step 2", Severity.silent, explained_by=("None gradients",))
def first_gradient_late(s: Subject) -> str:
    """A parameter that gets its first gradient in the second step moves from then on."""
    p, late = s.parameter(), s.parameter()
    optimizer = s.make([p, late])
    s.descend(optimizer, [p], steps=1)
    s.descend(optimizer, [p, late])
    expect(
        moved(late) and bool(late.isfinite().all()),
        f"it ends at {late[0].tolist()}, not {p[0].tolist()}",
    )
    return "moves from then on"


@clause("no gradient", Severity.feature, explained_by=("None gradients",), may_refuse=True)
def no_gradient(s: Subject) -> str:
    """A step without any gradient does nothing, and the next one moves."""
    p = s.parameter()
    optimizer = s.make([p])
    if s.closure:
        raise NotApplicableError("its closure gives the gradients")
    optimizer.step()
    expect(not moved(p), "the parameter moved though its gradient is None")
    s.descend(optimizer, [p])
    expect(moved(p), "after a step without gradients the next ones do not move the parameter")
    return "nothing moves, and the next step does"
