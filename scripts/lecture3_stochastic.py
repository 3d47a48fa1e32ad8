"""Lecture 3, the second program: one sample an update, the gradient written by hand.

By hand in the course: the inner loop over the samples. Here: the optimizer says which samples an update
sees, ``optimizer.batches(n)``; that is all in which stochastic gradient descent differs from the first
program. The order is that of the data: nothing is drawn at random. "grad:" is dℓ/dw of the sample
*before* the update. "loss=" is the loss of the *last sample after* the update: not the cost, which the
picture shows beside it.
"""

from pathlib import Path

from torchgd import LinearModel, StochasticGradientDescent, course
from torchgd.figures import METHOD_COLOURS, panels
from torchgd.gradient import cost, gradient

FOLDER = Path("runs") / "lecture3"


def main() -> None:
    x, y = course()
    model = LinearModel(1.0, dtype=x.dtype)
    optimizer = StochasticGradientDescent(model.parameters(), lr=0.01)
    w = model.weight.detach()  # the same number in memory, unseen by autograd

    last_losses, costs = [], []
    print("Predict (before training)", 4, model(4).item())
    for epoch in range(100):
        for sample in optimizer.batches(len(x)):
            xs, ys = x[sample], y[sample]
            model.weight.grad = gradient(w, xs, ys)
            optimizer.step()
            print("\tgrad:", xs.item(), ys.item(), model.weight.grad.item())
            loss_after = cost(w, xs, ys)
        print("progress:", epoch, "w=", w.item(), "loss=", loss_after.item())
        last_losses.append(loss_after.item())
        costs.append(cost(w, x, y).item())
    print("Predict (after training)", 4, model(4).item())

    figure, (axes,) = panels("Lecture 3: stochastic gradient descent, the first 20 epochs")
    axes.plot(last_losses[:20], "--", color="#888888", label="printed: last sample, after its update")
    axes.plot(costs[:20], color=METHOD_COLOURS["sgd"], label="cost of all samples, after the epoch")
    axes.set(xlabel="epoch", xticks=range(0, 20, 2), ylabel="(w·x − y)²")
    axes.legend()
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "stochastic.png")


if __name__ == "__main__":
    main()
