"""The loop: gradient, update, record; the same for every method, module and device."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from torchgd import gradient as by_hand
from torchgd.batches import Batches
from torchgd.errors import InputError
from torchgd.history import History, judge
from torchgd.model import LinearModel
from torchgd.optim import GradientDescent, MiniBatchGradientDescent, StochasticGradientDescent
from torchgd.recorder import LossFunction, Recorder, Update
from torchgd.samples import Numbers, rows

UPDATES_A_LOOK = 100  # the host looks at the device's numbers once in so many updates
SECONDS_A_REPORT = 0.25
MOST_UPDATES_RECORDED = 10_000
OURS = (GradientDescent, StochasticGradientDescent, MiniBatchGradientDescent)
SAMPLES_CHECKED = 1000

GradientFunction = Callable[[Tensor, Tensor, Tensor], "Tensor | float"]


@dataclass(frozen=True)
class Place:
    """Where a run is: epochs done, updates done in the next, and the generator's state as that one began."""

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
    batches: Batches | None = None,
    scheduler: Any = None,
    check: bool = True,
    max_points: int = MOST_UPDATES_RECORDED,
    on_progress: Callable[[History, Place], None] | None = None,
    resume: tuple[History, Place] | None = None,
) -> History:
    """Descend the loss: for each epoch, for each batch B of it, one optimizer step along dC_B/dw.

    The data move to the model's device and dtype once, and the host looks at the device's numbers once
    in 100 updates. A number that is not finite ends the run as diverged, and the model keeps its last
    finite weight (a module other than LinearModel: the weights of the last look).

    Args:
        model: a LinearModel, or with ``gradient="autograd"`` any module.
        x: inputs, shape (n, …).
        y: targets, shape (n, …).
        optimizer: any :class:`torch.optim.Optimizer` of the model's parameters.
        epochs: passes over the data, 1 or more.
        gradient: "autograd"; "hand" for :func:`torchgd.gradient.gradient`; or your own f(w, x, y), which
            takes w of shape () and a batch of shape (b,) and returns dC/dw, a number or of shape ().
        loss_fn: loss of (prediction, target), shape ().
        batches: the batches of an epoch; the optimizer's own if not given, all data at once if it has none.
        scheduler: its ``step()`` is called after every epoch, that of ReduceLROnPlateau with the cost.
        check: warn first, by its name, of a mistake that :func:`torchgd.check_gradient` finds in your own f.
        max_points: no more updates than this are recorded, evenly spaced.
        on_progress: called a few times a second, and at the end, with what is new in the history and the
            place, between two updates: an exception that it raises leaves a state to resume from.
        resume: go on from this history and place, with the model and optimizer of that moment.

    Returns:
        The :class:`~torchgd.history.History` of the whole run.

    Raises:
        InputError: sizes, shapes or arguments that do not fit.

    Example:
        >>> from torchgd import GradientDescent, LinearModel, course, train
        >>> model = LinearModel(1.0, dtype=torch.float64)
        >>> history = train(model, *course(), GradientDescent(model.parameters(), lr=0.01), gradient="hand")
        >>> history.weight[1].item(), model(4.0).item()
        (1.0933333333333333, 7.999777758621207)

    Source: 《PyTorch深度学习实践》, lectures 3 and 4 (2020).
    """
    x, y = _fitting_data(model, optimizer, x, y)
    for name, number in (("epochs", epochs), ("max_points", max_points)):
        if not (isinstance(number, int) and number >= 1):
            raise InputError(f"{name} is {number!r}; give a whole number, 1 or more")
    if batches is None:
        batches = optimizer.batches(len(x)) if hasattr(optimizer, "batches") else Batches(len(x), len(x))
    if batches.n != len(x):
        raise InputError(f"the batches are of {batches.n} samples, but x has {len(x)}; give both the same")
    affine = scheduler is None and not callable(gradient) and loss_fn is mse_loss
    affine = affine and _is_affine(model, optimizer)
    loss_fn = _equal_shapes_mse if loss_fn is mse_loss else loss_fn
    first = slice(batches.batch_size)
    update = _update(model, optimizer, gradient, loss_fn, x[first], y[first])
    if check and callable(gradient):
        _warn_of_a_wrong(gradient, model, x, y)

    past, place = resume or (None, Place())
    parts = [past] if past else []
    done = place.epoch * len(batches) + place.update
    stride = math.ceil(epochs * len(batches) / max_points)
    recorder = Recorder(model, x, y, loss_fn, batches, stride=stride, updates=done)
    if past is None:
        recorder.end_epoch(0)
        if recorder.look():
            raise InputError("the cost before the first update is not finite; check the data and the weight")

    def report(place: Place, part: History) -> None:
        parts.append(part)
        if on_progress is not None:
            on_progress(part, place)

    looked = reported = -math.inf  # the first look reports
    in_a_group = torch.distributed.is_available() and torch.distributed.is_initialized()  # all look at once
    for epoch in range(place.epoch, epochs):
        begun = begin_epoch(batches, place.generator if epoch == place.epoch else None)
        skip = place.update if epoch == place.epoch else 0
        for number, batch in enumerate(_data_batches(x, y, batches, skip), skip + 1):
            recorder.do(update, *batch)
            here = Place(epoch, number, begun)
            if number == len(batches):
                cost = recorder.end_epoch(epoch + 1)
                if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                    scheduler.step(cost.item())
                elif scheduler is not None:
                    scheduler.step()
                here = Place(epoch + 1, 0, begin_epoch(batches, None))
            now = time.monotonic()
            early = in_a_group or now - looked < SECONDS_A_REPORT
            if recorder.updates % UPDATES_A_LOOK and early and here.epoch < epochs:
                continue
            looked = now
            if failure := recorder.look():
                report(here, recorder.part("diverged", failure))
                return History.join(parts)
            if now - reported > SECONDS_A_REPORT or here.epoch == epochs:
                report(here, recorder.part())
                reported = now
    history = History.join(parts)
    if scheduler is not None:
        return replace(history, reason=f"{epochs} epochs done, at learning rates that the scheduler chose")
    status, reason = judge(history, random_order=batches.order != "sequential", affine=affine)
    return replace(history, status=status, reason=reason)


def _fitting_data(model: nn.Module, optimizer: Optimizer, x: Numbers, y: Numbers) -> tuple[Tensor, Tensor]:
    """The data on the model's device in its dtype; they and the optimizer must fit the model."""
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


def _equal_shapes_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean squared error, refused where it would broadcast: (n, 1) against (n,) makes an (n, n) loss."""
    if prediction.shape != target.shape:
        shapes = f"{tuple(prediction.shape)} and the target {tuple(target.shape)}"
        raise InputError(f"the prediction has shape {shapes}; give both the same")
    return mse_loss(prediction, target)


def _update(
    model: nn.Module,
    optimizer: Optimizer,
    gradient: str | GradientFunction,
    loss_fn: LossFunction,
    x: Tensor,
    y: Tensor,
) -> Update:
    """The function that does one update on a batch."""
    if gradient == "autograd":
        return _autograd_update(model, optimizer, loss_fn)
    if not isinstance(model, LinearModel):
        raise InputError("a gradient by hand is for LinearModel; for another module give gradient='autograd'")
    if isinstance(gradient, str) and gradient != "hand":
        raise InputError(f"gradient is {gradient!r}; give 'autograd', 'hand' or a function f(w, x, y)")
    if gradient == "hand" and loss_fn not in (mse_loss, _equal_shapes_mse):
        raise InputError("the gradient by hand is that of mse_loss; leave out loss_fn, or give 'autograd'")
    function: GradientFunction = by_hand.gradient if isinstance(gradient, str) else gradient
    weight = model.weight
    first = function(weight.detach().clone(), x, y)
    if not isinstance(first, Tensor | Real):
        raise InputError(f"the gradient is {first!r}; return a number or a tensor of shape ()")
    if isinstance(first, Tensor) and first.shape not in ((), (1,)):  # (1,): of each sample, batches of one
        raise InputError(f"the gradient has shape {tuple(first.shape)}; return the batch's mean, shape ()")
    plain = gradient == "hand" and _is_plain(optimizer, weight)
    w = weight.detach().reshape(1)

    def update(x: Tensor, y: Tensor, recorded: bool) -> None:
        # 2 is left to the end, exactly: the same bits without the optimizer's overhead, short of overflow
        if plain and not recorded:
            product = torch.mul(w, x).sub_(y).mul_(x)
            w.add_(product if x.numel() == 1 else product.mean(), alpha=-2 * optimizer.param_groups[0]["lr"])
            return
        value = function(weight.detach().clone(), x, y)  # a clone: f may write into what it is given
        weight.grad = torch.as_tensor(value, dtype=weight.dtype, device=weight.device).reshape(())
        optimizer.step()

    return update


def _warn_of_a_wrong(gradient: GradientFunction, model: nn.Module, x: Tensor, y: Tensor) -> None:
    from torchgd.check.gradient import check_gradient  # it takes a while to load, and few runs need it

    report = check_gradient(
        gradient, x[:SAMPLES_CHECKED], y[:SAMPLES_CHECKED], next(model.parameters()).item()
    )
    if not report.ok and report.cause != "approximate":  # finite differences may well be meant
        warnings.warn(f"the gradient is wrong ({report.cause.value}): {report.message}", stacklevel=3)


def _autograd_update(model: nn.Module, optimizer: Optimizer, loss_fn: LossFunction) -> Update:
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("no parameter requires a gradient; set requires_grad, or give gradient='hand'")

    def update(x: Tensor, y: Tensor, recorded: bool) -> Tensor:
        losses: list[Tensor] = []

        def closure() -> Any:  # LBFGS evaluates it several times an update
            with torch.enable_grad():  # an optimizer of one's own may forget it
                optimizer.zero_grad()
                loss = loss_fn(model(x), y)
                loss.backward()
            losses.append(loss.detach())
            return loss

        step: Any = optimizer.step
        step(closure)
        if not losses:
            raise InputError("the optimizer's step(closure) did not call the closure; let it do so first")
        return losses[0]

    return update


def _is_plain(optimizer: Optimizer, weight: Tensor) -> bool:
    """Whether a step is no more than w −= lr · grad: ours, descending, at a lr that is a number, unseen."""
    group = optimizer.param_groups[0]
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    hooks_of_all = (_global_optimizer_pre_hooks, _global_optimizer_post_hooks)
    observed = any(hooks) or any(hooks_of_all) or "step" in vars(optimizer)  # as a scheduler replaces it
    alone = len(optimizer.param_groups) == 1 and len(group["params"]) == 1 and group["params"][0] is weight
    options = isinstance(group["lr"], float) and not (group["maximize"] or group["differentiable"])
    return type(optimizer) in OURS and alone and options and not observed


def _is_affine(model: nn.Module, optimizer: Optimizer) -> bool:
    """Whether a step on the mean squared error is an affine map of the weights alone."""
    linear = type(model).forward in (LinearModel.forward, nn.Linear.forward)
    no_momentum = all(not group.get("momentum") for group in optimizer.param_groups)
    return linear and (type(optimizer) in OURS or (type(optimizer) is SGD and no_momentum))


def begin_epoch(batches: Batches, state: Tensor | None) -> Tensor | None:
    """The state of the generator as the epoch begins; a given state is put back first."""
    if batches.order == "sequential":
        return None
    generator = batches.generator or torch.default_generator
    if state is not None:
        generator.set_state(state)
    return generator.get_state()


def _data_batches(x: Tensor, y: Tensor, batches: Batches, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The data of an epoch's batches after the first ``skip``, as views of one reordered copy."""
    if batches.order != "sequential":
        indices = batches.indices().to(x.device)
        x, y = x[indices], y[indices]
    many = 1024 * batches.batch_size  # a view is an object of its own: do not make all of them at once
    x, y = x[skip * batches.batch_size :], y[skip * batches.batch_size :]
    for xs, ys in zip(x.split(many), y.split(many), strict=True):
        yield from zip(xs.split(batches.batch_size), ys.split(batches.batch_size), strict=True)
