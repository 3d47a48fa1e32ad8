"""Lecture 4: the second program of lecture 3 with the gradient by autograd.

By hand until now: ``gradient(w, x, y)``. Here: ``loss.backward()``. The weights are the same to rounding; the
printed loss is not: "progress:" now shows the loss of the last sample *before* its update, because backward
needs the loss first. The last part of the output says so in numbers. "grad:" is dℓ/dw before the update.
"""

from pathlib import Path

import torch
from torch.nn.functional import mse_loss

from torchgd import History, LinearModel, StochasticGradientDescent, course, train
from torchgd.figures import METHOD_COLOURS, panels

FOLDER = Path("runs") / "lecture4"


def lecture() -> None:
    x, y = course(dtype=torch.float32)  # PyTorch's default, as in the lecture
    model = LinearModel(1.0)
    optimizer = StochasticGradientDescent(model.parameters(), lr=0.01)
    print("predict (before training)", 4, model(4).item())
    for epoch in range(100):
        for sample in optimizer.batches(len(x)):
            loss = mse_loss(model(x[sample]), y[sample])
            optimizer.zero_grad()
            loss.backward()
            print("\tgrad:", x[sample].item(), y[sample].item(), model.weight.grad.item())  # type: ignore[union-attr]
            optimizer.step()
        print("progress:", epoch, loss.item())
    print("predict (after training)", 4, model(4).item())


def run(gradient: str) -> History:
    x, y = course()
    model = LinearModel(1.0, dtype=x.dtype)
    return train(model, x, y, StochasticGradientDescent(model.parameters(), lr=0.01), gradient=gradient)


def main() -> None:
    lecture()
    hand, auto = run("hand"), run("autograd")
    print("largest difference of the weights:", (hand.update_weight - auto.update_weight).abs().max().item())
    print("epoch 0, last sample: loss before its update (lecture 4)", auto.loss_before[2].item())
    print("                      loss after its update (lecture 3)", auto.loss_after[2].item())
    print("epoch 0, all samples: cost after the epoch", auto.cost[1].item())

    figure, (axes,) = panels("One run, three losses: the first 20 epochs")
    before, after, cost = auto.loss_before[2::3], auto.loss_after[2::3], auto.cost[1:]
    axes.plot(before[:20], "--", color="#CC79A7", label="last sample, before its update (lecture 4)")
    axes.plot(after[:20], "--", color="#888888", label="last sample, after its update (lecture 3)")
    axes.plot(cost[:20], color=METHOD_COLOURS["sgd"], label="cost of all samples, after the epoch")
    axes.set(xlabel="epoch", xticks=range(0, 20, 2), ylabel="(w·x − y)²")
    axes.legend()
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "three_losses.png")


if __name__ == "__main__":
    main()
