"""The clauses of the optimizer's contract, one function each, so small that one defect breaks one clause.

A clause takes the factory and returns its evidence; it raises BrokenError where it is broken and
NotApplicableError where it has nothing to say. All of them descend the bowl of scenario.py.
"""

from __future__ import annotations

import copy
import io
import logging
import math
import pickle
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from torchgd.compare.lockstep import needs_closure, take_step
from torchgd.compare.scenario import (
    Factory,
    NotApplicableError,
    descend,
    expect,
    expect_close,
    expect_same,
    fill,
    giver,
    made,
    moved,
    parameter,
    slope,
)


def update(factory: Factory) -> str:
    """One step goes downhill."""
    p, start = parameter(), parameter()
    descend(factory([p]), [p], steps=1)
    gain = ((p - start) * slope(start)).sum().item()
    expect(gain < 0, f"one step along the gradient: Δp · gradient = {gain:.3g}, not below 0")
    return f"one step goes down the gradient: Δp · gradient = {gain:.3g}"


def closure_gradient(factory: Factory) -> str:
    """step(closure) runs the closure, with gradients on."""
    p, enabled = parameter(), list[bool]()
    fill([p])

    def closure() -> Tensor:
        enabled.append(torch.is_grad_enabled())
        return fill([p])

    factory([p]).step(closure)  # type: ignore[arg-type]
    expect(len(enabled) > 0, "step(closure) did not run the closure")
    expect(all(enabled), "the closure ran with gradients off, so that loss.backward() would fail in it")
    return "ran with gradients on"


def closure_loss(factory: Factory) -> str:
    """step(closure) returns the loss of the closure's first run."""
    p = parameter()
    expected = fill([p]).item()
    returned: Any = factory([p]).step(lambda: fill([p]))  # type: ignore[arg-type, return-value]
    expect(returned is not None and float(returned) == expected, f"returned {returned}, not {expected}")
    return f"returned {expected:.6g}"


def grad_untouched(factory: Factory) -> str:
    """Two steps leave every `.grad` the same tensor with the same values, also when climbing or decaying."""
    for option in ({}, {"maximize": True}, {"weight_decay": 0.1}):
        p, given, words = parameter(), list[tuple[Tensor, Tensor]](), next(iter(option), "as made")
        try:
            optimizer = made(factory, [p], **option)
        except NotApplicableError:
            continue
        for _ in range(2):
            given.append((slope(p), slope(p)))
            take_step(optimizer, giver(p, given[-1][0]))
            expect(p.grad is given[-1][0], f"{words}: p.grad is another tensor after the step")
        expect(all(torch.equal(*pair) for pair in given), f"{words}: the step wrote into p.grad")
    return "the same tensors with the same values after two steps"


def none_gradients(factory: Factory) -> str:
    """A parameter whose `.grad` is None is skipped, the others are not."""
    p, skipped = parameter(), parameter()
    descend(factory([skipped, p]), [p])
    expect(torch.equal(skipped, parameter()), "a parameter without gradient moved")
    expect(moved(p), "a parameter beside one without gradient did not move")
    return "the parameter without gradient stayed, the other moved"


def sparse_gradients(factory: Factory) -> str:
    """A sparse gradient with a repeated index moves its row as the dense one does."""
    p, dense = parameter(), parameter()
    values = torch.tensor([[0.5, -0.25, 1.0], [1.0, 0.5, -0.5]], dtype=torch.float64)
    grad = torch.sparse_coo_tensor(torch.tensor([[0, 0]]), values, (2, 3), check_invariants=True)
    take_step(factory([p]), giver(p, grad))
    take_step(factory([dense]), giver(dense, grad.to_dense()))
    expect_close(p[0], dense[0], parameter()[0], "sparse against dense")
    return "moves its row as the dense gradient does"


def param_groups(factory: Factory) -> str:
    """Two groups move each by its own lr, given at the start or changed later."""
    lr = factory([parameter()]).param_groups[0].get("lr")
    if lr is None:
        raise NotApplicableError("its groups have no lr")
    for words in ("given to a group", "changed in a group"):
        p, q = parameter(), parameter()
        optimizer = factory([{"params": [p]}, {"params": [q], "lr": lr / 2}])
        if words == "changed in a group":
            optimizer = factory([{"params": [p]}, {"params": [q]}])
            optimizer.param_groups[1]["lr"] = lr / 2
        descend(optimizer, [p, q], steps=1)
        expect(moved(p) and moved(q), "only one of the two groups moved")
        expect(not torch.equal(p, q), f"lr {words} has no effect")
    return "the lr given to a group, or changed in it, drives that group alone"


def state_dict(factory: Factory) -> str:
    """Saved and loaded in mid-run, an optimizer goes on as if it had not been interrupted."""
    p = parameter()
    optimizer = factory([p])
    descend(optimizer, [p])
    if "lr" in optimizer.param_groups[0]:
        optimizer.param_groups[0]["lr"] = (
            optimizer.param_groups[0]["lr"] / 2
        )  # the groups are saved, not the defaults
    torch.save(optimizer.state_dict(), file := io.BytesIO())
    q = parameter(p)
    resumed = factory([q])
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue())))
    descend(optimizer, [p])
    descend(resumed, [q])
    expect_same(q, p, "3 steps after loading")
    return "3 steps, saved and loaded, 3 more: equal bit for bit"


def deepcopy_and_pickle(factory: Factory) -> str:
    """A copy made in mid-run has parameters of its own and takes the same steps."""
    p = parameter()
    optimizer = factory([p])
    descend(optimizer, [p])
    copies = {"deepcopy": copy.deepcopy(optimizer)}
    if "<locals>" not in type(optimizer).__qualname__:  # Python pickles no class that a function defines
        copies["pickle"] = pickle.loads(pickle.dumps(optimizer))
    descend(optimizer, [p])
    for words, twin in copies.items():
        (q,) = twin.param_groups[0]["params"]
        expect(q is not p, f"{words}: the copy shares the parameter")
        descend(twin, [q])
        expect_same(q, p, f"3 steps after {words}")
    return f"{' and '.join(copies)}: 3 more steps, equal bit for bit"


def schedulers(factory: Factory) -> str:
    """Schedulers change the lr of its groups, and nothing warns."""
    makers: tuple[Callable[[Optimizer], lr_scheduler.LRScheduler], ...] = (
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
        lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma=0.5),
    )
    for make in makers:
        p = parameter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer = factory([p])
            before = float(optimizer.param_groups[0]["lr"])
            scheduler = make(optimizer)
            for _ in range(2):
                descend(optimizer, [p], steps=1)
                scheduler.step()
        name, after = type(scheduler).__name__, float(optimizer.param_groups[0]["lr"])
        expect(not caught, f"{name} warned: {caught[0].message if caught else ''}")
        expect(math.isclose(after, before / 4), f"{name} left lr at {after}, not at {before / 4}")
    return "LambdaLR and ExponentialLR drive it without a warning"


def maximize(factory: Factory) -> str:
    """Climbing f is descending −f."""
    p, q = parameter(), parameter()
    descend(made(factory, [p], maximize=True), [p])
    descend(made(factory, [q], maximize=False), [q], sign=-1)
    expect_same(p, q, "climbing f against descending −f")
    return "climbing f is descending −f, bit for bit over 3 steps"


def foreach(factory: Factory) -> str:
    """The update of all tensors in one call equals the loop over them, also with mixed dtypes."""
    start = [parameter(), parameter().float(), parameter()[:1]]
    loop, at_once = [parameter(p) for p in start], [parameter(p) for p in start]
    descend(made(factory, loop, foreach=False), loop)
    descend(made(factory, at_once, foreach=True), at_once)
    pairs = zip(at_once, loop, start, strict=True)
    gap = max(expect_close(q, p, s, f"foreach against the loop ({p.dtype})") for q, p, s in pairs)
    return f"equals the loop over 3 steps, {f'to rounding: {gap:.2g}' if gap else 'bit for bit'}"


def hooks(factory: Factory) -> str:
    """A hook before the step sees the parameter as it was, one after it as it is then."""
    p, seen = parameter(), list[Tensor]()
    optimizer = factory([p])
    optimizer.register_step_pre_hook(lambda *_: seen.append(parameter(p)))
    optimizer.register_step_post_hook(lambda *_: seen.append(parameter(p)))
    descend(optimizer, [p], steps=1)
    expect(len(seen) >= 2, "the hooks did not run")
    expect(not moved(seen[0]) and torch.equal(seen[-1], p), "the hooks ran at the wrong time")
    return "ran before and after the update"


def lr_refused(factory: Factory) -> str:
    """A learning rate that is NaN, infinite or negative is a ValueError."""
    accepted = []
    for lr in (math.nan, math.inf, -1.0):
        try:
            made(factory, [parameter()], lr=lr)
        except ValueError:
            continue
        accepted.append(f"lr = {lr:g}")
    expect(not accepted, f"accepted in silence: {', '.join(accepted)}")
    return "nan, inf and −1 are each a ValueError"


def frozen_parameters(factory: Factory) -> str:
    """A parameter that needs no gradient is accepted and left alone."""
    p, frozen = parameter(), parameter().detach()
    descend(factory([frozen, p]), [p])
    expect(not moved(frozen) and moved(p), "a parameter that needs no gradient moved, or held up the other")
    expect(frozen.grad is None and not frozen.requires_grad, "a parameter that needs no gradient got one")
    return "accepted, and left alone"


def complex_parameters(factory: Factory) -> str:
    """A complex number moves as its two parts do."""
    start = torch.stack([parameter(), parameter().flip(1)], dim=-1).detach()
    p, parts = parameter(torch.view_as_complex(start)), parameter(start)
    descend(factory([p]), [p])
    descend(factory([parts]), [parts])
    expect_close(torch.view_as_real(p), parts, start, "complex against its two parts")
    return "moves as its two real parts do"


def non_contiguous(factory: Factory) -> str:
    """A transposed parameter with a transposed gradient moves as a contiguous one does."""
    start = parameter().detach().t()
    p, contiguous = parameter(start), parameter(start.contiguous())
    descend(factory([p]), [p])
    descend(factory([contiguous]), [contiguous])
    expect_close(p, contiguous, start, "transposed against contiguous")
    return "moves as a contiguous one does"


def add_param_group(factory: Factory) -> str:
    """A group added in mid-run gets the defaults and moves."""
    p, added = parameter(), parameter()
    optimizer = factory([p])
    descend(optimizer, [p])
    optimizer.add_param_group({"params": [added]})
    missing = set(optimizer.defaults) - set(optimizer.param_groups[-1])
    expect(not missing, f"the added group has no {', '.join(sorted(missing))}")
    descend(optimizer, [p, added])
    expect(moved(added), "the added parameter does not move")
    return "the added group gets the defaults and moves"


def lr_as_tensor(factory: Factory) -> str:
    """A learning rate in a tensor does what the same number does."""
    p, q = parameter(), parameter()
    descend(made(factory, [p], lr=torch.tensor(0.0625, dtype=torch.float64)), [p])
    descend(made(factory, [q], lr=0.0625), [q])
    expect_close(p, q, parameter(), "lr as a tensor against the number")
    return "does what the number does over 3 steps"


def compiled(factory: Factory) -> str:
    """step under torch.compile does what it does without."""
    p, q = parameter(), parameter()
    plain, traced = factory([p]), factory([q])
    if needs_closure(type(plain).step):
        raise NotApplicableError("step needs a closure, which torch.compile runs outside the graph")
    torch.compiler.reset()  # beyond some compilations of one function, torch.compile stops compiling it
    try:
        step = torch.compile(lambda: traced.step(), backend="eager")
    except RuntimeError as error:
        raise NotApplicableError(f"no torch.compile here: {error}") from error
    with ExitStack() as quiet:  # the compiler logs every break of the graph
        quiet.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        for _ in range(3):
            descend(plain, [p], steps=1)
            fill([q])
            step()
    gap = expect_close(q, p, parameter(), "compiled against plain")
    return f"3 compiled steps equal the plain ones, {f'to rounding: {gap:.2g}' if gap else 'bit for bit'}"
