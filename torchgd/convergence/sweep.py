"""All learning rates trained at once: a column for each, and one pass over the samples for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchgd.batches import Batches
from torchgd.convergence.epochs import Updates
from torchgd.convergence.methods import Epoch, epoch_of
from torchgd.convergence.rate import best_lr, log_distance
from torchgd.epoch_maps import compose
from torchgd.errors import InputError
from torchgd.gradient import cost
from torchgd.history import History
from torchgd.moments import float64
from torchgd.samples import Numbers, samples

BLOCK = 1 << 18  # updates times learning rates of one block, which fits into the cache


@dataclass(frozen=True)
class Sweep:
    """A sweep of L learning rates over E epochs.

    Attributes:
        lr: the learning rates in rising order, shape (L,), in units of 1/x².
        weight, cost: before the first epoch and after each, shape (E+1, L); inf where it diverged.
        epochs: until no more than ``tolerance`` of the start is left, shape (L,); inf if not in E epochs.
            What is left is the product of the epochs' scales, the ratio by which runs from two w0 differ.
        tolerance: see ``epochs``.
        best: the index of the learning rate that is the best by the certificate, see :func:`torchgd.auto_lr`:
            it ends nearest to least squares; the smallest if there are several.
        best_lr: the best of all learning rates, also of those not in the sweep.
        epoch: the certificate's epoch, with the limit and the factor at any lr.
    """

    lr: Tensor
    weight: Tensor
    cost: Tensor
    epochs: Tensor
    tolerance: float
    best: int
    best_lr: float
    epoch: Epoch

    def predicted(self, lr: float) -> float:
        """The epochs to the tolerance by the certificate, a real number; inf beyond the limit."""
        log_factor = self.epoch.log_factor(lr)
        return math.log(self.tolerance) / log_factor if log_factor < 0 else math.inf

    def history(self, index: int) -> History:
        """The history of one learning rate at the ends of epochs, as far as it is finite."""
        weight, costs = self.weight[:, index], self.cost[:, index]
        finite = int((weight.isfinite() & costs.isfinite()).sum())
        columns = zip(weight[:finite].tolist(), costs[:finite].tolist(), strict=True)
        ends = [{"epoch": epoch, "weight": w, "cost": c} for epoch, (w, c) in enumerate(columns)]
        batches = Batches(len(self.epoch.updates.squares), self.epoch.updates.batch_size)
        status = "finished" if finite == len(weight) else "diverged"
        return History.of(batches, weight[0], ends, status=status)


def sweep_lr(
    x: Numbers,
    y: Numbers,
    lr_min: float | None = None,
    lr_max: float | None = None,
    points: int = 100,
    *,
    linear: bool = False,
    epochs: int = 100,
    method: str = "gd",
    batch_size: int | None = None,
    order: str = "sequential",
    loss: str = "mean",
    w0: float = 1.0,
    tolerance: float = 1e-6,
    seed: int = 0,
    on_epoch: Callable[[int], None] = lambda done: None,
) -> Sweep:
    """Train y = w·x at many learning rates at once.

        e ← (1 − lr h_B) e + lr r_B for a vector lr; the epoch's map is composed of those of blocks

    Args:
        x, y: the samples, shape (n,) each.
        lr_min, lr_max: the ends, in units of 1/x²; 1 % and 150 % of the limit if not given.
        points: how many learning rates, 2 or more.
        linear: evenly spaced; else by equal ratios.
        epochs: passes over the data.
        method, batch_size, order, loss: as for :func:`torchgd.stability`.
        w0: the weight before the first epoch.
        tolerance: the part of the start that may be left.
        seed: of the order of the samples, the same for every learning rate.
        on_epoch: called with the epochs done.

    Raises:
        InputError: as for :func:`torchgd.stability`; an empty interval; fewer than 2 points.

    Example:
        >>> from torchgd import course, sweep_lr
        >>> sweep = sweep_lr(*course(), lr_min=0.02, lr_max=0.25, points=24, linear=True)
        >>> sweep.epochs[0].item(), sweep.lr[sweep.best].item(), sweep.epochs[-1].item()
        (67.0, 0.11, inf)
    """
    if points < 2:
        raise InputError(f"points is {points}; give 2 or more")
    if epochs < 1:
        raise InputError(f"epochs is {epochs}; give 1 or more")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance:g}; give a number between 0 and 1, e.g. 1e-6")
    if not math.isfinite(w0):
        raise InputError(f"w0 is {w0}; give a finite number")
    x, y = samples(x, y)
    epoch = epoch_of(x, y, method=method, batch_size=batch_size, order=order, loss=loss, seed=seed)
    limit = epoch.intervals[0][1]
    low = limit / 100 if lr_min is None else lr_min
    high = limit * 1.5 if lr_max is None else lr_max
    if not (0 < low < high < math.inf):
        raise InputError(
            f"lr_min is {low:g} and lr_max is {high:g}; give finite numbers, 0 < lr_min < lr_max"
        )
    lr = _spaced(low, high, points, linear)

    updates = epoch.updates
    batches = Batches(len(x), updates.batch_size, "sequential" if method == "gd" else order, _generator(seed))
    fixed = batches.order == "sequential"
    left = torch.zeros_like(lr)  # the logarithm of what is left of the start
    reached = torch.full_like(lr, math.inf)
    errors = [torch.full_like(lr, w0 - updates.least_squares)]
    for number in range(1, epochs + 1):
        if number == 1 or not fixed:
            scale, shift = _epoch_map(lr, updates, batches)
        errors.append(scale * errors[-1] + shift)
        left = left + scale.abs().log()
        reached = torch.where((left <= math.log(tolerance)) & reached.isinf(), float(number), reached)
        on_epoch(number)
    error = torch.nan_to_num(torch.stack(errors), nan=math.inf, posinf=math.inf, neginf=-math.inf)
    floor = cost(updates.least_squares, float64(x), float64(y)).item()
    return Sweep(
        lr=lr,
        weight=updates.least_squares + error,
        cost=floor + updates.squares.mean() * error.square(),
        epochs=reached,
        tolerance=tolerance,
        best=min(range(points), key=lambda i: log_distance(epoch, lr[i].item(), epochs)),
        best_lr=best_lr(epoch, epochs),
        epoch=epoch,
    )


def _epoch_map(lr: Tensor, updates: Updates, batches: Batches) -> tuple[Tensor, Tensor]:
    """Scale and shift of one fresh epoch for every learning rate, shape (L,) each."""
    h, r = updates.batches(batches.indices())
    scale, shift = torch.ones_like(lr), torch.zeros_like(lr)
    for hs, rs in zip(h.split(max(1, BLOCK // len(lr))), r.split(max(1, BLOCK // len(lr))), strict=True):
        a, b = compose(1 - lr[:, None] * hs, lr[:, None] * rs)
        scale, shift = a * scale, a * shift + b
    return scale, shift


def _spaced(low: float, high: float, points: int, linear: bool) -> Tensor:
    if linear:
        return torch.linspace(low, high, points, dtype=torch.float64)
    return torch.logspace(math.log10(low), math.log10(high), points, dtype=torch.float64)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
