"""Clauses about the variants of one update: all tensors in one call, or in one kernel, in every precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchgd.compare.clauses.clause import Severity, clause
from torchgd.compare.refusal import deliberate, words_of
from torchgd.compare.rounding import ulps_apart
from torchgd.compare.scenario import BrokenError, CrashError, NotApplicableError, expect
from torchgd.compare.subject import Subject, name_of

_LOW = (torch.bfloat16, torch.float16)


@clause("foreach", Severity.silent, may_refuse=True)
def foreach(s: Subject) -> str:
    """The update of all tensors in one call equals the loop over them, in every precision, mixed ones too."""
    return _against_the_loop(s, "foreach")


@clause("fused", Severity.silent, may_refuse=True)
def fused(s: Subject) -> str:
    """The update in one kernel equals the loop, in every precision."""
    return _against_the_loop(s, "fused")


def _against_the_loop(s: Subject, option: str) -> str:
    if not s.takes(option):
        raise NotApplicableError(f"the factory takes no {option}")
    s.without_dice()
    told = _in_every_precision(s, option)
    if s.takes("momentum") and not s.options and not s.defaults.get("momentum"):
        told += f"; with momentum=0.9: {_in_every_precision(replace(s, options={'momentum': 0.9}), option)}"
    return f"equals the loop: {told}"


def _in_every_precision(s: Subject, option: str) -> str:
    s, found, broken, refused = s.visible(), list[str](), list[str](), list[str]()
    mixed = [torch.float64, torch.float32] if s.dtype is torch.float64 else [s.dtype]
    for precision in (mixed, *([dtype] for dtype in _LOW)):
        name, off = " and ".join(map(name_of, precision)), {"foreach": False, "fused": False}
        try:
            loop, start = _run(s, precision, off, option)
        except NotApplicableError:
            raise
        except Exception:  # anyone's code; the clause of the dtypes tells
            continue
        if not all(bool(p.isfinite().all()) for p in loop):
            continue
        try:
            variant, _ = _run(s, precision, {**off, option: True}, option)
            ulps = max(_judge(s, option, *trio) for trio in zip(variant, loop, start, strict=True))
        except NotApplicableError:
            raise
        except BrokenError as error:
            broken.append(str(error))
            continue
        except Exception as error:  # anyone's code
            if not deliberate(error):
                raise CrashError(f"{option} in {name} raised {words_of(error)}") from error
            refused.append(f"{name}: {words_of(error)}")
            continue
        words = f"to {ulps:.3g} ulps" if ulps else "bit for bit"
        why = _explained(s, precision, loop) if ulps and precision[0] in _LOW and option == "foreach" else ""
        found.append(f"{name} {words}{why}")
    expect(not broken, "; ".join(broken))
    if not found:
        raise NotApplicableError(f"refused: {'; '.join(refused)}" if refused else "it moves in no precision")
    return "; ".join(found)


def _run(
    s: Subject, precision: Sequence[torch.dtype], options: dict[str, Any], option: str
) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters after some steps, and before; 40 elements are two and a half vectors of a kernel."""
    long = torch.linspace(0.5, 2.0, 40).reshape(5, 8)
    start = [values.to(dtype) for dtype in precision for values in (s.parameter(), long)]
    params = [s.parameter(values) for values in start]
    taken = {key: value for key, value in options.items() if key == option or s.takes(key)}
    s.descend(s.make(params, **taken), params)
    return [p.detach() for p in params], start


def _judge(s: Subject, option: str, found: Tensor, loop: Tensor, start: Tensor) -> float:
    """How many ulps lie between; broken where rounding does not explain it, or where elements stand still."""
    name, resolution = name_of(loop.dtype), torch.finfo(loop.dtype).eps * start.abs()
    still = (found == start) & ((loop - start).abs() > 4 * resolution)
    if still.any():
        told = f"leaves {int(still.sum())} of {still.numel()} elements of a {name} parameter where they are"
        raise BrokenError(f"{option} {told}; the loop moves them")
    if loop.dtype in _LOW:  # each step rounds the parameter, and its state by a share of the way
        gap, way = (float((loop - other).abs().max()) for other in (found, start))
        allowed = 4 * (max(s.start, 1) + 2) * float(resolution.max()) + way / 16
        expect(gap <= allowed, f"{option} against the loop in {name}: {gap:.3g} apart on a way of {way:.3g}")
    else:
        s.close(found, loop, start, f"{option} against the loop ({name})")
    return float(ulps_apart(found, loop).max())


def _explained(s: Subject, precision: Sequence[torch.dtype], loop: list[Tensor]) -> str:
    """Whether foreach equals the loop where torch._foreach_mul_ does not round its factor."""
    with _unrounded_factors() as seen:
        exact, _ = _run(s, precision, {"foreach": True, "fused": False}, "foreach")
    rounded = {f: float(torch.tensor(f, dtype=precision[0])) for f in seen}
    factors = [f for f, short in rounded.items() if short != f]
    if not factors or not all(map(torch.equal, exact, loop)):
        return ""
    cause = "torch._foreach_mul_ rounds its factor to the tensor's dtype, the loop does not"
    return f" ({cause}: {factors[0]:.9g} is {rounded[factors[0]]:.9g} in {name_of(precision[0])})"


@contextmanager
def _unrounded_factors() -> Iterator[list[float]]:
    """torch._foreach_mul_ and _foreach_mul as a loop of multiplications; the factors that they are given."""
    seen, kept = list[float](), (torch._foreach_mul_, torch._foreach_mul)

    def in_place(tensors: Any, factor: Any) -> Any:
        if not isinstance(factor, float):
            return kept[0](tensors, factor)
        seen.append(factor)
        return [t.mul_(factor) for t in tensors]

    def out_of_place(tensors: Any, factor: Any) -> Any:
        if not isinstance(factor, float):
            return kept[1](tensors, factor)
        seen.append(factor)
        return [t * factor for t in tensors]

    vars(torch).update(_foreach_mul_=in_place, _foreach_mul=out_of_place)
    try:
        yield seen
    finally:
        vars(torch).update(_foreach_mul_=kept[0], _foreach_mul=kept[1])
