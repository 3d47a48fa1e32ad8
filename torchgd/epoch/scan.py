"""The engine for long runs of y = w·x: an epoch is one affine map, and a run needs one pass over the data.

Up to rounding it gives the history of the loop of :func:`torchgd.train`, at up to 1,000 evenly spaced
updates. In a fixed order the data are read once for all epochs; in a random order once an epoch, in the same
permutations as the loop's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch.optim import Optimizer

from torchgd.batches import Batches
from torchgd.data.checksum import Checksum
from torchgd.data.dataset import Dataset
from torchgd.data.files import check_memory
from torchgd.epoch.distributed import ALONE, Group, epoch_of_shards
from torchgd.errors import InputError
from torchgd.history import History, Settling, judge, spacing
from torchgd.model import LinearModel
from torchgd.moments import Moments
from torchgd.optim import GradientDescent, is_plain
from torchgd.settling import far_from_best, settling_of
from torchgd.training import SECONDS_A_REPORT, Place

MOST_POINTS = 1000


class Epoch:
    """One order of the samples, read once: the maps to the chosen updates, the moments and the checksum."""

    def __init__(
        self,
        data: Dataset,
        optimizer: GradientDescent,
        updates: Iterable[int],
        *,
        group: Group = ALONE,
        checksum: Checksum | None = None,
        on_samples: Callable[[int], None] = lambda samples: None,
    ) -> None:
        self._data, self._batches = data, optimizer.batches(len(data))
        self._lr, size = float(optimizer.param_groups[0]["lr"]), self._batches.batch_size
        stops = sorted({update - 1 for update in updates})
        maps, self.moments = epoch_of_shards(
            data, self._lr, size, group, stops, checksum=checksum, on_samples=on_samples
        )
        total = group.sum if group.size > 1 else None
        self.checksum = checksum.hexdigest(total) if checksum else ""
        self._before = dict(zip(stops, maps, strict=False))
        self.whole = maps[-1]
        self._of_batch: dict[int, Moments] = {}  # read once for all epochs

    def __contains__(self, update: int) -> bool:
        """Whether :meth:`point` can give the row of the update."""
        return update - 1 in self._before

    def point(self, update: int, w: float) -> dict[str, float]:
        """The row of an update, in an epoch from w."""
        before, moments = self._before[update - 1](w), self.moments
        if len(self._batches) > 1:
            if update not in self._of_batch:
                size = self._batches.batch_size
                blocks = self._data.blocks(start=(update - 1) * size, stop=update * size)
                self._of_batch[update] = Moments.of(blocks)
            moments = self._of_batch[update]
        gradient = moments.gradient(before)
        after = before - self._lr * gradient
        return {
            "update_weight": after,
            "loss_before": moments.cost(before),
            "loss_after": moments.cost(after),
            "gradient": gradient,
        }


def epoch_in_order(
    data: Dataset,
    optimizer: Optimizer,
    epochs: int,
    *,
    group: Group = ALONE,
    on_samples: Callable[[int], None] = lambda samples: None,
) -> Epoch:
    """Read the data once, for :func:`scan`: the epoch, which in a fixed order is the same every time.

    Args:
        data, optimizer, epochs: as for :func:`scan`.
        group: the processes that share the work, see :mod:`.distributed`; they record no updates.
        on_samples: called with the number of samples read so far.

    Raises:
        InputError: the update is not an affine map, the order is random, or a sample is not finite.
    """
    optimizer = _affine(optimizer)
    batches = optimizer.batches(len(data))
    if batches.order != "sequential":
        raise InputError(f"the {batches.order} order is another one in every epoch; give sequential")
    stride = _stride(epochs, batches)
    alone = range(1, MOST_POINTS + 1) if group.size == 1 else ()
    updates = {(k * stride - 1) % len(batches) + 1 for k in alone}
    return Epoch(data, optimizer, updates, group=group, checksum=Checksum(data), on_samples=on_samples)


def scan(
    model: LinearModel,
    data: Dataset,
    optimizer: Optimizer,
    epochs: int = 100,
    *,
    on_progress: Callable[[History, Place], None] | None = None,
    resume: tuple[History, Place] | None = None,
    read: Epoch | None = None,
) -> History:
    """Do what :func:`torchgd.train` does with ``gradient="hand"``, an epoch at a time, on data of any size.

        w after epoch e = M(w before it),   M = the composition of the epoch's updates,   in float64

    and rounded to the weight's dtype, so that a resumed run has the same bits.

    Args:
        model: its weight moves.
        data: the samples; in a fixed order they are read block by block and need not fit into memory.
        optimizer: one of torchgd's three, with one lr for the one weight.
        epochs, on_progress, resume: as for :func:`torchgd.train`; a place is always the end of an epoch.
        read: the result of :func:`epoch_in_order` with the same arguments, if the data were read before.

    Raises:
        InputError: the update is not an affine map, or the order is random and the data exceed memory.

    Example:
        >>> from torchgd import StochasticGradientDescent, course
        >>> model = LinearModel(1.0, dtype=torch.float64)
        >>> history = scan(model, course(), StochasticGradientDescent(model.parameters(), lr=0.01))
        >>> round(history.weight[1].item(), 12), round(model.weight.item(), 12)
        (1.260688, 2.0)
    """
    optimizer = _affine(optimizer)
    if not epochs >= 1:
        raise InputError(f"epochs is {epochs}; give a whole number, 1 or more")
    batches = optimizer.batches(len(data))
    in_order, per_epoch = batches.order == "sequential", len(batches)
    if not in_order:
        check_memory(24 * len(data), f"the {batches.order} order", "take --order sequential")
    stride = _stride(epochs, batches)
    past, place = resume or (None, Place())
    parts, points, ends = [past] if past else [], [], []
    w = model.weight.item()
    whole = Moments.of(data.blocks()) if not in_order else None  # "replacement" does not see all samples
    reported = -math.inf
    batches.restore(place.generator)
    done, step = place.epoch, spacing(epochs) if in_order else 1
    while done < epochs:
        then = min(done + step - done % step, epochs)  # the next epoch that is recorded
        updates = range(done * per_epoch // stride * stride + stride, then * per_epoch + 1, stride)
        if not in_order:
            order = batches.indices().to(data.x.device)
            shuffled = replace(data, inputs=data.x[order], targets=data.y[order])
            read = Epoch(shuffled, optimizer, [update - done * per_epoch for update in updates])
        elif read is None:  # the same maps hold for every epoch
            read = epoch_in_order(data, optimizer, epochs)
        moments = whole or read.moments
        if past is None and done == 0:
            ends.append({"epoch": 0, "weight": w, "cost": moments.cost(w)})
        after = torch.tensor(read.whole.after(then - done)(w), dtype=model.weight.dtype).item()
        end = {"epoch": then, "weight": after, "cost": moments.cost(after)}
        diverged = not _fits(end, model.weight.dtype)
        if diverged and then - done > 1:  # go back, to find the first bad epoch
            step = 1
            continue
        for update in updates:
            epoch, i = divmod(update - 1, per_epoch)
            if i + 1 in read:
                points.append({"update": update, **read.point(i + 1, read.whole.after(epoch - done)(w))})
        before, w, done = w, after, then
        ends.append(end)
        if diverged or done == epochs or time.monotonic() - reported > SECONDS_A_REPORT:
            reported = time.monotonic()
            ends, points = (
                [row for row in rows if _fits(row, model.weight.dtype)] for rows in (ends, points)
            )
            reason = f"the weight or its cost is not finite after epoch {done}"
            outcome = {"status": "diverged", "reason": reason} if diverged else {}
            parts.append(History.of(batches, model.weight.detach(), ends, points, **outcome))
            with torch.no_grad():
                model.weight.fill_(before if diverged else w)
            points, ends = [], []
            if on_progress is not None:
                on_progress(parts[-1], Place(done, 0, batches.state()))
        if diverged:
            return History.join(parts)
    settles = _settling(read) if in_order and read else settling_of(model, optimizer, data.x, data.y, batches)
    moments = whole or (read.moments if read else Moments.of(data.blocks()))
    return _judged(History.join(parts), settles, moments, batches)


def _settling(read: Epoch) -> Settling:
    """Where the epoch's map settles, and how fast."""
    at = torch.tensor([read.whole.fixed_point], dtype=torch.float64, device="cpu")
    return Settling(at if read.whole.converges else None, abs(read.whole.scale))


def _judged(history: History, settles: Settling, moments: Moments, batches: Batches) -> History:
    """The history with its outcome, and with a warning if it settles far from least squares."""
    status, reason = judge(history, random_order=batches.order != "sequential", settling=settles)
    history = replace(history, status=status, reason=reason)
    return replace(history, reason=reason + far_from_best(history, settles, moments, batches))


def _affine(optimizer: Optimizer) -> GradientDescent:
    """The optimizer; InputError if its update is not an affine map of one weight."""
    groups = optimizer.param_groups
    if (
        not (isinstance(optimizer, GradientDescent) and is_plain(optimizer))
        or groups[0]["maximize"]
        or len(groups) > 1
    ):
        raise InputError(
            "the scan engine needs a torchgd optimizer that descends on one weight; use the loop"
        )
    return optimizer


def _fits(row: dict[str, float], dtype: torch.dtype) -> bool:
    """Whether the row's numbers are finite in the dtype."""
    return all(abs(number) <= torch.finfo(dtype).max for number in row.values() if isinstance(number, float))


def _stride(epochs: int, batches: Batches) -> int:
    """The step between recorded updates."""
    return math.ceil(epochs * len(batches) / MOST_POINTS)
