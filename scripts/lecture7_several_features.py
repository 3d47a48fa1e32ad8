"""Lecture 7: several features, from any table.

    python scripts/lecture7_several_features.py                             # Grunfeld's data
    python scripts/lecture7_several_features.py houses.csv price            # the other columns are features
    python scripts/lecture7_several_features.py houses.csv price rooms,area

By hand until now: the gradient and the update. Here, one after the other: autograd beside the gradient by
hand, then ``nn.Linear(d, 1)``, ``MSELoss`` and ``torch.optim.SGD``. The loss is the *mean* over the samples,
and each printed loss is that *before* the update. The certificate says before the first step how many epochs
raw columns take, and how many standardised ones; the weights at the end are in the table's own units.
The table of the lecture, diabetes, comes with scikit-learn: save it as CSV and name it here.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD

from torchgd import InputError, grunfeld, linear_stability, load
from torchgd.features import standardization
from torchgd.figures import METHOD_COLOURS, panels
from torchgd.gradient import linear_gradient

FOLDER = Path("runs") / "lecture7"
LONGEST = 10_000  # epochs: almost collinear columns take millions


def by_hand(x: Tensor, y: Tensor, lr: float, epochs: int) -> tuple[Tensor, float]:
    """The weights with the bias at the end, and how far the gradient by hand was from autograd's at most."""
    w = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    b = torch.zeros((), dtype=x.dtype, requires_grad=True)
    apart = 0.0
    for _ in range(epochs):
        by_autograd = torch.autograd.grad((x @ w + b - y).square().mean(), (w, b))
        with torch.no_grad():
            dw, db = linear_gradient(w, b, x, y)
            gaps = (dw - by_autograd[0]).abs().max().item(), (db - by_autograd[1]).abs().item()
            apart = max(apart, *gaps)
            w -= lr * dw
            b -= lr * db
    return torch.cat([w, b.reshape(1)]).detach(), apart


def by_pytorch(x: Tensor, y: Tensor, lr: float, epochs: int) -> tuple[Tensor, list[float]]:
    model, losses = nn.Linear(x.shape[1], 1).to(x.dtype), list[float]()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    criterion, optimizer = nn.MSELoss(), SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        loss = criterion(model(x), y.reshape(-1, 1))  # (n, 1) against (n,) would be broadcast to (n, n)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cat([model.weight.detach()[0], model.bias.detach()]), losses


def main(file: str = "", target: str = "y", features: str = "all") -> None:
    data = load(file, x=features, y=target) if file else grunfeld()
    x, y = data.x.reshape(len(data), -1), data.y
    names = data.features or (data.x_label,)
    raw = linear_stability(x, y, names=names)
    print("raw columns:", raw)
    shift, scale = standardization(x, bias=True)
    for name, size in zip(names, scale.tolist(), strict=True):
        if not size:
            raise InputError(f"column {name} is the same in every row, as the bias is; leave it out")
    x = (x - shift) / scale
    certificate = linear_stability(x, y, names=names)
    print("standardised:", certificate)
    lr, epochs = certificate.best_lr, min(certificate.best_epochs or 1, LONGEST)

    weights, losses = by_pytorch(x, y, lr, epochs)
    for epoch, loss in enumerate(losses):
        print(epoch, loss)
    best = torch.tensor(certificate.least_squares)
    print(
        f"distance from the best weights: {best.norm():.4g} at the start, {(weights - best).norm():.4g} now"
    )
    weights_by_hand, apart = by_hand(x, y, lr, epochs)
    print("gradient by hand and by autograd: they differ by at most", apart)
    print(
        "by hand and by PyTorch: w differs by", ((weights_by_hand - weights).norm() / weights.norm()).item()
    )

    own_units = weights[:-1] / scale
    for name, weight in zip(names, own_units.tolist(), strict=True):
        print(f"{name}: {weight}")
    print("bias:", (weights[-1] - own_units @ shift).item())

    figure, (axes,) = panels(f"Lecture 7: {data.name}, standardised")
    axes.semilogy(losses, color=METHOD_COLOURS["gd"], linewidth=2.5)
    axes.set(xlabel="epoch", ylabel="loss before the update: mean of (w·x + b − y)²")
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "loss.png")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except InputError as error:
        sys.exit(str(error))
