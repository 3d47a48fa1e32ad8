"""Draw the picture at the top of the README: three methods on the course's data."""

from pathlib import Path

import torch

from torchgd import History, LinearModel, Plan, course, train
from torchgd.figures import cost_curve, parabola
from torchgd.moments import Moments
from torchgd.picture import to_png

PICTURES = Path(__file__).parent / "pictures"
LR, EPOCHS = 0.01, 30


def main() -> None:
    data = course()
    histories: dict[str, History] = {}
    for method in ("gd", "minibatch", "sgd"):
        model = LinearModel(1.0, dtype=torch.float64)
        plan = Plan(method=method, batch_size=2 if method == "minibatch" else None, lr=LR)
        optimizer = plan.optimizer(model.parameters())
        histories[method] = train(model, data.x, data.y, optimizer, epochs=EPOCHS, gradient="hand")
    title = f"y = w·x on the course's data, lr = {LR}, {EPOCHS} epochs"
    for name, figure in (
        ("parabola", parabola(histories, Moments.of(data.blocks()), title=title)),
        ("cost", cost_curve(histories, title=title)),
    ):
        png, *_ = to_png(figure)
        (PICTURES / f"{name}.png").write_bytes(png)


if __name__ == "__main__":
    main()
