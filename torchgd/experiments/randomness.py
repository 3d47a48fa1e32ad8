"""Where is the randomness? The order of the samples is invisible without noise, and visible with it.

Without noise a per-sample update multiplies the error w − w* by a number, 1 − 2 lr xᵢ², and a product does
not depend on the order of its factors. With noise each update also moves towards another weight, and the last
updates of an epoch count most.

Source: 《PyTorch深度学习实践》, lecture 3 (2020), whose SGD takes the samples as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from torchgd.data.dataset import course
from torchgd.experiments.outcome import Outcome
from torchgd.figures import METHOD_COLOURS, panels
from torchgd.history import History
from torchgd.model import LinearModel
from torchgd.optim import GradientDescent, StochasticGradientDescent
from torchgd.training import train

LR = 0.01
EPOCHS = 400
SETTLED = 200  # epochs; the slowest run, the full batch, then has 0.91^200 of its start left
# Near w = 2 each of three updates rounds by at most 4 ε, and an epoch shrinks earlier errors by 0.74.
ROUNDING = 3 * 4 * torch.finfo(torch.float64).eps / (1 - 0.74)


@dataclass(frozen=True)
class Kind:
    """One kind of SGD, by the order of its samples."""

    name: str
    label: str
    order: str
    colour: str
    reverse: bool = False

    def run(self, x: Tensor, y: Tensor, seed: int) -> History:
        model = LinearModel(1.0, dtype=x.dtype)
        optimizer = GradientDescent(model.parameters(), lr=LR)
        if self.order:
            generator = torch.Generator().manual_seed(seed)
            optimizer = StochasticGradientDescent(
                model.parameters(), lr=LR, order=self.order, generator=generator
            )
        if self.reverse:
            x, y = x.flip(0), y.flip(0)
        return train(model, x, y, optimizer, EPOCHS, gradient="hand")


ONCE_AN_EPOCH = (
    Kind("sgd-123", "SGD in the order 1, 2, 3: lecture 3", "sequential", METHOD_COLOURS["sgd"]),
    Kind("sgd-321", "SGD in the order 3, 2, 1", "sequential", "#CC79A7", reverse=True),
    Kind("sgd-shuffled", "SGD shuffled every epoch", "shuffled", "#E69F00"),
)
KINDS = (
    Kind("gd", "full batch: not SGD", "", METHOD_COLOURS["gd"]),
    *ONCE_AN_EPOCH,
    Kind("sgd-replacement", "SGD drawn with replacement: not an order", "replacement", "#56B4E9"),
)


def run(seed: int) -> Outcome:
    """Five runs on y = 2x, and the same five on y = 2, 5, 6."""
    x, exact = course()
    disturbed = torch.tensor([2.0, 5.0, 6.0], dtype=x.dtype)
    clean = {kind.name: kind.run(x, exact, seed) for kind in KINDS}
    noisy = {kind.name: kind.run(x, disturbed, seed) for kind in KINDS}
    rows = [
        {
            "run": kind.label,
            "y = 2x: w after epoch 1": clean[kind.name].weight[1].item(),
            "y = 2, 5, 6: w settles at": noisy[kind.name].weight[SETTLED:].mean().item(),
            "give or take": noisy[kind.name].weight[SETTLED:].std().item(),
        }
        for kind in KINDS
    ]
    ends = torch.stack([clean[kind.name].weight for kind in ONCE_AN_EPOCH])
    apart = (ends.amax(0) - ends.amin(0)).max().item()
    forwards, backwards = noisy["sgd-123"].weight[-1].item(), noisy["sgd-321"].weight[-1].item()
    best = ((x * disturbed).sum() / (x * x).sum()).item()
    sentence = (
        f"Without noise the order is invisible: on y = 2x all orders end every epoch at the same weight, "
        f"{apart:.0e} apart; with y = 2, 5, 6 the order 1, 2, 3 settles at {forwards:.7f} and 3, 2, 1 at "
        f"{backwards:.7f}, on either side of least squares, {best:.7f}. Nothing is drawn in lecture 3's SGD."
    )
    histories = {f"clean-{name}": run for name, run in clean.items()}
    histories |= {f"noisy-{name}": run for name, run in noisy.items()}
    proved = apart < ROUNDING and forwards < best < backwards
    return Outcome(rows, sentence, proved, _picture(clean, noisy, best), histories)


def _picture(clean: dict[str, History], noisy: dict[str, History], best: float) -> Figure:
    figure, (left, right) = panels(
        "y = 2x: three orders, one curve", "y = 2, 5, 6: three orders, three curves"
    )
    for number, kind in enumerate(KINDS):
        few, many = clean[kind.name].weight[:16], noisy[kind.name].weight[:SETTLED]
        # Each line is thinner than the one below it, so that all are visible.
        left.plot(few, color=kind.colour, linewidth=9 - 2 * number, label=kind.label)
        right.plot(many, color=kind.colour, linewidth=2, label=kind.label)
    right.axhline(best, color="#888888", linestyle=":", label=f"least squares, w = {best:.7f}")
    left.set(xlabel="epoch", ylabel="weight w at the end of the epoch")
    right.set(xlabel="epoch", ylabel="weight w at the end of the epoch", ylim=(2.05, 2.4))
    left.legend()
    right.legend(loc="upper right")
    return figure
