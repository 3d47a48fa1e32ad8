"""Clauses about the options: of the groups, of the factory, and those that do not exist."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from torchgd.compare.clauses.clause import Severity, clause
from torchgd.compare.scenario import NotApplicableError, expect, moved
from torchgd.compare.subject import Subject


@clause("param groups", Severity.silent, may_refuse=True)
def param_groups(s: Subject) -> str:
    """Two groups move each by its own lr, given at the start or changed later."""
    lr = s.lr()
    s.without_dice()
    for words in ("given to a group", "changed in a group"):
        p, q = s.parameter(), s.parameter()
        optimizer = s.make([{"params": [p]}, {"params": [q], "lr": lr / 2}])
        if words == "changed in a group":
            optimizer = s.make([{"params": [p]}, {"params": [q]}])
            optimizer.param_groups[1]["lr"] = lr / 2
        s.descend(optimizer, [p, q], steps=s.start)
        expect(moved(p) and moved(q), "only one of the two groups moved")
        expect(not torch.equal(p, q), f"lr {words} has no effect")
    return "the lr given to a group, or changed in it, drives that group alone"


@clause("group options", Severity.silent, explained_by=("param groups",), may_refuse=True, once=True)
def group_options(s: Subject) -> str:
    """An option other than lr, given to one group, has there the effect that it has for all."""
    s.without_dice()

    def end(given: list[Tensor], groups: Callable[[Tensor], Any], **options: Any) -> Tensor:
        q = s.parameter()
        s.descend(s.make(groups(q), **options), [*given, q])
        return q

    tried, without = list[str](), end([], lambda q: [q])
    for option, value in (("weight_decay", 0.1), ("momentum", 0.5), ("eps", 0.1), ("betas", (0.5, 0.6))):
        if not s.takes(option) or (option == "betas" and len(s.defaults.get(option) or ()) != 2):
            continue
        try:
            for_all = end([], lambda q: [q], **{option: value})
        except Exception:  # anyone's code: not this value
            continue
        if not torch.equal(without, for_all):
            p = s.parameter()
            in_one = end([p], lambda q: [{"params": [p]}, {"params": [q], option: value}])  # noqa: B023
            expect(not torch.equal(without, in_one), f"{option} = {value} in one group of two has no effect")
            tried.append(option)
    if not tried:
        raise NotApplicableError("it takes no weight_decay, momentum, eps or betas that have an effect")
    return f"{', '.join(tried)} in one group drives that group"


@clause(
    "add_param_group",
    Severity.feature,
    explained_by=("param groups", "first gradient in step 2"),
    may_refuse=True,
)
def add_param_group(s: Subject) -> str:
    """A group added in mid-run moves."""
    p, added = s.parameter(), s.parameter()
    optimizer = s.make([p])
    s.descend(optimizer, [p])
    optimizer.add_param_group({"params": [added]})
    s.descend(optimizer, [p, added])
    missing = sorted(set(optimizer.defaults) - set(optimizer.param_groups[-1]))
    words = f"; the added group has no {', '.join(missing)}" if missing else ""
    expect(moved(added), f"the added parameter does not move{words}")
    return "the added group moves"


@clause("weight decay", Severity.silent, explained_by=("update",), once=True)
def weight_decay(s: Subject) -> str:
    """Weight decay pulls the parameter towards 0, whatever its sign."""
    if not s.takes("weight_decay"):
        raise NotApplicableError("it takes no weight_decay")
    if s.gradients != "dense":
        raise NotApplicableError(f"it takes no gradient of zeros{s.manner()}")
    effects = [0.0]
    with suppress(Exception):  # anyone's code, which may refuse a gradient of zeros
        effects = [_effect_of_decay(s, sign, gradient=0.0) for sign in (1, -1)]
    if any(effects):
        inwards = all(effect < 0 for effect in effects)
        expect(inwards, "weight_decay = 0.1 does not pull the parameter towards 0")
        return "pulls towards 0 from both sides"
    expect(_effect_of_decay(s, 1, gradient=0.5) != 0, "weight_decay = 0.1 changes nothing")
    return "changes the steps, though not without a gradient"


def _effect_of_decay(s: Subject, sign: int, gradient: float) -> float:
    """How far weight decay moves ± the usual parameter along itself, at this gradient: inwards below 0."""
    ends = []
    for decay in (0.0, 0.1):
        p = s.parameter(sign * s.parameter())
        optimizer = s.make([p], weight_decay=decay)

        def give(p: Tensor = p) -> Tensor:
            p.grad = torch.full_like(p, gradient)
            return torch.zeros((), dtype=p.dtype)

        for _ in range(s.start + 2):
            s.step(optimizer, give)
        ends.append(p.detach())
    start = sign * s.parameter().detach()
    moves_by_itself = not gradient and not torch.equal(ends[0], start)
    effect = float(((ends[1] - ends[0]) * start).sum())
    return 0.0 if math.isnan(effect) or moves_by_itself else effect


@clause("maximize", Severity.silent)
def maximize(s: Subject) -> str:
    """Climbing f is descending −f."""
    p, q = s.parameter(), s.parameter()
    try:
        climbing, descending = s.make([p], maximize=True), s.make([q], maximize=False)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise NotApplicableError(f"refused: {type(error).__name__}: {error}") from error
    s.descend(climbing, [p])
    s.descend(descending, [q], sign=-1)
    s.same(p, q, "climbing f against descending −f")
    return "climbing f is descending −f, bit for bit"


@clause("lr refused", Severity.refusal, needs_a_move=False, once=True)
def lr_refused(s: Subject) -> str:
    """A learning rate that is NaN, infinite or negative is refused in words."""
    accepted, own = list[str](), set[str]()
    for lr in (math.nan, math.inf, -1.0):
        try:
            s.make([s.parameter()], lr=lr)
        except NotApplicableError:
            raise
        except ValueError:
            continue
        except AssertionError:
            accepted.append(f"lr = {lr:g} by an assert, which python -O leaves out")
            continue
        except Exception as error:  # an exception of its own is a refusal too
            own.add(type(error).__name__)
            continue
        accepted.append(f"lr = {lr:g}")
    words = f"; it refuses by {', '.join(sorted(own))}, which is not a ValueError" if own else ""
    expect(not accepted, f"accepted in silence: {', '.join(accepted)}{words}")
    return f"nan, inf and −1 are each refused{words}"


@clause("lr as tensor", Severity.feature, may_refuse=True)
def lr_as_tensor(s: Subject) -> str:
    """A learning rate in a tensor does what the same number does."""
    s.lr()
    p, q = s.parameter(), s.parameter()
    s.descend(s.make([p], lr=torch.tensor(0.0625, dtype=torch.float64)), [p])
    s.descend(s.make([q], lr=0.0625), [q])
    s.close(p, q, s.parameter(), "lr as a tensor against the number")
    return "does what the number does"


@clause("unknown option", Severity.silent, needs_a_move=False, once=True)
def unknown_option(s: Subject) -> str:
    """An option that does not exist, such as a misspelt one, is refused."""
    try:
        s.factory([s.parameter()], **{**s.options, "wieght_decay": 0.1})
    except Exception:  # refused, whatever the words
        return "refused"
    expect(False, "an option that does not exist is accepted in silence: wieght_decay = 0.1")
    return ""
