"""The pictures say what happened: labels, axes, colours, and every point where it belongs."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from torchgd import GradientDescent, History, LinearModel, MiniBatchGradientDescent, train
from torchgd.animation import animate
from torchgd.errors import InputError
from torchgd.figures import METHOD_COLOURS, METHOD_NAMES, cost_curve, parabola
from torchgd.moments import Moments
from torchgd.picture import to_png

XS, YS = [1.0, 2.0, 3.0], [2.0, 5.0, 6.0]
X, Y = torch.tensor(XS).double(), torch.tensor(YS).double()


def history(method: str, epochs: int = 8, lr: float = 0.01) -> History:
    model = LinearModel(1.0, dtype=torch.float64)
    batch_size = {"gd": 3, "sgd": 1, "minibatch": 2}[method]
    optimizer = MiniBatchGradientDescent(model.parameters(), lr=lr, batch_size=batch_size)
    return train(model, X, Y, optimizer, epochs, gradient="hand")


def cost(w: float) -> float:
    return sum((w * a - b) ** 2 for a, b in zip(XS, YS, strict=True)) / 3


def lines(figure) -> dict[str, Line2D]:  # type: ignore[no-untyped-def]
    (axes,) = figure.axes
    return {str(line.get_label()): line for line in axes.get_lines()}


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


ALL = {method: history(method) for method in METHOD_NAMES}
CURVES = {
    "gd": "full batch",
    "sgd": "per sample, 3 updates an epoch",
    "minibatch": "mini-batch, 2 updates an epoch",
}


def test_the_path_lies_on_the_parabola() -> None:
    figure = parabola(ALL, Moments.of([(X, Y)]), title="all three")
    drawn = lines(figure)
    for method, record in ALL.items():
        path = points(drawn[METHOD_NAMES[method]])
        assert [w for w, _ in path] == record.weight.tolist()
        assert [c for _, c in path] == pytest.approx([cost(w) for w in record.weight.tolist()], rel=1e-12)
    curve = points(next(line for label, line in drawn.items() if label.startswith("_")))
    assert len(curve) > 200
    assert all(c == pytest.approx(cost(w), rel=1e-9) for w, c in curve)
    weights = torch.cat([record.weight for record in ALL.values()])
    assert curve[0][0] < weights.min()  # the path is all within the picture
    assert curve[-1][0] > weights.max()
    best = next(line for label, line in drawn.items() if label.startswith("least squares"))
    assert points(best)[0][0] == pytest.approx(15 / 7, rel=1e-12)
    assert best.get_label() == "least squares, w = 2.14286"


def test_the_cost_over_epochs_is_on_a_logarithmic_axis() -> None:
    figure = cost_curve(ALL, title="all three")
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    drawn = lines(figure)
    for method, record in ALL.items():
        assert points(drawn[CURVES[method]]) == [
            (float(e), c) for e, c in zip(record.epoch.tolist(), record.cost.tolist(), strict=True)
        ]


def test_curves_that_lie_on_one_another_are_told_apart_and_say_their_rates() -> None:
    rates = {"gd": 0.25, "sgd": 0.01}
    for figure in (parabola(ALL, Moments.of([(X, Y)]), rates=rates), cost_curve(ALL, rates=rates)):
        drawn = [line for line in figure.axes[0].get_lines() if str(line.get_label())[:4] in "full per mini"]
        assert len(drawn) == 3
        assert len({(line.get_marker(), line.get_linewidth()) for line in drawn}) == 3
        assert [str(line.get_label()).count("lr = ") for line in drawn] == [1, 1, 0]


@pytest.mark.parametrize("picture", [parabola, cost_curve])
def test_labels_title_and_colours(picture) -> None:  # type: ignore[no-untyped-def]
    arguments = (ALL, Moments.of([(X, Y)])) if picture is parabola else (ALL,)
    figure = picture(*arguments, title="per sample, lr = 0.01")
    (axes,) = figure.axes
    assert axes.get_title() == "per sample, lr = 0.01"
    x_label, y_label = ("weight w", "cost") if picture is parabola else ("epoch", "cost")
    assert axes.get_xlabel() == x_label
    assert axes.get_ylabel().startswith(y_label)
    drawn = lines(figure)
    names = METHOD_NAMES if picture is parabola else CURVES
    for method, name in names.items():
        assert to_hex(drawn[name].get_color()) == METHOD_COLOURS[method].lower()
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[:3] == list(names.values())
    # legible when projected: no text under 10 points, no line thinner than 1.5
    sizes = [
        axes.title,
        axes.xaxis.label,
        axes.yaxis.label,
        *axes.get_xticklabels(),
        *axes.get_legend().get_texts(),
    ]
    assert min(text.get_fontsize() for text in sizes) >= 10
    assert min(line.get_linewidth() for line in axes.get_lines()) >= 1.5


def test_the_methods_colours_differ() -> None:
    assert len(set(METHOD_COLOURS.values())) == len(METHOD_NAMES) == len(METHOD_COLOURS)
    assert set(METHOD_COLOURS) == set(METHOD_NAMES)


def test_a_png_of_its_size() -> None:
    data, width, height = to_png(cost_curve({"gd": ALL["gd"]}))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (width, height) == (800, 500)


@pytest.mark.parametrize("picture", [parabola, cost_curve])
@pytest.mark.parametrize(("method", "lr", "epochs"), [("gd", 0.5, 1000), ("sgd", 1e60, 5), ("sgd", 0.5, 1)])
def test_runs_that_diverged_or_were_short_are_drawn_without_a_warning(  # type: ignore[no-untyped-def]
    picture, method: str, lr: float, epochs: int
) -> None:
    record = history(method, epochs, lr)
    arguments = ({method: record}, Moments.of([(X, Y)])) if picture is parabola else ({method: record},)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(to_png(picture(*arguments))[0]) > 1000


def test_of_a_path_that_diverged_the_beginning_is_drawn() -> None:
    """lr = 0.5 multiplies the error by −11/3 an epoch: the third is the first beyond 30 times it."""
    model = LinearModel(1.0, dtype=torch.float64)
    record = train(model, X, 2 * X, GradientDescent(model.parameters(), lr=0.5), 40, gradient="hand")
    drawn = lines(parabola({"gd": record}, Moments.of([(X, 2 * X)])))
    path = points(drawn["full batch, epochs 0 to 3 of 40"])
    assert [w for w, _ in path] == pytest.approx([2 - (-11 / 3) ** k for k in range(4)])
    costs = points(lines(cost_curve({"gd": record}))["full batch"])
    assert [cost for _, cost in costs] == record.cost.tolist()  # up to 1e46


def test_a_cost_of_zero_is_drawn_too() -> None:
    model = LinearModel(2.0, dtype=torch.float64)
    record = train(model, X, 2 * X, GradientDescent(model.parameters()), 3, gradient="hand")
    assert not record.cost.any()
    for figure in (cost_curve({"gd": record}), parabola({"gd": record}, Moments.of([(X, 2 * X)]))):
        assert len(to_png(figure)[0]) > 1000


def test_a_single_precision_run() -> None:
    x: Tensor = X.float()
    model = LinearModel(1.0)
    record = train(model, x, 2 * x, GradientDescent(model.parameters()), 3, gradient="hand")
    drawn = lines(parabola({"gd": record}, Moments.of([(x, 2 * x)])))
    assert [w for w, _ in points(drawn["full batch"])] == record.weight.tolist()


@pytest.mark.parametrize("ending", [".gif", ".html"])
def test_the_film_of_a_descent(ending: str, tmp_path: Path) -> None:
    film = tmp_path / f"descent{ending}"
    animate(film, {"gd": ALL["gd"]}, Moments.of([(X, Y)]), title="course")
    if ending == ".gif":
        with Image.open(film) as image:
            assert (getattr(image, "n_frames", 1), image.size) == (9, (800, 500))
    else:
        assert film.read_text("utf-8").count("data:image/png;base64") == 9


@pytest.mark.parametrize(("name", "message"), [("a.mp4", "in .gif or .html"), ("b/c.gif", "no such folder")])
def test_a_film_that_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        animate(tmp_path / name, ALL, Moments.of([(X, Y)]), title="")
