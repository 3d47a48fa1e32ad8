"""Clauses about the state: saved, loaded, copied, and not shared."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchgd.compare.clauses.clause import Severity, clause
from torchgd.compare.scenario import NotApplicableError, expect, moved
from torchgd.compare.subject import Subject, name_of


def _saved(optimizer: Optimizer) -> dict[str, Any]:
    """Its state, through a file."""
    torch.save(optimizer.state_dict(), file := io.BytesIO())
    return torch.load(io.BytesIO(file.getvalue()))  # type: ignore[no-any-return]


def _dtypes(entries: Any, name: str = "") -> dict[str, torch.dtype]:
    """The dtype of every tensor in a state, by the names of its entries."""
    if isinstance(entries, Tensor):
        return {name: entries.dtype}
    found: dict[str, torch.dtype] = {}
    for key, entry in entries.items() if isinstance(entries, Mapping) else ():
        found |= _dtypes(entry, str(key))
    return found


def _resume(s: Subject) -> str:
    """Interrupt and go on; returns the entries of the state whose dtype loading changed."""
    p = s.parameter()
    optimizer = s.make([p])
    if isinstance(s.defaults.get("lr"), float):
        s.set_lr(optimizer, 0.5)  # the groups are saved, not the defaults
    s.descend(optimizer, [p])
    q = s.parameter(p)
    resumed = s.make([q])
    resumed.load_state_dict(_saved(optimizer))
    before, after = _dtypes(optimizer.state), _dtypes(resumed.state)
    cast = [
        f"{entry} ({name_of(before[entry])}) becomes {name_of(dtype)}"
        for entry, dtype in after.items()
        if before.get(entry, dtype) != dtype
    ]
    s.descend(optimizer, [p])
    s.descend(resumed, [q])
    words = f"; on loading, {', '.join(cast)}" if cast else ""
    if not moved(p):
        raise NotApplicableError("the parameter does not move")
    s.same(q, p, f"steps after loading in {name_of(s.dtype)}{words}")
    return words


def _where_people_train(s: Subject) -> Subject:
    """In float32: loading casts a state in float32 to the parameter's dtype, which is fair there."""
    with suppress(NotApplicableError):
        return s.in_dtype(torch.float32)
    return s


@clause("state_dict", Severity.silent)
def state_dict(s: Subject) -> str:
    """Saved and loaded in mid-run, an optimizer goes on as if it had not been interrupted."""
    s = _where_people_train(s)
    _resume(s)
    return f"steps, saved and loaded, more steps: equal bit for bit in {name_of(s.dtype)}"


@clause("resume in bfloat16", Severity.silent, explained_by=("state_dict",))
def resume_in_bfloat16(s: Subject) -> str:
    """The same with bfloat16 parameters, whose state may be in float32."""
    return f"equal bit for bit{_resume(s.visible().in_dtype(torch.bfloat16))}"


@clause(
    "several parameters",
    Severity.silent,
    explained_by=("state_dict", "first gradient in step 2", "None gradients"),
)
def several_parameters(s: Subject) -> str:
    """Saved, loaded and copied with two parameters, the second of which got its first gradient first."""
    s = _where_people_train(s)
    p, q = s.parameter(), s.parameter(s.parameter().flip(1))
    optimizer = s.make([p, q])
    s.descend(optimizer, [q])
    s.descend(optimizer, [p, q])
    resumed = s.make(loaded := [s.parameter(p), s.parameter(q)])
    resumed.load_state_dict(_saved(optimizer))
    ends = {"loading": loaded}
    with suppress(Exception):  # anyone's code; the clause of the copies tells
        twin = copy.deepcopy(optimizer)
        copied = [r for group in twin.param_groups for r in group["params"]]
        s.descend(twin, copied)
        ends["deepcopy"] = copied
    s.descend(optimizer, [p, q])
    s.descend(resumed, loaded)
    for words, params in ends.items():
        for which, found, wanted in zip(("first", "second"), params, (p, q), strict=True):
            s.same(found, wanted, f"the {which} of two parameters after {words}")
    return f"after {' and '.join(ends)} two parameters go on, each with its own state"


@clause("shared state", Severity.feature, explained_by=("state_dict",))
def shared_state(s: Subject) -> str:
    """A state that is loaded straight from another optimizer is not shared with it."""
    p = s.parameter()
    optimizer = s.make([p])
    s.descend(optimizer, [p])
    ends = []
    for given in (optimizer.state_dict(), _saved(optimizer)):
        q = s.parameter(p)
        loaded = s.make([q])
        loaded.load_state_dict(given)
        ends.append((loaded, q))
    s.descend(optimizer, [p])
    for loaded, q in ends:
        s.descend(loaded, [q])
    (_, straight), (_, through_a_file) = ends
    same = torch.equal(straight, through_a_file)
    expect(same, "steps of the optimizer whose state_dict() was loaded change the state of this one")
    return "steps of the other leave it alone"


@clause("deepcopy and pickle", Severity.feature, explained_by=("state_dict",))
def deepcopy_and_pickle(s: Subject) -> str:
    """A copy made in mid-run has parameters of its own and takes the same steps."""
    p = s.parameter()
    optimizer = s.make([p])
    s.descend(optimizer, [p])
    copies = {"deepcopy": copy.deepcopy(optimizer)}
    if "<locals>" not in type(optimizer).__qualname__:  # Python pickles no class that a function defines
        copies["pickle"] = pickle.loads(pickle.dumps(optimizer))
    s.descend(optimizer, [p])
    for words, twin in copies.items():
        (q,) = twin.param_groups[0]["params"]
        expect(q is not p, f"{words}: the copy shares the parameter")
        s.descend(twin, [q])
        s.same(q, p, f"steps after {words}")
    return f"{' and '.join(copies)}: the same steps, bit for bit"
