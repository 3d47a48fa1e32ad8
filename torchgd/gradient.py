"""The loss of y = w·x and its derivative, written by hand.

The convention of the whole package, stated here once: the loss of one sample is the
squared residual, the cost is their *mean*, and there is no ½ (this is
``torch.nn.functional.mse_loss``):

    ℓᵢ(w) = (w xᵢ − yᵢ)²            dℓᵢ/dw = 2 xᵢ (w xᵢ − yᵢ)
    C(w)  = (1/n) Σᵢ ℓᵢ(w)           dC/dw  = (1/n) Σᵢ 2 xᵢ (w xᵢ − yᵢ)

For several features and a bias there is :func:`linear_gradient`.
Every other function takes w, a number or a tensor of shape (), and x and y of shape (n,);
it keeps their dtype and device, and autograd can differentiate through it.
The unit of dC/dw is y²/w.

Source: 《PyTorch深度学习实践》, lecture 3, gradient descent (2020).
"""

from __future__ import annotations

from torch import Tensor

from torchgd.errors import InputError
from torchgd.samples import check_vectors


def losses(w: float | Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The squared error of each sample, ℓᵢ = (w xᵢ − yᵢ)².

    Args:
        w: the weight, a number or a tensor of shape ().
        x: the inputs, shape (n,).
        y: the targets, shape (n,).

    Returns:
        Shape (n,), in units of y².

    Raises:
        InputError: the shapes are not (), (n,) and (n,) with n ≥ 1.

    Example:
        >>> x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])
        >>> losses(1.0, x, y)
        tensor([1., 4., 9.])
    """
    _check_shapes(w, x, y)
    residual = w * x - y
    return residual * residual


def cost(w: float | Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The mean squared error, C = (1/n) Σ (w xᵢ − yᵢ)².

    Arguments and errors as for :func:`losses`; returns shape ().

    Example:
        >>> x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])
        >>> cost(1.0, x, y)
        tensor(4.6667)
    """
    return losses(w, x, y).mean()


def gradients(w: float | Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The derivative of each sample's loss, dℓᵢ/dw = 2 xᵢ (w xᵢ − yᵢ).

    Arguments and errors as for :func:`losses`; returns shape (n,).

    Example:
        >>> x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])
        >>> gradients(1.0, x, y)
        tensor([ -2.,  -8., -18.])
    """
    _check_shapes(w, x, y)
    return 2 * x * (w * x - y)


def gradient(w: float | Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The derivative of the cost, dC/dw = (1/n) Σ 2 xᵢ (w xᵢ − yᵢ).

    Arguments and errors as for :func:`losses`; returns shape ().

    Example:
        >>> x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])
        >>> gradient(1.0, x, y)
        tensor(-9.3333)
    """
    return gradients(w, x, y).mean()


def linear_gradient(w: Tensor, b: float | Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of the cost of y = w·x + b with several features, dC/dw and dC/db.

        C = (1/n) Σ (w·xᵢ + b − yᵢ)²,    dC/dw = (2/n) Xᵀ (X w + b − y),    dC/db = (2/n) Σ (w·xᵢ + b − yᵢ)

    Args:
        w: the weights, shape (d,).
        b: the bias, a number or a tensor of shape ().
        x: the inputs, shape (n, d).
        y: the targets, shape (n,).

    Returns:
        dC/dw of shape (d,), and dC/db of shape ().

    Raises:
        InputError: the shapes are not (d,), (), (n, d) and (n,) with n ≥ 1.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([2.0, 5.0])
        >>> linear_gradient(torch.tensor([1.0, 1.0]), 0.0, x, y)
        (tensor([-5., -2.]), tensor(-3.))

    Source: 《PyTorch深度学习实践》, lectures 4 and 5 (2020).
    """
    if x.dim() != 2 or y.shape != x.shape[:1] or w.shape != x.shape[1:] or not len(x):
        shapes = f"w has shape {tuple(w.shape)}, x {tuple(x.shape)} and y {tuple(y.shape)}"
        raise InputError(f"{shapes}; give (d,), (n, d) and (n,), e.g. y.reshape(-1)")
    residual = x @ w + b - y
    return 2 * (x.mT @ residual) / len(x), 2 * residual.mean()


def _check_shapes(w: float | Tensor, x: Tensor, y: Tensor) -> None:
    check_vectors(x, y)
    if isinstance(w, Tensor) and w.dim() != 0:
        raise InputError(f"w has shape {tuple(w.shape)}, not (); give one weight, e.g. w.reshape(())")


__all__ = ["cost", "gradient", "gradients", "linear_gradient", "losses"]
