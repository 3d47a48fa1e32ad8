"""Data larger than the memory used, and more than one process; each in processes of its own."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import count, in_turn, number, ratio, samples, table
from torchgd import Dataset, epoch_map, load
from torchgd.epoch.distributed import epoch_of_shards, process_group
from torchgd.epoch.maps import epoch_with_moments

LR = 0.01
SCRIPTS = Path(__file__).parents[1]


def disk(options: argparse.Namespace) -> None:
    """One epoch's map from .npy files: time, and the most memory that the process ever held."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in [10**k for k in (6, 7, 8) if 10**k <= options.largest]:
            _write(Path(folder), n)
            answer = _worker([sys.executable, "-m", "benchmarks.scale", "disk", folder])
            rows[f"N = {count(n)}"] = [
                number(answer["seconds"]),
                number(answer["seconds"] / n * 1e9),
                number(answer["before"] / 2**20),
                number(answer["peak"] / 2**20),
                number(16 * n / 2**20),
            ]
    columns = ["seconds", "ns per sample", "MiB before", "MiB at most", "MiB of data"]
    table("One epoch from .npy files, read in blocks, page cache warm, one run each", columns, rows)


def linear(options: argparse.Namespace) -> None:
    """One epoch's map of small sets of samples and of large ones, as many in all; one epoch, and many."""
    largest = min(10**8, options.largest)
    x, y = samples(largest)

    def all_sets(n: int) -> None:
        for xs, ys in zip(x.split(n), y.split(n), strict=True):
            epoch_map(xs, ys, LR)

    def run(epochs: int) -> None:
        epoch_map(x[: 10**7], y[: 10**7], LR).after(epochs)(1.0)

    sizes = [n for n in (10**8, 10**7, 10**6) if n <= largest] or [largest]
    for title, sides, total in (
        (
            f"The map of an epoch, of {count(largest)} samples in sets of N",
            {f"N = {count(n)}": partial(all_sets, n) for n in sizes},
            largest,
        ),
        (
            f"Epochs over the same {count(min(10**7, largest))} samples",
            {f"{epochs} epochs": partial(run, epochs) for epochs in (1, 10, 100, 1000)},
            min(10**7, largest),
        ),
    ):
        times = in_turn(sides, 5 * options.repeats)
        base = next(iter(times.values()))
        rows = {
            name: [number(statistics.median(t) / total * 1e9), ratio(t, base)] for name, t in times.items()
        }
        table(title, ["ns per sample", "to the first: median (quartiles)"], rows)


def processes(options: argparse.Namespace) -> None:
    """One epoch under torchrun, by one rank while the other waits, and by both; one thread a process."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    rows = {}
    for n in [10**k for k in (7, 8) if 10**k <= options.largest]:
        found = _worker([*launch, "-m", "benchmarks.scale", "processes", str(n)])
        alone, both = (statistics.median(side) / n * 1e9 for side in found["scan"])
        message = statistics.median(found["message"]) * 1e3
        rows[f"N = {count(n)}"] = [
            number(alone),
            number(both),
            ratio(*found["scan"]),
            number(message),
            ratio(*found["Python"]),
        ]
    columns = [
        "one rank, ns per sample",
        "two ranks",
        "speed: median (quartiles)",
        "a message, ms",
        "speed of a loop in Python",
    ]
    table("One epoch under torchrun, by one rank and by both, in turn", columns, rows)


def _write(folder: Path, n: int) -> None:
    """x.npy and y.npy, written in blocks; the pages are then in the cache."""
    for name in ("x", "y"):
        values = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float64, shape=(n,))
        block = dict(zip("xy", samples(min(n, 10**6)), strict=True))[name].numpy()
        for begin in range(0, n, len(block)):
            values[begin : begin + len(block)] = block
        del values


def _worker(command: list[str]) -> dict[str, Any]:
    """What a process of its own prints, as JSON on one line."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} if "processes" in command else os.environ
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=SCRIPTS
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _read_from_disk(folder: Path) -> None:
    """The worker of `disk`."""
    before = _peak()
    data = load(x=folder / "x.npy", y=folder / "y.npy")
    began = time.perf_counter()
    epoch_with_moments(data.blocks(1 << 21), LR)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "before": before, "peak": _peak()}))


def _peak() -> int:
    """The most bytes that this process has held; getrusage would count its parent's at the fork as well."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the section disk needs Linux")


def _share(n: int) -> None:
    """The worker of `processes`: rounds in which each rank does all, in turn, and then both their shares."""
    data = Dataset(*samples(n))
    found: dict[str, Any] = {"scan": ([], []), "Python": ([], []), "message": []}
    with process_group() as group:

        def timed(work: Callable[[], object]) -> list[float]:
            """Every rank's seconds, from a common start."""
            group.gather([0.0])
            began = time.perf_counter()
            work()
            return [row[0] for row in group.gather([time.perf_counter() - began])]

        def loop(steps: int) -> None:
            for _ in range(steps):
                pass

        sides: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "scan": (partial(epoch_of_shards, data, LR), partial(epoch_of_shards, data, LR, 1, group)),
            "Python": (partial(loop, 10**6), partial(loop, 5 * 10**5)),
        }
        rounds = 43 if n < 10**8 else 13
        for turn in range(rounds):
            for name, (whole, share) in sides.items():
                alone = timed(whole if turn % 2 == group.rank else lambda: None)[turn % 2]
                both = max(timed(share))
                if turn > 2:
                    found[name][0].append(alone)
                    found[name][1].append(both)
            found["message"] += timed(partial(group.gather, [0.0] * 8))
        if group.rank == 0:
            print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "disk":
        _read_from_disk(Path(sys.argv[2]))
    else:
        _share(int(sys.argv[2]))
