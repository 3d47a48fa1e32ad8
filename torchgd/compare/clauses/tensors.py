"""Clauses about the tensors: shapes, strides, complex numbers and dtypes."""

from __future__ import annotations

import math

import torch

from torchgd.compare.clauses.clause import Severity, clause
from torchgd.compare.refusal import deliberate, words_of
from torchgd.compare.scenario import CrashError, NotApplicableError, expect, gain
from torchgd.compare.subject import Subject, name_of

_SHAPES = ((), (0,), (1,), (5,), (2, 3, 4), (4, 2, 3, 3))
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _tell(kind: str, passed: list[str], broken: list[str], crashed: list[str], refused: list[str]) -> str:
    """The evidence of several trials: broken in silence before crashes, and crashes before refusals."""
    if broken:
        expect(False, "; ".join(broken + crashed))
    if crashed:
        raise CrashError("; ".join(crashed))
    if refused and not passed:
        raise NotApplicableError(f"refused: {'; '.join(refused)}")
    return "; ".join([f"moves {', '.join(passed)}", *([f"refuses {', '.join(refused)}"] if refused else [])])


@clause("shapes", Severity.silent, explained_by=("update",), may_refuse=True)
def shapes(s: Subject) -> str:
    """Parameters of any number of dimensions move, and an empty one holds nobody up."""
    passed, broken, crashed, refused = list[str](), list[str](), list[str](), list[str]()
    for shape in _SHAPES:
        count = math.prod(shape)
        start = (torch.arange(1, count + 1, dtype=s.dtype) / max(count, 1) - 0.3).reshape(shape)
        p, beside = s.parameter(start), s.parameter()
        params = [p, beside] if not count else [p]
        try:
            s.first_move(params)
        except Exception as error:  # anyone's code
            (refused if deliberate(error) else crashed).append(f"{shape}: {words_of(error)}")
            continue
        down = gain(params[-1], start if count else s.parameter())
        if down < 0 or (s.throws_dice and down):
            passed.append(str(shape))
        else:
            broken.append(f"{shape}: Δp · gradient = {down:.3g}, not below 0")
    return _tell("shapes", passed, broken, crashed, refused)


@clause("dtypes", Severity.silent, explained_by=("update",), may_refuse=True)
def dtypes(s: Subject) -> str:
    """Parameters in float64, float32, bfloat16 and float16 move downhill and keep their dtype."""
    passed, broken, crashed, refused = list[str](), list[str](), list[str](), list[str]()
    s = s.visible()
    ground = s.parameter(s.parameter() / 16)
    s.first_move([ground])
    way = (ground - s.parameter() / 16).abs()
    expect(way.any(), "no step moves the parameter")
    downhill = gain(ground, s.parameter() / 16) < 0
    for dtype in _DTYPES:
        p, start = (s.parameter((s.parameter() / 16).to(dtype)) for _ in range(2))
        try:
            s.first_move([p])
        except Exception as error:  # anyone's code
            (refused if deliberate(error) else crashed).append(f"{name_of(dtype)}: {words_of(error)}")
            continue
        resolution = torch.finfo(dtype).eps * start.abs()
        visible = bool((way > 4 * resolution.to(way.dtype)).any())
        down = gain(p, start)
        if p.dtype is not dtype:
            broken.append(f"{name_of(dtype)}: the parameter becomes {name_of(p.dtype)}")
        elif math.isnan(down):
            broken.append(f"{name_of(dtype)}: the parameter becomes NaN")
        elif visible and downhill and not down < 0 and not (s.throws_dice and down):
            broken.append(f"{name_of(dtype)}: Δp · gradient = {down:.3g}, not below 0")
        else:
            passed.append(f"{name_of(dtype)}{'' if visible else ' (its steps are too small to be seen)'}")
    return _tell("dtypes", passed, broken, crashed, refused)


@clause("complex", Severity.silent, may_refuse=True, once=True)
def complex_parameters(s: Subject) -> str:
    """A complex number moves as its two parts do; where the shape matters, a real one as a real number."""
    s.without_dice()
    if s.dtype is torch.bfloat16:
        raise NotApplicableError("there are no complex numbers of bfloat16 parts")
    start = torch.stack([s.parameter(), s.parameter().flip(1)], dim=-1).detach()
    p, parts = s.parameter(torch.view_as_complex(start)), s.parameter(start)
    s.descend(s.make([p]), [p])
    shaped = s.depends_on_shape
    try:
        s.descend(s.make([parts]), [parts])
        s.close(torch.view_as_real(p), parts, start, "complex against its two parts")
    except Exception:  # broken, or anyone's code in three dimensions
        if not shaped:
            raise
    else:
        return "moves as its two real parts do"
    start[..., 1] = 0
    p, real = s.parameter(torch.view_as_complex(start)), s.parameter(start[..., 0])
    s.descend(s.make([p]), [p])
    s.descend(s.make([real]), [real])
    what = "a complex parameter without imaginary part against the real one"
    s.close(torch.view_as_real(p)[..., 0], real, start[..., 0], what)
    return "moves as the real one does where its imaginary part is 0 (the update depends on the shape)"


@clause("non-contiguous", Severity.silent)
def non_contiguous(s: Subject) -> str:
    """A transposed parameter with a transposed gradient moves as a contiguous one does."""
    s.without_dice()
    start = s.parameter().detach().t()
    p, contiguous = s.parameter(start), s.parameter(start.contiguous())
    s.descend(s.make([p]), [p])
    s.descend(s.make([contiguous]), [contiguous])
    s.close(p, contiguous, start, "transposed against contiguous")
    return "moves as a contiguous one does"
