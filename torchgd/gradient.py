"""The loss of y = w·x and its derivative, written by hand.

The convention of the whole package, stated here once: the loss of one sample is the
squared residual, the cost is their *mean*, and there is no ½ (this is
``torch.nn.functional.mse_loss``):

    ℓᵢ(w) = (w xᵢ − yᵢ)²            dℓᵢ/dw = 2 xᵢ (w xᵢ − yᵢ)
    C(w)  = (1/n) Σᵢ ℓᵢ(w)           dC/dw  = (1/n) Σᵢ 2 xᵢ (w xᵢ − yᵢ)

Every function takes w, a number or a tensor of shape (), and x and y of shape (n,);
it keeps their dtype and device, and autograd can differentiate through it.
The unit of dC/dw is y²/w.

Source: 《PyTorch深度学习实践》, lecture 3, gradient descent (2020).
"""

from __future__ import annotations

from torch import Tensor

from torchgd.errors import InputError


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


def check_tensors(**values: Tensor) -> None:
    """Refuse what is no tensor, by its name: a list, a numpy array.

    Example:
        >>> check_tensors(x=[1.0, 2.0])
        Traceback (most recent call last):
        ...
        torchgd.errors.InputError: x is a list; give a tensor, e.g. torch.tensor(x)
    """
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{name} is a {type(value).__name__}; give a tensor, e.g. torch.tensor({name})")


def _check_shapes(w: float | Tensor, x: Tensor, y: Tensor) -> None:
    """Refuse what PyTorch would broadcast in silence: (n, 1) against (n,) makes an (n, n) residual."""
    check_tensors(x=x, y=y)
    if x.dim() != 1 or x.shape != y.shape or x.shape[0] == 0:
        same_size = x.numel() == y.numel() > 0
        mend = "flatten both to (n,), e.g. y.reshape(-1)" if same_size else "give one y for each x"
        raise InputError(f"x has shape {tuple(x.shape)} and y has shape {tuple(y.shape)}; {mend}")
    if isinstance(w, Tensor) and w.dim() != 0:
        raise InputError(f"w has shape {tuple(w.shape)}, not (); give one weight, e.g. w.reshape(())")


__all__ = ["cost", "gradient", "gradients", "losses"]
