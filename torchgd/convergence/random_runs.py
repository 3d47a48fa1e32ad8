"""The weights of a run in a random order, compared with a suspect by the growth of simulated runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchgd.convergence.epochs import Updates
from torchgd.convergence.fixed_runs import precision
from torchgd.convergence.suspects import Cause, Suspect, epoch_matrix, guessed

RUNS = 128  # simulated runs of each suspect
STEPS = 3000  # updates of a simulated run at most
USUAL = (0.5, 0.9, 0.99)  # the momenta that are simulated
NOISE = 30  # times the noise of one epoch; a larger error shows its growth
SURE, LIKELY = 5.0, 3.0  # standard deviations: to reject the run as meant; to accept a mistake


@dataclass(frozen=True)
class RandomRun:
    """A stretch of a run, from where its error is far above the noise to its end."""

    errors: list[float]
    powers: dict[int, Updates]
    lr: float
    drawn: bool

    @staticmethod
    def of(
        weights: Sequence[float], powers: dict[int, Updates], lr: float, *, drawn: bool
    ) -> RandomRun | None:
        """The stretch that can be judged; None if noise hides the growth, or an epoch is too long."""
        centre = powers[1].least_squares
        errors = [w - centre for w in weights if abs(w) < 1e120]
        run = RandomRun(errors, powers, lr, drawn)
        if run.batches > STEPS or len(errors) < 2:
            return None
        from_zero = replace(run, errors=[0.0])._paths([Suspect(Cause.LR)], 1)[0]
        noise = from_zero.square().mean().sqrt().item() + 1e-12 * abs(centre)
        loud = next((i for i, error in enumerate(errors) if abs(error) > NOISE * noise), len(errors))
        errors = errors[loud:][: 1 + max(1, STEPS // run.batches)]
        return replace(run, errors=errors) if len(errors) > 1 and all(errors) else None

    @property
    def updates(self) -> Updates:
        """The updates as they were meant."""
        return self.powers[1]

    @property
    def batches(self) -> int:
        """The updates of an epoch."""
        return -(-len(self.updates.squares) // self.updates.batch_size)

    @property
    def measured(self) -> float:
        """The geometric mean of the growth of the error in an epoch."""
        return float(abs(self.errors[-1] / self.errors[0]) ** (1 / (len(self.errors) - 1)))

    def suspects(self, meant: Suspect, others: Sequence[Suspect]) -> tuple[list[Suspect], float]:
        """The suspects whose simulated runs end where this one does; the expected growth.

        The run as meant is rejected only if it is off by five standard deviations.
        """
        tried = [meant, *others, *(one for one in guessed() if one.momentum in USUAL)]
        epochs = len(self.errors) - 1
        paths = torch.stack(self._paths(tried, epochs))
        half = epochs // 2
        logs = torch.log(torch.stack([paths[-1], paths[max(half - 1, 0)]]).abs() / abs(self.errors[0]))
        whole, first = (math.log(abs(self.errors[i] / self.errors[0])) for i in (-1, max(half, 1)))
        turns = _turns(paths, self.errors)
        misfits = []
        for i in range(len(tried)):
            offs = [_off(whole, logs[0, i]), _off(first, logs[1, i])]
            offs.append(_off(whole - first, logs[0, i] - logs[1, i]) if half else 0.0)
            misfits.append(max(*offs, turns[i]))
        predicted = math.exp(min(logs[0, 0].mean().item() / epochs, 600.0))
        if misfits[0] <= SURE:
            return [meant], predicted
        return [one for one, off in zip(tried, misfits, strict=True) if off <= LIKELY], predicted

    def _paths(self, suspects: Sequence[Suspect], epochs: int) -> list[Tensor]:
        """The errors of simulated runs from the same start after each epoch, shape (suspects, runs) each."""
        generator = torch.Generator().manual_seed(0)
        n, batches = len(self.updates.squares), self.batches
        rows = [torch.as_tensor(s.times, dtype=torch.float64).expand(batches) for s in suspects]
        times = torch.stack(rows)[:, :, None]
        momentum, decay = (
            torch.tensor([getattr(s, name) for s in suspects], dtype=torch.float64)[:, None]
            for name in ("momentum", "decay")
        )
        nesterov = torch.tensor([s.nesterov for s in suspects])[:, None]
        power = torch.tensor([list(self.powers).index(s.power) for s in suspects])
        e = torch.full((len(suspects), RUNS), self.errors[0], dtype=torch.float64)
        v, ends = torch.zeros_like(e), []
        for _ in range(epochs):
            if self.drawn:
                indices = torch.randint(n, (RUNS, n), generator=generator)
            else:
                indices = torch.rand(RUNS, n, generator=generator).argsort(1)
            both = [updates.batches(indices) for updates in self.powers.values()]
            h, r = (torch.stack(parts) for parts in zip(*both, strict=True))  # (powers, runs, batches)
            for j in range(batches):
                g = times[:, j] * (h[power, :, j] * e - r[power, :, j])
                g = g + decay * (e + self.updates.least_squares)
                v = momentum * v + g
                e = e - self.lr * torch.where(nesterov, g + momentum * v, v)
            ends.append(e)
        return ends


def _off(measured: float, simulated: Tensor) -> float:
    """How many standard deviations a logarithm lies off the simulated ones."""
    finite = simulated[torch.isfinite(simulated)]
    if len(finite) < RUNS // 2:
        return math.inf
    off = abs(measured - finite.mean().item()) / (finite.std().item() + 0.01)
    # The logarithm of a factor near 0 has a long tail, so values inside the simulated range are accepted.
    return min(off, LIKELY) if finite.min().item() <= measured <= finite.max().item() else off


def _turns(paths: Tensor, errors: Sequence[float]) -> list[float]:
    """How many standard deviations the number of sign changes lies off the simulated ones."""
    signs = torch.cat([torch.full_like(paths[:1], errors[0]), paths]).sign()
    counts = (signs[1:] * signs[:-1] < 0).double().sum(0)
    turned = sum(a * b < 0 for a, b in itertools.pairwise(errors))
    return ((turned - counts.mean(1)).abs() / (counts.std(1) + 0.25)).tolist()


def with_one_scale(
    weights: Sequence[float], powers: dict[int, Updates], lr: float, meant: Suspect, others: Sequence[Suspect]
) -> tuple[list[Suspect], float, float] | None:
    """Single samples in a new order each epoch: the scale is the same each time, the shift is bounded.

    Returns the suspects of that scale (none, if no suspect has it), the measured growth and the growth that
    was meant; None if the noise hides it, or the scale is not constant.
    """
    centre = powers[1].least_squares
    e = [w - centre for w in weights if abs(w) < 1e250]
    batches = {power: updates.batches() for power, updates in powers.items()}
    near = sum(precision(weights, len(powers[1].squares)))

    def told(one: Suspect) -> tuple[float, float]:
        matrix, grown, pushed = epoch_matrix(*batches[one.power], lr, one, centre)
        return matrix[0, 0].item(), grown * pushed

    def fits(scale: float, noise: float) -> bool:
        slack = noise + 1e-9 * abs(centre)
        if not any(abs(e[i + 1]) > 100 * slack for i in loud):
            return False
        return all(abs(e[i + 1] - scale * e[i]) <= slack + 10 * near * abs(e[i + 1]) for i in loud)

    scale, noise = told(meant)
    loud = [i for i in range(len(e) - 1) if abs(e[i + 1]) > 1000 * noise and abs(e[i]) > 1000 * noise]
    if not loud:
        return None
    measured = e[loud[-1] + 1] / e[loud[-1]]
    if fits(scale, noise):
        return [meant], measured, scale
    plain = [one for one in [*others, *guessed()] if not one.momentum]
    if found := [one for one in plain if fits(*told(one))]:
        return found, measured, scale
    return ([], measured, scale) if len(loud) > 1 and fits(measured, noise) else None
