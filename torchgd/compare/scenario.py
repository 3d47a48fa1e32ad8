"""The ground on which an optimizer's contract is checked: a smooth bowl, and parameters that descend it.

    f(p) = ½ Σ (½ p² + √(1 + p²))          df/dp = ½ (p + p/√(1 + p²))

Its curvature lies between ½ and 1, so that every learning rate below 2 is stable, Newton's method
too; it is not a parabola, so that no method arrives in one step; and its slope is written by hand, so
that it does not depend on autograd's mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Factory = Callable[..., Optimizer]  # factory(params, **options); a class is one
START = ((1.0, -2.0, 3.0), (-0.5, 0.75, -1.25))

# Torch's own optimizers keep step counts and what follows from them in float32, whatever the parameter's
# dtype, and 1 − 0.999ᵗ loses three digits: a thousand roundings of float32, as a share of the way.
_ROUNDING = 1024 * torch.finfo(torch.float32).eps


class BrokenError(Exception):
    """A clause is broken; the message is the evidence."""


class CrashError(BrokenError):
    """A clause is broken, and loudly: an exception that nobody raised on purpose."""


class NotApplicableError(Exception):
    """A clause has nothing to say about this optimizer; the message says why."""


def parameter(values: Tensor | None = None, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    """A new parameter with these values; six numbers of order 1 in this dtype if none are given."""
    start = torch.tensor(START, dtype=dtype)
    return nn.Parameter((start if values is None else values).detach().clone())


def moved(p: Tensor) -> bool:
    """Whether p has left the place where `parameter()` starts."""
    return not torch.equal(p, parameter(dtype=p.dtype))


def slope(p: Tensor) -> Tensor:
    """The gradient of the bowl; a complex number counts as its two parts."""
    if p.is_complex():
        return torch.view_as_complex(slope(torch.view_as_real(p.detach())))
    p = p.detach()
    return (p + p / (1 + p**2).sqrt()) / 2


def height(p: Tensor) -> Tensor:
    """The bowl, summed over the elements, shape ()."""
    p = torch.view_as_real(p) if p.is_complex() else p
    return (p**2 / 2 + (1 + p**2).sqrt()).sum().double() / 2


def gain(p: Tensor, start: Tensor) -> float:
    """Δp · gradient: below 0 where p went down from the start."""
    return float(((p.detach() - start.detach()).double() * slope(start).double()).sum())


def expect(kept: bool | Tensor, evidence: str) -> None:
    """The clause is broken unless this holds."""
    if not kept:
        raise BrokenError(evidence)


def expect_same(found: Tensor, wanted: Tensor, what: str) -> None:
    """Equal bit for bit, and not by standing still where `parameter()` starts."""
    expect(moved(wanted), f"{what}: the parameter did not move")
    gap = (found.detach() - wanted.detach()).abs().max().item()
    expect(torch.equal(found, wanted), f"{what}: the largest difference is {gap:.3g}")


def expect_close(found: Tensor, wanted: Tensor, start: Tensor, what: str, share: float = 0.0) -> float:
    """Equal to rounding, or to this share of the way from the start, which is not 0; returns the gap."""
    gap, way = (float((wanted - other).detach().abs().max()) for other in (found, start))
    eps = torch.finfo(wanted.dtype).eps
    # the roundings of the parameter itself, and those of the update
    allowed = 4 * eps * float(start.detach().abs().max()) + way * max(share, _ROUNDING + 8 * eps)
    if way == 0 and wanted.dtype is torch.float32 and gap == 0:
        return gap  # a step below the resolution of float32
    expect(way > 0, f"{what}: the parameter did not move")
    expect(gap <= allowed, f"{what}: the largest difference is {gap:.3g} on a way of {way:.3g}")
    return gap
