"""Does SGD leave a saddle? Only where the samples' gradients cancel in the mean without being zero.

    product:  the squared error of ŷ = w₁·w₂·x on the course's data; at (0, 0) the gradient of *every*
              sample, 2 (ŷ − y)·(w₂ x, w₁ x), is 0
    pulls:    ℓ(w₁, w₂) = ½ w₁² + ¼ (w₂² − 1)² + x·(w₁ + w₂) with x = 1 and −1; at (0, 0) the two gradients
              are (1, 1) and (−1, −1), and their mean is 0

Both have a saddle at (0, 0), where gradient descent stays for ever.

Source: R. Ge, F. Huang, C. Jin and Y. Yuan, Escaping from saddle points, COLT (2015); E. Wilson, Journal of
the American Statistical Association 22 (1927) 209, for the interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from torchgd.data.dataset import course
from torchgd.experiments.outcome import Outcome
from torchgd.figures import METHOD_COLOURS, METHOD_NAMES, panels
from torchgd.history import History
from torchgd.optim import GradientDescent, StochasticGradientDescent
from torchgd.training import train

SEEDS = 100
EPOCHS = 30
FAR = 0.5  # a run this far away has left the saddle; a minimum is 1 or more away


class AtSaddle(nn.Module):
    """A function of x with two weights, which start at the saddle, (0, 0)."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(self.weights, x)


@dataclass(frozen=True)
class Problem:
    """Samples, a function of two weights and a sample, and the loss of a sample."""

    name: str
    title: str
    function: Callable[[Tensor, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    y: Tensor
    lr: float

    def cost(self, value: Tensor, y: Tensor) -> Tensor:
        """The mean loss over the samples, which are the last dimension."""
        return self.loss(value, y).mean(-1)

    def run(self, method: str, seed: int) -> History:
        """Descend from the saddle."""
        model = AtSaddle(self.function)
        optimizer = GradientDescent(model.parameters(), lr=self.lr)
        if method == "sgd":
            generator = torch.Generator().manual_seed(seed)
            optimizer = StochasticGradientDescent(
                model.parameters(), lr=self.lr, order="shuffled", generator=generator
            )
        return train(model, self.x, self.y, optimizer, EPOCHS, loss_fn=self.cost)


def problems() -> tuple[Problem, Problem]:
    """Two problems: one where SGD is stuck too, and one where it leaves the saddle."""
    x, y = course()
    pull = torch.tensor([1.0, -1.0], dtype=x.dtype)
    return (
        Problem(
            "product",
            "y = w₁·w₂·x: every gradient is 0",
            lambda w, x: w[0] * w[1] * x,
            lambda value, y: (value - y) ** 2,
            x,
            y,
            lr=0.01,
        ),
        Problem(
            "pulls",
            "pulls of +1 and −1: their mean is 0",
            lambda w, x: w[0] ** 2 / 2 + (w[1] ** 2 - 1) ** 2 / 4 + x * (w[0] + w[1]),
            lambda value, y: value,
            pull,
            pull,
            lr=0.2,
        ),
    )


def wilson(hits: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval for a share, at 95 % by default.

        (p + z²/2n ± z √(p (1 − p)/n + z²/4n²)) / (1 + z²/n),    p = hits / n, n = trials

    Example:
        >>> [round(end, 4) for end in wilson(0, 100)]
        [0.0, 0.037]
    """
    p, n = hits / trials, trials
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def run(seed: int) -> Outcome:
    """Gradient descent, and SGD from many seeds, from the saddle of each problem."""
    rows, runs, shares = list[dict[str, str | int | float]](), dict[str, list[History]](), dict[str, str]()
    for problem in problems():
        seeds = {"gd": range(1), "sgd": range(seed * SEEDS, (seed + 1) * SEEDS)}
        for method in ("gd", "sgd"):
            name = f"{problem.name}-{method}"
            runs[name] = [problem.run(method, s) for s in seeds[method]]
            low, high = wilson(_left(runs[name]), len(runs[name]))
            shares[name] = f"{low:.3f} … {high:.3f}" if method == "sgd" else "nothing is drawn"
            rows.append(
                {
                    "saddle": problem.title,
                    "method": METHOD_NAMES[method],
                    "first gradient": max(run.gradient[0].item() for run in runs[name]),
                    "runs": len(runs[name]),
                    "left it": _left(runs[name]),
                    "share, 95 % interval": shares[name],
                }
            )
    left = {name: _left(of_method) for name, of_method in runs.items()}
    still = not any(left[name] for name in ("product-gd", "pulls-gd", "product-sgd"))
    sentence = (
        f"At the saddle of y = w₁·w₂·x, where every sample's gradient is 0, SGD is stuck like gradient "
        f"descent: it leaves for {left['product-sgd']} of {SEEDS} seeds (95 % interval "
        f"{shares['product-sgd']}); where the gradients cancel in the mean alone, gradient descent stays "
        f"and SGD leaves for {left['pulls-sgd']} of {SEEDS} (95 % interval {shares['pulls-sgd']})."
    )
    histories = {name: of_method[0] for name, of_method in runs.items()}
    return Outcome(rows, sentence, still and left["pulls-sgd"] > SEEDS / 2, _picture(runs), histories)


def _left(runs: list[History]) -> int:
    """How many have left the saddle."""
    return sum(bool(run.weight[-1].norm() > FAR) for run in runs)


def _picture(runs: dict[str, list[History]]) -> Figure:
    both = problems()
    figure, row = panels(*(problem.title for problem in both))
    for axes, problem in zip(row, both, strict=True):
        side = torch.linspace(-2, 2, 101, dtype=problem.x.dtype)
        w1, w2 = torch.meshgrid(side, side, indexing="xy")  # w₁ to the right, w₂ up
        costs = problem.cost(problem.function(torch.stack([w1, w2])[..., None], problem.x), problem.y)
        axes.contour(w1, w2, costs.log1p(), levels=20, colors="#BBBBBB", linewidths=1)
        for run in runs[f"{problem.name}-sgd"][:10]:
            axes.plot(*run.update_weight.T, color=METHOD_COLOURS["sgd"], linewidth=1, alpha=0.6)
        for method, size in (("sgd", 11), ("gd", 6)):
            ends = torch.stack([run.weight[-1] for run in runs[f"{problem.name}-{method}"]])
            label = f"{METHOD_NAMES[method]}: where {len(ends)} run{'s' * (len(ends) > 1)} ended"
            axes.plot(*ends.T, "o", color=METHOD_COLOURS[method], markersize=size, label=label)
        axes.plot(0, 0, "x", color="black", markersize=14, label="the saddle, and the start")
        axes.set(xlabel="weight w₁", ylabel="weight w₂")
        axes.legend(loc="upper left")
    return figure
