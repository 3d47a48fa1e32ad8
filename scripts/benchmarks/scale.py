"""Data larger than the memory used, and more than one process; each in processes of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import count, number, samples, table
from torchgd import load
from torchgd.affine.distributed import process_group
from torchgd.affine.maps import epoch_map_of_blocks

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


def processes(options: argparse.Namespace) -> None:
    """One epoch's map under torchrun, of one and of two processes with one thread each."""
    n = min(10**7, options.largest)
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), n)
        for size in (1, 2, 1, 2):
            launch = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                str(size),
            ]
            found[size] += _worker([*launch, "-m", "benchmarks.scale", "processes", folder])["seconds"]
    best = {size: sorted(seconds)[len(seconds) // 2] for size, seconds in found.items()}
    rows = {
        f"{size} processes": [number(best[size] / n * 1e9), f"{best[1] / best[size]:.2f}"] for size in (1, 2)
    }
    table(
        f"One epoch of {count(n)} samples under torchrun, one thread a process",
        ["ns per sample", "speed"],
        rows,
    )


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
    epoch_map_of_blocks(data.blocks(1 << 20), LR)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "before": before, "peak": _peak()}))


def _peak() -> int:
    """The most bytes that this process has held; getrusage would count its parent's at the fork as well."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the section disk needs Linux")


def _share(folder: Path) -> None:
    """The worker of `processes`: the slowest rank's time, from a common start, of several rounds."""
    x, y = (torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in "xy")
    seconds = []
    with process_group() as group:
        begin, end = group.shard(len(x))
        own = x[begin:end].clone(), y[begin:end].clone()
        for _ in range(6):
            group.gather([0.0])
            began = time.perf_counter()
            group.compose(epoch_map_of_blocks([own], LR))
            seconds.append(max(row[0] for row in group.gather([time.perf_counter() - began])))
        if group.rank == 0:
            print(json.dumps({"seconds": seconds[1:]}))


if __name__ == "__main__":
    {"disk": _read_from_disk, "processes": _share}[sys.argv[1]](Path(sys.argv[2]))
