"""Lecture 4, the exercises: three gradients by hand, each beside autograd's.

By hand: the chain rule, d(ŷ − y)²/dθ = 2 (ŷ − y) dŷ/dθ. Here: ``torch.autograd.grad`` does the same.
Nothing is trained, so there is no loss before or after an update.
"""

import torch
from torch import Tensor
from torch.autograd import grad

from torchgd import course


def compare(model: str, residual: Tensor, factors: dict[str, float], parameters: list[Tensor]) -> None:
    """Print 2 · residual · factor, the gradient by hand, beside autograd's."""
    print(model)
    for (name, factor), by_autograd in zip(factors.items(), grad(residual**2, parameters), strict=True):
        print(f"\td{name}: by hand", 2 * residual.item() * factor, "by autograd", by_autograd.item())


def main() -> None:
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    compare("w·x at x = 2, y = 4, w = 1", w * 2 - 4, {"w": 2}, [w])
    compare("w·x + b at x = 1, y = 2, w = 1, b = 2", w * 1 + b - 2, {"w": 1, "b": 1}, [w, b])

    w1, w2, b = (torch.tensor(start, dtype=torch.float64, requires_grad=True) for start in (0.3, -0.7, 0.2))
    for x, y in zip(*(column.tolist() for column in course()), strict=True):
        residual = w1 * x**2 + w2 * x + b - y
        where = f"w1·x² + w2·x + b at x = {x:g}, y = {y:g}, w1 = 0.3, w2 = -0.7, b = 0.2"
        compare(where, residual, {"w1": x**2, "w2": x, "b": 1}, [w1, w2, b])


if __name__ == "__main__":
    main()
