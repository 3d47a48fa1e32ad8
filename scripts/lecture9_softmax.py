"""Lecture 9: softmax regression, which digit is written on 8×8 pixels?

By hand until now: the gradient. Here, one after the other: autograd beside the gradient by hand, then
``nn.Linear``, ``CrossEntropyLoss`` and ``torch.optim.SGD``. With z = W·x + b and p = softmax(z):

    ℓ = −log p_y,    dℓ/dz = p − one_hot(y),    dℓ/dW = (p − one_hot(y)) xᵀ,    dℓ/db = p − one_hot(y)

The loss is the *mean* over all samples, and each printed loss is that *before* the update. The digits come
with scikit-learn. Where it is not installed, the script makes ten noisy patterns of its own, and says so.
Every fifth sample is kept for the test.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import SGD

from torchgd.figures import panels

FOLDER = Path("runs") / "lecture9"
EPOCHS = 100


def made() -> tuple[Tensor, Tensor]:
    """1,000 samples of ten random patterns with noise, for a machine without the digits."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(10, 64, generator=generator, dtype=torch.float64)
    classes = torch.arange(1000) % 10
    noise = torch.randn(1000, 64, generator=generator, dtype=torch.float64)
    order = torch.randperm(1000, generator=generator)
    return (patterns[classes] + noise / 2)[order], classes[order]


def table() -> tuple[str, Tensor, Tensor]:
    """The name of the table, the pixels from 0 to 1, shape (n, 64), and the classes, shape (n,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return "ten patterns made here, because scikit-learn is not installed", *made()
    pixels, digits = load_digits(return_X_y=True)
    return "the digits of scikit-learn", torch.from_numpy(pixels) / 16, torch.from_numpy(digits).long()


def gradient(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of the mean of ℓ by W and by b, written by hand."""
    residual = torch.softmax(x @ weight.T + bias, dim=1) - one_hot(y, len(bias))
    return residual.T @ x / len(x), residual.mean(dim=0)


def by_hand(x: Tensor, y: Tensor, lr: float) -> tuple[Tensor, float]:
    """The weights, and how far the gradient by hand was from autograd's at most."""
    W = torch.zeros(10, x.shape[1], dtype=x.dtype, requires_grad=True)
    b = torch.zeros(10, dtype=x.dtype, requires_grad=True)
    apart = 0.0
    for _ in range(EPOCHS):
        by_autograd = torch.autograd.grad(cross_entropy(x @ W.T + b, y), (W, b))
        with torch.no_grad():
            dW, db = gradient(W, b, x, y)
            apart = max(
                apart, *((dW - by_autograd[0]).abs().max().item(), (db - by_autograd[1]).abs().max().item())
            )
            W -= lr * dW
            b -= lr * db
    return W.detach(), apart


def by_pytorch(x: Tensor, y: Tensor, lr: float) -> tuple[nn.Linear, list[float]]:
    model, losses = nn.Linear(x.shape[1], 10).to(x.dtype), list[float]()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    criterion, optimizer = nn.CrossEntropyLoss(), SGD(model.parameters(), lr=lr)
    for _ in range(EPOCHS):
        loss = criterion(model(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, losses


def safe_rate(x: Tensor) -> float:
    """Below twice this lr the loss falls: diag(p) − p·pᵀ is at most 1/2, so the Hessian is at most λ/2."""
    A = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    return 2 / float(torch.linalg.eigvalsh(A.T @ A / len(x))[-1])


def main() -> None:
    name, x, y = table()
    kept = torch.arange(len(x)) % 5 == 4
    x_test, y_test, x, y = x[kept], y[kept], x[~kept], y[~kept]
    lr = safe_rate(x)
    print(f"table: {name}, {len(x)} samples to learn from, {len(x_test)} to test with")
    print(f"the loss falls at every lr below {2 * lr:.4f}; lr = {lr:.4f}")

    model, losses = by_pytorch(x, y, lr)
    for epoch, loss in enumerate(losses):
        print(epoch, loss)
    right = (model(x_test).argmax(dim=1) == y_test).double().mean().item()
    print(f"right on the test samples: {100 * right:.1f} %")

    W, apart = by_hand(x, y, lr)
    print("gradient by hand and by autograd: they differ by at most", apart)
    print("by hand and by PyTorch: W differs by at most", (W - model.weight).abs().max().item())

    figure, every = panels(*(f"class {digit}" for digit in range(10)), rows=2)
    for axes, weights in zip(every, model.weight.detach(), strict=True):
        axes.imshow(weights.reshape(8, 8).numpy(), cmap="RdBu_r")
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "weights.png")


if __name__ == "__main__":
    main()
