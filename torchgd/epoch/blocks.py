"""Samples that come in blocks of x and y: the checks of them, and a rough estimate of their weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from torchgd.errors import InputError
from torchgd.samples import check_finite, check_vectors

Block = tuple[Tensor, Tensor]


def checked(blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks, detached; an InputError for what PyTorch would broadcast or convert silently.

    Raises:
        InputError: shapes other than (n,) and (n,) with n ≥ 1, or dtypes or devices that differ or change.
    """
    kind = None
    for number, (x, y) in enumerate(blocks, start=1):
        check_vectors(x, y, f"in block {number} ")
        where = f"in block {number} x has"
        if not (x.is_floating_point() and x.dtype == y.dtype and x.device == y.device):
            kinds = f"dtype {x.dtype} on {x.device} and y {y.dtype} on {y.device}"
            raise InputError(f"{where} {kinds}; convert both to the same floating dtype and device")
        kind = kind or (x.dtype, x.device)
        if kind != (x.dtype, x.device):
            kinds = f"dtype {x.dtype} on {x.device}, but {kind[0]} on {kind[1]} before"
            raise InputError(f"{where} {kinds}; convert all blocks to one")
        if x.device.type == "mps":  # mps has no float64
            x, y = x.cpu(), y.cpu()
        yield x.detach(), y.detach()
    if kind is None:
        raise InputError("there are no samples; give at least one")


def refuse_non_finite(x: Tensor, y: Tensor, first: int) -> None:
    """Raise InputError for the first sample that is NaN or infinite; x[0] is the sample of index `first`."""
    check_finite(x, "x", first)
    check_finite(y, "y", first)


def a_thousand(values: Tensor) -> Tensor:
    """One to two thousand of the values, evenly spaced, in float64; all if there are fewer."""
    n = values.numel()
    return (values[:: n // 1024] if n > 2048 else values).double()


def rough_weight(x: Tensor, y: Tensor) -> float:
    """The least-squares weight of a thousand samples; 0 where it explains less than half of y²."""
    x, y = a_thousand(x), a_thousand(y)
    largest = x.abs().max().item() or 1.0
    x, y = x / largest, y / largest  # so that their squares do not overflow
    xx, xy, yy = torch.dot(x, x).item(), torch.dot(x, y).item(), torch.dot(y, y).item()
    return xy / xx if xx and yy <= 2 * xy * (xy / xx) < math.inf else 0.0
