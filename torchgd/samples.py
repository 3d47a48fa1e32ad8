"""The only checks of x and y: numbers, the same number of each, finite, and x not 0 everywhere.

Every function that takes samples calls one of these and does not check again:

    check_vectors   only tensors of shape (n,) each; cheap enough for every batch
    rows            lists, arrays, Series and DataFrames too, as tensors of n rows each
    vectors         the same, of shape (n,) each, in floating point
    samples         the same, finite, and x with a number other than 0
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgd.errors import InputError


class Array(Protocol):
    """What numpy can read: its own arrays, those of other packages, a Series, a DataFrame."""

    def __array__(self) -> NDArray[Any]:
        """The numbers."""


Numbers = Tensor | Sequence[Any] | Array
# The types of numpy that torch takes, in the machine's byte order.
_TORCH = {np.dtype(name) for name in ("?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16")}


def samples(x: Numbers, y: Numbers) -> tuple[Tensor, Tensor]:
    """The samples of y = w·x as finite vectors, from which a weight can be learnt.

    Args:
        x, y: n numbers each: tensors, lists, numpy arrays, Series of pandas or of polars.

    Returns:
        Two tensors of shape (n,), detached, in their own floating-point type; whole numbers in float64.

    Raises:
        InputError: what is wrong, in which argument and where, and how to correct it.

    Example:
        >>> samples([1, 2], [2.0, 4.0])
        (tensor([1., 2.], dtype=torch.float64), tensor([2., 4.], dtype=torch.float64))
    """
    x, y = vectors(x, y)
    check_finite(x, "x")
    check_finite(y, "y")
    check_learnable(bool(x.any()))
    return x, y


def vectors(x: Numbers, y: Numbers) -> tuple[Tensor, Tensor]:
    """x and y as tensors of shape (n,), n ≥ 1, in floating point; see :func:`samples`."""
    inputs, targets = as_tensor(x, "x"), as_tensor(y, "y")
    check_vectors(inputs, targets)
    return _floating(inputs, "x"), _floating(targets, "y")


def _floating(values: Tensor, name: str) -> Tensor:
    if values.is_floating_point():
        return values
    _check_exact(values.cpu().numpy(), name)
    return values.double()


def rows(x: Numbers, y: Numbers) -> tuple[Tensor, Tensor]:
    """x and y as tensors of n rows each, n ≥ 1, of any type, for any module."""
    x, y = as_tensor(x, "x"), as_tensor(y, "y")
    if x.dim() == 0 or y.dim() == 0:
        raise InputError(f"x has shape {tuple(x.shape)} and y has shape {tuple(y.shape)}; give both (n, …)")
    if len(x) != len(y) or len(x) == 0:
        raise InputError(f"x has {len(x)} samples and y has {len(y)}; give one y for each x, at least one")
    return x, y


def check_vectors(x: object, y: object, where: str = "") -> None:
    """Raise InputError for shapes that PyTorch would broadcast silently: (n, 1) and (n,) to (n, n).

    Example:
        >>> check_vectors(torch.ones(3), torch.ones(2))
        Traceback (most recent call last):
        ...
        torchgd.errors.InputError: x has shape (3,) and y has shape (2,); give one y for each x
    """
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        name, values = ("y", y) if isinstance(x, Tensor) else ("x", x)
        kind = type(values).__name__
        raise InputError(f"{where}{name} is a {kind}; give a tensor, e.g. torch.tensor({name})")
    if x.dim() != 1 or x.shape != y.shape or x.shape[0] == 0:
        same_size = x.numel() == y.numel() > 0
        mend = "flatten both to (n,), e.g. y.reshape(-1)" if same_size else "give one y for each x"
        raise InputError(f"{where}x has shape {tuple(x.shape)} and y has shape {tuple(y.shape)}; {mend}")


_ELEMENTWISE = {"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits"}
_ELEMENTWISE |= {"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCEWithLogitsLoss"}


def loss_name(loss_fn: object) -> str:
    """The name of a function, a module or a partial function."""
    loss_fn = getattr(loss_fn, "func", loss_fn)
    return getattr(loss_fn, "__name__", type(loss_fn).__name__)


def check_prediction(prediction: Tensor, target: Tensor, loss_fn: object) -> None:
    """Raise InputError for shapes that a loss of torch would broadcast: (n, 1) and (n,) to (n, n)."""
    if loss_name(loss_fn) in _ELEMENTWISE and prediction.shape != target.shape:
        shapes = f"{tuple(prediction.shape)} and the target {tuple(target.shape)}"
        raise InputError(f"the prediction has shape {shapes}; give both the same")


def check_finite(values: Tensor, name: str, first: int = 0) -> None:
    """Raise InputError for NaN and infinity, with the index of the first; values[0] has index ``first``.

    Example:
        >>> check_finite(torch.tensor([1.0, torch.nan]), "y")
        Traceback (most recent call last):
        ...
        torchgd.errors.InputError: y[1]: nan is not finite; correct it, or leave the sample out
    """
    # If all are finite, so is their sum, unless it overflows.
    if values.sum().isfinite():
        return
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        index = tuple(wrong[0].tolist())
        place = [index[0] + first, *index[1:]] if index else ""
        raise not_finite(f"{name}{place}", f"{values[index].item()}")


def not_finite(where: str, value: str) -> InputError:
    """The one sentence about a number that is NaN or infinite."""
    return InputError(f"{where}: {value} is not finite; correct it, or leave the sample out")


def check_learnable(x_has_nonzero: bool, where: str = "") -> None:
    """Raise InputError for data whose x is 0 everywhere, because then the gradient is 0 for every w."""
    if not x_has_nonzero:
        raise InputError(f"{where}x is 0 in every sample, so there is nothing to learn; give other data")


def as_tensor(values: Any, name: str) -> Tensor:
    """Numbers as a tensor, in their own type: a tensor detached, a list, an array, a Series, a DataFrame.

    Raises:
        InputError: they are not numbers; it names the argument, and the column of a DataFrame.

    Example:
        >>> as_tensor([[1, 2], [3, 4]], "x")
        tensor([[1, 2],
                [3, 4]])
    """
    if isinstance(values, Tensor):
        return values.detach()
    kind = type(values).__name__
    if hasattr(values, "batch_sampler"):
        mend = f"give all of {name} as a tensor, and the batch size to the optimizer"
        raise InputError(f"{name} is a {kind}, which holds x and y in batches; {mend}")
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        if values and all(isinstance(item, Tensor) for item in values):
            return torch.stack(list(values)).detach()
    elif not (hasattr(values, "__array__") or isinstance(values, Real)):
        raise InputError(f"{name} is a {kind}; give numbers: a tensor, an array or a list")
    for column in getattr(values, "columns", ()):
        if np.asarray(values[column]).dtype.kind not in "biuf":
            raise InputError(f"{name}: the column {column!r} does not hold numbers; leave it out")
    try:
        array = np.asarray(values)
        if array.dtype == object:
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} holds what is not a number, or rows of different lengths") from None
    if array.dtype.kind not in "biufc":
        raise InputError(f"{name} holds {array.dtype}, not numbers; give numbers")
    if array.dtype == np.uint64:
        _check_exact(array, name)
    return from_array(array)


def from_array(array: NDArray[Any]) -> Tensor:
    """An array as a tensor, which shares its memory where the type and the layout are torch's."""
    if array.dtype not in _TORCH:
        wide = {"i": np.int64, "u": np.int64, "c": np.complex128}
        array = array.astype(wide.get(array.dtype.kind, np.float64))
    if not (array.flags.aligned and array.flags.writeable) or min(array.strides, default=0) < 0:
        array = array.copy()
    return torch.from_numpy(array)


def first_rounded(numbers: NDArray[Any]) -> tuple[int, ...] | None:
    """The place of the first whole number that float64 cannot hold (many above 2⁵³), or None."""
    if numbers.dtype.kind not in "iu" or numbers.dtype.itemsize < 8:
        return None
    with np.errstate(invalid="ignore"):  # 2⁶⁴ does not fit into uint64
        wide = numbers.astype(np.float64)
        wrong = (wide.astype(numbers.dtype) != numbers) | (wide > np.iinfo(numbers.dtype).max)
    return tuple(np.argwhere(wrong)[0].tolist()) if wrong.any() else None


def would_round(where: str, number: object) -> InputError:
    """The one sentence about such a number."""
    why = "is above 2^53, where float64 does not hold every whole number"
    return InputError(f"{where}: {number} {why}; subtract an offset, or save it as float64")


def _check_exact(numbers: NDArray[Any], name: str) -> None:
    at = first_rounded(numbers)
    if at is not None:
        raise would_round(f"{name}{list(at) or ''}", numbers[at])


__all__ = ["as_tensor", "check_finite", "check_learnable", "check_vectors", "rows", "samples", "vectors"]
