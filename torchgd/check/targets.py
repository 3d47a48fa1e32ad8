"""Other targets of the same kind: a loss for classes, one-hot rows or counts takes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchgd.samples import loss_name

_OF_REAL_NUMBERS = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}
_OF_REAL_NUMBERS |= {"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"}


def others(y: Tensor, rows: Tensor, loss_fn: Callable[..., Any], generator: torch.Generator) -> Tensor:
    """Targets of the kind of y, as many as ``rows`` names of it, for residuals of both signs.

    Classes, one-hot rows and distributions are drawn from those that there are; 0 and 1, −1 and 1, and counts
    anew; what lies in [0, 1] or is not negative stays there, unless the loss is known to take any number.
    """
    drawn = y[torch.randint(len(y), (len(rows),), generator=generator)]
    if not y.is_floating_point():
        return drawn
    noise = torch.randn(drawn.shape, generator=generator, dtype=y.dtype)
    sums_to_one = y.dim() > 1 and y.shape[-1] > 1 and bool((y.sum(-1) - 1).abs().max() < 1e-6)
    values = y.unique() if y.numel() < 10_000 else y.flatten()[:10_000].unique()
    if sums_to_one and bool((y >= 0).all()):
        return drawn
    for pair in ((0.0, 1.0), (-1.0, 1.0)):
        if all(value in pair for value in values.tolist()):
            return torch.where(noise > 0, pair[1], pair[0]).to(y.dtype)
    any_number = loss_name(loss_fn) in _OF_REAL_NUMBERS
    if any_number or bool((y < 0).any()):
        return y[rows] + (y.abs().max() + 0.5) * noise
    if bool((y <= 1).all()):
        return torch.rand(drawn.shape, generator=generator, dtype=y.dtype)
    if bool((y == y.round()).all()):
        return (torch.rand(drawn.shape, generator=generator, dtype=y.dtype) * (y.max() + 2)).floor()
    return drawn * (noise / 2).exp() + 0.01 * y.max() * noise.abs()
