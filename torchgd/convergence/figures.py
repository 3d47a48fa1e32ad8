"""Pictures of convergence: the factor of an epoch against lr, and the epochs of a sweep against lr."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from matplotlib.figure import Figure

from torchgd.convergence.methods import Epoch
from torchgd.convergence.sweep import Sweep
from torchgd.figures import METHOD_COLOURS, METHOD_NAMES, panels

FLOOR, CEILING = 1e-4, 1e3  # only factors between them are shown
GREY = "#666666"


def factor_figure(epochs: Mapping[str, Epoch], lr: float, *, title: str = "") -> Figure:
    """|factor of an epoch| against lr for each method, its limits dashed, and the chosen lr.

    Args:
        epochs: method → its epoch, see :func:`torchgd.convergence.methods.epoch_of`.
        lr: the chosen learning rate.
        title: the title of the picture.
    """
    figure, (axes,) = panels(title)
    intervals = {method: epoch.intervals for method, epoch in epochs.items()}
    widest = max(ends[0][1] for ends in intervals.values())
    wide = [(low, high) for ends in intervals.values() for low, high in ends if high - low > 0.01 * widest]
    islands = [high for _, high in wide if high < 4 * widest]
    right = 1.15 * max(*islands, widest, min(lr, 4 * widest))
    samples = max(len(epoch.updates.squares) for epoch in epochs.values())
    grid = torch.linspace(0, right, 801 if samples < 100_000 else 101, dtype=torch.float64).tolist()[1:]
    for method, epoch in epochs.items():
        factors = [min(abs(epoch.factor(rate)), 10 * CEILING) for rate in grid]
        limit = intervals[method][0][1]
        label = f"{METHOD_NAMES[method]}: limit {limit:.6g}"
        if method == "minibatch":
            label = f"{METHOD_NAMES[method]} of {epoch.updates.batch_size}: limit {limit:.6g}"
        axes.plot([0.0, *grid], [1.0, *factors], color=METHOD_COLOURS[method], linewidth=2.5, label=label)
        ends = [end for interval in intervals[method] for end in interval if 0 < end < right]
        for end in ends:
            axes.plot([end, end], [FLOOR, 1], color=METHOD_COLOURS[method], linewidth=1.5, linestyle="--")
        axes.plot(ends, [1.0] * len(ends), "o", color=METHOD_COLOURS[method], markersize=7)
    axes.axhspan(1, CEILING, color=GREY, alpha=0.15, linewidth=0, label="diverges")
    if lr < right:
        axes.axvline(lr, color="black", linewidth=2, label=f"lr = {lr:.6g}")
    axes.set_yscale("log")
    axes.set_ylim(FLOOR, CEILING)
    axes.set_xlim(0, right)
    axes.set_xlabel("learning rate lr")
    axes.set_ylabel("|factor| of the error in an epoch")
    axes.legend(loc="upper left", ncols=2, fontsize=12, framealpha=0.95)
    return figure


def _shown(sweep: Sweep) -> tuple[float, float]:
    """The part of the sweep where the certificate's curve is visible, and a little more."""
    rates, most = sweep.lr.tolist(), 1.25 * (len(sweep.weight) - 1)
    inside = [rate for rate in rates if sweep.predicted(rate) <= most] or rates
    end = max(1.1 * inside[-1], 1.15 * sweep.epoch.intervals[0][1])
    return max(rates[0], inside[0] / 1.1), max(min(rates[-1], end), inside[-1])


def sweep_figure(sweep: Sweep, method: str, *, linear: bool = False, title: str = "") -> Figure:
    """The epochs to the tolerance against lr: as trained, and as the certificate says.

    Args:
        sweep: see :func:`torchgd.sweep_lr`.
        method: "gd", "sgd" or "minibatch", for the colour and the name.
        linear: the axis of lr; else it is logarithmic.
        title: the title of the picture.
    """
    figure, (axes,) = panels(title)
    low, high = _shown(sweep)
    between = torch.linspace(math.log(low), math.log(high), 401, dtype=torch.float64).exp()
    grid = torch.linspace(low, high, 401, dtype=torch.float64) if linear else between
    predicted = [max(1.0, sweep.predicted(rate)) for rate in grid.tolist()]
    most = len(sweep.weight) - 1
    axes.plot(grid, predicted, color=GREY, linewidth=2, label="certificate")
    done = sweep.epochs.isfinite()
    axes.plot(
        sweep.lr[done],
        sweep.epochs[done],
        "o",
        color=METHOD_COLOURS[method],
        markersize=5,
        label=f"{METHOD_NAMES[method]}, trained",
    )
    limit = sweep.epoch.intervals[0][1]
    if low < limit < high:
        axes.axvline(limit, color="black", linewidth=2, linestyle="--", label=f"limit {limit:.6g}")
    if low <= sweep.best_lr <= high:
        label = f"best lr for {most} epochs: {sweep.best_lr:.6g}"
        star = max(1.0, sweep.predicted(sweep.best_lr))
        axes.plot([sweep.best_lr], [star], "*", color="black", markersize=18, label=label)
    axes.set_xscale("linear" if linear else "log")
    axes.set_yscale("log")
    axes.set_ylim(0.8, 1.25 * most)
    axes.set_xlim(low, high)
    axes.set_xlabel("learning rate lr")
    axes.set_ylabel(f"epochs until {sweep.tolerance:g} of the start is left")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=12, framealpha=0.95)
    return figure
