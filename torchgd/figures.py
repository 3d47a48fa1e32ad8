"""The pictures of a run, drawn with matplotlib: the parabola with the weight's path, the cost over epochs.

Axes are labelled and lines are thick enough to be projected; a method has the same colour everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchgd.history import HIGHEST, History
from torchgd.moments import Moments
from torchgd.picture import Picture
from torchgd.plan import METHODS

METHOD_COLOURS = {name: method.colour for name, method in METHODS.items()}
METHOD_NAMES = {name: method.label for name, method in METHODS.items()}
# Fonts with Chinese characters, of which those that are installed are used.
_CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "WenQuanYi Zen Hei",
)
_FONTS = ["DejaVu Sans", *(name for name in _CHINESE if name in font_manager.get_font_names())]
# Of curves that lie on one another the later ones are thinner, so that all can be seen.
STYLES = (("o", 13, 6.0, "-"), ("s", 8, 3.5, "-"), ("D", 4, 2.0, "-"), ("o", 3, 1.5, "--"))


def parabola(
    histories: Mapping[str, History],
    moments: Moments,
    *,
    title: str = "",
    rates: Mapping[str, float] | None = None,
) -> Figure:
    """The cost C(w) of y = w·x as a curve over w, with the path of each method's weight on it.

    A path that diverged is drawn only up to 30 times the distance at which it began.

    Args:
        histories: method → its history; of a one-weight model.
        moments: the cost of the data, ``Moments.of(data.blocks())``.
        title: the title of the picture.
        rates: method → its learning rate, where the legend should say it.
    """
    figure, (axes,) = panels(title)
    best = moments.least_squares
    paths = {method: _path(history, best) for method, history in histories.items()}
    reach = max(abs(w - best) for path in paths.values() for w in path)
    span = 1.25 * max(reach, 1e-3 * (1 + abs(best)))
    curve = [best + span * (i / 200 - 1) for i in range(401)]
    axes.plot(curve, [moments.cost(w) for w in curve], color="#888888", linewidth=2)
    for method, (marker, size, _, _), path in zip(paths, cycle(STYLES), paths.values(), strict=False):
        label, colour = _label(method, rates), METHOD_COLOURS.get(method)
        epochs = len(histories[method].weight) - 1
        label += f", epochs 0 to {len(path) - 1} of {epochs}" if len(path) <= epochs else ""
        height = [moments.cost(w) for w in path]
        axes.plot(
            path,
            height,
            marker=marker,
            color=colour,
            label=label,
            markersize=size if len(paths) > 1 else 6,
            markeredgecolor="white",
            markeredgewidth=0.5,
            linewidth=1.5,
            alpha=0.9,
        )
    axes.axvline(best, color="#888888", linestyle=":", linewidth=1.5, label=f"least squares, w = {best:.6g}")
    axes.set_xlabel("weight w")
    axes.set_ylabel("cost: mean of (w·x − y)²")
    axes.legend(loc="upper center", fontsize=12)
    return figure


def _path(history: History, best: float) -> list[float]:
    """The weights at the ends of the epochs that can be seen as separate points in one picture."""
    path: list[float] = history.weight.tolist()
    far = 30 * max(abs(path[0] - best), 1e-3 * (1 + abs(best)))
    beyond = (i for i, w in enumerate(path) if abs(w - best) > far)
    return path[: next(beyond, len(path)) + 1] if history.status == "diverged" else path


def _label(method: str, rates: Mapping[str, float] | None) -> str:
    rate = f", lr = {rates[method]:.6g}" if rates and method in rates else ""
    return METHOD_NAMES.get(method, method) + rate


def cost_curve(
    histories: Mapping[str, History], *, title: str = "", rates: Mapping[str, float] | None = None
) -> Figure:
    """The cost over all data against the epoch, on a logarithmic axis.

    Args:
        histories: method → its history.
        title: the title of the picture.
        rates: method → its learning rate, where the legend should say it.
    """
    figure, (axes,) = panels(title)
    for (method, history), (_, _, width, style) in zip(histories.items(), cycle(STYLES), strict=False):
        label, colour = _label(method, rates), METHOD_COLOURS.get(method)
        updates = int(history.end_update[1] - history.end_update[0]) if len(history.end_update) > 1 else 1
        label += f", {updates:,} updates an epoch" if updates > 1 else ""
        label += f", as far as {HIGHEST:g}" if (history.cost > HIGHEST).any() else ""
        width = width if len(histories) > 1 else 2.5
        history.plot(axes, color=colour, label=label, linewidth=width, linestyle=style)
    axes.set_ylabel("cost after the epoch: mean of (w·x − y)²")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=12)
    return figure


def panels(*titles: str, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Axes in the style of all pictures, one for each title, row by row.

    Example:
        >>> figure, (left, right) = panels("before", "after")
        >>> right.get_title()
        'after'
    """
    columns = len(titles) // rows
    figure = Picture(figsize=(max(8, 6 * columns), 5 * rows), dpi=100, layout="constrained")
    every = [figure.add_subplot(rows, columns, place) for place in range(1, len(titles) + 1)]
    for axes, title in zip(every, titles, strict=True):
        # a file name that is not UTF-8 holds half characters, which no font draws
        axes.set_title(title.encode("utf-8", "replace").decode(), fontsize=15, fontfamily=_FONTS)
        axes.xaxis.label.set_fontsize(14)
        axes.yaxis.label.set_fontsize(14)
        axes.tick_params(labelsize=12)
    return figure, every
