"""Short experiments, each with a table, a picture and a sentence that its numbers prove."""

from collections.abc import Callable

from torchgd.experiments import randomness, saddle, smoothing, tradeoff, zero_grad
from torchgd.experiments.outcome import Outcome

EXPERIMENTS: dict[str, Callable[[int], Outcome]] = {
    "randomness": randomness.run,
    "tradeoff": tradeoff.run,
    "smoothing": smoothing.run,
    "saddle": saddle.run,
    "zero-grad": zero_grad.run,
}

__all__ = ["EXPERIMENTS", "Outcome"]
