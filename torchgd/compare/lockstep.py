"""Several optimizers in lock-step: each trains its own copy of one model, on the same batches and dice."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

from torchgd.errors import InputError
from torchgd.samples import rows

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]
LossFunction = Callable[[Tensor, Tensor], Tensor]


class Run:
    """A copy of the model and the optimizer that trains it, on gradients off by ±nudge of each element."""

    def __init__(
        self, model: nn.Module, factory: OptimizerFactory, loss_fn: LossFunction, nudge: float = 0.0
    ) -> None:
        self.model = copy.deepcopy(model)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.numel()}
        if not any(p.requires_grad for p in self.parameters.values()):
            raise InputError(f"the model {type(model).__name__} has no parameter to train; give one that has")
        self.optimizer = factory(list(self.model.parameters()))
        if not isinstance(self.optimizer, Optimizer):
            raise InputError(f"a factory made a {type(self.optimizer).__name__}; it must make an Optimizer")
        self._loss_fn, self._nudge, self._dice = loss_fn, nudge, torch.Generator().manual_seed(0)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """One update on one batch."""
        take_step(self.optimizer, lambda: self._evaluate(inputs, targets))

    def follow(self, leader: Run) -> None:
        """Take over the leader's parameters and buffers, not its optimizer's state."""
        self.model.load_state_dict(leader.model.state_dict())

    def finite(self) -> bool:
        """Whether no parameter has overflowed."""
        return all(bool(p.isfinite().all()) for p in self.parameters.values())

    def _evaluate(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self.model.zero_grad()
        prediction = self.model(inputs)
        if self._loss_fn is mse_loss and prediction.shape != targets.shape:
            shapes = f"the prediction has shape {tuple(prediction.shape)} and y has {tuple(targets.shape)}"
            raise InputError(f"{shapes}; reshape y, since the squared error would broadcast them")
        loss = self._loss_fn(prediction, targets)
        loss.backward()
        if self._nudge:
            for p in self.parameters.values():
                if p.grad is not None:
                    signs = torch.randint(0, 2, p.shape, generator=self._dice) * 2 - 1
                    p.grad += p.grad * (self._nudge * signs.to(p.device))
        return loss


@cache
def needs_closure(step: Callable[..., object]) -> bool:
    """Whether the step of a class cannot be called without a closure, as LBFGS's."""
    _, *arguments = inspect.signature(step).parameters.values()
    return any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in arguments)


def take_step(optimizer: Optimizer, closure: Callable[[], Tensor]) -> None:
    """One update in the ordinary way: the gradients, then the step; or step(closure) where it needs one."""
    if needs_closure(type(optimizer).step):
        optimizer.step(closure)  # type: ignore[arg-type]
    else:
        closure()
        optimizer.step()


def step_alike(runs: Sequence[Run], inputs: Tensor, targets: Tensor) -> None:
    """One update of every run, each from the same state of the random number generators (dropout)."""
    devices = sorted({p.device.index for p in runs[0].parameters.values() if p.device.type == "cuda"})
    for run in runs[1:]:
        with torch.random.fork_rng(devices):
            run.step(inputs, targets)
    runs[0].step(inputs, targets)


def schedule(
    x: Tensor, y: Tensor, batches: Iterable[Sequence[int]] | None, steps: int
) -> list[Tensor | slice]:
    """The samples of each step, as an index. Random batches are drawn once, for all runs."""
    x, _ = rows(x, y)
    if batches is None:
        return [slice(None)] * steps
    drawn: list[Tensor | slice] = []
    for batch in islice(_epochs(batches), steps):
        indices = torch.as_tensor(batch, dtype=torch.long, device=x.device)
        if indices.numel() == 0 or not (int(indices.min()) >= 0 and int(indices.max()) < len(x)):
            raise InputError(f"batches: {list(batch)} is not a batch of the samples 0 to {len(x) - 1}")
        drawn.append(indices)
    return drawn


def _epochs(batches: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
    """Epoch after epoch of batches."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise InputError("batches: an epoch has no batch; give a list or a sampler, not an iterator")
