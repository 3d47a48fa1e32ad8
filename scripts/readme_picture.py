"""Draw the picture at the top of the README: three methods on the course's data."""

from pathlib import Path

import torch

from torchgd import (
    GradientDescent,
    History,
    LinearModel,
    MiniBatchGradientDescent,
    StochasticGradientDescent,
    course,
    train,
)
from torchgd.figures import cost_curve, parabola, to_png
from torchgd.moments import Moments

PICTURES = Path(__file__).parent / "pictures"


def main() -> None:
    data = course()
    histories: dict[str, History] = {}
    for method in ("gd", "minibatch", "sgd"):
        model = LinearModel(1.0, dtype=torch.float64)
        optimizer = {
            "gd": GradientDescent(model.parameters(), lr=0.01),
            "minibatch": MiniBatchGradientDescent(model.parameters(), lr=0.01, batch_size=2),
            "sgd": StochasticGradientDescent(model.parameters(), lr=0.01),
        }[method]
        histories[method] = train(model, data.x, data.y, optimizer, epochs=30, gradient="hand")
    for name, figure in (
        ("parabola", parabola(histories, Moments.of(data.blocks()), title="y = w·x on the course's data")),
        ("cost", cost_curve(histories, title="the same three runs")),
    ):
        png, *_ = to_png(figure)
        (PICTURES / f"{name}.png").write_bytes(png)


if __name__ == "__main__":
    main()
