"""What surrounds the arithmetic: a step of an optimizer, an update of a loop, the log of a run."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.utils.tensorboard import SummaryWriter

from benchmarks import peers
from benchmarks.measure import count, medians, number, samples, table
from torchgd import GradientDescent, LinearModel, StochasticGradientDescent, train
from torchgd.runs.folders import new_folder
from torchgd.runs.runlog import RunLog


def steps(options: argparse.Namespace) -> None:
    """One step, the gradients given: ours and each variant of torch.optim.SGD, on 1, 50 and 1000 tensors."""
    make: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
        "torchgd GradientDescent": partial(GradientDescent, lr=0.01),
        "torchgd, foreach=True": partial(GradientDescent, lr=0.01, foreach=True),
        "torchgd, foreach=False": partial(GradientDescent, lr=0.01, foreach=False),
        "torch.optim.SGD": partial(SGD, lr=0.01),
        "torch.optim.SGD, foreach=True": partial(SGD, lr=0.01, foreach=True),
        "torch.optim.SGD, foreach=False": partial(SGD, lr=0.01, foreach=False),
        "torch.optim.SGD, fused=True": partial(SGD, lr=0.01, fused=True),
    }
    shapes = {
        "1 scalar": (1, ()),
        "1 of 100": (1, (100,)),
        "50 of 100": (50, (100,)),
        "1000 of 100": (1000, (100,)),
    }
    rows: dict[str, list[str]] = {name: [] for name in make}
    for tensors, shape in shapes.values():
        sides = {name: _many_steps(make[name], tensors, shape) for name in make}
        rounds = max(5, 500 // tensors)
        times = medians({name: partial(side, rounds) for name, side in sides.items()}, options.repeats)
        for name, seconds in times.items():
            rows[name].append(number(seconds / rounds * 1e6))
    table("One step of an optimizer, µs (number and size of the tensors)", list(shapes), rows)


def _many_steps(
    make: Callable[[list[nn.Parameter]], Optimizer], tensors: int, shape: tuple[int, ...]
) -> Callable[[int], None]:
    parameters = [nn.Parameter(torch.randn(shape)) for _ in range(tensors)]
    for parameter in parameters:
        parameter.grad = torch.randn(shape)
    optimizer = make(parameters)
    for _ in range(10):  # over which ours watches for a forgotten zero_grad
        optimizer.step()

    def run(rounds: int) -> None:
        for _ in range(rounds):
            optimizer.step()

    return run


def loops(options: argparse.Namespace) -> None:
    """One per-sample update of each loop, at a thousand samples."""
    n = 1000
    x, y = samples(n)

    def by_autograd() -> None:
        model = LinearModel(peers.START, dtype=x.dtype)
        optimizer = StochasticGradientDescent(model.parameters(), lr=peers.LR)
        train(model, x, y, optimizer, 1, max_points=1)

    sides: dict[str, Callable[[], object]] = {
        "torchgd, by hand": partial(peers.loop_by_hand(x, y), 1),
        "torchgd, autograd": by_autograd,
        "torch.optim.SGD, autograd": partial(peers.torch_sgd(x, y), 1),
        "plain Python": partial(peers.plain_python(x, y), 1),
    }
    times = medians(sides, options.repeats)
    base = times["torch.optim.SGD, autograd"]
    rows = {name: [number(t / n * 1e6), number(t / base)] for name, t in times.items()}
    table("One update of a loop over single samples, µs", ["µs", "to torch.optim.SGD"], rows)


def logging(options: argparse.Namespace) -> None:
    """What the log of a run adds to it, and what a call of add_scalar for each number would."""
    rows = {}
    for n in (1_000, 10_000, 100_000):
        sides: dict[str, Callable[[], object]] = {
            "alone": partial(_logged_run, n, log=False),
            "logged": partial(_logged_run, n, log=True),
        }
        times = medians(sides, min(3, options.repeats))
        added = times["logged"] - times["alone"]
        scalars = medians({"": partial(_add_scalars, 1000)}, 3)[""] / 1000
        rows[f"{count(n)} updates"] = [
            number(times["alone"] * 1e3),
            number(added * 1e3),
            f"{added / times['alone']:.0%}",
            number(3 * n * scalars * 1e3, estimated=True),
        ]
    columns = ["run, ms", "its log adds, ms", "share", "3 add_scalar an update, ms"]
    table("The log of a run of per-sample SGD, the loop by hand", columns, rows)


def _logged_run(n: int, *, log: bool) -> None:
    model = LinearModel(peers.START, dtype=torch.float64)
    optimizer = StochasticGradientDescent(model.parameters(), lr=peers.LR)
    go = partial(train, model, *samples(n), optimizer, 1, gradient="hand")
    if not log:
        go()
        return
    with tempfile.TemporaryDirectory() as runs:
        folder = new_folder(Path(runs), "benchmark", "sgd")
        with RunLog(folder, {"lr": peers.LR}, epochs=1, updates=n) as run:
            run.finish(go(on_progress=lambda part, place: run.write(part)))


def _add_scalars(calls: int) -> None:
    with tempfile.TemporaryDirectory() as runs, SummaryWriter(runs) as writer:
        for i in range(calls):
            writer.add_scalar("update/loss", 1.0, i)
