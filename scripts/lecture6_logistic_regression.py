"""Lecture 6: logistic regression, does a student pass after x hours of study?

By hand until now: the loss and its gradient. Here, one after the other: autograd beside the gradient by hand,
then ``nn.Linear(1, 1)``, ``BCELoss`` and ``torch.optim.SGD``. With z = w·x + b and σ(z) = 1/(1 + e⁻ᶻ):

    ℓ = −y·log σ(z) − (1 − y)·log(1 − σ(z)),    dℓ/dw = (σ(z) − y)·x,    dℓ/db = σ(z) − y

The loss is the *sum* over the samples, as in lecture 5, and each printed loss is that *before* the update.
The mean of the three samples at lr 0.03 is the same run.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy
from torch.optim import SGD

from torchgd.figures import METHOD_COLOURS, panels

FOLDER = Path("runs") / "lecture6"
HOURS, PASSED = torch.tensor([[1.0], [2.0], [3.0]]).double(), torch.tensor([[0.0], [0.0], [1.0]]).double()
EPOCHS = 1000


def gradient(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of the sum of ℓ by w and by b, written by hand."""
    residual = torch.sigmoid(w * x + b) - y
    return (residual * x).sum(), residual.sum()


def start() -> nn.Linear:
    torch.manual_seed(42)
    return nn.Linear(1, 1).double()


def by_hand(lr: float) -> tuple[float, float]:
    """The weight, and how far the gradient by hand was from autograd's at most."""
    w, b = (p.detach().clone().reshape(()).requires_grad_() for p in start().parameters())
    apart = 0.0
    for _ in range(EPOCHS):
        loss = binary_cross_entropy(torch.sigmoid(w * HOURS + b), PASSED, reduction="sum")
        by_autograd = torch.autograd.grad(loss, (w, b))
        with torch.no_grad():
            dw, db = gradient(w, b, HOURS, PASSED)
            apart = max(apart, (dw - by_autograd[0]).abs().item(), (db - by_autograd[1]).abs().item())
            w -= lr * dw
            b -= lr * db
    return w.item(), apart


def by_pytorch(reduction: str, lr: float) -> tuple[nn.Linear, list[float]]:
    model, losses = start(), list[float]()
    criterion, optimizer = nn.BCELoss(reduction=reduction), SGD(model.parameters(), lr=lr)
    for _ in range(EPOCHS):
        loss = criterion(torch.sigmoid(model(HOURS)), PASSED)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, losses


def main() -> None:
    model, losses = by_pytorch("sum", lr=0.01)
    for epoch, loss in enumerate(losses):
        print(epoch, loss)
    w, b = model.weight.item(), model.bias.item()
    print("w = ", w)
    print("b = ", b)
    print("y_pred = ", torch.sigmoid(model(torch.tensor([[4.0]]).double())).item())
    print("as likely as not after", -b / w, "hours")

    w_by_hand, apart = by_hand(lr=0.01)
    print("gradient by hand and by autograd: they differ by at most", apart)
    print("by hand and by PyTorch: w differs by", abs(w_by_hand - w))
    by_mean, _ = by_pytorch("mean", lr=0.03)
    print("sum at lr 0.01, mean at lr 0.03: w differs by", abs(by_mean.weight.item() - w))

    # σ′ = σ(1 − σ) is at most 1/4, so no eigenvalue of the Hessian is above λ/4, and lr may be up to 2/(λ/4).
    A = torch.cat([HOURS, torch.ones_like(HOURS)], dim=1)
    print(f"the loss falls at every lr below {8 / torch.linalg.eigvalsh(A.T @ A)[-1].item():.4f}")
    # A line separates 2 hours from 3 without an error. Then a steeper curve is always better.
    by_steeper = binary_cross_entropy(torch.sigmoid(20 * HOURS - 50), PASSED, reduction="sum").item()
    print(f"loss {losses[-1]:.4f} here, {by_steeper:.4f} at w = 20, b = -50: there is no best w")

    figure, (axes,) = panels("Lecture 6: the probability to pass")
    hours = torch.linspace(0, 10, 200).double().reshape(-1, 1)
    probability = torch.sigmoid(model(hours)).detach()
    axes.plot(hours, probability, color=METHOD_COLOURS["gd"], linewidth=2.5)
    axes.plot(HOURS, PASSED, "o", color="#888888", markersize=10)
    axes.axhline(0.5, color="#888888", linestyle=":")
    axes.set(xlabel="hours of study", ylabel="probability of a pass, σ(w·x + b)")
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "probability.png")


if __name__ == "__main__":
    main()
