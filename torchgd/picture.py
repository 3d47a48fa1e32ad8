"""A picture, as a notebook shows it and as a PNG."""

from __future__ import annotations

import io
import warnings

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that a notebook shows although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        return to_png(self)[0]


def to_png(figure: Figure) -> tuple[bytes, int, int]:
    """The figure as a PNG, with its width and height in pixels."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a name may hold a character that no font has
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    width, height = FigureCanvasAgg(figure).get_width_height()
    return buffer.getvalue(), width, height
