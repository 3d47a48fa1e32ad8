"""What a function takes: (w, x, y), or (x, y) and a weight that is a global, as lecture 3 writes it."""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from torchgd.errors import InputError

ROLES = (
    {"w", "weight", "weights", "theta"},
    {"x", "xs", "x_data", "inputs"},
    {"y", "ys", "y_data", "targets"},
)


def function_of_weight(f: Any, name: str) -> tuple[Callable[..., Any], list[str], str]:
    """f as a function of (w, x, y), the names that it gives to these, and what to say of a w from elsewhere.

    Raises:
        InputError: f is not a function, or takes other arguments, or these in another order.
    """
    if not callable(f):
        raise InputError(f"{name} is not a function; give the gradient as a function f(w, x, y)")
    if isinstance(f, type) and issubclass(f, torch.autograd.Function):
        raise InputError(f"{name} is an autograd.Function; give it to check_function with its inputs")
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # some builtins have none
        return f, list("wxy"), ""
    names, required = positional(signature)
    roles = [next((role for role, words in enumerate(ROLES) if n.lower() in words), None) for n in names[:3]]
    try:
        signature.bind(0, 0, 0)
    except TypeError:
        if len(required) == 2 and 0 not in roles:
            place, key = _weight_elsewhere(f, name, signature)
            return _with_weight(f, place, key), [key, *required], f", and w as the global {key}"
        mend = f"write def {name}(w, x, y)"
        if len(required) > 3:
            mend = "for several parameters give a module as well, e.g. model=torch.nn.Linear(1, 1)"
        raise InputError(f"{name}{signature} cannot be called as f(w, x, y); {mend}") from None
    if roles != [0, 1, 2] and sorted(role for role in roles if role is not None) == [0, 1, 2]:
        raise InputError(f"{name}{signature} has its arguments in another order; write {name}(w, x, y)")
    return f, names[:3] if len(names) >= 3 else list("wxy"), ""


def positional(signature: inspect.Signature) -> tuple[list[str], list[str]]:
    """The names of the arguments that are given by place, and those of them without a default."""
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in signature.parameters.values() if p.kind in named]
    return [p.name for p in given], [p.name for p in given if p.default is p.empty]


def _weight_elsewhere(f: Any, name: str, signature: inspect.Signature) -> tuple[Any, str]:
    """Where the weight is that f reads: a dict of globals, or a cell of a closure, and its name there."""
    found = {}
    for place, key in _reads(inspect.unwrap(f), set()):
        value = place.cell_contents if isinstance(place, types.CellType) else place.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number or (hasattr(value, "numel") and value.numel() == 1) or getattr(value, "size", 0) == 1:
            found[key] = place
    likely = [key for key in found if key.lower() in ROLES[0]] or list(found)
    if len(likely) == 1:
        return found[likely[0]], likely[0]
    what = f"reads {', '.join(likely)} from outside" if likely else "reads no number from outside"
    raise InputError(f"{name}{signature} {what}: which is the weight? Write def {name}(w, x, y)")


def _reads(f: Any, seen: set[Any]) -> Iterator[tuple[Any, str]]:
    """The globals and the cells that f reads, and those of the functions that it calls."""
    code = getattr(f, "__code__", None)
    if code is None or code in seen:
        return
    seen.add(code)
    reads: list[tuple[Any, str]] = list(zip(f.__closure__ or (), code.co_freevars, strict=True))
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    for part in (code, *inner):
        names = [step.argval for step in dis.get_instructions(part) if step.opname == "LOAD_GLOBAL"]
        reads += [(f.__globals__, key) for key in names if key in f.__globals__]
    for place, key in reversed(reads):
        value = place.cell_contents if isinstance(place, types.CellType) else place[key]
        if inspect.isfunction(value):
            yield from _reads(value, seen)
        yield place, key


def _with_weight(f: Callable[..., Any], place: Any, key: str) -> Callable[..., Any]:
    """f(x, y) as a function of (w, x, y): w stands where f reads it, for the time of the call."""

    def put(value: Any) -> None:
        if isinstance(place, types.CellType):
            place.cell_contents = value
        else:
            place[key] = value

    @functools.wraps(f)
    def with_weight(w: Any, x: Any, y: Any) -> Any:
        kept = place.cell_contents if isinstance(place, types.CellType) else place[key]
        put(w)
        try:
            return f(x, y)
        finally:
            put(kept)

    return with_weight
