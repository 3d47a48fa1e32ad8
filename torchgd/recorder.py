"""Records a run while it runs, and finds the first of its numbers that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchgd.batches import Batches
from torchgd.errors import InputError
from torchgd.history import History
from torchgd.model import LinearModel

_NEVER = torch.iinfo(torch.int64).max  # sentinel: later than any update
MOST_WEIGHTS = 64  # of a module with more parameters, only costs, losses and gradient norms are recorded
BLOCK = 1 << 14  # samples of one forward pass, if the loss of all follows from those of blocks

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Failure:
    """A run that has diverged.

    Attributes:
        reason: the first number that is not finite.
        last_finite: the parameters and buffers before it, as far as they are known.
    """

    reason: str
    last_finite: list[Tensor]


class Recorder:
    """Keeps the numbers on the model's device until :meth:`look`, so that updates do not wait for the host.

    For each update: :meth:`before`, the update itself, :meth:`after`; after each epoch :meth:`end_epoch`.

    Args:
        model, x, y, loss_fn: as for :func:`torchgd.train`, on one device.
        batches: the batches of an epoch.
        stride: every stride-th update is recorded.
        updates: the number done before this recorder began.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        loss_fn: LossFunction,
        batches: Batches,
        *,
        stride: int,
        updates: int = 0,
    ) -> None:
        self._model, self._x, self._y, self._loss_fn = model, x, y, loss_fn
        self._params = list(model.parameters())
        self._state = [*self._params, *model.buffers()]  # what an update may change
        self._one_weight = isinstance(model, LinearModel)
        self._small = sum(p.numel() for p in self._params) <= MOST_WEIGHTS
        self._batches, self._stride, self.updates = batches, stride, updates
        self._ends: list[dict[str, Any]] = []  # rows of History
        self._points: list[dict[str, Any]] = []
        self._watched: list[Tensor] = []  # since the last look: the weight, or else the loss, of every update
        self._last_finite = self._copy()
        self._loss_before: Tensor | None = None
        self._sums = False  # whether the loss of all is a sum over blocks, and not a mean
        self._block = len(x) if self._one_weight else self._separable()

    def before(self, x: Tensor, y: Tensor) -> None:
        """Record the loss of the batch that the next update sees."""
        self.updates += 1
        recorded = self._one_weight and self.updates % self._stride == 0
        self._loss_before = self._loss(x, y) if recorded else None

    def after(self, x: Tensor, y: Tensor, loss: Tensor | None) -> None:
        """Record the result of the update on this batch, with the loss before it if it computed one."""
        if self._one_weight:
            self._watched.append(self._params[0].detach().clone())
            loss = self._loss_before
        elif loss is not None:
            self._watched.append(loss)
        if self.updates % self._stride == 0 and loss is not None:
            row = {"update": self.updates, "update_weight": self._weight(), "loss_before": loss}
            row["loss_after"] = self._loss(x, y) if self._one_weight else torch.full_like(loss, torch.nan)
            self._points.append({**row, "gradient": self._gradient()})

    def end_epoch(self, epoch: int) -> Tensor:
        """Record the weight and the cost over all data after this many epochs; returns the cost."""
        cost = self._cost()
        if cost.dim():
            raise InputError(f"the loss has shape {tuple(cost.shape)}; return one number, e.g. its mean")
        self._ends.append({"epoch": epoch, "weight": self._weight(), "cost": cost})
        return cost

    def look(self) -> Failure | None:
        """None if all numbers since the last look are finite; else the record ends before the first other."""
        since, recent = self.updates - len(self._watched), max(len(self._watched), 1)
        kind = "weight" if self._one_weight else "loss"
        found = [(since + 1 + i, kind) for i in _not_finite(self._watched)[:1]]
        ends = self._ends[-recent:]
        found += [(self._update_of(ends[i]), "cost") for i in _not_finite([end["cost"] for end in ends])[:1]]
        if self._one_weight:  # its loss overflows before the weight does
            points = [point for point in self._points[-recent:] if point["update"] > since]
            for loss in ("loss_before", "loss_after"):
                found += [(points[i]["update"], "loss") for i in _not_finite([p[loss] for p in points])[:1]]
        if isinstance(self._model, DistributedDataParallel):  # all processes stop at the same update
            earliest = torch.tensor(min(found, default=(_NEVER, ""))[0], device=self._x.device)
            dist.all_reduce(earliest, dist.ReduceOp.MIN)
            found += [(int(earliest), "loss of another process")] if earliest < _NEVER else []
        if not found:
            self._last_finite = self._copy()
            self._watched.clear()
            return None
        first, what = min(found, key=lambda pair: pair[0])
        if self._one_weight and first - 1 > since:
            self._last_finite = [self._watched[first - 2 - since]]
        self._points = [point for point in self._points if point["update"] < first]
        self._ends = [end for end in self._ends if self._update_of(end) < first]
        reason = f"the {what} is not finite {'at' if what == 'loss' else 'after'} update {first}"
        return Failure(reason, self._last_finite)

    def part(self, status: str = "finished", reason: str = "") -> History:
        """What was recorded since the last part."""
        ends, points = self._ends, self._points
        self._ends, self._points = [], []
        return History.of(self._batches, self._weight(), ends, points, status, reason)

    def _update_of(self, end: dict[str, Any]) -> int:
        return int(end["epoch"]) * len(self._batches)

    def _copy(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self._state]

    def _weight(self) -> Tensor:
        """The weight, or all parameters flattened, or nothing of a large module."""
        if self._one_weight:
            return self._params[0].detach().clone()
        flat = [p.detach().reshape(-1) for p in self._params if self._small] or [self._x.new_empty(0)]
        weights = torch.cat(flat)
        return weights.reshape(()) if weights.numel() == 1 else weights

    def _gradient(self) -> Tensor:
        """The gradient of the one weight, or the norm of all gradients."""
        grads = [p.grad.detach() for p in self._params if p.grad is not None]
        if self._one_weight and grads:
            return grads[0].clone()
        dense = [g.coalesce().values() if g.is_sparse else g for g in grads] or [
            self._x.new_full((), torch.nan)
        ]
        norm: Tensor = torch.linalg.vector_norm(torch.cat([g.reshape(-1) for g in dense]))
        return norm

    def _cost(self) -> Tensor:
        """The loss over all data; computed in blocks if it is the mean or the sum of their losses."""
        if self._block >= len(self._x):
            return self._loss(self._x, self._y)
        blocks = zip(self._x.split(self._block), self._y.split(self._block), strict=True)
        total = torch.stack([self._loss(x, y) * (1 if self._sums else len(x)) for x, y in blocks]).sum()
        return total if self._sums else total / len(self._x)

    def _separable(self) -> int:
        """How many samples a block has; all samples if the loss is neither a mean nor a sum over samples."""
        # All processes of a group must do the same number of forward passes, even with unequal shares.
        if len(self._x) <= BLOCK or isinstance(self._model, DistributedDataParallel):
            return len(self._x)
        x, y = self._x[:7], self._y[:7]
        try:
            whole, first, second = self._loss(x, y), self._loss(x[:3], y[:3]), self._loss(x[3:], y[3:])
        except Exception:  # some losses and modules need more samples than these
            return len(self._x)
        near = math.sqrt(torch.finfo(whole.dtype).eps) if whole.is_floating_point() else 0.0
        self._sums = torch.allclose(whole, first + second, rtol=near)
        mean = torch.allclose(whole, (3 * first + 4 * second) / 7, rtol=near)
        return BLOCK if self._sums != mean else len(self._x)

    @torch.no_grad()
    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss, without side effects: the module is in eval mode meanwhile."""
        if self._one_weight:
            return self._loss_fn(self._model(x), y)
        training = [module for module in self._model.modules() if module.training]
        self._model.eval()
        try:
            return self._loss_fn(self._model(x), y)
        finally:
            for module in training:
                module.training = True


def _not_finite(values: list[Tensor]) -> list[int]:
    """The places of values that are not finite, with one transfer from the device."""
    return (~torch.stack(values).isfinite()).nonzero().reshape(-1).tolist() if values else []
