"""The weights of a run in a fixed order, compared with a suspect epoch by epoch, up to rounding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchgd.convergence.epochs import Updates
from torchgd.convergence.suspects import Cause, Suspect, epoch_matrices, epoch_matrix, guessed

FEW = 2_000  # up to this many batches an epoch, unknown numbers are searched for
EPOCHS, FOLLOWED = 40, 12  # epochs compared; epochs followed from the start if v is unknown
OTHERS = ("Adam", "AdamW", "RMSprop", "Adagrad", "Adamax", "NAdam", "RAdam", "Adadelta", "Rprop")


class FixedRun:
    """The errors of a run of which every epoch is the same map of (e, v, 1).

    ``updates`` gives the updates for each power of x in the gradient, 1 being the right one.
    """

    def __init__(self, weights: Sequence[float], updates: dict[int, Updates], lr: float) -> None:
        self.batches = {power: of.batches() for power, of in updates.items()}
        self.h, self.r = self.batches[1]
        self.lr, self.centre = lr, updates[1].least_squares
        self.weights = [w for w in weights if abs(w) < 1e250]
        self.e = [w - self.centre for w in self.weights]
        self.size = abs(self.centre) + abs(weights[0])
        self.known, self.eps = precision(weights, len(updates[1].squares))

    def suspects(self, others: Sequence[Suspect]) -> tuple[list[Suspect], str]:
        """The suspects that every epoch agrees with, and a sentence for those that have none."""
        if fit := [one for one in others if self.fits(one)]:
            return fit, ""
        if fit := [one for one in guessed() if self.fits(one)][:1] or self.searched():
            return fit, ""
        if rates := self.schedule():
            listed = ", ".join(f"{rate:.4g}" for rate in rates[:3])
            return [Suspect(Cause.SCHEDULE)], f"The steps are those of lr {listed}, … epoch by epoch."
        if name := self.optimizer():
            note = f"The steps are those of torch.optim.{name}, which has another limit."
            return [Suspect(Cause.OPTIMIZER)], note
        return [], ""

    def fits(self, suspect: Suspect, *, unsure: bool = False) -> bool:
        """Whether every epoch agrees with the suspect; ``unsure`` is the answer if rounding hides it."""
        told = False
        for predicted, measured, slack in self._epochs(suspect):
            if not abs(predicted - measured) <= slack:
                return False
            told = told or slack < 0.01 * abs(measured)
        return told or unsure

    def _matrix(self, suspect: Suspect) -> tuple[Tensor, float, float]:
        return epoch_matrix(*self.batches[suspect.power], self.lr, suspect, self.centre)

    def _epochs(self, suspect: Suspect) -> list[tuple[float, float, float]]:
        """For each epoch: the predicted and the measured error, and the most that rounding may change."""
        matrix, grown, pushed = self._matrix(suspect)
        (ee, ev, e1), (ve, vv, v1), _ = matrix.tolist()
        rows, e, v = [], self.e[0], 0.0
        for before, after in itertools.islice(itertools.pairwise(self.e), EPOCHS):
            # v is not measured, so with momentum the run is followed from its start; both e and v err.
            e = e if suspect.momentum else before
            slack = self._slack(before, after, ee, grown, pushed + abs(v) * self.lr)
            rows.append((ee * e + ev * v + e1, after, slack))
            e, v = rows[-1][0], ve * e + vv * v + v1
        return rows[:FOLLOWED] if suspect.momentum else rows

    def _slack(self, before: float, after: float, scale: float, grown: float, pushed: float) -> float:
        """The most that rounding may change the error in an epoch: in the weights, and on the way."""
        given = self.known * (abs(after) + abs(scale) * (abs(before) + self.size) + self.size)
        return given + self.eps * grown * (abs(before) + self.size + pushed)

    def searched(self) -> list[Suspect]:
        """Suspects with one unknown number, found from one epoch and right in all the others."""
        if len(self.e) < 4 or len(self.h) > FEW:
            return []
        quiet = float(self.r.abs().max()) <= 1e-9 * float(self.h.max()) * self.size
        powers = [10 ** (i / 10) for i in range(-30, 31)]
        grid = sorted([-p for p in powers] + powers)
        found: list[Suspect] = []
        if not quiet or len(self.h) == 1:  # else some t fits any single number of the run
            found += self._roots(lambda t: Suspect(Cause.TIMES, times=t), grid, 1)
        momenta = [i / 40 for i in range(1, 60)]
        found += self._roots(lambda m: Suspect(Cause.MOMENTUM, momentum=m), momenta, 2)
        size = float(self.h.mean())
        if self.centre:  # if w* = 0, weight decay is a multiple of the gradient
            found += self._roots(lambda d: Suspect(Cause.DECAY, decay=d * size), grid, 1)
        return [one for one in found if self.fits(one)]

    def _misfits(self, suspects: Sequence[Suspect], epoch: int, start: int = 0) -> list[float]:
        """Prediction less measurement at the end of an epoch: 0 at the right number of a suspect."""
        matrices = epoch_matrices(self.h, self.r, self.lr, suspects, self.centre)
        state = torch.tensor([self.e[start], 0.0, 1.0], dtype=torch.float64).expand(len(suspects), 3)
        for _ in range(start, epoch):
            state = (matrices @ state[..., None])[..., 0]
        return (state[:, 0] - self.e[epoch]).tolist()

    def _roots(self, make: Callable[[float], Suspect], grid: list[float], epoch: int) -> list[Suspect]:
        """The suspects at which the misfit of this epoch changes its sign."""
        numbers = roots(lambda some: self._misfits([make(one) for one in some], epoch), grid)
        return [make(number) for number in numbers]

    def schedule(self) -> list[float] | None:
        """The learning rate of each epoch, if it begins as meant and then follows a schedule; else None.

        The first epoch that is not as meant gives the ratio of a step. It must then explain all other
        epochs: as steps at equal distances of epochs, or as a constant difference.
        """
        if len(self.e) < 5 or len(self.h) > FEW:
            return None
        epochs = list(itertools.islice(itertools.pairwise(self.e), EPOCHS))

        def agrees(k: int, times: float) -> bool:
            matrix, grown, pushed = self._matrix(Suspect(Cause.TIMES, times))
            before, after = epochs[k]
            scale = float(matrix[0, 0])
            slack = self._slack(before, after, scale, grown, pushed)
            return abs(scale * before + float(matrix[0, 2]) - after) <= slack <= 0.1 * abs(after - before)

        first = next((k for k in range(len(epochs)) if not agrees(k, 1.0)), len(epochs))
        if not 0 < first < len(epochs) - 2:
            return None

        def misfits(some: Sequence[float]) -> list[float]:
            return self._misfits([Suspect(Cause.TIMES, times) for times in some], first + 1, first)

        for ratio in roots(misfits, [10 ** (i / 30) for i in range(-60, 61)]):
            regular = [ratio ** (k // first) for k in range(len(epochs))]
            linear = [max(1 + (k - first + 1) * (ratio - 1), 0.0) for k in range(len(epochs))]
            for times in (regular, linear):
                if all(agrees(k, times[k]) for k in range(first, len(epochs))):
                    return [self.lr * factor for factor in times]
        return None

    def optimizer(self) -> str | None:
        """The optimizer of torch.optim whose first epochs, with its defaults, are these; or None."""
        epochs = min(len(self.e) - 1, 1 + 200 // len(self.h))
        if epochs * len(self.h) < 3:
            return None
        pairs = list(zip(self.h.tolist(), self.r.tolist(), strict=True))
        for name in OTHERS:
            w = torch.nn.Parameter(torch.tensor(self.weights[0], dtype=torch.float64))
            optimizer = getattr(torch.optim, name)([w], lr=self.lr)
            for weight in self.weights[1 : epochs + 1]:
                for h, r in pairs:
                    w.grad = h * (w.detach() - self.centre) - r
                    optimizer.step()
                if not abs(w.item() - weight) <= 1e3 * self.known * (abs(weight) + self.size):
                    break
            else:
                return name
        return None


def roots(misfits: Callable[[Sequence[float]], list[float]], grid: list[float]) -> list[float]:
    """Where a function changes its sign between two neighbours of the grid, all by bisection at once."""
    values = misfits(grid)
    turns = [i for i in range(len(grid) - 1) if values[i] * values[i + 1] <= 0]
    low, high = [grid[i] for i in turns], [grid[i + 1] for i in turns]
    for _ in range(60 if turns else 0):
        middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
        before = [value * values[i] > 0 for i, value in zip(turns, misfits(middle), strict=True)]
        low = [m if left else a for a, m, left in zip(low, middle, before, strict=True)]
        high = [b if left else m for b, m, left in zip(high, middle, before, strict=True)]
    return high


def precision(weights: Sequence[float], n: int) -> tuple[float, float]:
    """The relative accuracy of the weights, and the rounding of an epoch of n samples.

    The digits of the weights show whether they are float64 or float32, or were rounded when printed.
    """
    single = torch.tensor(weights, dtype=torch.float32).double()
    in_single = torch.equal(single, torch.tensor(weights, dtype=torch.float64))
    eps = torch.finfo(torch.float32 if in_single else torch.float64).eps
    for digits in range(3, 9):
        if len(weights) > 2 and all(float(f"{w:.{digits}g}") == w for w in weights):
            return 10.0 ** (1 - digits), 4 * n * eps
    return (1e-5 if in_single else 1e-9), 4 * n * eps
