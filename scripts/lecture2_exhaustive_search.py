"""Lecture 2: find the weight of y = w·x by trying them all, w = 0.0, 0.1, …, 4.0.

By hand in the course: the loss of each sample, one after the other. Here: torchgd's ``losses``, all samples
at once, as tensors. Nothing is trained, so there is no before or after: "MSE=" is the cost at that w.
Homework: the cost of y = w·x + b over w and b.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from torchgd import course
from torchgd.figures import panels
from torchgd.gradient import losses

FOLDER = Path("runs") / "lecture2"


def draw_parabola(weights: Tensor, costs: Tensor) -> Figure:
    figure, (axes,) = panels("Lecture 2: the cost of every weight")
    axes.plot(weights, costs, "o-")
    axes.set(xlabel="weight w", ylabel="cost: mean of (w·x − y)²")
    return figure


def draw_surface(x: Tensor, y: Tensor, weights: Tensor, biases: Tensor) -> Figure:
    # costs[i, j] belongs to biases[i] and weights[j]: rows go up the picture, columns to the right
    b, w = torch.meshgrid(biases, weights, indexing="ij")
    costs = ((w[..., None] * x + b[..., None] - y) ** 2).mean(-1)
    row, column = divmod(int(costs.argmin()), len(weights))
    figure, (axes,) = panels("Homework: the cost over w and b")
    shades = axes.contourf(w, b, costs.log1p(), levels=30)
    figure.colorbar(shades, label="log(1 + cost)")
    label = f"least cost: w = {weights[column]:.1f}, b = {biases[row]:.1f}"
    axes.plot(weights[column], biases[row], "w*", markersize=15, label=label)
    axes.set(xlabel="weight w", ylabel="bias b")
    axes.legend(facecolor="gray", labelcolor="white")
    return figure


def main() -> None:
    x, y = course()
    weights = torch.arange(41, dtype=x.dtype) * 0.1
    costs = []
    for w in weights:
        print("w=", w.item())
        for sample in zip(x, y, w * x, losses(w, x, y), strict=True):
            print("\t", *(number.item() for number in sample))  # x, y, prediction, loss
        costs.append(losses(w, x, y).mean())
        print("MSE=", costs[-1].item())

    FOLDER.mkdir(parents=True, exist_ok=True)
    draw_parabola(weights, torch.stack(costs)).savefig(FOLDER / "parabola.png")
    biases = torch.arange(-40, 21, dtype=x.dtype) * 0.1
    draw_surface(x, y, weights, biases).savefig(FOLDER / "surface.png")


if __name__ == "__main__":
    main()
