"""Lecture 3, with witnesses: is the gradient right, and is each method what PyTorch does?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchgd import gradient as by_hand
from torchgd.model import LinearModel
from torchgd.moments import float64
from torchgd.runs.run import Config, make_optimizer
from torchgd.training import train

MOST_UPDATES = 2000  # the witnesses watch the first so many updates of a run


@dataclass(frozen=True)
class Witness:
    """What was seen beside a run.

    Attributes:
        updates: how many updates were watched.
        gradient: the largest difference between the gradient by hand and autograd's, relative to the
            largest gradient of the run.
        equal_updates: after how many of them the weight equalled torch.optim.SGD's bit for bit.
    """

    updates: int
    gradient: float
    equal_updates: int

    @property
    def ok(self) -> bool:
        """The gradients differ by rounding alone, and the weights not at all."""
        return self.gradient < 1e-12 and self.equal_updates == self.updates


def witness(config: Config, x: Tensor, y: Tensor) -> Witness:
    """Run the first updates of a configuration three ways at once, in float64.

    By hand with torchgd's optimizer; the same with autograd's gradient computed beside it at every step; and
    with torch.optim.SGD on the same batches.
    """
    x, y = float64(x), float64(y)
    if config.method != "gd":  # so many samples give so many updates, or more
        x, y = x[: MOST_UPDATES * (config.batch_size or 1)], y[: MOST_UPDATES * (config.batch_size or 1)]
    model = LinearModel(config.weight, device=x.device, dtype=x.dtype)
    optimizer = make_optimizer(config, model)
    per_epoch = len(optimizer.batches(len(x)))
    epochs = min(config.epochs, max(1, MOST_UPDATES // per_epoch))
    largest = difference = torch.zeros((), dtype=x.dtype, device=x.device)

    def watched(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        nonlocal largest, difference
        hand = by_hand.gradient(w, x, y)
        leaf = w.clone().requires_grad_()
        (auto,) = torch.autograd.grad(torch.nn.functional.mse_loss(leaf * x, y), leaf)
        largest = torch.maximum(largest, auto.abs())
        difference = torch.maximum(difference, (hand - auto).abs())
        return hand

    ours = train(model, x, y, optimizer, epochs, gradient=watched, check=False)
    peer = LinearModel(config.weight, device=x.device, dtype=x.dtype)
    sgd = torch.optim.SGD(peer.parameters(), lr=config.lr)
    batches = make_optimizer(config, model).batches(len(x))  # its generator starts from the seed again
    theirs = train(peer, x, y, sgd, epochs, gradient="hand", batches=batches)
    updates = len(ours.update_weight)
    equal = int((ours.update_weight == theirs.update_weight[:updates]).sum())
    return Witness(updates, (difference / largest.clamp_min(torch.finfo(x.dtype).tiny)).item(), equal)
