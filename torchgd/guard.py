"""Notices a forgotten ``zero_grad``: stepping with a gradient that still holds the last step's."""

from __future__ import annotations

import warnings
import weakref
from functools import partial
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer
from torch.utils.hooks import unserializable_hook
from torch.utils.weak import TensorWeakRef

from torchgd.errors import users_frame


class ZeroGradGuard:
    """Notices a backward pass that adds to a gradient which a step has already used.

    Two hooks of autograd see each accumulation. The first runs before it: the gradient was not cleared since
    the step if it is the same tensor (None makes a new one), has the same version (``zero_()`` raises it) and
    is not zero (``.data.zero_()`` does not raise it). The second runs after it, and only if the gradient was
    meant for ``.grad``: ``torch.autograd.grad`` does not accumulate. If a later accumulation finds the
    gradient cleared, there is no warning: what another loss's backward left there was cleared in time.
    """

    # After ten clean steps the hooks are removed.
    steps_left = 10

    def __init__(self, optimizer: Optimizer) -> None:
        self._name = type(optimizer).__name__
        # The keys are the ids of the parameters.
        self._used: dict[int, tuple[TensorWeakRef, int]] = {}  # the last step's gradient and its version
        self._uncleared: dict[int, bool] = {}  # whether it was uncleared before this accumulation
        self._stale: set[int] = set()
        self._handles: list[Any] = []
        weakref.finalize(optimizer, _remove, self._handles).atexit = False

    def watch(self, params: list[Tensor]) -> None:
        for p in params:
            if p.is_leaf and p.requires_grad:
                before = unserializable_hook(partial(self._accumulates, TensorWeakRef(p)))
                self._handles += [
                    p.register_hook(before),
                    p.register_post_accumulate_grad_hook(self._accumulated),
                ]

    def _accumulates(self, parameter: TensorWeakRef, _: Tensor) -> None:
        p = parameter()
        if p is not None:
            self._uncleared[id(p)] = self._holds_the_last(p, unchanged=id(p) not in self._stale)

    def _accumulated(self, p: Tensor) -> None:
        if self._uncleared.pop(id(p), False):
            self._stale.add(id(p))
        else:
            self._stale.discard(id(p))

    def _holds_the_last(self, p: Tensor, *, unchanged: bool) -> bool:
        """Whether the gradient is the tensor that the last step used, and not zero."""
        used, version = self._used.get(id(p), (None, 0))
        if p.grad is None or used is None or used() is not p.grad:
            return False
        if unchanged and p.grad._version != version:
            return False
        return p.grad.is_sparse or bool(p.grad.any())

    def stepped(self, groups: list[dict[str, Any]]) -> None:
        self.steps_left -= 1
        for number, group in enumerate(groups):
            for index, p in enumerate(group["params"]):
                if id(p) in self._stale and self._holds_the_last(p, unchanged=False):
                    self.steps_left = 0
                    frame, level = users_frame()
                    name = group["param_names"][index] if "param_names" in group else _name(p, frame)
                    warnings.warn(
                        f"{self._name}.step(): the gradient of parameter "
                        f"{name or f'{index} of group {number}'} still holds the last step's, "
                        "so this is momentum 1; call optimizer.zero_grad() before backward()",
                        stacklevel=level,
                    )
                    return _remove(self._handles)
                if p.grad is not None and not p.grad.is_inference():  # an inference tensor has no version
                    self._used[id(p)] = (TensorWeakRef(p.grad), p.grad._version)
        self._stale.clear()
        return None if self.steps_left else _remove(self._handles)


def _name(parameter: Tensor, frame: FrameType | None) -> str:
    """The parameter's name in the user's code: of a variable, or of a module's parameter; else empty."""
    while frame is not None:
        for name, value in [*frame.f_locals.items(), *frame.f_globals.items()]:
            if value is parameter:
                return name
            if isinstance(value, nn.Module):
                for part, held in value.named_parameters():
                    if held is parameter:
                        return f"{name}.{part}"
        frame = frame.f_back
    return ""


def _remove(handles: list[Any]) -> None:
    while handles:
        handles.pop().remove()
