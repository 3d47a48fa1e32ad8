"""Notices a forgotten ``zero_grad``: stepping with a gradient that still holds the last step's."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer


class ZeroGradGuard:
    """Notices a backward pass that adds to a gradient which a step has already used.

    Autograd tells of each accumulation by a hook. The gradient was not cleared since the step
    exactly if its version is then one above the step's: ``zero_()`` would have raised it once
    more, and a new tensor (after None) starts from 0. So accumulating on purpose before the
    step, clearing in any way and gradients set by hand raise no false alarm.
    """

    steps_left = 10  # who clears the gradient once clears it always: then the hooks go

    def __init__(self, optimizer: Optimizer) -> None:
        self._name = type(optimizer).__name__
        self._used: dict[int, int] = {}  # id of a parameter: the version of its gradient after the last step
        self._stale: set[int] = set()
        self._handles: list[Any] = []
        weakref.finalize(optimizer, _remove, self._handles).atexit = False

    def watch(self, params: list[Tensor]) -> None:
        for p in params:
            if p.is_leaf and p.requires_grad:
                self._handles.append(p.register_post_accumulate_grad_hook(self._accumulated))

    def _accumulated(self, p: Tensor) -> None:
        used = self._used.pop(id(p), None)
        if used is not None and p.grad is not None and p.grad._version == used + 1:
            self._stale.add(id(p))

    def stepped(self, groups: list[dict[str, Any]]) -> None:
        self.steps_left -= 1
        for number, group in enumerate(groups):
            for index, p in enumerate(group["params"]):
                if id(p) in self._stale:
                    name = group.get("param_names", {index: f"{index} of group {number}"})[index]
                    self.steps_left = 0
                    warnings.warn(
                        f"{self._name}.step(): the gradient of parameter {name} still holds the last step's, "
                        "so this is momentum 1; call optimizer.zero_grad() before backward()",
                        stacklevel=5,
                    )
                    return _remove(self._handles)
                if p.grad is not None:
                    self._used[id(p)] = p.grad._version
        return None if self.steps_left else _remove(self._handles)


def _remove(handles: list[Any]) -> None:
    while handles:
        handles.pop().remove()
