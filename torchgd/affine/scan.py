"""The engine for long runs of y = w·x: an epoch is one affine map, and a run costs one pass over the data.

It gives the history that the loop of :func:`torchgd.train` gives, at up to 1,000 evenly spaced updates,
to rounding. In a fixed order the data are read once, whatever the number of epochs; in a random order
once an epoch, in the same permutations as the loop's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchgd.affine.distributed import ALONE, Group, epoch_of_shards
from torchgd.affine.maps import epoch_with_moments
from torchgd.batches import Batches
from torchgd.data.arrays import check_memory
from torchgd.data.dataset import Dataset
from torchgd.data.moments import Moments
from torchgd.errors import InputError
from torchgd.history import History, judge
from torchgd.model import LinearModel
from torchgd.optim import GradientDescent
from torchgd.training import SECONDS_A_REPORT, Place, begin_epoch

MOST_POINTS = 1000


class _Epoch:
    """One order of the samples, read once: the maps to the chosen updates, and the moments of all samples."""

    def __init__(
        self,
        data: Dataset,
        batches: Batches,
        lr: float,
        updates: Iterable[int],
        on_samples: Callable[[int], None],
        group: Group,
    ) -> None:
        self._data, self._batches = data, batches
        if group.size > 1:
            whole, self.moments = epoch_of_shards(data, lr, batches.batch_size, group)
            self._maps = {len(batches): whole}
            return
        stops = sorted({stop for update in updates for stop in (update - 1, update)})

        def blocks() -> Iterator[tuple[Tensor, Tensor]]:
            samples = 0
            for x, y in data.blocks(1 << 20):
                yield x, y
                samples += len(x)
                on_samples(samples)

        maps, self.moments = epoch_with_moments(blocks(), lr, batches.batch_size, stops)
        self._maps = dict(zip([*stops, len(batches)], maps, strict=True))

    def weight(self, update: int, w: float) -> float:
        """The weight after so many of the epoch's updates from w."""
        return self._maps[update](w)

    def point(self, update: int, w: float) -> tuple[float, float, float, float]:
        """The weight after an update, its gradient, and its batch's loss before and after it."""
        before, after = self.weight(update - 1, w), self.weight(update, w)
        moments = self.moments
        if len(self._batches) > 1:
            size = self._batches.batch_size
            moments = Moments.of(self._data.blocks(start=(update - 1) * size, stop=update * size))
        return after, moments.gradient(before), moments.cost(before), moments.cost(after)


def scan(
    model: LinearModel,
    data: Dataset,
    optimizer: Optimizer,
    epochs: int = 100,
    *,
    on_progress: Callable[[History, Place], None] | None = None,
    on_samples: Callable[[int], None] = lambda samples: None,
    resume: tuple[History, Place] | None = None,
    group: Group = ALONE,
) -> History:
    """What :func:`torchgd.train` does with ``gradient="hand"``, an epoch at a time, from data of any size.

        w after epoch e = M(w before it),   M = the composition of the epoch's updates,   in float64

    and rounded to the weight's dtype, so that a resumed run has the same bits.

    Args:
        model: its weight moves.
        data: the samples; in a fixed order they are read block by block and need not fit into memory.
        optimizer: one of torchgd's three, with one lr for the one weight.
        epochs, on_progress, resume: as for :func:`torchgd.train`; a place is always the end of an epoch.
        on_samples: called with the number of samples read in the present epoch so far.
        group: the processes that share the work, see :mod:`.distributed`; they record no updates.

    Raises:
        InputError: the optimizer's update is no affine map, or a random order of data larger than memory.

    Example:
        >>> from torchgd import StochasticGradientDescent, course
        >>> model = LinearModel(1.0, dtype=torch.float64)
        >>> history = scan(model, course(), StochasticGradientDescent(model.parameters(), lr=0.01))
        >>> round(history.weight[1].item(), 12), round(model.weight.item(), 12)
        (1.260688, 2.0)
    """
    options = optimizer.param_groups[0]
    if not isinstance(optimizer, GradientDescent) or options["maximize"] or len(optimizer.param_groups) > 1:
        raise InputError(
            "the scan engine needs a torchgd optimizer that descends on one weight; use the loop"
        )
    if not epochs >= 1:
        raise InputError(f"epochs is {epochs}; give a whole number, 1 or more")
    batches, lr = optimizer.batches(len(data)), float(options["lr"])
    in_order, per_epoch = batches.order == "sequential", len(batches)
    if not in_order and group.size > 1:
        raise InputError(
            f"the {batches.order} order needs all samples in one process; take --order sequential"
        )
    if not in_order:
        check_memory(24 * len(data), f"the {batches.order} order", "take --order sequential")
    stride = math.ceil(epochs * per_epoch / MOST_POINTS)
    past, place = resume or (None, Place())
    parts, points, ends = [past] if past else [], [], []
    w, epoch_data = model.weight.item(), None
    whole = Moments.of(data.blocks()) if not in_order else None  # an epoch with replacement is not the data
    reported = -math.inf
    for epoch in range(place.epoch, epochs):
        begin_epoch(batches, place.generator if epoch == place.epoch else None)
        first = stride - epoch * per_epoch % stride
        updates = range(first, per_epoch + 1, stride) if group.size == 1 else range(0)
        if not in_order:
            order = batches.indices().to(data.x.device)
            shuffled = replace(data, inputs=data.x[order], targets=data.y[order])
            epoch_data = _Epoch(shuffled, batches, lr, updates, on_samples, group)
        elif epoch_data is None:  # the same maps serve every epoch
            every = (
                set()
                if group.size > 1
                else {(k * stride - 1) % per_epoch + 1 for k in range(1, MOST_POINTS + 1)}
            )
            epoch_data = _Epoch(data, batches, lr, every, on_samples, group)
        moments = whole or epoch_data.moments
        if past is None and epoch == 0:
            ends.append((0, w, moments.cost(w)))
        points += [(epoch * per_epoch + update, *epoch_data.point(update, w)) for update in updates]
        before, w = w, torch.tensor(epoch_data.weight(per_epoch, w), dtype=model.weight.dtype).item()
        ends.append((epoch + 1, w, moments.cost(w)))
        diverged = not math.isfinite(ends[-1][1] + ends[-1][2])
        if diverged or epoch + 1 == epochs or time.monotonic() - reported > SECONDS_A_REPORT:
            reported = time.monotonic()
            ends = [end for end in ends if all(map(math.isfinite, end))]
            points = [point for point in points if all(map(math.isfinite, point))]
            part = _history(points, ends, batches, model.weight.dtype)
            if diverged:
                reason = f"the weight or its cost is not finite after epoch {epoch + 1}"
                part = replace(part, status="diverged", reason=reason)
            parts.append(part)
            with torch.no_grad():
                model.weight.fill_(before if diverged else w)
            points, ends = [], []
            if on_progress is not None:
                on_progress(parts[-1], Place(epoch + 1, 0, begin_epoch(batches, None)))
        if diverged:
            return History.join(parts)
    history = History.join(parts)
    status, reason = judge(history, random_order=not in_order)
    return replace(history, status=status, reason=reason)


def _history(
    points: list[tuple[int, float, float, float, float]],
    ends: list[tuple[int, float, float]],
    batches: Batches,
    dtype: torch.dtype,
) -> History:
    """The rows as tensors."""
    updates, weights, gradients, before, after = zip(*points, strict=True) if points else ((),) * 5
    epochs, end_weights, costs = zip(*ends, strict=True) if ends else ((),) * 3
    return History(
        epoch=torch.tensor(epochs, dtype=torch.int64),
        end_update=torch.tensor(epochs, dtype=torch.int64) * len(batches),
        end_samples=torch.tensor(epochs, dtype=torch.int64) * batches.n,
        weight=torch.tensor(end_weights, dtype=dtype),
        cost=torch.tensor(costs, dtype=dtype),
        update=torch.tensor(updates, dtype=torch.int64),
        samples_seen=torch.tensor([batches.samples_after(update) for update in updates], dtype=torch.int64),
        update_weight=torch.tensor(weights, dtype=dtype),
        gradient=torch.tensor(gradients, dtype=dtype),
        loss_before=torch.tensor(before, dtype=dtype),
        loss_after=torch.tensor(after, dtype=dtype),
    )
