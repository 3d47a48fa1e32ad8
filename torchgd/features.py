"""Several features: what x of shape (n, d) must be, its standardisation, and its collinear columns."""

from __future__ import annotations

import torch
from torch import Tensor

from torchgd.errors import InputError
from torchgd.samples import Numbers, as_tensor, check_finite, check_learnable


def table(x: Numbers, y: Numbers) -> tuple[Tensor, Tensor]:
    """Features of shape (n, d) and targets of shape (n,), finite, in float64 on the CPU.

    Raises:
        InputError: another shape, no samples, a number that is not finite, or features that are all 0.

    Example:
        >>> [tuple(part.shape) for part in table([[1.0, 2.0], [3.0, 4.0]], [1.0, 2.0])]
        [(2, 2), (2,)]
    """
    features, targets = as_tensor(x, "x"), as_tensor(y, "y")
    if features.dim() == 1:
        features = features[:, None]
    targets = targets[:, 0] if targets.dim() == 2 and targets.shape[1] == 1 else targets
    if features.dim() != 2 or targets.dim() != 1 or len(features) != len(targets) or not features.numel():
        shapes = f"x has shape {tuple(features.shape)} and y has shape {tuple(targets.shape)}"
        raise InputError(f"{shapes}; give x as (n, d) and y as (n,), one y for each row of x")
    check_finite(features, "x")
    check_finite(targets, "y")
    check_learnable(bool(features.any()))
    return features.to("cpu", torch.float64), targets.to("cpu", torch.float64)


def standardization(x: Tensor, *, bias: bool) -> tuple[Tensor, Tensor]:
    """What standardising subtracts from each feature and divides it by, shapes (d,).

    With a bias: mean and standard deviation. Without a bias: 0 and the root mean square, because a shift
    would change the model. In the data's units the weights are w/scale, and the bias is b − Σ w shift/scale.

    Example:
        >>> standardization(torch.tensor([[1.0], [3.0]]), bias=True)
        (tensor([2.]), tensor([1.]))
    """
    shift = x.mean(0) if bias else torch.zeros_like(x[0])
    return shift, (x - shift).square().mean(0).sqrt()


def collinear(data: Tensor, names: tuple[str, ...], *, bias: bool) -> tuple[str, ...]:
    """The features that are a linear combination of those before them; the bias counts as the first."""
    if data.shape[1] > len(data):
        return ()
    order = [data.shape[1] - 1, *range(data.shape[1] - 1)] if bias else list(range(data.shape[1]))
    unit = data[:, order] / data[:, order].norm(dim=0).clamp_min(1e-300)
    kept = torch.linalg.qr(unit).R.diagonal().abs()
    return tuple(names[i] for i, size in zip(order, kept.tolist(), strict=True) if size <= 1e-10)
