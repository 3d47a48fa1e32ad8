"""The ground on which an optimizer's contract is checked: a smooth bowl, and parameters that descend it.

    f(p) = ½ Σ (½ p² + √(1 + p²))          df/dp = ½ (p + p/√(1 + p²))

Its curvature lies between ½ and 1, so that every learning rate below 2 is stable, Newton's method
too; it is no parabola, so that no method is there in one step; and its slope is written by hand, so
that it does not depend on autograd's mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchgd.compare.lockstep import take_step

Factory = Callable[..., Optimizer]  # factory(params, **options); a class is one

# Torch's own optimizers keep step counts and what follows from them in float32, whatever the parameter's
# dtype, and 1 − 0.999ᵗ loses three digits: a thousand roundings of float32, as a share of the way.
_ROUNDING = 1024 * torch.finfo(torch.float32).eps


class BrokenError(Exception):
    """A clause is broken; the message is the evidence."""


class NotApplicableError(Exception):
    """A clause has nothing to say about this optimizer; the message says why."""


def parameter(values: Tensor | None = None) -> Tensor:
    """A parameter of its own with these values; six numbers of order 1 in float64 if none are given."""
    start = torch.tensor([[1.0, -2.0, 3.0], [-0.5, 0.75, -1.25]], dtype=torch.float64)
    return (start if values is None else values).detach().clone().requires_grad_()


def moved(p: Tensor) -> bool:
    """Whether p has left the place where `parameter()` starts."""
    return not torch.equal(p, parameter())


def slope(p: Tensor) -> Tensor:
    """The gradient of the bowl; a complex number counts as its two parts."""
    if p.is_complex():
        return torch.view_as_complex(slope(torch.view_as_real(p.detach())))
    p = p.detach()
    return (p + p / (1 + p**2).sqrt()) / 2


def fill(params: Sequence[Tensor], sign: int = 1) -> Tensor:
    """Give every parameter a fresh gradient of the bowl, and return its height."""
    for p in params:
        p.grad = sign * slope(p)
    parts = [torch.view_as_real(p.detach()) if p.is_complex() else p.detach() for p in params]
    return sign * torch.stack([(p**2 / 2 + (1 + p**2).sqrt()).sum().double() / 2 for p in parts]).sum()


def giver(p: Tensor, grad: Tensor) -> Callable[[], Tensor]:
    """A closure that gives p this gradient."""

    def closure() -> Tensor:
        p.grad = grad
        return torch.zeros(())

    return closure


def descend(optimizer: Optimizer, params: Sequence[Tensor], steps: int = 3, sign: int = 1) -> None:
    """Take some steps down the bowl, or up where sign is −1."""
    for _ in range(steps):
        take_step(optimizer, lambda: fill(params, sign))


def made(factory: Factory, params: Any, **options: Any) -> Optimizer:
    """Make the optimizer with options, or say that it does not take them."""
    try:
        return factory(params, **options)
    except TypeError as error:
        if "unexpected keyword" in str(error) or "multiple values" in str(error):
            raise NotApplicableError(f"the factory takes no {', '.join(options)}") from error
        raise


def expect(kept: bool | Tensor, evidence: str) -> None:
    """The clause is broken unless this holds."""
    if not kept:
        raise BrokenError(evidence)


def expect_same(found: Tensor, wanted: Tensor, what: str) -> None:
    """Equal bit for bit, and not by standing still where `parameter()` starts."""
    expect(moved(wanted), f"{what}: the parameter did not move")
    gap = (found.detach() - wanted.detach()).abs().max().item()
    expect(torch.equal(found, wanted), f"{what}: the largest difference is {gap:.3g}")


def expect_close(found: Tensor, wanted: Tensor, start: Tensor, what: str) -> float:
    """Equal to rounding, on the scale of the way from the start, which is not 0; returns the gap."""
    gap, way = (float((wanted - other).detach().abs().max()) for other in (found, start))
    expect(way > 0, f"{what}: the parameter did not move")
    expect(gap <= _ROUNDING * way, f"{what}: the largest difference is {gap:.3g} on a way of {way:.3g}")
    return gap
