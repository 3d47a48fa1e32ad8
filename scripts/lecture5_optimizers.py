"""Lecture 5, the homework: eight optimizers in one loop, with gradient descent as the baseline.

By hand: torchgd's ``GradientDescent``. Beside it: eight optimizers of ``torch.optim`` from the same start,
each with 1,000 evaluations of the gradient and lr 0.01; LBFGS has lr 1, since it scales its steps itself.
Each loss is the sum over the samples *before* the update; the printed one is the last.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn, optim
from torch.nn.functional import mse_loss

from torchgd import GradientDescent, course
from torchgd.figures import METHOD_COLOURS, panels

FOLDER = Path("runs") / "lecture5"
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "GradientDescent": GradientDescent,
    **{
        name: getattr(optim, name)
        for name in ("Adagrad", "Adam", "Adamax", "ASGD", "RMSprop", "Rprop", "SGD")
    },
    "LBFGS": lambda params, lr: optim.LBFGS(params, lr=1, max_iter=1),  # so that a step is one evaluation
}


def fit(make_optimizer: Callable[..., optim.Optimizer], evaluations: int = 1000) -> list[float]:
    """The loss at each evaluation of the gradient."""
    x, y = (column.reshape(-1, 1) for column in course())
    torch.manual_seed(42)
    model = nn.Linear(1, 1).double()
    optimizer, losses = make_optimizer(model.parameters(), lr=0.01), list[float]()

    def closure() -> float:  # LBFGS asks for one, since it evaluates the loss itself; the others take it
        loss = mse_loss(model(x), y, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        return losses[-1]

    while len(losses) < evaluations:
        optimizer.step(closure)
    return losses


def main() -> None:
    figure, (axes,) = panels("Homework of lecture 5: as many gradients for each")
    baseline = {"color": METHOD_COLOURS["gd"], "linewidth": 7, "alpha": 0.4}
    for name, optimizer in OPTIMIZERS.items():
        losses = fit(optimizer)
        print(f"{name:15} {len(losses)} evaluations, loss {losses[-1]:.3g}")
        axes.semilogy(losses, label=name, **(baseline if name == "GradientDescent" else {}))
    axes.set(xlabel="evaluations of the gradient", ylabel="loss: sum of (w·x + b − y)²")
    figure.legend(loc="outside right center")
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "optimizers.png")


if __name__ == "__main__":
    main()
