"""The loop: gradient, update, record, judge; the same for every method, module and device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer, lr_scheduler

from torchgd.batches import Batches
from torchgd.errors import InputError
from torchgd.history import History, Settling, judge
from torchgd.model import LinearModel
from torchgd.moments import Moments
from torchgd.recorder import Recorder
from torchgd.samples import Numbers, rows
from torchgd.settling import far_from_best, settling_of
from torchgd.update import GradientFunction, LossFunction, Update, is_right, of_equal_shapes, update_of

UPDATES_A_LOOK = 100  # the host reads the device's numbers once in 100 updates
SECONDS_A_REPORT = 0.25
MOST_UPDATES_RECORDED = 10_000


@dataclass(frozen=True)
class Place:
    """Where a run is: epochs done, updates done in the next one, the generator's state at its start."""

    epoch: int = 0
    update: int = 0
    generator: Tensor | None = None


def train(
    model: nn.Module,
    x: Numbers,
    y: Numbers,
    optimizer: Optimizer,
    epochs: int = 100,
    *,
    gradient: str | GradientFunction = "autograd",
    loss_fn: LossFunction = mse_loss,
    batches: Batches | int | None = None,
    scheduler: Any = None,
    check: bool = True,
    max_points: int = MOST_UPDATES_RECORDED,
    on_progress: Callable[[History, Place], None] | None = None,
    resume: tuple[History, Place] | None = None,
) -> History:
    """The loop of :func:`torchgd.train`, with all of its arguments but ``log`` and ``progress``."""
    x, y = _fitting_data(model, optimizer, x, y)
    for name, number in (("epochs", epochs), ("max_points", max_points)):
        if not (isinstance(number, int) and number >= 1):
            raise InputError(f"{name} is {number!r}; give a whole number, 1 or more")
    batches = batches_of(optimizer, len(x), batches)
    squared = loss_fn is mse_loss
    loss_fn = of_equal_shapes(loss_fn)
    first = slice(batches.batch_size)
    update = update_of(model, optimizer, gradient, loss_fn, x[first], y[first])
    right = is_right(gradient, model, x, y) if check and callable(gradient) else not callable(gradient)
    past, place = resume or (None, Place())
    stride = math.ceil(epochs * len(batches) / max_points)
    done = place.epoch * len(batches) + place.update
    recorder = Recorder(model, x, y, loss_fn, batches, stride=stride, updates=done)
    if past is None:
        recorder.end_epoch(0)
        if recorder.look():
            raise InputError("the cost before the first update is not finite; check the data and the weight")
    parts = [past] if past else []
    data = x, y, batches
    for part, here in _descend(model, recorder, update, data, place, epochs, scheduler):
        parts = [History.join([*parts, part])]
        if on_progress is not None:
            on_progress(part, here)
    history = History.join(parts)
    if history.status == "diverged":
        return history
    if scheduler is not None:
        return replace(history, reason=f"{epochs} epochs done, at learning rates that the scheduler chose")
    known = settling_of(model, optimizer, x, y, batches) if right and squared else Settling(affine=False)
    status, reason = judge(history, random_order=batches.order != "sequential", settling=known)
    history = replace(history, status=status, reason=reason)
    if type(model) is LinearModel and known.affine:
        reason += far_from_best(history, known, Moments.of([(x, y)]), batches)
    return replace(history, reason=reason)


def _fitting_data(model: nn.Module, optimizer: Optimizer, x: Numbers, y: Numbers) -> tuple[Tensor, Tensor]:
    """The data, moved to the model's device and dtype; InputError if they or the optimizer do not fit."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise InputError("the model has no parameters; there is nothing to train")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held.isdisjoint(map(id, model.parameters())):
        raise InputError("the optimizer has none of the model's parameters; give it model.parameters()")
    x, y = rows(x, y)
    dtypes = [parameter.dtype if data.is_floating_point() else data.dtype for data in (x, y)]
    x, y = x.to(parameter.device, dtypes[0]), y.to(parameter.device, dtypes[1])
    if isinstance(model, LinearModel) and x.shape != y.shape:
        raise InputError(f"x has shape {tuple(x.shape)} and y has shape {tuple(y.shape)}; give both the same")
    return x, y


def batches_of(optimizer: Optimizer, n: int, given: Batches | int | None) -> Batches:
    """The batches of an epoch over n samples."""
    if given is None:
        return optimizer.batches(n) if hasattr(optimizer, "batches") else Batches(n, n)
    batches = Batches(n, given) if isinstance(given, int) else given
    if batches.n != n:
        raise InputError(f"the batches are of {batches.n} samples, but x has {n}; give both the same")
    return batches


def _descend(
    model: nn.Module,
    recorder: Recorder,
    update: Update,
    data: tuple[Tensor, Tensor, Batches],
    start: Place,
    epochs: int,
    scheduler: Any,
) -> Iterator[tuple[History, Place]]:
    """Do and record all updates; yields the new history and the place several times a second, and last."""
    batches = data[2]
    batches.restore(start.generator)
    looked = reported = -math.inf  # so that the first look reports
    in_a_group = torch.distributed.is_available() and torch.distributed.is_initialized()  # all look at once
    for epoch in range(start.epoch, epochs):
        begun = batches.state()
        skip = start.update if epoch == start.epoch else 0
        for number, (x, y) in enumerate(_walk(*data, skip), skip + 1):
            recorder.before(x, y)
            recorder.after(x, y, update(x, y))
            place = Place(epoch, number, begun)
            if number == len(batches):
                _schedule(scheduler, recorder.end_epoch(epoch + 1))
                place = Place(epoch + 1, 0, batches.state())
            now = time.monotonic()
            early = in_a_group or now - looked < SECONDS_A_REPORT
            if recorder.updates % UPDATES_A_LOOK and early and place.epoch < epochs:
                continue
            looked = now
            if failure := recorder.look():
                with torch.no_grad():
                    state = [*model.parameters(), *model.buffers()]
                    for tensor, value in zip(state, failure.last_finite, strict=True):
                        tensor.copy_(value)
                yield recorder.part("diverged", failure.reason), place
                return
            if now - reported > SECONDS_A_REPORT or place.epoch == epochs:
                yield recorder.part(), place
                reported = now


def _schedule(scheduler: Any, cost: Tensor) -> None:
    """The scheduler's step after an epoch."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(cost.item())
    elif scheduler is not None:
        scheduler.step()


def _walk(x: Tensor, y: Tensor, batches: Batches, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The data of an epoch's batches after the first ``skip``, as views of one reordered copy."""
    if batches.order != "sequential":
        indices = batches.indices().to(x.device)
        x, y = x[indices], y[indices]
    many = 1024 * batches.batch_size  # each view takes memory: do not make all of them at once
    x, y = x[skip * batches.batch_size :], y[skip * batches.batch_size :]
    for xs, ys in zip(x.split(many), y.split(many), strict=True):
        yield from zip(xs.split(batches.batch_size), ys.split(batches.batch_size), strict=True)
