"""An epoch of updates as one affine map: sequential SGD at the speed of memory.

For y = w·x and the squared loss the update of one sample is affine in the weight,

    w ← w − lr · 2x (w x − y)  =  a w + b,        a = 1 − 2 lr x²,   b = 2 lr x y,

and so is that of a batch, with means of x² and x y. Affine maps compose to affine maps: an epoch of N
updates, each of which needs the result of the one before, is *one* map, the same for every epoch in order,

    w ← A w + B,        A = a₁ ⋯ a_N,   B = Σ bᵢ aᵢ₊₁ ⋯ a_N.

Composition is associative, so each thread composes the updates of some samples in a row by itself.

The maps are kept about a centre c, w ↦ c + scale·(w − c) + drift. It is 0, unless steps overshoot
(2 lr x² > 1). Then it is the least-squares weight of the first samples, and the updates add x (y − c x),
which is small, or zero without noise, so that no digits cancel although factors |a| > 1 grow.
All sums and products are float64, whatever the dtype of the data.

Source: G. E. Blelloch, Prefix sums and their applications, CMU-CS-90-190 (1990), section 1.4, on recurrences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from torchgd.epoch.blocks import Block, a_thousand, checked
from torchgd.epoch.fold import Rule, fold, piece
from torchgd.epoch.one_pass import PIECES, OnePass, in_threads
from torchgd.epoch_maps import NEAR_ONE, EpochMap
from torchgd.moments import Moments

__all__ = ["EpochMap", "epoch_map", "epoch_with_moments"]


def epoch_map(x: Tensor, y: Tensor, lr: float, batch_size: int = 1) -> EpochMap:
    """The whole epoch in order, w ↦ Π(1 − 2 lr xᵢ²) w + …, as one map; with batches, of their means.

    Args:
        x: the inputs, shape (n,), floating point, on any device.
        y: the targets, shape (n,).
        lr: the learning rate, in units of 1/x².
        batch_size: samples per update; n or more is the full batch. The last batch may be smaller.

    Raises:
        InputError: shapes, dtypes or devices differ, a sample is not finite, lr or batch_size is not above 0.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0]).double()
        >>> epoch = epoch_map(x, 2 * x, lr=0.01)
        >>> round(epoch(1.0), 12), round(epoch.after(100)(1.0), 12)
        (1.260688, 2.0)
    """
    one_pass = OnePass(lr, batch_size)
    ((x, y),) = checked([(x, y)])
    return _of_few(x, y, lr, batch_size) or _of_the_last(x, y, lr, batch_size) or one_pass.over([(x, y)])[-1]


def _of_few(x: Tensor, y: Tensor, lr: float, batch_size: int) -> EpochMap | None:
    """The map of one piece in which no step overshoots, so that the centre is 0; None otherwise."""
    n = x.numel()
    if n > piece(x.device) or n % batch_size:
        return None
    low, high = (value.item() for value in torch.aminmax(x.double()))
    most = 2 * lr * max(low * low, high * high)
    maps = None
    if most <= 1:
        maps, _ = fold(x, y, Rule(lr, batch_size, small=most * n <= batch_size), [n // batch_size])
    return maps[0] if maps and (most * n <= batch_size or maps[0].lost > NEAR_ONE) else None


def _of_the_last(x: Tensor, y: Tensor, lr: float, batch_size: int) -> EpochMap | None:
    """The map of the last updates, if nothing is left of the weight before them; None otherwise.

    The product of their factors is then below float64's range, and so is that of the whole epoch. This holds
    if no earlier step overshoots, |1 − 2 lr x²| ≤ 1, and no earlier number overflows; both are checked.
    """
    n = x.numel()
    mean = 2 * lr * a_thousand(x).square().mean().item()
    if not 800 * batch_size < mean * n / 2 < n / 4:  # e⁻⁷⁴⁵ is the smallest number above 0
        return None
    start = int(n / batch_size - 800 / mean) * batch_size
    last = OnePass(lr, batch_size).over([(x[start:], y[start:])])[-1]
    if last.scale or not math.isfinite(last.drift):
        return None
    limit, length = 1 / math.sqrt(lr), PIECES * piece(x.device)
    parts = zip(x[:start].split(length), y[:start].split(length), strict=True)
    norm = math.hypot(*(found for _, found in in_threads(partial(_norm_if_calm, limit), parts, x)))
    # By Cauchy and Schwarz no sum of 2 lr x y over these samples is larger than this.
    return last if 2 * lr * limit * math.sqrt(start) * norm < math.inf else None


def _norm_if_calm(limit: float, samples: Block) -> float:
    """The norm of y; infinite if an x is beyond the limit, infinite or NaN if a sample is."""
    norm, length = 0.0, piece(samples[0].device)
    for x, y in zip(*(values.split(length) for values in samples), strict=True):
        low, high = (value.item() for value in torch.aminmax(x.double()))
        if not (-limit <= low and high <= limit):
            return math.inf
        norm = math.hypot(norm, torch.linalg.vector_norm(y.double()).item())
    return norm


def epoch_with_moments(
    blocks: Iterable[Block], lr: float, batch_size: int = 1, stops: Sequence[int] | Tensor = ()
) -> tuple[list[EpochMap], Moments]:
    """The maps up to each stop and of the whole epoch, and the moments; the blocks are read once.

    The memory needed is that of one block; a batch may begin in one block and end in another.

    Args:
        blocks: pairs of x and y, each as for :func:`epoch_map`.
        lr, batch_size: as for :func:`epoch_map`.
        stops: after how many updates a map is wanted, in ascending order; 0 is the identity.

    Raises:
        InputError: as for :func:`epoch_map`, with the number of the block; or the stops do not ascend or lie
            outside the epoch.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0]).double()
        >>> maps, moments = epoch_with_moments([(x[:2], 2 * x[:2]), (x[2:], 2 * x[2:])], 0.01, stops=[1, 2])
        >>> [round(each(1.0), 6) for each in maps], round(moments.cost(1.0), 6)
        ([1.02, 1.0984, 1.260688], 4.666667)
    """
    one_pass = OnePass(lr, batch_size, stops, with_moments=True)
    return one_pass.over(blocks), one_pass.moments
