"""What a run did: per epoch and per update, as tensors, with its outcome and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # how near is "converged", relative to the weight


@dataclass(frozen=True)
class History:
    """The record of a run. E epochs were done and U updates recorded; all tensors are on the CPU.

    Per epoch, row 0 being the start, so that row e is *before* epoch e and row e + 1 *after* it:

    Attributes:
        epoch: 0 … E, shape (E+1,).
        end_update, end_samples: updates done and samples seen by then, shape (E+1,).
        weight: the weight, shape (E+1,); for a module of 2 to 64 parameters all of them, flattened,
            shape (E+1, P); for a larger one shape (E+1, 0).
        cost: the loss over *all* data, shape (E+1,).

    Per recorded update, of which the loss and the gradient are those of the update's own batch:

    Attributes:
        update: its number, from 1, shape (U,).
        samples_seen: samples that the run had seen when it was done, shape (U,).
        update_weight: the weight after it; as ``weight``, shape (U,) or (U, P).
        gradient: what it descended; for several parameters its norm; shape (U,).
        loss_before: the batch's loss before it, which lecture 4 prints; shape (U,).
        loss_after: the batch's loss after it, which lecture 3 prints; shape (U,); NaN for a module
            other than LinearModel, whose forward may have effects.
        status: "finished", "converged" or "diverged".
        reason: one sentence why.

    Example:
        >>> from torchgd import LinearModel, StochasticGradientDescent, course, train
        >>> model = LinearModel(1.0, dtype=torch.float64)
        >>> history = train(
        ...     model, *course(), StochasticGradientDescent(model.parameters(), lr=0.01), epochs=1
        ... )
        >>> history.loss_before[2].item(), history.loss_after[2].item(), history.cost[1].item()
        (7.315943039999998, 4.919240100095999, 2.5507170889386663)
    """

    epoch: Tensor
    end_update: Tensor
    end_samples: Tensor
    weight: Tensor
    cost: Tensor
    update: Tensor
    samples_seen: Tensor
    update_weight: Tensor
    gradient: Tensor
    loss_before: Tensor
    loss_after: Tensor
    status: str = "finished"
    reason: str = ""

    def __repr__(self) -> str:
        """One line: the tensors would fill the screen."""
        updates = int(self.end_update[-1]) if len(self.end_update) else 0
        return f"<History: {updates} updates, {len(self.update)} recorded; {self.status}: {self.reason}>"

    @staticmethod
    def join(parts: Sequence[History]) -> History:
        """One history of consecutive parts; the outcome is the last one's."""
        tensors = [field.name for field in fields(History) if field.name not in {"status", "reason"}]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in tensors}
        return History(**joined, status=parts[-1].status, reason=parts[-1].reason)


def judge(history: History, *, random_order: bool, affine: bool = True) -> tuple[str, str]:
    """The status of a run that stayed finite, and why, from its weights at the ends of the epochs.

    For a loss that is quadratic in w, an epoch in a fixed order is one affine map, so the steps from
    epoch to epoch grow or shrink by a constant ratio r: what is left is |step| · r / (1 − r), and
    r > 1 proves divergence. In a random order the ratio is noisy, so only a growth by 1000 is taken for one.
    Where an epoch is not ``affine``, with momentum for one, steps may grow for a while: nothing is proved.
    """
    rows = history.weight.reshape(len(history.weight), -1)
    epochs = len(rows) - 1
    if epochs < 2 or rows.shape[1] == 0:
        return "finished", f"{epochs} epoch{'s' * (epochs != 1)} done"
    steps = (rows[1:] - rows[:-1]).norm(dim=1)
    size = torch.maximum(rows[-1].norm(), (rows[-1] - rows[0]).norm())
    rounding = 64 * torch.finfo(rows.dtype).eps * rows.norm(dim=1).max()
    if steps.max() <= rounding:
        if len(history.gradient) and not history.gradient.any():
            return "converged", "the gradient is 0"
        return "finished", f"the steps are too small to move the weight in {rows.dtype}"
    ratios = (steps[1:] / steps[:-1])[-5:]
    growth = ratios.log().mean().exp().item()
    if random_order:
        grows = steps[-1] > 1000 * steps[0]
    else:
        grows = bool((ratios > 1 + rounding / steps[-len(ratios) :]).all())
    if affine and rows.shape[1] == 1 and grows:
        return "diverged", f"the weight's steps grow {growth:.6g} times an epoch"
    left = steps[-1] * growth / (1 - growth) if growth < 1 else torch.inf
    tolerance = TOLERANCE.get(rows.dtype, 1e-2)
    if left <= tolerance * size or steps[-1] <= rounding:
        return "converged", f"the weight is within {tolerance:g} of where it settles"
    return "finished", f"{epochs} epochs done, the last of which moved the weight by {steps[-1].item():.3g}"
