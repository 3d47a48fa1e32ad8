"""Do two optimizers do the same? In lock-step from the same start, on the same batches, bit for bit.

Where the bits differ, the verdict says why: the same rule in another order of operations, or another
rule; :mod:`torchgd.compare.rounding` tells the two apart.

Source: D. Goldberg, What every computer scientist should know about floating-point arithmetic, ACM
Computing Surveys 23 (1991) 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from torchgd.compare.lockstep import LossFunction, OptimizerFactory, Run, schedule, step_alike
from torchgd.compare.rounding import bits, same_rule, ulps_apart
from torchgd.errors import InputError

_STILL = "no step moved a bit"


class Verdict(str, Enum):
    """How two optimizers stand to each other."""

    equal = "equal"
    rounding = "rounding"
    different = "different"


@dataclass(frozen=True)
class Difference:
    """The first element, in the order of the model's parameters, whose bits differ after a step (from 1)."""

    step: int
    parameter: str
    index: tuple[int, ...]
    a: complex
    b: complex
    ulps: float

    def __str__(self) -> str:
        place = f"{self.parameter}{list(self.index)}" if self.index else self.parameter
        return f"step {self.step}, {place}: {self.a!r} against {self.b!r}, {self.ulps:.6g} ulps apart"


@dataclass(frozen=True, repr=False)
class Comparison:
    """What :func:`compare_optimizers` found: false where the rules differ; its ``str`` is the sentence.

    Attributes:
        verdict: equal; rounding, the same rule in another order of operations; or different.
        steps: how many steps were compared, fewer than asked for where a parameter is no longer finite.
        first: the first difference, or None.
        ulps: the largest distance after each step, in units in the last place, shape (steps,).
        reason: the evidence for the verdict, in words.
    """

    verdict: Verdict
    steps: int
    first: Difference | None
    ulps: Tensor
    reason: str

    @property
    def ok(self) -> bool:
        """Whether the two are one rule."""
        return self.verdict is not Verdict.different

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"Comparison({self.verdict.value} over {self.steps} steps)"

    def __str__(self) -> str:
        if self.first is None:
            still = f", because {self.reason}" if self.reason.startswith(_STILL) else ""
            return f"equal bit for bit over {self.steps} steps{still}"
        apart = f"at most {self.ulps.max():.6g} ulps apart over {self.steps} steps"
        return f"{self.verdict.value}: {self.reason}; {apart}; first at {self.first}"


def compare_optimizers(
    a: OptimizerFactory,
    b: OptimizerFactory,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 1000,
    loss_fn: LossFunction = mse_loss,
    batches: Iterable[Sequence[int]] | None = None,
) -> Comparison:
    """Run two optimizers in lock-step on copies of one model, and find where their parameters first differ.

    Args:
        a, b: each takes the list of parameters and makes an optimizer, e.g.
            ``lambda params: torch.optim.SGD(params, lr=0.01, foreach=True)``.
        model: any module; it is copied, and stays as it is.
        x, y: the inputs and the targets, n of each along the first dimension.
        steps: how many updates to compare, at least 1.
        loss_fn: ``loss_fn(prediction, y)`` is the loss, a tensor of shape ().
        batches: the index batches of one epoch, gone through again and again; all samples in each step
            if not given.

    Raises:
        InputError: the model has nothing to train, steps is below 1, a batch is empty or reaches beyond
            the data, the prediction and y differ in shape under mse_loss, or a factory makes no optimizer.

    Example:
        >>> from torch.optim import SGD
        >>> from torchgd import GradientDescent, LinearModel, course
        >>> x, y = course()
        >>> a, b = lambda params: GradientDescent(params, lr=0.01), lambda params: SGD(params, lr=0.01)
        >>> print(compare_optimizers(a, b, LinearModel(dtype=x.dtype), x, y, steps=100))
        equal bit for bit over 100 steps

    Source: the module's docstring.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}; give 1 or more")
    samples = schedule(x, y, batches, steps)
    one, other = Run(model, a, loss_fn), Run(model, b, loss_fn)
    start = {name: p.detach().clone() for name, p in one.parameters.items()}
    first, ulps = None, list[float]()
    for chosen in samples:
        step_alike([one, other], x[chosen], y[chosen])
        ulps.append(
            max(float(ulps_apart(p, other.parameters[name]).max()) for name, p in one.parameters.items())
        )
        first = first or _first_difference(len(ulps), one, other)
        if not (one.finite() and other.finite()):
            break
    verdict, reason = Verdict.equal, "the same bits after every step"
    if all(torch.equal(p, start[name]) for name, p in one.parameters.items()):
        dtypes = {str(p.dtype).removeprefix("torch.") for p in one.parameters.values()}
        reason = f"{_STILL}: each is below the resolution of {' and '.join(sorted(dtypes))}, or 0"
    if first:
        try:
            same, reason = same_rule(a, b, model, x, y, loss_fn, samples)
        except RuntimeError as error:  # what ran so far in the model's own dtype
            told = f"the bits differ at {first}, and the model does not run in float64"
            raise InputError(
                f"{told} ({error}), which would tell why; do not hard-code a dtype in the model"
            ) from error
        verdict = Verdict.rounding if same else Verdict.different
    return Comparison(verdict, len(ulps), first, torch.tensor(ulps, dtype=torch.float64), reason)


def _first_difference(step: int, one: Run, other: Run) -> Difference | None:
    for name, p in one.parameters.items():
        q = other.parameters[name]
        real_p, real_q = (torch.view_as_real(v.detach()) if v.is_complex() else v.detach() for v in (p, q))
        differs = (bits(real_p) != bits(real_q)) & ~(real_p.isnan() & real_q.isnan())
        if p.is_complex():
            differs = differs.any(-1)
        if differs.any():
            index = tuple(differs.nonzero()[0].tolist())
            apart = float(ulps_apart(p, q)[index])
            return Difference(step, name, index, p[index].item(), q[index].item(), apart)
    return None
