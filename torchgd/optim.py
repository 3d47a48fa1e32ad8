"""The three forms of gradient descent as optimizers: one update rule on different samples.

    w ← w − lr · dC_B/dw          (+ where maximize)

C_B is the mean loss over the batch B. The rule is the same line for all three; the classes
differ only in the batches of one epoch, which ``optimizer.batches(n)`` gives:

    GradientDescent                one batch of all n samples
    StochasticGradientDescent      n batches of one sample
    MiniBatchGradientDescent       ⌈n / batch_size⌉ batches; the last one may be smaller

They keep the contract of :class:`torch.optim.Optimizer`, and for the same ``.grad`` the result
equals ``torch.optim.SGD(momentum=0)`` bit for bit. Where torch.optim.SGD takes a learning rate
of zero, NaN or infinity in silence, they refuse it.

Source: 《PyTorch深度学习实践》, lecture 3, gradient descent (2020); A. Cauchy, Comptes rendus 25
(1847) 536; H. Robbins and S. Monro, Annals of Mathematical Statistics 22 (1951) 400.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from numbers import Real
from types import MethodType
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from torchgd.batches import Batches, check_order
from torchgd.errors import InputError
from torchgd.guard import ZeroGradGuard


class Eager(Optimizer):
    """An optimizer whose construction does not import torch._dynamo, which takes as long as half of torch.

    These methods have a decorator that keeps torch.compile out of them, and its first call imports
    torch._dynamo. As long as nothing else has imported it, the methods are called without the decorator.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See :meth:`torch.optim.Optimizer.add_param_group`."""
        self._undecorated(super().add_param_group)(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """See :meth:`torch.optim.Optimizer.zero_grad`."""
        self._undecorated(super().zero_grad)(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`torch.optim.Optimizer.state_dict`."""
        state: dict[str, Any] = self._undecorated(super().state_dict)()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`torch.optim.Optimizer.load_state_dict`."""
        self._undecorated(super().load_state_dict)(state_dict)

    def _undecorated(self, method: Any) -> Any:
        if "torch._dynamo" in sys.modules:
            return method
        return MethodType(inspect.unwrap(method.__func__), self)


class GradientDescent(Eager):
    """Full-batch gradient descent: w ← w − lr · (1/n) Σᵢ dℓᵢ/dw, one update an epoch.

    Args:
        params: parameters, named parameters, or groups of them, each with its own options.
        lr: the learning rate, finite and above 0, in units of w² per unit of the loss (for
            y = w·x: 1/x²); a number or a tensor of one element.
        maximize: climb instead of descending.
        foreach: update all tensors in one call (True), in a loop (False), or in the faster way (None).
        differentiable: let autograd see the update.

    Raises:
        InputError: lr is zero, negative, NaN or infinite.

    Warns:
        UserWarning: once, where a gradient still holds what an earlier step has already used
            (``zero_grad`` was forgotten); only the first ten steps are watched.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor(1.0))
        >>> optimizer = GradientDescent([w], lr=0.01)
        >>> w.grad = torch.tensor(-28 / 3)
        >>> optimizer.step()
        >>> w
        Parameter containing:
        tensor(1.0933, requires_grad=True)

    Source: the module's docstring.
    """

    _batch_size: int | None = None  # None is all samples
    _order = "sequential"
    _generator: torch.Generator | None = None

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
    ) -> None:
        self._guard = ZeroGradGuard(self)
        options = {"lr": lr, "maximize": maximize, "foreach": foreach, "differentiable": differentiable}
        super().__init__(params, options)

    def batches(self, n: int) -> Batches:
        """The index batches of one epoch over n samples, as DataLoader's batch_sampler takes them."""
        return Batches(n, n if self._batch_size is None else self._batch_size, self._order, self._generator)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters that may have other options; see :meth:`torch.optim.Optimizer.add_param_group`."""
        if isinstance(param_group, dict):
            _check_lr(param_group.get("lr", self.defaults["lr"]))
        super().add_param_group(param_group)
        self._guard.watch(param_group["params"])

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient: p ← p − lr · p.grad.

        Args:
            closure: evaluates the model again and returns the loss; it runs with gradients on.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params, grads = group["params"], [g for p in group["params"] if (g := p.grad) is not None]
            if len(grads) < len(params):
                params = [p for p in params if p.grad is not None]
            with torch.set_grad_enabled(group["differentiable"]):
                _descend(params, grads, group)
        if self._guard.steps_left and not torch.compiler.is_compiling():
            self._guard.stepped(self.param_groups)
        return loss

    def __getstate__(self) -> dict[str, Any]:
        sampling = {"_batch_size": self._batch_size, "_order": self._order, "_generator": self._generator}
        return {**super().__getstate__(), **sampling}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A state of torch.optim.SGD is accepted, unless its options would change the trajectory.
        for group in state["param_groups"]:
            for option in ("momentum", "weight_decay"):
                if group.get(option):
                    has = f"the state has {option} {group[option]}, but {type(self).__name__} has none"
                    raise InputError(f"{has}; load it into a torch.optim.SGD")
        super().__setstate__(state)
        for group in self.param_groups:
            for name in ("maximize", "foreach", "differentiable"):
                group.setdefault(name, self.defaults.setdefault(name, False))
        if "_guard" not in self.__dict__:  # it is a copy or unpickled; load_state_dict keeps the guard
            self._guard = ZeroGradGuard(self)
            for group in self.param_groups:
                self._guard.watch(group["params"])


class StochasticGradientDescent(GradientDescent):
    """Per-sample gradient descent: w ← w − lr · dℓᵢ/dw, n updates an epoch.

    Args:
        params, lr: as for :class:`GradientDescent`.
        order: "sequential" takes the samples as they stand, as lecture 3 does; "shuffled" takes a
            fresh permutation every epoch; "replacement" draws n samples independently, which is the
            method that the theory calls stochastic gradient descent.
        generator: where the randomness comes from; PyTorch's global one if not given.
        maximize, foreach, differentiable: as for :class:`GradientDescent`.

    Raises:
        InputError: lr or order is not one of these.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor(1.0))
        >>> list(StochasticGradientDescent([w]).batches(3))
        [[0], [1], [2]]

    Source: the module's docstring.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        *,
        order: str = "sequential",
        generator: torch.Generator | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
    ) -> None:
        check_order(order)
        self._batch_size, self._order, self._generator = 1, order, generator
        super().__init__(params, lr, maximize=maximize, foreach=foreach, differentiable=differentiable)


class MiniBatchGradientDescent(StochasticGradientDescent):
    """Mini-batch gradient descent: w ← w − lr · (1/|B|) Σ_{i∈B} dℓᵢ/dw, ⌈n / batch_size⌉ updates an epoch.

    The last batch of an epoch holds what is left; its update is the mean over its own samples,
    so a mean over an epoch must weigh the batches by their sizes.

    Args:
        params, lr: as for :class:`GradientDescent`.
        batch_size: samples in a batch, at least 1.
        order, generator, maximize, foreach, differentiable: as for :class:`StochasticGradientDescent`.

    Raises:
        InputError: lr, order or batch_size is not one of these; ``batches(n)`` finds a batch_size above n.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor(1.0))
        >>> list(MiniBatchGradientDescent([w], batch_size=2).batches(3))
        [[0, 1], [2]]

    Source: the module's docstring.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        *,
        batch_size: int,
        order: str = "sequential",
        generator: torch.Generator | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
    ) -> None:
        if not (isinstance(batch_size, int) and batch_size >= 1):
            raise InputError(f"batch_size is {batch_size!r}; give a whole number, 1 or more")
        super().__init__(
            params,
            lr,
            order=order,
            generator=generator,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
        )
        self._batch_size = batch_size


def is_plain(optimizer: Optimizer) -> bool:
    """Whether an optimizer's step is the update rule of this module and nothing else."""
    # Unwrapped, because PyTorch puts a wrapper around the step of each class that has an instance
    step = inspect.unwrap(type(optimizer).step)
    return isinstance(optimizer, GradientDescent) and step is inspect.unwrap(GradientDescent.step)


def _check_lr(lr: float | Tensor) -> None:
    if not isinstance(lr, Tensor | Real):
        raise InputError(f"lr is {lr!r}; give a number above 0")
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise InputError(f"lr is a tensor of shape {tuple(lr.shape)}; give one element")
    value = float(lr.detach() if isinstance(lr, Tensor) else lr)
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"lr is {value}; give a finite number above 0")


def _descend(params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
    """The update p ← p − lr · g of one group, in the arithmetic of torch.optim.SGD."""
    lr, foreach = group["lr"], group["foreach"]
    if isinstance(lr, Tensor):
        lr = lr.reshape(())
        if lr.requires_grad:
            for p, g in zip(params, grads, strict=True):
                p.addcmul_(g, lr, value=1 if group["maximize"] else -1)
            return
    alpha = lr if group["maximize"] else -lr  # (+lr)·g and (−lr)·(−g) are the same bits
    if foreach is None:  # as in torch.optim; for one tensor gathering costs more than it saves
        foreach = len(params) > 1 and not group["differentiable"]
    if not foreach:
        for p, g in zip(params, grads, strict=True):
            p.add_(g, alpha=alpha)
    elif params:
        torch._foreach_add_(params, grads, alpha=alpha)
