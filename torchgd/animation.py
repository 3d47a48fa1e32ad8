"""The descent as an animation: the weight of each method on the parabola, epoch by epoch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg

from torchgd.errors import InputError
from torchgd.figures import parabola
from torchgd.history import History
from torchgd.moments import Moments

MOST_FRAMES = 60
FRAMES_A_SECOND = 5


def check_ending(path: Path | None) -> None:
    """Raise InputError for a film that is not a .gif or .html file, or whose folder does not exist."""
    if path is None:
        return
    if path.suffix.lower() not in (".gif", ".html"):
        raise InputError(f"{path}: an animation ends in .gif or .html; give such a name")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; give an animation's file in an existing folder")


def animate(path: Path, histories: Mapping[str, History], moments: Moments, *, title: str) -> None:
    """Write the film to a .gif or an .html file; a long run is shown by 60 epochs, evenly spaced.

    Args:
        path: the file; its ending, .gif or .html, decides the format.
        histories, moments: as for :func:`torchgd.figures.parabola`.
        title: the first part of the title; the number of the epoch follows.

    Raises:
        InputError: the ending is another one, or the folder does not exist.
    """
    # imported here, since few lessons write a film
    from matplotlib.animation import FuncAnimation, HTMLWriter, PillowWriter

    check_ending(path)
    figure = parabola(histories, moments)
    FigureCanvasAgg(figure)
    (axes,) = figure.axes
    lines = axes.get_lines()[1 : 1 + len(histories)]  # line 0 is the parabola
    paths = {line: np.asarray(line.get_xydata()) for line in lines}
    last = max(len(points) for points in paths.values()) - 1
    epochs = sorted({round(i * last / (MOST_FRAMES - 1)) for i in range(MOST_FRAMES)})

    def draw(epoch: int) -> list[Artist]:
        for line, points in paths.items():
            line.set_data(*points[: epoch + 1].T)
        axes.set_title(f"{title}: epoch {epoch}", fontsize=15)
        return list(paths)

    writer = (
        HTMLWriter(FRAMES_A_SECOND, embed_frames=True)
        if path.suffix.lower() == ".html"
        else PillowWriter(FRAMES_A_SECOND)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        FuncAnimation(figure, draw, frames=epochs).save(path, writer=writer)
