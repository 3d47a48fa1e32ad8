"""Where the gradients of a module are judged: its parameters, moved or not, and draws of the samples."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from torchgd.check.probes import YOUR_DATA
from torchgd.check.signature import positional
from torchgd.check.subject import Due, Point
from torchgd.check.targets import others
from torchgd.errors import InputError
from torchgd.samples import check_prediction, loss_name, rows

Parameters = dict[str, Tensor]
LossFunction = Callable[..., Tensor]
_COUNTS = (5, 2, 1, 3, 4, 7)  # drawn from the user's samples; the first two fix how an answer grows with N
_MANY = 32
_STEP = 2.0**-20  # of the relative change by which rounding is measured
_SATURATED = 1e-9  # p (1 − p) of a probability
_FEW = 4  # usable points; with fewer, all samples are tried at more parameters


@dataclass(frozen=True)
class ModelPoint(Point):
    """Parameters and a batch, in float64, and what autograd says there."""

    data: str
    model: nn.Module
    loss_fn: LossFunction  # of (prediction, y), and of all parameters where it takes three arguments
    parameters: Parameters  # those that require a gradient
    x: Tensor
    y: Tensor
    frozen: Parameters  # the others
    most: dict[str, float]  # each gradient over that by the prediction; filled when all points are known
    seed: int | None  # of a model that is random

    def loss(
        self, parameters: Parameters, x: Tensor, y: Tensor, loss_fn: LossFunction | None = None
    ) -> Tensor:
        loss_fn = loss_fn or self.loss_fn
        with seeded(self.seed):
            prediction = functional_call(self.model, parameters, (x,))
        check_prediction(prediction, y, loss_fn)
        more = [{**self.frozen, **parameters}] if takes_parameters(loss_fn) else []
        return loss_fn(prediction, y, *more)

    def gradients(
        self, x: Tensor, y: Tensor, grow: float = 1.0, loss_fn: LossFunction | None = None
    ) -> Parameters:
        """By autograd, on this batch, at the parameters times ``grow``; NaN on an empty batch."""
        if len(x) == 0:
            return {name: torch.full_like(p, torch.nan) for name, p in self.parameters.items()}
        with torch.enable_grad(), Exact():
            leaves = {name: (grow * p).requires_grad_() for name, p in self.parameters.items()}
            loss = self.loss(leaves, x, y, loss_fn)
            if loss.shape != ():
                raise InputError(
                    f"the loss has shape {tuple(loss.shape)}; return one number, e.g. its mean()"
                )
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        pairs = zip(leaves.items(), found, strict=True)
        return {name: torch.zeros_like(p) if g is None else g.detach() for (name, p), g in pairs}

    @cached_property
    def right(self) -> Parameters:
        return self.gradients(self.x, self.y)

    @cached_property
    def right_each(self) -> Parameters:
        """The gradient of each sample's own loss, shape (n, ...); a loop, unless it would be long."""
        if self.n > _MANY:
            with suppress(RuntimeError, ValueError):  # what vmap cannot do, the loop can
                one = torch.func.grad(lambda p, x, y: self.loss(p, x[None], y[None]))
                return dict(torch.func.vmap(one, (None, 0, 0))(self.parameters, self.x, self.y))
        each = [self.gradients(self.x[i : i + 1], self.y[i : i + 1]) for i in range(self.n)]
        return {name: torch.stack([gradients[name] for gradients in each]) for name in self.parameters}

    @cached_property
    def by_prediction(self) -> float:
        """The size of the derivative of the loss by the predictions."""
        with seeded(self.seed):
            prediction: Tensor = functional_call(self.model, self.parameters, (self.x,)).detach()
        more = [{**self.frozen, **self.parameters}] if takes_parameters(self.loss_fn) else []
        with torch.enable_grad(), Exact():
            prediction.requires_grad_()
            found = torch.autograd.grad(self.loss_fn(prediction, self.y, *more), prediction)[0]
        return float(found.abs().sum())

    def due(self, each: bool) -> dict[str, Due]:
        """What is right; inside a network more is rounded than the gradient shows, as 1 − p with p near 1.

        So its scale has the largest of any gradient here as well, and what this one may be: the derivative by
        the prediction times x, or more where it was more at any point.
        """
        size = self.n if each else 1
        largest = max(float(g.abs().max()) for g in self.right.values() if g.numel())
        x = float(self.x.abs().max()) if self.x.is_floating_point() else 1.0
        due = {}
        for name, right in (self.right_each if each else self.right).items():
            scale = self.scale[name] + (max(self.most[name], x) * self.by_prediction + largest) * size
            due[name] = Due(right, torch.full_like(right, scale))
        return due

    @cached_property
    def scale(self) -> dict[str, float]:
        """How much each gradient moves when parameters, x or y move, a unit of relative change each."""
        move = _STEP * torch.cos(torch.arange(1.0, self.n + 1, dtype=torch.float64))
        moved = [self.gradients(self.x, self.y, grow=1 + _STEP)]
        for of_x, values in ((True, self.x), (False, self.y)):
            if values.is_floating_point():
                # targets become smaller: no larger one than 1 may be allowed
                steps = (move if of_x else -move.abs()).reshape(-1, *[1] * (values.dim() - 1))
                other = values * (1 + steps)
                moved.append(self.gradients(*((other, self.y) if of_x else (self.x, other))))
        width = max(max(p.shape, default=1) for p in self.parameters.values())
        return {
            name: (1 + width) * float(g.abs().max() + sum((m[name] - g).abs().max() for m in moved) / _STEP)
            for name, g in self.right.items()
            if g.numel()
        }

    def references(self, name: str, index: tuple[int, ...], each: bool) -> tuple[float, float]:
        """By autograd, and the central difference of the loss, or of a sample's, for one entry."""
        rows = slice(index[0], index[0] + 1) if each else slice(None)
        entry = index[each:]
        step = 1e-5 * max(1.0, abs(float(self.parameters[name][entry])))
        sides = []
        for sign in (1, -1):
            moved = {key: value.clone() for key, value in self.parameters.items()}
            moved[name][entry] += sign * step
            sides.append(float(self.loss(moved, self.x[rows], self.y[rows])))
        right = (self.right_each if each else self.right)[name]
        return float(right[index]), (sides[0] - sides[1]) / (2 * step)


def model_points(
    model: nn.Module, loss_fn: LossFunction | None, x: Any, y: Any, seed: int, summed: bool = False
) -> list[ModelPoint]:
    """The module as it is and moved at random, on draws from the samples of several N, then on all."""
    loss_fn = _reduced(loss_fn or functional.mse_loss, summed)
    twin = copy.deepcopy(model).double().cpu()
    x, y = (t.cpu().double() if t.is_floating_point() else t.cpu() for t in rows(x, y))
    start = {name: p.detach() for name, p in twin.named_parameters() if p.requires_grad}
    frozen = {name: p.detach() for name, p in twin.named_parameters() if not p.requires_grad}
    if not start:
        raise InputError("the model has no parameter that requires a gradient; give one that has")
    generator = torch.Generator().manual_seed(seed)
    most: dict[str, float] = {}
    point = partial(ModelPoint, model=twin, loss_fn=loss_fn, frozen=frozen, most=most)
    yours = point(YOUR_DATA, parameters=start, x=x, y=y, seed=None)
    if _is_random(yours):
        point = partial(point, seed=seed)
        yours = replace(yours, seed=seed)
    else:
        point = partial(point, seed=None)

    def moved(size: float, batch_x: Tensor, batch_y: Tensor, data: str) -> list[ModelPoint]:
        """A point with the parameters moved by this much, or by less where the loss is not finite there."""
        for scale in (size, size / 5, size / 25):
            parameters = {
                name: p + scale * (p.square().mean().sqrt() + 0.5) * _randn(p, generator)
                for name, p in start.items()
            }
            found: ModelPoint = point(data, parameters=parameters, x=batch_x, y=batch_y)
            if _finite(found):
                return [found]
        return []

    points: list[ModelPoint] = []
    every = torch.arange(len(x))
    for drawn in (torch.randint(len(x), (count,), generator=generator) for count in _COUNTS):
        batch = x[drawn], others(y, drawn, loss_fn, generator)
        points += [found for size in (0.5, 5.0) for found in moved(size, *batch, "drawn")]
    if not any(found.n > 1 for found in points):  # a loss for these samples only broadcasts one of them
        points = []
    if len(points) < _FEW:
        for size in (0.1, 0.3, 1.0, 2.0):
            points += moved(size, x, others(y, every, loss_fn, generator), "moved")
    points += moved(0.5, x, y, "moved")
    if not all(bool(g.isfinite().all()) for g in yours.right.values()):
        raise InputError(
            "the loss or its gradient is NaN or infinite at your data; try other data or weights"
        )
    points.append(yours)
    for name in start:
        ratios = [float(p.right[name].abs().sum()) / (p.by_prediction or torch.inf) for p in points]
        most[name] = max(ratios)
    return points


def _randn(p: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(p.shape, generator=generator, dtype=p.dtype)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """The same random numbers each time, where a seed is given; those of others stay as they were."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class Exact(TorchFunctionMode):
    """softplus without its threshold: above 20 its own derivative is 1, which is wrong by 2e-9."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.softplus:
            threshold = args[2] if len(args) > 2 else kwargs.get("threshold", 20.0)
            args, kwargs = args[:2], {**kwargs, "threshold": max(40.0, threshold)}
        return func(*args, **kwargs)


def takes_parameters(loss_fn: LossFunction) -> bool:
    """Whether a loss is a function of (prediction, y, parameters)."""
    if getattr(loss_fn, "__module__", "").startswith("torch.nn"):
        return False
    try:
        return len(positional(inspect.signature(loss_fn))[1]) >= 3
    except (TypeError, ValueError):
        return False


def _reduced(loss_fn: LossFunction, summed: bool) -> LossFunction:
    """The loss, or its sum over the samples."""
    if not summed:
        return loss_fn
    if isinstance(loss_fn, nn.Module) and hasattr(loss_fn, "reduction"):
        twin = copy.copy(loss_fn)
        twin.reduction = "sum"  # type: ignore[assignment]
        return twin
    with suppress(TypeError, ValueError):  # a builtin has no signature
        if "reduction" in inspect.signature(loss_fn).parameters:
            return partial(loss_fn, reduction="sum")
    if takes_parameters(loss_fn):
        return lambda prediction, y, parameters: loss_fn(prediction, y, parameters) * len(y)
    return lambda prediction, y: loss_fn(prediction, y) * len(y)


def _is_random(point: ModelPoint) -> bool:
    """Whether two calls of the model give two gradients, as dropout does.

    Raises:
        InputError: it cannot be called with these data.
    """
    try:
        again = point.gradients(point.x, point.y)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the model or its loss raised {type(error).__name__}: {error}; try model(x) first"
        ) from None
    return any(not torch.equal(again[name].nan_to_num(), g.nan_to_num()) for name, g in point.right.items())


def _finite(point: ModelPoint) -> bool:
    """Whether there is a finite gradient: some modules take no single sample, some losses only all.

    Near 0 and 1 the binary cross entropy of torch bounds log p and p (1 − p): its gradient is another there.
    """
    try:
        if loss_name(point.loss_fn) in ("binary_cross_entropy", "BCELoss"):
            with seeded(point.seed):
                p = functional_call(point.model, point.parameters, (point.x,))
            if float((p * (1 - p)).min()) < _SATURATED:
                return False
        return all(bool(g.isfinite().all()) for g in point.right.values())
    except Exception:
        return False
