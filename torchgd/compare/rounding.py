"""Two optimizers left the same start for different bits: another rounding, or another rule?

The trajectories cannot tell: a rounding grows without bound where training is unstable, and a wrong
rule stays close where it converges. So the judge looks at single updates, in float64 whatever the
dtype of the model. Before each step the rival gets the parameters of the leader; both update them,
each with the state that it made of the same gradients; and the gap between the results is held
against what rounding can do:

    gap ≤ ε (4 t |p| + 1024 Σ|Δp|) + 64 noise              ε = 2⁻⁵²

t counts the steps, for an optimizer that adds up its state; |p| is the largest element of the
parameter, Σ|Δp| the way that it has come, and noise how far the leader itself strays where every
element of its gradients is off by one rounding: little as a rule, much where it subtracts nearly
equal numbers. One step above the bound is another rule. So is one that keeps a factor of the update
in float32. What differs by less than 1024 ε = 2·10⁻¹³ of its update passes for a rounding.

Source: D. Goldberg, What every computer scientist should know about floating-point arithmetic, ACM
Computing Surveys 23 (1991) 5; for the nudged gradients D. S. Parker, Monte Carlo arithmetic (1997).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchgd.compare.lockstep import LossFunction, OptimizerFactory, Run, step_alike

_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}
_EPS = torch.finfo(torch.float64).eps


def ulps_apart(a: Tensor, b: Tensor) -> Tensor:
    """How many floating-point numbers each element of a is from b's: units in the last place, as float64.

    Both zeros are one number, and so are all NaNs; NaN is infinitely far from any number. A complex
    element is as far as its farther part.

    Example:
        >>> ulps_apart(torch.tensor([1.0, 0.0]), torch.tensor([1.0 + 2**-23, -0.0]))
        tensor([1., 0.], dtype=torch.float64)
    """
    if a.is_complex():
        return ulps_apart(torch.view_as_real(a), torch.view_as_real(b)).amax(-1)
    bits_a, bits_b = bits(a), bits(b)
    size_a, size_b = (value & torch.iinfo(value.dtype).max for value in (bits_a, bits_b))  # counted from zero
    apart = torch.where(
        (bits_a < 0) == (bits_b < 0), (size_a - size_b).abs().double(), size_a.double() + size_b.double()
    )
    return apart.masked_fill(a.isnan() != b.isnan(), math.inf).masked_fill(a.isnan() & b.isnan(), 0.0)


def bits(value: Tensor) -> Tensor:
    """The bits of each real element, as integers."""
    return value.detach().contiguous().view(_BITS[value.element_size()])


def same_rule(
    a: OptimizerFactory,
    b: OptimizerFactory,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss_fn: LossFunction,
    samples: Sequence[Tensor | slice],
) -> tuple[bool, str]:
    """Whether b differs from a by rounding only, and the evidence in words."""
    exact = copy.deepcopy(model)
    for tensor in (*exact.parameters(), *exact.buffers()):
        tensor.data = _double(tensor.data)
    x, y = _double(x), _double(y)
    leader, rival, nudged = Run(exact, a, loss_fn), Run(exact, b, loss_fn), Run(exact, a, loss_fn, nudge=_EPS)
    way, noise = dict.fromkeys(leader.parameters, 0.0), dict.fromkeys(leader.parameters, 0.0)
    worst = 0.0
    for step, chosen in enumerate(samples, start=1):
        rival.follow(leader)
        nudged.follow(leader)
        before = {name: p.detach().clone() for name, p in leader.parameters.items()}
        step_alike([leader, rival, nudged], x[chosen], y[chosen])
        if not (leader.finite() or rival.finite()):
            break
        for name, p in leader.parameters.items():
            size, moved = _largest(p), _largest(p - before[name])
            gap, stray = (_largest(p - run.parameters[name]) for run in (rival, nudged))
            way[name] += moved
            noise[name] = max(noise[name], stray - 2 * _EPS * size)
            bound = _EPS * (4 * step * size + 1024 * way[name]) + 64 * noise[name]
            if not (gap <= bound and math.isfinite(gap)):
                told = f"in float64, step {step} moves {name} by {moved:.3g}, and the two are {gap:.3g} apart"
                return False, f"from the same parameters, {told}, where rounding explains {bound:.2g}"
            worst = max(worst, gap / bound if gap else 0.0)
    share = f"no step differs by over {worst:.2g} of what rounding explains" if worst else "no step differs"
    return True, f"from the same parameters, in float64, {share}"


def _largest(value: Tensor) -> float:
    return float(value.detach().abs().max())


def _double(value: Tensor) -> Tensor:
    if value.is_complex():
        return value.to(torch.complex128)
    return value.double() if value.is_floating_point() else value
