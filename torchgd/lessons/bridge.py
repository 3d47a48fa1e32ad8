"""From lecture 3 to lecture 8 in rungs: the same run, and each rung replaces one part by PyTorch's.

Every rung descends the same cost from the same weight on the same batches, so that the weights differ only
by rounding. Two things of lecture 5 are therefore left out: its bias, because it makes another model, and
its *sum* over the samples, because it makes another learning rate (the sum at lr is the mean at n·lr).

Source: 《PyTorch深度学习实践》, lectures 3, 4, 5 and 8 (2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from torchgd.batches import Batches
from torchgd.gradient import gradient
from torchgd.history import History
from torchgd.model import LinearModel
from torchgd.recorder import Recorder
from torchgd.runs.run import Config

# The lecture, the part that PyTorch does from there on, what it replaces, and its line of code.
LADDER = (
    (3, "by-hand", "everything by hand", "model.weight.grad = gradient(w, x[batch], y[batch])"),
    (4, "gradient", "loss.backward() for torchgd.gradient", "loss.backward()"),
    (5, "optimizer", "torch.optim.SGD for torchgd's optimizer", "optimizer = SGD(model.parameters(), lr=lr)"),
    (5, "model", "nn.Linear(1, 1, bias=False) for LinearModel", "model = nn.Linear(1, 1, bias=False)"),
    (
        8,
        "loader",
        "DataLoader for x[batch], y[batch]",
        "for x, y in DataLoader(data, batch_sampler=batches)",
    ),
)


@dataclass(frozen=True)
class Rung:
    """The run of one lecture.

    Attributes:
        lecture: its number.
        part: the part that is PyTorch's from here on.
        replaced: what the rung replaced, and by what.
        code: the line of code that is new on it.
        history: the run, in which the weight has shape (), whatever the model.
        difference: the largest |Δw| from the rung below, over all updates.
        rounding: whether rounding explains the difference: at most 8 ε |w| an update.
    """

    lecture: int
    part: str
    replaced: str
    code: str
    history: History
    difference: float
    rounding: bool

    @property
    def name(self) -> str:
        """The name of its run; the names sort in the order of the rungs."""
        return f"lecture{self.lecture}-{self.part}"


def climb(config: Config, x: Tensor, y: Tensor) -> list[Rung]:
    """Run all rungs, from the one by hand to the one that PyTorch does alone.

    Args:
        config: the same for every rung; its gradient is ignored.
        x, y: the data, shape (n,), on its device and in its dtype.

    Raises:
        InputError: the batch size or the learning rate is out of its range.

    Example:
        >>> from torchgd import course
        >>> config = Config(data="course", method="sgd", lr=0.01, epochs=1)
        >>> [f"{rung.history.weight[-1]:.6f}" for rung in climb(config, *course())]
        ['1.260688', '1.260688', '1.260688', '1.260688', '1.260688']
    """
    rungs, torchs = list[Rung](), set[str]()
    for lecture, part, replaced, code in LADDER:
        torchs.add(part)
        history = _descend(config, x, y, torchs)
        weight = history.update_weight
        below = rungs[-1].history.update_weight if rungs else weight
        both = torch.stack([weight, below])
        distance = (weight - below).abs().nan_to_num(0, posinf=math.inf)  # inf − inf counts as equal
        allowed = 8 * torch.finfo(weight.dtype).eps * both.abs().amax(0).cummax(0).values * history.update
        rounding = bool((distance <= allowed.nan_to_num(math.inf, posinf=math.inf)).all())
        rungs.append(Rung(lecture, part, replaced, code, history, distance.max().item(), rounding))
    return rungs


def _descend(config: Config, x: Tensor, y: Tensor, torchs: set[str]) -> History:
    """One run; PyTorch does these parts, torchgd the others."""
    by_hand = LinearModel(config.weight, device=x.device, dtype=x.dtype)
    own_optimizer = config.optimizer(by_hand.parameters())
    batches = own_optimizer.batches(len(x))

    model: LinearModel | nn.Linear = by_hand
    if "model" in torchs:
        model = nn.Linear(1, 1, bias=False, device=x.device, dtype=x.dtype)
        nn.init.constant_(model.weight, config.weight)
        x, y = x.reshape(-1, 1), y.reshape(-1, 1)  # nn.Linear takes samples as rows
    optimizer: Optimizer = SGD(model.parameters(), lr=config.rate) if "optimizer" in torchs else own_optimizer
    data: Iterable[Any] = _Slices(x, y, batches)
    if "loader" in torchs:
        data = DataLoader(TensorDataset(x, y), batch_sampler=batches)
    slopes = list[Tensor]()

    def update(x: Tensor, y: Tensor) -> Tensor:
        loss = mse_loss(model(x), y)
        if "gradient" in torchs:
            optimizer.zero_grad()
            loss.backward()
        else:
            model.weight.grad = gradient(model.weight.detach(), x, y)
        optimizer.step()
        slopes.append(torch.as_tensor(model.weight.grad).reshape(()).clone())
        return loss.detach()

    recorder = Recorder(model, x, y, mse_loss, batches, stride=1)
    recorder.end_epoch(0)
    for epoch in range(1, config.epochs + 1):
        for inputs, targets in data:
            recorder.before(inputs, targets)
            recorder.after(inputs, targets, update(inputs, targets))
        recorder.end_epoch(epoch)
    history = recorder.part()
    # For an nn.Linear the recorder has rows of weights and the gradient's norm; here each is one number.
    return replace(
        history,
        weight=history.weight.reshape(-1),
        update_weight=history.update_weight.reshape(-1),
        gradient=torch.stack(slopes).cpu(),
    )


@dataclass(frozen=True)
class _Slices:
    """The data of the batches, cut by hand; each iteration is an epoch."""

    x: Tensor
    y: Tensor
    batches: Batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            yield self.x[batch], self.y[batch]
