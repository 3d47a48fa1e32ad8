"""The scan beside a numba loop while other processes want the same cores, and over very many epochs."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from benchmarks.measure import count, in_turn, number, ratio, samples, table
from benchmarks.peers import LR, numba_loop
from torchgd import Dataset, LinearModel, StochasticGradientDescent, course, epoch_map
from torchgd.epoch.scan import scan

LOADS = {
    "spinning": "while True: pass",
    "multiplying matrices": "import torch\na = torch.randn(1000, 1000)\nwhile True: a @ a",
}
RATES = {"": LR, ", lr 10⁻⁵": 1e-5}  # at the second no update is forgotten before the epoch ends


@contextmanager
def loaded(kind: str, processes: int) -> Iterator[None]:
    """Processes of that kind run while this holds."""
    running = [subprocess.Popen([sys.executable, "-c", LOADS[kind]]) for _ in range(processes)]
    try:
        if running:
            time.sleep(3)  # until they have imported torch
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def busy(options: argparse.Namespace) -> None:
    """One epoch, quiet and beside one, two and three processes of each kind, if --busy asks for these."""
    sizes = [n for n in (10**6, 10**7) if n <= options.largest] or [options.largest]
    sides: dict[str, Callable[[], object]] = {}
    for n in sizes:
        x, y = samples(n)
        try:
            sides[f"loop of {n}"] = partial(numba_loop(x, y), 1)
        except ImportError:
            print("Not installed, left out: numba; without it there is nothing to compare with\n")
            return
        for name, lr in RATES.items():
            sides[f"N = {count(n)}{name}"] = partial(epoch_map, x, y, lr)
    loads = [("spinning", 0), *((kind, k) for kind in LOADS for k in (1, 2, 3) if options.busy)]
    rows = {}
    for kind, processes in loads:
        with loaded(kind, processes):
            times = in_turn(sides, 3 * options.repeats)
        cells = []
        for n in sizes:
            base = times[f"loop of {n}"]
            cells.append(number(statistics.median(base) / n * 1e9))
            for name in RATES:
                found = times[f"N = {count(n)}{name}"]
                cells += [number(statistics.median(found) / n * 1e9), ratio(found, base)]
        rows[f"{processes} {kind}" if processes else "none"] = cells
    columns = []
    for n in sizes:
        columns.append(f"numba loop, N = {count(n)}")
        for name in RATES:
            columns += [f"scan{name}", "to the loop: median (quartiles)"]
    title = f"One epoch beside other processes on {os.cpu_count()} cores, ns per sample"
    table(title, columns, rows)


def long(options: argparse.Namespace) -> None:
    """Runs of more and more epochs by the scan: seconds of one processor, and rows of the history."""
    data = Dataset(*course())
    rows = {}
    for epochs in (10**4, 10**6, 10**9):
        seconds, kept = [], 0
        for _ in range(options.repeats):
            model = LinearModel(1.0, dtype=torch.float64)
            began = time.process_time()
            history = scan(model, data, StochasticGradientDescent(model.parameters(), lr=1e-3), epochs)
            seconds.append(time.process_time() - began)
            kept = len(history.epoch)
        rows[f"{count(epochs)} epochs"] = [number(statistics.median(seconds)), f"{kept:,}"]
    table("Long runs by the scan, three samples", ["seconds of a processor", "rows"], rows)
