"""Where the gradients of a module are judged: its parameters, moved or not, and draws of the samples."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from torchgd.check.probes import YOUR_DATA
from torchgd.check.subject import Due, Point
from torchgd.errors import InputError

Parameters = dict[str, Tensor]
LossFunction = Callable[[Tensor, Tensor], Tensor]
_COUNTS = (5, 2, 1, 3, 4, 7)  # drawn from the user's samples; the first two fix how an answer grows with N
_MANY = 32
_STEP = 2.0**-20  # of the relative change by which rounding is measured


@dataclass(frozen=True)
class ModelPoint(Point):
    """Parameters and a batch, in float64, and what autograd says there."""

    data: str
    model: nn.Module
    loss_fn: LossFunction
    parameters: Parameters
    x: Tensor
    y: Tensor
    largest: dict[str, float]  # of each gradient, at any point: filled when all points are known

    def loss(
        self, parameters: Parameters, x: Tensor, y: Tensor, loss_fn: LossFunction | None = None
    ) -> Tensor:
        return (loss_fn or self.loss_fn)(functional_call(self.model, parameters, (x,)), y)

    def gradients(
        self, x: Tensor, y: Tensor, grow: float = 1.0, loss_fn: LossFunction | None = None
    ) -> Parameters:
        """By autograd, on this batch, at the parameters times ``grow``; NaN on an empty batch."""
        if len(x) == 0:
            return {name: torch.full_like(p, torch.nan) for name, p in self.parameters.items()}
        with torch.enable_grad():
            leaves = {name: (grow * p).requires_grad_() for name, p in self.parameters.items()}
            found = torch.autograd.grad(
                self.loss(leaves, x, y, loss_fn), list(leaves.values()), allow_unused=True
            )
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
    def by_prediction(self) -> Tensor:
        """The derivative of the loss by the predictions, summed; NaN where a sample has several."""
        prediction: Tensor = functional_call(self.model, self.parameters, (self.x,)).detach().requires_grad_()
        if prediction.numel() != self.n:
            return torch.tensor(torch.nan, dtype=torch.float64)
        with torch.enable_grad():
            return torch.autograd.grad(self.loss_fn(prediction, self.y), prediction)[0].sum()

    def due(self, each: bool) -> dict[str, Due]:
        size = self.n if each else 1
        return {
            name: Due(right, torch.full_like(right, self.scale[name] + self.largest[name] * size))
            for name, right in (self.right_each if each else self.right).items()
        }

    @cached_property
    def scale(self) -> dict[str, float]:
        """How much each gradient moves when parameters, x or y move, a unit of relative change each.

        Inside a network rounding may be larger, as in 1 − p with p near 1: ``due`` adds the largest gradient.
        """
        move = 1 + _STEP * torch.cos(torch.arange(1.0, self.n + 1, dtype=torch.float64))
        moved = [self.gradients(self.x, self.y, grow=1 + _STEP)]
        for of_x, values in ((True, self.x), (False, self.y)):
            if values.is_floating_point():
                other = values * move.reshape(-1, *[1] * (values.dim() - 1))
                moved.append(self.gradients(*((other, self.y) if of_x else (self.x, other))))
        width = max(max(p.shape, default=1) for p in self.parameters.values())
        return {
            name: (1 + width) * float(g.abs().max() + sum((m[name] - g).abs().max() for m in moved) / _STEP)
            for name, g in self.right.items()
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
    model: nn.Module, loss_fn: LossFunction | None, x: Tensor, y: Tensor, seed: int, summed: bool = False
) -> list[ModelPoint]:
    """The module as it is and moved at random, on draws from the samples of several N, then on all."""
    loss_fn = _reduced(loss_fn or functional.mse_loss, summed)
    tensors = isinstance(x, Tensor) and isinstance(y, Tensor)
    if not (tensors and min(x.dim(), y.dim()) > 0 and len(x) == len(y) > 0):
        raise InputError("x and y must be tensors with a row for each sample; give as many rows of x as of y")
    twin = copy.deepcopy(model).double().cpu()
    x, y = (t.detach().cpu().double() if t.is_floating_point() else t.detach().cpu() for t in (x, y))
    start = {name: p.detach() for name, p in twin.named_parameters() if p.requires_grad}
    if not start:
        raise InputError("the model has no parameter that requires a gradient; give one that has")
    generator = torch.Generator().manual_seed(seed)

    def moved(size: float) -> Parameters:
        return {
            name: p
            + size
            * (p.square().mean().sqrt() + 0.5)
            * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for name, p in start.items()
        }

    batches = [torch.randint(len(x), (count,), generator=generator) for count in _COUNTS]
    points: list[ModelPoint] = []
    largest: dict[str, float] = {}
    for batch_x, batch_y in ((x[drawn], _noisy(y[drawn], generator)) for drawn in batches):
        points += [
            ModelPoint("drawn", twin, loss_fn, moved(size), batch_x, batch_y, largest) for size in (0.5, 5.0)
        ]
    points.append(ModelPoint("moved", twin, loss_fn, moved(0.5), x, y, largest))
    points.append(ModelPoint(YOUR_DATA, twin, loss_fn, start, x, y, largest))
    points = [point for point in points if _usable(point)]
    largest.update({name: max(float(point.right[name].abs().max()) for point in points) for name in start})
    return points


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
            return partial(loss_fn, reduction="sum")  # type: ignore[call-arg]
    return lambda prediction, y: loss_fn(prediction, y) * len(y)


def _noisy(y: Tensor, generator: torch.Generator) -> Tensor:
    """Residuals of both signs, so that a sign and a size can be told apart; labels stay as they are."""
    if not y.is_floating_point():
        return y
    return y + (y.abs().max() + 0.5) * torch.randn(y.shape, generator=generator, dtype=y.dtype)


def _usable(point: ModelPoint) -> bool:
    """Whether the module gives one finite gradient there; some cannot take a single sample."""
    try:
        again = point.gradients(point.x, point.y)
    except Exception as error:
        if point.n == 1:
            return False
        raise InputError(
            f"the model or its loss raised {type(error).__name__}: {error}; try model(x) first"
        ) from None
    if any(not torch.equal(again[name], g) for name, g in point.right.items()):
        raise InputError(
            "two calls of the model give two gradients, as dropout does; call model.eval() first"
        )
    return all(bool(g.isfinite().all()) for g in again.values())
