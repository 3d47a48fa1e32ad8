"""Short experiments, each with a table, a picture and a sentence that its numbers prove."""

from collections.abc import Callable

from torchgd.experiments.outcome import Outcome
from torchgd.experiments.randomness import randomness
from torchgd.experiments.saddle import saddle
from torchgd.experiments.smoothing import smoothing
from torchgd.experiments.tradeoff import tradeoff
from torchgd.experiments.zero_grad import zero_grad

EXPERIMENTS: dict[str, Callable[[int], Outcome]] = {
    "randomness": randomness,
    "tradeoff": tradeoff,
    "smoothing": smoothing,
    "saddle": saddle,
    "zero-grad": zero_grad,
}

__all__ = ["EXPERIMENTS", "Outcome"]
