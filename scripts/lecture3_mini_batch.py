"""Lecture 3, the program that it describes and does not show: mini-batches of two samples.

By hand in the course: nothing. Here: the second program with another optimizer; the gradient is the mean
over the batch. Three samples make a batch of two and one of one. "grad:" is the gradient of the batch
*before* the update; "loss=" is the loss of the *last batch after* the update, as in the second program.
"""

from pathlib import Path

from torchgd import LinearModel, MiniBatchGradientDescent, course
from torchgd.figures import METHOD_COLOURS, panels
from torchgd.gradient import cost, gradient

FOLDER = Path("runs") / "lecture3"


def main() -> None:
    x, y = course()
    model = LinearModel(1.0, dtype=x.dtype)
    optimizer = MiniBatchGradientDescent(model.parameters(), lr=0.01, batch_size=2)
    w = model.weight.detach()  # the same number in memory, unseen by autograd

    last_losses, costs = [], []
    print("Predict (before training)", 4, model(4).item())
    for epoch in range(100):
        for batch in optimizer.batches(len(x)):
            xs, ys = x[batch], y[batch]
            model.weight.grad = gradient(w, xs, ys)
            optimizer.step()
            print("\tgrad:", xs.tolist(), ys.tolist(), model.weight.grad.item())
            loss_after = cost(w, xs, ys)
        print("progress:", epoch, "w=", w.item(), "loss=", loss_after.item())
        last_losses.append(loss_after.item())
        costs.append(cost(w, x, y).item())
    print("Predict (after training)", 4, model(4).item())

    figure, (axes,) = panels("Lecture 3: mini-batches of two, the first 20 epochs")
    axes.plot(last_losses[:20], "--", color="#888888", label="printed: last batch, after its update")
    axes.plot(costs[:20], color=METHOD_COLOURS["minibatch"], label="cost of all samples, after the epoch")
    axes.set(xlabel="epoch", xticks=range(0, 20, 2), ylabel="mean of (w·x − y)²")
    axes.legend()
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "mini_batch.png")


if __name__ == "__main__":
    main()
