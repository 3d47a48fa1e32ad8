"""How a function f(w, x, y) that somebody wrote is called, and what comes back.

It may take tensors, lists, numpy arrays or one sample at a time: the first form that it takes is its own.
"""

from __future__ import annotations

import inspect
import linecache
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from torchgd.check.mistakes import Cause
from torchgd.check.probes import Probe
from torchgd.check.report import Diagnosis
from torchgd.check.subject import Answer

LISTS, ARRAYS = "lists of numbers", "numpy arrays"
_REFUSALS = (Cause.raises, Cause.detached)
GradientFunction = Callable[..., Any]


@dataclass(frozen=True)
class Form:
    """One way to hand (w, x, y) over."""

    name: str
    weight: Callable[[float], Any]
    samples: Callable[[Tensor], Any]
    one_by_one: bool = False


def forms(device: torch.device, given: Any = None) -> list[Form]:
    """The forms in the order in which they are tried: the one in which x was given goes first."""
    wide = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64

    def weight(dtype: torch.dtype, requires_grad: bool = False) -> Callable[[float], Tensor]:
        return lambda w: torch.tensor(w, dtype=dtype, device=device, requires_grad=requires_grad)

    def samples(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        return lambda values: values.to(device=device, dtype=dtype, copy=True)

    tried = [
        Form("tensors", weight(wide), samples(wide)),
        Form("tensors and a number w", float, samples(wide)),
        Form("tensors, w with requires_grad", weight(wide, requires_grad=True), samples(wide)),
        Form("float32 tensors", weight(torch.float32), samples(torch.float32)),
        Form(LISTS, float, Tensor.tolist),
        Form(ARRAYS, float, lambda values: values.numpy().copy()),
        Form("one sample at a time", float, Tensor.tolist, one_by_one=True),
    ]
    first = LISTS if isinstance(given, list | tuple) else "tensors" if isinstance(given, Tensor) else ARRAYS
    return sorted(tried, key=lambda form: form.name != first)


def choose_form(f: GradientFunction, probe: Probe, given: Any, device: torch.device) -> Form | Diagnosis:
    """The first form that f takes without an exception or a warning, else without an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in forms(device, given):
            failure = call(f, form, probe).failure
            if failure is None or failure.cause not in _REFUSALS:
                return form
    failures = []
    for form in forms(device, given):
        failure = call(f, form, probe).failure
        if failure is None or failure.cause not in _REFUSALS:
            return form
        failures.append(failure)
    # A fault of f itself shows in most forms; a form that f does not take has an exception of its own.
    kinds = [failure.message.partition(":")[0] for failure in failures]
    usual = max(kinds, key=kinds.count)
    detached = [failure for failure in failures if failure.cause is Cause.detached]
    return [*detached, failures[kinds.index(usual)]][0]


def takes_lists(f: GradientFunction, probe: Probe) -> bool:
    """Whether f is plain Python, or turns lists into arrays by itself."""
    return call(f, forms(torch.device("cpu"), [])[0], probe).failure is None


def call(f: GradientFunction, form: Form, probe: Probe) -> Answer:
    """Call f on copies of the probe's numbers."""
    w, x, y = form.weight(probe.w), form.samples(probe.x), form.samples(probe.y)
    try:
        with torch.enable_grad():
            raw = [f(w, *pair) for pair in zip(x, y, strict=True)] if form.one_by_one else f(w, x, y)
    except (Exception, SystemExit) as error:
        return Answer(failure=raised(f, error))
    before = (form.weight(probe.w), form.samples(probe.x), form.samples(probe.y))
    pairs = zip("wxy", (w, x, y), before, strict=True)
    changed = "" if form.one_by_one else " and ".join(name for name, now, was in pairs if not _same(now, was))
    try:
        value = as_tensor(raw)
    except (TypeError, ValueError, RuntimeError):
        kind = "None: a return is missing" if raw is None else f"a {type(raw).__name__}"
        return Answer(failure=Diagnosis(Cause.wrong_dtype, f"It returned {kind}."), changed=changed)
    if value.dtype.is_complex or value.dtype is torch.bool:
        kind = "complex numbers" if value.dtype.is_complex else "True or False"
        failure = Diagnosis(Cause.wrong_dtype, f"It returned {kind}, not a real number.")
        return Answer(failure=failure, changed=changed)
    return Answer({"": value.double()}, frozenset({value.dtype}), changed=changed)


def as_tensor(raw: Any) -> Tensor:
    """A number, a list of numbers, an array or a tensor as a tensor on the CPU, in its own dtype."""
    if isinstance(raw, Tensor):
        return raw.detach().cpu()
    if type(raw) in (float, int):
        return torch.tensor(raw, dtype=torch.float64 if type(raw) is float else torch.int64)
    if isinstance(raw, list | tuple):
        if all(type(item) is float for item in raw):
            return torch.tensor(raw, dtype=torch.float64)
        if raw and all(isinstance(item, Tensor) for item in raw):
            return torch.stack(list(raw)).detach().cpu()
        return torch.stack([as_tensor(item) for item in raw])
    if hasattr(raw, "__array__"):
        return torch.as_tensor(raw).cpu()
    if isinstance(raw, Real):
        return torch.tensor(float(raw), dtype=torch.float64)
    raise TypeError(type(raw).__name__)


def _same(now: Any, was: Any) -> bool:
    if isinstance(was, Tensor):
        return torch.equal(now, was)
    if hasattr(was, "__array__"):
        return now.shape == was.shape and bool((now == was).all())
    return bool(now == was)


def raised(f: GradientFunction, error: BaseException) -> Diagnosis:
    """The exception with the user's own line: the last one in the file of f."""
    file = getattr(getattr(inspect.unwrap(f), "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if frame.filename == file]
    text = "It raised " + " ".join(f"{type(error).__name__}: {error}".split())
    if own:
        line = linecache.getline(own[-1].filename, own[-1].lineno or 0).strip()
        text += f" (line {own[-1].lineno}: {line})" if line else f" (line {own[-1].lineno})"
    lost = ("does not require grad", "not have been used in the graph")
    cause = Cause.detached if any(sign in str(error) for sign in lost) else Cause.raises
    return Diagnosis(cause, f"{text}.")
