"""An epoch of updates as one affine map: sequential SGD at the speed of memory.

For y = w·x and the squared loss the update of one sample is affine in the weight,

    w ← w − lr · 2x (w x − y)  =  a w + b,        a = 1 − 2 lr x²,   b = 2 lr x y,

and so is that of a batch, with means of x² and x y. Affine maps compose to affine maps,
(a₂, b₂) ∘ (a₁, b₁) = (a₂ a₁, a₂ b₁ + b₂), and composition is associative: an epoch of N updates,
each of which needs the result of the one before, is *one* map, found by a tree of pairs in parallel;
without shuffling the same map serves every epoch.

The maps are kept about a centre c, w ↦ c + scale·(w − c) + drift. It is 0, unless steps overshoot
(2 lr x² > 1): then it is the least-squares weight of the first samples, and the updates add x (y − c x),
which is small, or zero where the data has no noise, so that nothing cancels where factors |a| > 1 grow.
All sums and products are float64, whatever the dtype of the data.

Source: G. E. Blelloch, Prefix sums and their applications, CMU-CS-90-190 (1990).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from torchgd.epoch.blocks import Block
from torchgd.epoch.one_pass import OnePass
from torchgd.epoch_maps import EpochMap
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
    return OnePass(lr, batch_size).over([(x, y)])[-1]


def epoch_with_moments(
    blocks: Iterable[Block], lr: float, batch_size: int = 1, stops: Sequence[int] | Tensor = ()
) -> tuple[list[EpochMap], Moments]:
    """The same of samples in blocks, read once, in order: the maps up to the stops and of all, and the moments.

    The memory needed is that of one block; a batch may begin in one block and end in another.

    Args:
        blocks: pairs of x and y, each as for :func:`epoch_map`.
        lr, batch_size: as for :func:`epoch_map`.
        stops: after how many updates a map is wanted, in ascending order; 0 is the identity.

    Raises:
        InputError: as for :func:`epoch_map`, with the number of the block; and where stops are not ascending
            or lie outside the epoch.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0]).double()
        >>> maps, moments = epoch_with_moments([(x[:2], 2 * x[:2]), (x[2:], 2 * x[2:])], 0.01, stops=[1, 2])
        >>> [round(each(1.0), 6) for each in maps], round(moments.cost(1.0), 6)
        ([1.02, 1.0984, 1.260688], 4.666667)
    """
    one_pass = OnePass(lr, batch_size, stops, with_moments=True)
    return one_pass.over(blocks), one_pass.moments
