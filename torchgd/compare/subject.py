"""An optimizer of anyone's on the ground of its contract: how it is made, and how it is made to step.

Before its clauses are judged, it is tried: some need a closure, sparse gradients, or gradients with a
graph (a Hessian); some do not know float64; some move only from a later step on, or throw dice.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchgd.compare.isolation import OutOfTimeError, alone, seed_everything
from torchgd.compare.scenario import (
    BrokenError,
    Factory,
    NotApplicableError,
    expect_close,
    expect_same,
    height,
    parameter,
    slope,
)

_LATEST_START = 12  # steps that an optimizer may take before it moves


@dataclass(frozen=True)
class Subject:
    """A factory, the options it is given, and the way in which it steps."""

    factory: Factory
    deadline: float
    options: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    gradients: str = "dense"  # or "graph", or "sparse"
    closure: bool = False
    start: int = 0  # the first step that moves; 0: none of the first dozen
    error: Exception | None = None  # what the ordinary way raised, where no way works

    # How it is made

    def parameter(self, values: Tensor | None = None) -> nn.Parameter:
        return parameter(values, self.dtype)

    def make(self, params: Any, **options: Any) -> Optimizer:
        """Make the optimizer with options, in train() mode; not applicable where it does not take them."""
        signature = inspect.signature(self.factory).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in signature.values())
        missing = [name for name in options if name not in signature and not anything]
        if missing:
            raise NotApplicableError(f"the factory takes no {', '.join(missing)}")
        seed_everything()
        try:
            optimizer = self.factory(params, **{**self.options, **options})
        except TypeError as error:
            unknown = [name for name in options if name not in signature]
            words = str(error)
            if unknown or (options and ("unexpected keyword" in words or "multiple values" in words)):
                raise NotApplicableError(f"the factory takes no {', '.join(options)}") from error
            raise
        switch_on(optimizer)
        return optimizer

    def takes(self, option: str) -> bool:
        """Whether the factory names this option, or puts it into the defaults."""
        return option in inspect.signature(self.factory).parameters or option in self.defaults

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The optimizer's defaults, and what its first group holds."""
        try:
            with alone():
                optimizer = self.make([self.parameter()])
        except Exception:  # anyone's code; the clause that makes it tells
            return {}
        group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        return {**getattr(optimizer, "defaults", {}), **group}

    @cached_property
    def has_modes(self) -> bool:
        """Whether it has train() and eval()."""
        with alone():
            optimizer = self.make([self.parameter()])
        return callable(getattr(optimizer, "train", None))

    def lr(self) -> float:
        """The learning rate of its first group, a number above 0."""
        lr = self.defaults.get("lr")
        if lr is None:
            raise NotApplicableError("its lr is None" if "lr" in self.defaults else "its groups have no lr")
        return float(lr)

    def set_lr(self, optimizer: Optimizer, factor: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def visible(self) -> Subject:
        """The same with a learning rate of 0.1 where its own is smaller: a step that bfloat16 can see."""
        lr = self.defaults.get("lr")
        small = isinstance(lr, float) and 0 < lr < 0.1 and "lr" in inspect.signature(self.factory).parameters
        return replace(self, options={**self.options, "lr": 0.1}) if small else self

    # How it steps

    def gradient(self, p: Tensor, sign: int = 1) -> Tensor:
        """The bowl's gradient at p, of the kind that the optimizer takes."""
        if self.gradients == "graph":
            with torch.enable_grad():
                (grad,) = torch.autograd.grad(height(p), p, create_graph=True)
            return sign * grad
        grad = sign * slope(p)
        return grad.to_sparse(1) if self.gradients == "sparse" and p.dim() else grad

    def fill(self, params: Sequence[Tensor], sign: int = 1) -> Tensor:
        """Give every parameter a fresh gradient of the bowl, and return its height."""
        for p in params:
            p.grad = self.gradient(p, sign)
        with torch.set_grad_enabled(self.gradients == "graph"):
            return sign * torch.stack([height(p) for p in params]).sum()

    def step(self, optimizer: Optimizer, evaluate: Callable[[], Tensor]) -> None:
        """One update: evaluate() gives the gradients; it is the closure too where one is needed."""
        if time.monotonic() > self.deadline:
            raise OutOfTimeError
        evaluate()
        if self.closure:
            optimizer.step(evaluate)  # type: ignore[arg-type]
        else:
            optimizer.step()

    def descend(
        self, optimizer: Optimizer, params: Sequence[Tensor], steps: int | None = None, sign: int = 1
    ) -> None:
        """Take some steps down the bowl with the same dice each time, or up where sign is −1."""
        seed_everything()
        for _ in range(max(self.start, 1) + 2 if steps is None else steps):
            self.step(optimizer, lambda: self.fill(params, sign))

    def first_move(self, params: Sequence[Tensor] = ()) -> int:
        """The first step that moves the last of these, or the usual parameter; 0 if none of a dozen does."""
        params = params or [self.parameter()]
        start, optimizer = params[-1].detach().clone(), self.make(params)
        seed_everything()
        for step in range(1, _LATEST_START + 1):
            self.step(optimizer, lambda: self.fill(params))
            if not torch.equal(params[-1], start):
                return step
        return 0

    # What it is like

    def _ends_at(self, start: Tensor, seed: int = 0) -> Tensor:
        with alone():
            p = self.parameter(start)
            optimizer = self.make([p])
            for step in range(max(self.start, 1) + 2):
                seed_everything(seed + step)
                self.step(optimizer, lambda: self.fill([p]))
            return p.detach()

    @cached_property
    def throws_dice(self) -> bool:
        """Whether its updates depend on random numbers."""
        p = self.parameter()
        return not torch.equal(self._ends_at(p), self._ends_at(p, seed=1000))

    @cached_property
    def repeats(self) -> bool:
        """Whether two equal runs end at the same bits, or throw dice that no seed reaches."""
        p = self.parameter()
        return torch.equal(self._ends_at(p), self._ends_at(p))

    def same(self, found: Tensor, wanted: Tensor, what: str) -> None:
        """Equal bit for bit; not applicable where equal runs are not."""
        try:
            expect_same(found, wanted, what)
        except BrokenError as error:
            if self.repeats:
                raise
            raise NotApplicableError("its equal runs differ: it has random numbers of its own") from error

    def without_dice(self) -> None:
        """For a clause in which the layout of the tensors would change the dice."""
        if self.throws_dice:
            raise NotApplicableError("its updates are random, and another layout changes the random numbers")

    @cached_property
    def depends_on_shape(self) -> bool:
        """Whether the same twelve numbers move otherwise in another shape, as with a matrix method."""
        start = torch.stack([self.parameter(), self.parameter().flip(1)], dim=-1).detach()
        if not self.start:
            return False
        try:
            ends = [self._ends_at(start.reshape(shape)).reshape(12) for shape in ((2, 3, 2), (4, 3), (12,))]
            for end in ends[1:]:
                expect_close(end, ends[0], start.reshape(12), "another shape")
        except Exception:  # anyone's code: it does not take this shape, or moves otherwise in it
            return True
        return False

    def _strays(self, size: float) -> float:
        """How far the update strays where every element of the start is off by ± this share of it."""
        plain, start = replace(self, options={}), self.parameter()
        signs = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]]).to(self.dtype)
        beside = self.parameter(start * (1 + size * signs))
        way, other = plain._ends_at(start) - start, plain._ends_at(beside) - beside
        return float((other - way).abs().max() / way.abs().max())

    @cached_property
    def tolerance(self) -> float:
        """What rounding explains, as a share of the way; 1/32 where it sees 2⁻⁶ but not 2⁻¹²: in bfloat16."""
        if self._strays(2**-12) < self._strays(2**-6) / 1024:
            return 1 / 32
        return 64 * self._strays(4 * torch.finfo(self.dtype).eps)

    def close(self, found: Tensor, wanted: Tensor, start: Tensor, what: str) -> float:
        """Equal to the rounding of this optimizer; returns the gap."""
        try:
            return expect_close(found, wanted, start, what)
        except BrokenError:
            return expect_close(found, wanted, start, what, self.tolerance if self.start else 0.0)

    def in_dtype(self, dtype: torch.dtype) -> Subject:
        """The same in another dtype; not applicable where it does not move there."""
        other = replace(self, dtype=dtype)
        try:
            with alone():
                start = other.first_move()
        except Exception as error:  # anyone's code; the clause of the dtypes tells
            raise NotApplicableError(f"raises in {name_of(dtype)}") from error
        if not start:
            raise NotApplicableError(f"does not move in {name_of(dtype)}")
        return replace(other, start=start)

    def manner(self) -> str:
        """How it had to be driven, where that is not the ordinary way."""
        words = ["driven by step(closure)"] if self.closure else []
        words += {"dense": [], "graph": ["gradients with a graph"], "sparse": ["sparse gradients"]}[
            self.gradients
        ]
        words += [f"in {name_of(self.dtype)}"] if self.dtype is not torch.float64 else []
        words += ["in train() mode"] if self.has_modes else []
        words += [f"starts at step {self.start}"] if self.start > 1 else []
        return "".join(f"; {word}" for word in words)


def switch_on(optimizer: Optimizer) -> None:
    """Its train() mode, where it has one; a wrapper may hand the call on to one that has none."""
    if callable(train := getattr(optimizer, "train", None)):
        with suppress(AttributeError):
            train()


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
