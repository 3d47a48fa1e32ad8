"""Measure torchgd beside its peers: one run, the sides in turn, medians; tables and a picture.

    python scripts/benchmark.py                         # all sections, about six minutes
    python scripts/benchmark.py epochs --largest 1e6    # one section, less of it
    python scripts/benchmark.py busy --busy             # beside other processes, which it starts and ends

Sections: epochs (per-sample SGD in order, from 10³ samples up, for one epoch and for many), batches,
linear (the time per sample from 10⁶ samples on), disk (data larger than the memory used), processes
(torchrun), busy (beside other processes), long (many epochs), steps (of an optimizer), loops (an update
of a loop) and logging. A peer that is not installed (they are the extra `bench`) is left out, and said so.
A number after ~ was not measured: it is the time per sample of the largest measurement.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks import busy, overheads, peers, scale
from benchmarks.measure import Times, count, machine, medians, number, samples, table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from torchgd import epoch_map

PASS = "one memory pass (torch.dot)"
SCAN = "torchgd scan"
EPOCHS = (1, 10, 100, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="all if none is given")
    parser.add_argument("--largest", type=lambda text: int(float(text)), default=10**8, help="most samples")
    parser.add_argument("--repeats", type=int, default=5, help="times that each side is measured")
    parser.add_argument("--seconds", type=float, default=1.0, help="what would take longer is not measured")
    parser.add_argument("--busy", action="store_true", help="let the section busy start other processes")
    parser.add_argument("--picture", type=Path, default=Path("runs/benchmark.png"))
    options = parser.parse_args()
    for section in options.sections:
        if section not in SECTIONS:
            parser.error(f"no section {section!r}; there are {', '.join(SECTIONS)}")
    print(f"{machine()}\n")
    for section in options.sections or SECTIONS:
        began = time.perf_counter()
        SECTIONS[section](options)
        print(
            f"{section}: {time.perf_counter() - began:.0f} s, load average {os.getloadavg()[0]:.1f}\n",
            flush=True,
        )


def epochs(options: argparse.Namespace) -> None:
    """One epoch at each number of samples; then many epochs at 10⁷; then the picture of both."""
    sizes = [10**k for k in range(3, 9) if 10**k <= options.largest]
    too_slow: set[str] = set()
    by_size = {n: one_epoch(n, options, too_slow) for n in sizes}
    names = [name for name in [*peers.SIDES, PASS] if name in by_size[sizes[0]]]
    per_sample = {name: {n: by_size[n][name] / n for n in sizes if name in by_size[n]} for name in names}
    rows = {}
    for name, measured in per_sample.items():
        last = max(measured)
        cells = [number(measured.get(n, measured[last]) * 1e9, estimated=n not in measured) for n in sizes]
        rows[name] = [*cells, *(number(measured[last] / per_sample[side][last]) for side in (SCAN, PASS))]
    columns = [*(f"N = {count(n)}" for n in sizes), "to the scan", "to one pass"]
    table("One epoch of per-sample SGD in order, float64, ns per sample", columns, rows)

    n = min(10**7, sizes[-1])
    slope = {name: measured.get(n, measured[max(measured)]) * n for name, measured in per_sample.items()}
    del slope[PASS]
    many = many_epochs(n, slope, options)
    rows = {
        name: [number(many[name].get(k, slope[name] * k), estimated=k not in many[name]) for k in EPOCHS]
        for name in slope
    }
    table(f"Epochs over the same {count(n)} samples, seconds", [f"{k} epochs" for k in EPOCHS], rows)
    estimated = {name: {k: slope[name] * k for k in EPOCHS if k not in many[name]} for name in slope}
    draw(per_sample, many, estimated, n, options.picture)


def one_epoch(n: int, options: argparse.Namespace, too_slow: set[str]) -> Times:
    """Seconds of each side that is quick enough; all must end at the same weight."""
    x, y = samples(n)
    sides, missing = peers.sides(x, y, leave_out=too_slow)
    if missing and not too_slow:
        print(f"Not installed, left out: {', '.join(missing)}\n")
    weights = {name: side(1) for name, side in sides.items()}
    for name, weight in weights.items():
        if abs(weight - weights[SCAN]) > 1e-9:
            raise SystemExit(
                f"{name} ends at {weight}, the scan at {weights[SCAN]}: not the same computation"
            )
    timed: dict[str, Callable[[], object]] = {name: partial(side, 1) for name, side in sides.items()}
    times = medians({**timed, PASS: partial(torch.dot, x, y)}, options.repeats)
    too_slow.update(name for name in sides if name != SCAN and 10 * times[name] > options.seconds)
    return times


def many_epochs(n: int, one: Times, options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Seconds of each side for 1, 10, … epochs, as far as it is quick enough."""
    sides, _ = peers.sides(*samples(n), leave_out={name for name in one if one[name] > options.seconds})
    found: dict[str, dict[int, float]] = {name: {} for name in one}
    for k in EPOCHS:
        quick = {
            name: partial(side, k) for name, side in sides.items() if quick_enough(name, one, k, options)
        }
        for name, seconds in medians(quick, options.repeats).items():
            found[name][k] = seconds
    return found


def quick_enough(name: str, one: Times, k: int, options: argparse.Namespace) -> bool:
    return name == SCAN or one[name] * k <= options.seconds


def draw(
    per_sample: dict[str, dict[int, float]],
    many: dict[str, dict[int, float]],
    estimated: dict[str, dict[int, float]],
    n: int,
    picture: Path,
) -> None:
    """Time per sample over N, and time over the number of epochs; what is estimated has hollow marks."""
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for i, (name, measured) in enumerate(per_sample.items()):
        style: dict[str, Any] = {
            "color": f"C{i}",
            "marker": "o",
            "linewidth": 3 if name == SCAN else 1.5,
        }
        if name == PASS:
            style = {"color": "black", "linestyle": ":"}
        left.plot(list(measured), [seconds * 1e9 for seconds in measured.values()], label=name, **style)
        if name in many:
            seconds = many[name] | estimated[name]
            right.plot(list(seconds), list(seconds.values()), **style | {"marker": ""})
            right.plot(list(many[name]), list(many[name].values()), "o", color=f"C{i}")
            right.plot(list(estimated[name]), list(estimated[name].values()), "o", color=f"C{i}", mfc="white")
    left.set(xlabel="samples N", ylabel="one epoch: time per sample (ns)", xscale="log", yscale="log")
    epochs_label = f"epochs over N = {count(n)} samples (hollow: estimated)"
    right.set(xlabel=epochs_label, ylabel="time (s)", xscale="log", yscale="log")
    left.grid(alpha=0.3)
    right.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Per-sample SGD in order, float64. {machine()}", fontsize="small")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    print(f"Picture: {picture}\n")


def batches(options: argparse.Namespace) -> None:
    """One epoch's map for batches of several sizes, in memory passes."""
    n = min(10**7, options.largest)
    x, y = samples(n)
    sizes = {f"batches of {size}": size for size in (1, 2, 32, 1000)} | {"full batch": n}
    sides: dict[str, Callable[[], object]] = {
        name: partial(epoch_map, x, y, 0.01, size) for name, size in sizes.items()
    }
    times = medians({**sides, PASS: partial(torch.dot, x, y)}, options.repeats)
    rows = {name: [number(t / n * 1e9), number(t / times[PASS])] for name, t in times.items()}
    table(f"The map of an epoch of {count(n)} samples", ["ns per sample", "memory passes"], rows)


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "epochs": epochs,
    "batches": batches,
    "linear": scale.linear,
    "disk": scale.disk,
    "processes": scale.processes,
    "busy": busy.busy,
    "long": busy.long,
    "steps": overheads.steps,
    "loops": overheads.loops,
    "logging": overheads.logging,
}


if __name__ == "__main__":
    main()
