"""What all sections of the benchmark share: the data, the clock, the table."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

Times = dict[str, float]


def machine() -> str:
    """The machine and the versions, in a line."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{cpu}, {threads}, torch {torch.__version__}, Python {platform.python_version()}"


def samples(n: int) -> tuple[Tensor, Tensor]:
    """Standard normal x, and y = 2x with standard normal noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    return x, torch.randn(n, generator=generator, dtype=torch.float64).add_(x, alpha=2)


def in_turn(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """The seconds of each side in each round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - began)
    return {name: rounds[1:] for name, rounds in times.items()}


def medians(sides: Mapping[str, Callable[[], object]], repeats: int) -> Times:
    """The median seconds of each side, the sides in turn."""
    return {name: statistics.median(rounds) for name, rounds in in_turn(sides, repeats).items()}


def ratio(times: Sequence[float], base: Sequence[float]) -> str:
    """The median and the quartiles of the rounds' ratios: what slows a round slows both of its sides."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(times, base, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} … {high:.2f})"


def table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """Print a table in Markdown."""
    print(f"{title}\n\n| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)


def number(value: float, *, estimated: bool = False) -> str:
    """Three digits; ~ where it was not measured."""
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"~{text}" if estimated else text


def count(n: int) -> str:
    """1000 as 10³."""
    digits = "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(len(str(n)) - 1))
    return f"10{digits}" if n >= 1000 and str(n).strip("0") == "1" else f"{n:,}"
