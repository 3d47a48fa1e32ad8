"""Forgetting zero_grad is momentum 1, bit for bit.

    forgotten:   g ← g + dC/dw        w ← w − lr·g
    momentum μ:  v ← μ·v + dC/dw      w ← w − lr·v

With μ = 1 these are the same lines. Nothing damps them: the weight swings about w* for ever.

Source: B. Polyak, USSR Computational Mathematics and Mathematical Physics 4 (1964) 1, for momentum.
"""

from __future__ import annotations

import warnings

import torch
from torch.optim import SGD, Optimizer

from torchgd.data.dataset import course
from torchgd.experiments.outcome import Outcome
from torchgd.figures import METHOD_COLOURS, panels
from torchgd.history import History
from torchgd.model import LinearModel
from torchgd.optim import GradientDescent
from torchgd.training import train

LR = 0.01
EPOCHS = 1000


class Forgetful(GradientDescent):
    """Gradient descent that never clears the gradient."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing."""


def run(seed: int) -> Outcome:
    """Full batch on the course's data: with zero_grad, without it, and with momentum 1; nothing is random."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LinearModel(1.0, dtype=torch.float64)
        forgotten = _run(model, Forgetful(model.parameters(), lr=LR))
    model = LinearModel(1.0, dtype=torch.float64)
    momentum = _run(model, SGD(model.parameters(), lr=LR, momentum=1.0))
    model = LinearModel(1.0, dtype=torch.float64)
    right = _run(model, GradientDescent(model.parameters(), lr=LR))
    histories = {"zero_grad-called": right, "zero_grad-forgotten": forgotten, "momentum-1": momentum}

    rows = [
        {
            "w after epoch": epoch,
            "zero_grad called": right.weight[epoch].item(),
            "zero_grad forgotten": forgotten.weight[epoch].item(),
            "SGD(momentum=1)": momentum.weight[epoch].item(),
        }
        for epoch in (1, 2, 3, 10, 100, EPOCHS)
    ]
    equal = int((forgotten.weight[1:] == momentum.weight[1:]).sum())
    low, high = forgotten.weight.min().item(), forgotten.weight.max().item()
    late = forgotten.weight[-EPOCHS // 10 :]
    swing = (late.max() - late.min()).item() / (high - low)
    sentence = (
        f"Without zero_grad {equal} of {EPOCHS} weights equal those of momentum 1 bit for bit; the weight "
        f"swings between {low:.5f} and {high:.5f}, and the last {len(late)} epochs still span "
        f"{100 * swing:.1f} % of that. The optimizer warned: “{caught[0].message if caught else 'nothing'}”."
    )
    figure, (axes,) = panels("Forgetting zero_grad is momentum 1")
    axes.plot(
        forgotten.weight[:151],
        color=METHOD_COLOURS["sgd"],
        linewidth=5,
        alpha=0.5,
        label="zero_grad forgotten",
    )
    axes.plot(momentum.weight[:151], "--", color="black", label="torch.optim.SGD(momentum=1)")
    axes.plot(right.weight[:151], color=METHOD_COLOURS["gd"], linewidth=2.5, label="zero_grad called")
    axes.set(xlabel="epoch", ylabel="weight w after the epoch", ylim=(0.8, 3.8))
    axes.legend(loc="upper right")
    return Outcome(rows, sentence, equal == EPOCHS and swing > 0.99 and len(caught) == 1, figure, histories)


def _run(model: LinearModel, optimizer: Optimizer) -> History:
    x, y = course()
    return train(model, x, y, optimizer, EPOCHS)
