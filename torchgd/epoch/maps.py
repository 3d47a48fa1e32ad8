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

__all__ = ["EpochMap", "epoch_map", "epoch_map_of_blocks", "epoch_with_moments", "prefix_maps"]


def epoch_map(
    x: Tensor, y: Tensor, lr: float, batch_size: int = 1, *, compiled: bool | None = None
) -> EpochMap:
    """The whole epoch in order, w ↦ Π(1 − 2 lr xᵢ²) w + …, as one map; with batches, of their means.

    Args:
        x: the inputs, shape (n,), floating point, on any device.
        y: the targets, shape (n,).
        lr: the learning rate, in units of 1/x².
        batch_size: samples per update; n or more is the full batch. The last batch may be smaller.
        compiled: whether updates of one sample go through torch.compile where that works: a faster pass after
            seconds of compiling, once a process. None: where there are samples enough to win them back.

    Raises:
        InputError: shapes, dtypes or devices differ, a sample is not finite, lr or batch_size is not above 0.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0]).double()
        >>> epoch = epoch_map(x, 2 * x, lr=0.01)
        >>> round(epoch(1.0), 12), round(epoch.after(100)(1.0), 12)
        (1.260688, 2.0)
    """
    return epoch_map_of_blocks([(x, y)], lr, batch_size, compiled=compiled)


def epoch_map_of_blocks(
    blocks: Iterable[Block], lr: float, batch_size: int = 1, *, compiled: bool | None = None
) -> EpochMap:
    """The same from blocks of samples, read once, in order: the memory needed is that of one block.

    A batch may begin in one block and end in another. The other arguments and the errors are those
    of :func:`epoch_map`; an error names the block.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
        >>> epoch_map_of_blocks([(x[:3], x[:3]), (x[3:], x[3:])], 0.125, 2) == epoch_map(x, x, 0.125, 2)
        True
    """
    return prefix_maps(blocks, lr, batch_size, compiled=compiled)[-1]


def prefix_maps(
    blocks: Iterable[Block],
    lr: float,
    batch_size: int = 1,
    stops: Sequence[int] | Tensor = (),
    *,
    compiled: bool | None = None,
) -> list[EpochMap]:
    """The maps from the start of the epoch to chosen updates, and last the map of the whole epoch.

    Args:
        blocks: pairs of x and y, as for :func:`epoch_map_of_blocks`; ``[(x, y)]`` for tensors.
        lr, batch_size, compiled: as for :func:`epoch_map`; what lies around a stop is not compiled.
        stops: after how many updates, in ascending order; 0 is the identity.

    Raises:
        InputError: as for :func:`epoch_map`, and where stops are not ascending or lie outside the epoch.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0]).double()
        >>> [round(prefix(1.0), 6) for prefix in prefix_maps([(x, 2 * x)], 0.01, 1, [1, 2])]
        [1.02, 1.0984, 1.260688]
    """
    return OnePass(lr, batch_size, stops, compiled=compiled).over(blocks)


def epoch_with_moments(
    blocks: Iterable[Block],
    lr: float,
    batch_size: int = 1,
    stops: Sequence[int] | Tensor = (),
    *,
    compiled: bool | None = None,
) -> tuple[list[EpochMap], Moments]:
    """What :func:`prefix_maps` gives, and from the same reading of the data the moments of all samples.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 3.0]).double()
        >>> (epoch,), moments = epoch_with_moments([(x, 2 * x)], 0.01)
        >>> round(epoch(1.0), 12), round(moments.cost(1.0), 12)
        (1.260688, 4.666666666667)
    """
    one_pass = OnePass(lr, batch_size, stops, compiled=compiled, with_moments=True)
    return one_pass.over(blocks), one_pass.moments
