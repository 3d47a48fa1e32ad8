"""Is SGD faster? Per update, per sample or per second: one start, one cost, three axes.

The excess C(w) − C(w*) of y = w·x is m₂ e², where e = w − w* and m_k = mean(xᵏ). Where each update draws b
samples anew, its expectation follows from two exact recursions, with r = y − w* x:

    E e  ← (1 − 2 lr m₂) E e
    E e² ← ((1 − 2 lr m₂)² + 4 lr² (m₄ − m₂²)/b) E e² − 8 lr² mean(x³ r)/b · E e + 4 lr² mean(x² r²)/b

The best learning rate is the one that reaches the goal for E e² after the fewest updates.

Source: L. Bottou, F. Curtis and J. Nocedal, Optimization methods for large-scale machine learning, SIAM
Review 60 (2018) 223.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor

from torchgd.batches import Batches
from torchgd.experiments.outcome import Outcome
from torchgd.figures import METHOD_COLOURS, panels
from torchgd.gradient import gradient
from torchgd.history import History
from torchgd.model import LinearModel
from torchgd.optim import GradientDescent
from torchgd.training import train

SAMPLES = 2**16
SIZES = (1, 2, 16, 128, 1024, SAMPLES)
GOAL = 0.01  # of the excess at the start
GREENS = ("#A6D96A", "#41AB5D", "#00795A", "#00332B")  # of the mini-batches, small to large
REPEATS = 40
LONGEST = 200  # updates
RATES = torch.logspace(-3, 0, 301, dtype=torch.float64)


@dataclass(frozen=True)
class Race:
    """One batch size at one learning rate; excess (repeats, updates + 1) is in units of the start's."""

    size: int
    lr: float
    excess: Tensor
    seconds: tuple[float, float]  # of one update: the shortest and the longest of several
    first: History

    @property
    def updates(self) -> int:
        """The first update after which the mean over the repeats is at the goal."""
        return int((self.excess.mean(0) <= GOAL).int().argmax())

    @property
    def samples(self) -> int:
        """The samples seen until then."""
        return self.updates * self.size

    @property
    def label(self) -> str:
        """Its name in the table and in the picture."""
        return {1: "per sample", SAMPLES: "full batch"}.get(self.size, f"batch of {self.size:,}")

    def row(self, rates: str) -> dict[str, str | int | float]:
        """Its row of the table."""
        passages = (self.excess <= GOAL).int().argmax(1).double()
        low, high = (int(passages.quantile(q, interpolation="nearest")) for q in (0.1, 0.9))
        return {
            "": self.label,
            "lr": f"{rates}, {self.lr:.3f}",
            "updates": self.updates,
            "80 %": f"{low} … {high}",
            "samples": self.samples,
            "ms": " … ".join(f"{1e3 * self.updates * seconds:.2g}" for seconds in self.seconds),
        }


class Law:
    """The samples, and what the expected excess is made of.

    Args:
        x, y: the samples, shape (n,).
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        self.best = (x * y).sum() / (x * x).sum()
        self.m2 = (x**2).mean()
        residual = y - self.best * x
        self._floor = (residual**2).mean()
        self._scatter = (x**4).mean() - self.m2**2, (x**3 * residual).mean(), (x**2 * residual**2).mean()

    def cost(self, w: Tensor) -> Tensor:
        """C(w) over all samples; of the shape of w."""
        return self._floor + self.m2 * (w - self.best) ** 2

    def excess(self, w: Tensor) -> Tensor:
        """C(w) − C(w*), in units of the excess at w = 0; of the shape of w."""
        return ((w - self.best) / self.best) ** 2

    def expected_excess(self, lr: Tensor, size: int, updates: int = LONGEST) -> Tensor:
        """E[excess] from w = 0 after 0, 1, … updates on drawn batches; a batch of all samples is not drawn.

        Args:
            lr: learning rates, shape (k,).
            size: samples in a batch.
            updates: how many.

        Returns:
            Shape (updates + 1, k).
        """
        share = 0.0 if size == len(self.x) else 1 / size
        fourth, third, second = self._scatter
        shrink = 1 - 2 * lr * self.m2
        error = torch.zeros_like(lr) - self.best
        squares = [error**2]
        for _ in range(updates):
            scatter = fourth * squares[-1] - 2 * third * error + second
            squares.append(shrink**2 * squares[-1] + 4 * lr**2 * share * scatter)
            error = shrink * error
        return torch.stack(squares) / self.best**2

    def best_rate(self, size: int) -> float:
        """The learning rate that is first at half the goal in the mean; chance then stays below the goal."""
        excess = self.expected_excess(RATES, size)
        first = int((excess <= GOAL / 2).any(1).int().argmax())
        return RATES[excess[first].argmin()].item()


def run(seed: int) -> Outcome:
    """Six batch sizes on 65,536 noisy samples, at the same learning rate and at the best one of each."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SAMPLES, generator=generator, dtype=torch.float64)
    law = Law(x, 2 * x + torch.randn(SAMPLES, generator=generator, dtype=torch.float64))
    seconds = {size: _seconds_an_update(law, size) for size in SIZES}
    same = [_race(law, size, law.best_rate(1), seconds[size], generator) for size in SIZES]
    best = [_race(law, size, law.best_rate(size), seconds[size], generator) for size in SIZES]

    by_updates = min(best, key=lambda race: (race.updates, -race.size))
    by_samples = min(best, key=lambda race: race.samples)
    sentence = (
        f"“Faster” needs its unit. To {100 * GOAL:g} % of the starting excess, at the best lr of each: "
        f"fewest updates by {by_updates.label} ({by_updates.updates}), fewest samples by {by_samples.label} "
        f"({by_samples.samples:,}; full batch {best[-1].samples:,}). At the same lr all take "
        f"{min(race.updates for race in same)} to {max(race.updates for race in same)} updates. "
        "Which one takes the least time depends on the machine and changes from run to run."
    )
    races = {"same": same, "best": best}
    rows = [race.row(rates) for rates, of_rates in races.items() for race in of_rates]
    histories = {
        f"{rates}-lr-batch-{race.size}": race.first for rates, of_rates in races.items() for race in of_rates
    }
    proved = (
        by_updates.size == SAMPLES and by_samples.size < SAMPLES and all(race.updates for race in same + best)
    )
    return Outcome(rows, sentence, proved, _picture(best), histories)


def _race(law: Law, size: int, lr: float, seconds: tuple[float, float], generator: torch.Generator) -> Race:
    """Repeat the run; each is half as long again as the expected number of updates."""
    expected = law.expected_excess(torch.tensor([lr], dtype=law.x.dtype), size)
    updates = 5 + 3 * int((expected <= GOAL).int().argmax()) // 2
    histories = list[History]()
    for _ in range(1 if size == SAMPLES else REPEATS):
        model = LinearModel(0.0, dtype=law.x.dtype)
        optimizer = GradientDescent(model.parameters(), lr=lr)
        if size == SAMPLES:
            histories.append(train(model, law.x, law.y, optimizer, updates, gradient="hand"))
            continue
        drawn = torch.randint(SAMPLES, (size * updates,), generator=generator)
        batches = Batches(len(drawn), size)
        run = train(model, law.x[drawn], law.y[drawn], optimizer, 1, gradient="hand", batches=batches)
        histories.append(replace(run, cost=law.cost(run.weight)))  # over all samples, not the drawn ones
    weights = torch.stack([torch.cat([run.weight[:1], run.update_weight]) for run in histories])
    return Race(size, lr, law.excess(weights), seconds, histories[0])


def _seconds_an_update(law: Law, size: int) -> tuple[float, float]:
    """The seconds of drawing, gradient and step: the shortest and the longest of five measurements."""
    model = LinearModel(0.0, dtype=law.x.dtype)
    optimizer = GradientDescent(model.parameters(), lr=1e-3)
    times, updates = [], 50
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(updates):
            x, y = law.x, law.y
            if size < SAMPLES:
                batch = torch.randint(SAMPLES, (size,))
                x, y = x[batch], y[batch]
            model.weight.grad = gradient(model.weight.detach(), x, y)
            optimizer.step()
        times.append((time.perf_counter() - begin) / updates)
    return min(times), max(times)


def _picture(races: Sequence[Race]) -> Figure:
    figure, axes = panels("the best lr of each: updates", "samples", "seconds")
    for number, race in enumerate(races):
        method = {1: "sgd", SAMPLES: "gd"}.get(race.size, "minibatch")
        colour = GREENS[number - 1] if method == "minibatch" else METHOD_COLOURS[method]
        updates = torch.arange(1, race.excess.shape[1])
        low, high = race.excess[:, 1:].quantile(torch.tensor([0.1, 0.9], dtype=race.excess.dtype), dim=0)
        for panel, scale in zip(axes, (1, race.size, race.seconds[0]), strict=True):
            steps = updates * scale
            panel.fill_between(steps, low, high, color=colour, alpha=0.1)
            panel.plot(steps, race.excess[:, 1:].mean(0), "o-", ms=3, color=colour, label=race.label)
    for panel, unit in zip(axes, ("updates", "samples seen", "seconds, the shortest seen"), strict=True):
        panel.axhline(GOAL, color="black", linestyle=":")
        panel.set(xlabel=unit, ylabel="excess cost, start = 1", xscale="log", yscale="log", ylim=(1e-5, 2))
    axes[1].legend(loc="upper right")
    return figure
