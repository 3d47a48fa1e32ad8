"""The pictures of a run, drawn with matplotlib: the parabola with the weight's path, the cost over epochs.

Axes are labelled and lines are thick enough to be projected; a method has the same colour everywhere.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from torchgd.history import History

METHOD_COLOURS = {
    "gd": "#0072B2",
    "sgd": "#D55E00",
    "minibatch": "#009E73",
}  # told apart by colour-blind eyes too
METHOD_NAMES = {"gd": "full batch", "sgd": "per sample", "minibatch": "mini-batch"}


def parabola(histories: Mapping[str, History], x: Tensor, y: Tensor, *, title: str = "") -> Figure:
    """The cost C(w) of y = w·x as a curve over w, with the path of each method's weight on it.

    Args:
        histories: method → its history; of a one-weight model.
        x, y: the data, shape (n,).
        title: what stands above.
    """
    figure, axes = _axes(title)
    x, y = x.double().cpu(), y.double().cpu()
    # C(w) = C(w*) + mean(x²) (w − w*)², from three means: the data may be large
    curvature, best = (x * x).mean(), (x * y).sum() / (x * x).sum()
    floor = ((best * x - y) ** 2).mean()
    paths = {method: history.weight.double() for method, history in histories.items()}
    reach = torch.cat([*paths.values()]) - best
    span = max(reach.abs().max().item(), 1e-3 * (1 + abs(best.item()))) * 1.25
    w = torch.linspace(best.item() - span, best.item() + span, 401, dtype=torch.float64)
    axes.plot(w, floor + curvature * (w - best) ** 2, color="#888888", linewidth=2)
    for method, path in paths.items():
        height = floor + curvature * (path - best) ** 2
        label, colour = METHOD_NAMES.get(method, method), METHOD_COLOURS.get(method)
        axes.plot(path, height, "o-", color=colour, label=label, markersize=6, linewidth=1.5, alpha=0.8)
    axes.axvline(
        best.item(), color="#888888", linestyle=":", linewidth=1.5, label=f"least squares, w = {best:.6g}"
    )
    axes.set_xlabel("weight w")
    axes.set_ylabel("cost: mean of (w·x − y)²")
    axes.legend(loc="upper center")
    return figure


def cost_curve(histories: Mapping[str, History], *, title: str = "") -> Figure:
    """The cost over all data against the epoch, on a logarithmic axis.

    Args:
        histories: method → its history.
        title: what stands above.
    """
    figure, axes = _axes(title)
    for method, history in histories.items():
        label, colour = METHOD_NAMES.get(method, method), METHOD_COLOURS.get(method)
        axes.plot(history.epoch, history.cost, color=colour, label=label, linewidth=2.5)
    if any((history.cost > 0).any() for history in histories.values()):
        axes.set_yscale("log", nonpositive="clip")
    axes.set_xlabel("epoch")
    axes.set_ylabel("cost after the epoch: mean of (w·x − y)²")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def to_png(figure: Figure) -> tuple[bytes, int, int]:
    """The figure as a PNG, with its width and height in pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    width, height = FigureCanvasAgg(figure).get_width_height()
    return buffer.getvalue(), width, height


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=15)
    axes.xaxis.label.set_fontsize(14)
    axes.yaxis.label.set_fontsize(14)
    axes.tick_params(labelsize=12)
    return figure, axes
