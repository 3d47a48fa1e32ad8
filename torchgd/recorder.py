"""Writes a run's history while it runs, and sees when its numbers stop being finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchgd.batches import Batches
from torchgd.errors import InputError
from torchgd.history import History
from torchgd.model import LinearModel

_NEVER = torch.iinfo(torch.int64).max  # the number of no update
MOST_WEIGHTS = 64  # of a module with more parameters, only costs, losses and gradient norms are recorded

LossFunction = Callable[[Tensor, Tensor], Tensor]
Update = Callable[[Tensor, Tensor, bool], "Tensor | None"]


class Recorder:
    """Keeps the numbers on the model's device until somebody looks, so that no update waits for the host.

    Args:
        model, x, y, loss_fn: as for :func:`torchgd.train`, on one device.
        batches: the batches of an epoch.
        stride: every stride-th update is recorded.
        updates: done before this recorder began.
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

    def do(self, update: Update, x: Tensor, y: Tensor) -> None:
        """Do one update on a batch and take down its numbers.

        ``update(x, y, recorded)`` returns the loss before it where it computes one; where ``recorded``, it
        leaves the gradient in ``.grad``.
        """
        self.updates += 1
        recorded = self.updates % self._stride == 0
        before = self._loss(x, y) if recorded and self._one_weight else None
        loss = update(x, y, recorded)
        if self._one_weight:
            self._watched.append(self._params[0].detach().clone())
        elif loss is not None:
            self._watched.append(loss)
            before = loss
        if recorded and before is not None:
            after = self._loss(x, y) if self._one_weight else torch.full_like(before, torch.nan)
            self._points.append(
                {
                    "update": self.updates,
                    "update_weight": self._weight(),
                    "loss_before": before,
                    "loss_after": after,
                    "gradient": self._gradient(),
                }
            )

    def end_epoch(self, epoch: int) -> Tensor:
        """Take down the weight and the cost over all data after this many epochs; returns the cost."""
        cost = self._loss(self._x, self._y)
        if cost.dim():
            raise InputError(f"the loss has shape {tuple(cost.shape)}; return one number, e.g. its mean")
        self._ends.append({"epoch": epoch, "weight": self._weight(), "cost": cost})
        return cost

    def look(self) -> str | None:
        """None where all numbers since the last look are finite; else why the run has diverged.

        Then the record ends before the first number that is not finite, and the model has its last
        finite weight again (a module other than LinearModel: the weights of the last look).
        """
        since, recent = self.updates - len(self._watched), max(len(self._watched), 1)
        kind = "weight" if self._one_weight else "loss"
        found = [(since + 1 + i, kind) for i in _not_finite(self._watched)[:1]]
        ends = self._ends[-recent:]
        found += [(self._update_of(ends[i]), "cost") for i in _not_finite([end["cost"] for end in ends])[:1]]
        if self._one_weight:  # its loss overflows before the weight does
            points = [point for point in self._points[-recent:] if point["update"] > since]
            for loss in ("loss_before", "loss_after"):
                found += [(points[i]["update"], "loss") for i in _not_finite([p[loss] for p in points])[:1]]
        if isinstance(self._model, DistributedDataParallel):  # where one process stops, all do
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
        with torch.no_grad():
            for p, value in zip(self._state, self._last_finite, strict=True):
                p.copy_(value)
        self._points = [point for point in self._points if point["update"] < first]
        self._ends = [end for end in self._ends if self._update_of(end) < first]
        return f"the {what} is not finite {'at' if what == 'loss' else 'after'} update {first}"

    def part(self, status: str = "finished", reason: str = "") -> History:
        """What was taken down since the last part."""
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

    @torch.no_grad()
    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss without a trace: a module is in eval mode meanwhile."""
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
    """Where the values are not finite, in one look at the device."""
    return (~torch.stack(values).isfinite()).nonzero().reshape(-1).tolist() if values else []
