"""Lecture 5: weight and bias, the model and the optimizer by PyTorch.

By hand until now: the model, and with it the optimizer. Here: ``nn.Linear(1, 1)`` and ``torch.optim.SGD``.
The loss is the *sum* over the samples, as in the lecture, and each printed loss is that *before* the update;
the picture shows the same. The start of seed 42 ends at the numbers of the lecture.
"""

from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD

from torchgd import course
from torchgd.figures import METHOD_COLOURS, panels

FOLDER = Path("runs") / "lecture5"


def fit(reduction: str, lr: float, dtype: torch.dtype) -> tuple[nn.Linear, list[float]]:
    x, y = (column.reshape(-1, 1) for column in course(dtype=dtype))  # nn.Linear wants samples in rows
    torch.manual_seed(42)
    model = nn.Linear(1, 1).to(dtype)
    criterion, optimizer, losses = nn.MSELoss(reduction=reduction), SGD(model.parameters(), lr=lr), []
    for _ in range(1000):
        loss = criterion(model(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, losses


def main() -> None:
    model, losses = fit("sum", lr=0.01, dtype=torch.float32)
    for iteration, loss in enumerate(losses):
        print(iteration, loss)
    print("w = ", model.weight.item())
    print("b = ", model.bias.item())
    print("y_pred = ", model(torch.tensor([[4.0]])).data)

    # Why 100 iterations are not enough: an iteration leaves 1 − lr·λ of the error along each eigenvector.
    A = torch.stack([course().x, torch.ones(3, dtype=torch.float64)], dim=1)
    slow, fast = torch.linalg.eigvalsh(2 * A.T @ A).tolist()  # of the Hessian of the sum over (w, b)
    print(
        f"eigenvalues {slow:.4f} and {fast:.3f}, condition number {fast / slow:.1f}, lr limit {2 / fast:.4f}"
    )
    for iterations in (100, 1000):
        print(
            f"after {iterations} iterations {(1 - 0.01 * slow) ** iterations:.2g} of the slow error is left"
        )

    # The gradient of the sum is N times that of the mean: the sum at lr is the mean at N·lr.
    by_sum, _ = fit("sum", lr=0.01, dtype=torch.float64)
    by_mean, _ = fit("mean", lr=0.03, dtype=torch.float64)
    print("sum at lr 0.01, mean at lr 0.03: w differs by", (by_sum.weight - by_mean.weight).abs().item())

    figure, (axes,) = panels("Lecture 5: fast along one eigenvector, slow along the other")
    axes.semilogy(losses, color=METHOD_COLOURS["gd"], linewidth=2.5)
    axes.set(xlabel="iteration", ylabel="loss before the update: sum of (w·x + b − y)²")
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "loss.png")


if __name__ == "__main__":
    main()
