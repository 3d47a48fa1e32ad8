"""Clauses about what stands around an optimizer: schedulers, hooks, the compiler, the scaler, the caller."""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch.optim import Optimizer, lr_scheduler

from torchgd.compare.clauses.clause import Severity, clause
from torchgd.compare.lockstep import needs_closure
from torchgd.compare.scenario import NotApplicableError, expect, moved
from torchgd.compare.subject import Subject, switch_on

_SCHEDULERS: tuple[Callable[[Optimizer], lr_scheduler.LRScheduler], ...] = (
    lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
    lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma=0.5),
)


@clause("schedulers", Severity.feature, once=True)
def schedulers(s: Subject) -> str:
    """Schedulers change the lr of its groups, and nothing warns that does not warn without them."""
    s.lr()
    own, end, before = _warnings_of(s, None)
    if not math.isclose(end, before):
        raise NotApplicableError("it changes its lr itself")
    for make in _SCHEDULERS:
        told, after, before = _warnings_of(s, make)
        name = "LambdaLR" if make is _SCHEDULERS[0] else "ExponentialLR"
        new = [words for words in told if words not in own]
        expect(not new, f"{name} warned: {new[0] if new else ''}")
        expect(math.isclose(after, before / 4), f"{name} left lr at {after}, not at {before / 4}")
    return "LambdaLR and ExponentialLR drive it without a warning"


def _warnings_of(
    s: Subject, make: Callable[[Optimizer], lr_scheduler.LRScheduler] | None
) -> tuple[list[str], float, float]:
    """What two steps warn of, and the lr after and before them."""
    p = s.parameter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = s.make([p])
        before = float(optimizer.param_groups[0]["lr"])
        scheduler = make(optimizer) if make else None
        for _ in range(2):
            s.descend(optimizer, [p], steps=1)
            if scheduler:
                scheduler.step()
    return [str(w.message) for w in caught], float(optimizer.param_groups[0]["lr"]), before


@clause("hooks", Severity.feature, once=True)
def hooks(s: Subject) -> str:
    """A hook before the step sees the parameter as it was, one after it as it is then."""
    p, seen = s.parameter(), list[torch.Tensor]()
    optimizer = s.make([p])
    optimizer.register_step_pre_hook(lambda *_: seen.append(s.parameter(p)))
    optimizer.register_step_post_hook(lambda *_: seen.append(s.parameter(p)))
    s.descend(optimizer, [p], steps=max(s.start, 1))
    expect(len(seen) >= 2, "the hooks did not run")
    expect(not moved(seen[0]) and torch.equal(seen[-1], p), "the hooks ran at the wrong time")
    return "ran before and after the update"


@clause("torch.compile", Severity.feature, once=True)
def compiled(s: Subject) -> str:
    """step under torch.compile does what it does without."""
    p, q = s.parameter(), s.parameter()
    plain, traced = s.make([p]), s.make([q])
    if s.closure or needs_closure(type(plain).step):
        raise NotApplicableError("step needs a closure, which torch.compile runs outside the graph")
    s.without_dice()
    torch.compiler.reset()  # beyond some compilations of one function, torch.compile stops compiling it
    try:
        step = torch.compile(lambda: traced.step(), backend="eager")
    except RuntimeError as error:
        raise NotApplicableError(f"no torch.compile here: {error}") from error
    with ExitStack() as quiet:  # the compiler logs every break of the graph
        quiet.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        trace = logging.getLogger("torch.__trace")  # it does not heed logging.disable
        quiet.callback(setattr, trace, "disabled", trace.disabled)
        trace.disabled = True
        for _ in range(max(s.start, 1) + 2):
            s.descend(plain, [p], steps=1)
            s.fill([q])
            step()
    gap = s.close(q, p, s.parameter(), "compiled against plain")
    return f"compiled steps equal the plain ones, {f'to rounding: {gap:.2g}' if gap else 'bit for bit'}"


@clause("grad mode and dice", Severity.silent, once=True)
def grad_mode_and_dice(s: Subject) -> str:
    """Neither the constructor nor a step switches gradients off for the caller, or sets a seed."""
    ends = []
    for seed in (1, 2):
        p = s.parameter()
        s.make([p])  # what is done once for all optimizers is done here
        torch.manual_seed(seed)
        random.seed(seed)
        optimizer = s.factory([p], **s.options)
        expect(torch.is_grad_enabled(), "after the constructor gradients are off")
        switch_on(optimizer)
        for _ in range(2):
            s.step(optimizer, lambda: s.fill([p]))  # noqa: B023
            expect(torch.is_grad_enabled(), "after a step gradients are off")
        ends.append((torch.get_rng_state(), random.getstate()))
    (torch_one, python_one), (torch_two, python_two) = ends
    expect(not torch.equal(torch_one, torch_two), "it sets the seed of torch")
    expect(python_one != python_two, "it sets the seed of Python's random")
    return "gradients stay on, and nobody sets a seed"


@clause("GradScaler", Severity.silent, once=True)
def grad_scaler(s: Subject) -> str:
    """GradScaler skips a step with an infinite gradient, and the next ones are as without it."""
    if s.closure or s.gradients != "dense":
        raise NotApplicableError(f"the scaler takes neither closures nor other gradients{s.manner()}")
    s.without_dice()
    p, q = s.parameter(), s.parameter()
    scaled, plain = s.make([p]), s.make([q])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=10_000)
    scaler.scale(torch.zeros(()))  # a power of two: scaling is exact
    p.grad = torch.full_like(p, math.inf)
    scaler.step(scaled)
    scaler.update()
    expect(not moved(p), "a step that the scaler skips moved the parameter")
    for _ in range(max(s.start, 1) + 2):
        s.fill([p])
        if p.grad is not None:
            p.grad.mul_(scaler.get_scale())
        scaler.step(scaled)
        scaler.update()
        s.descend(plain, [q], steps=1)
    s.close(p, q, s.parameter(), "after a skipped step, with the scaler against without")
    return "a skipped step changes nothing, and the next ones are as without the scaler"
