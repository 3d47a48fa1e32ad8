"""Lecture 3, the first program: full-batch gradient descent, the gradient written by hand.

By hand in the course: the update ``w -= 0.01 * grad``. Here: an optimizer, a subclass of
``torch.optim.Optimizer``. "loss=" is the cost over all samples *before* the update of the epoch,
"w=" the weight *after* it. PyTorch may round w − lr·grad once where Python rounds twice, so that
the last digit of a line may differ from the course's.
"""

from pathlib import Path

from torchgd import GradientDescent, LinearModel, course
from torchgd.figures import METHOD_COLOURS, panels
from torchgd.gradient import cost, gradient

FOLDER = Path("runs") / "lecture3"


def main() -> None:
    x, y = course()
    model = LinearModel(1.0, dtype=x.dtype)
    optimizer = GradientDescent(model.parameters(), lr=0.01)
    w = model.weight.detach()  # the same number in memory, unseen by autograd

    costs = []
    print("Predict (before training)", 4, model(4).item())
    for epoch in range(100):
        cost_before = cost(w, x, y)
        model.weight.grad = gradient(w, x, y)
        optimizer.step()
        print("Epoch:", epoch, "w=", w.item(), "loss=", cost_before.item())
        costs.append(cost_before.item())
    print("Predict (after training)", 4, model(4).item())

    figure, (axes,) = panels("Lecture 3: gradient descent")
    axes.plot(costs, color=METHOD_COLOURS["gd"], linewidth=2.5)
    axes.set(xlabel="epoch", ylabel="cost before the epoch's update")
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "gradient_descent.png")


if __name__ == "__main__":
    main()
