"""The derivative of any function of tensors by differences, to about nine digits in float64.

Central differences with the steps h and h/2, extrapolated: (4 D(h/2) − D(h)) / 3 is wrong by O(h⁴). Where the
two disagree, because something bends within the step, smaller steps are tried.

Source: W. H. Press et al., Numerical Recipes, section 5.7, Numerical Derivatives (2007).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Outputs = Callable[[Sequence[Tensor]], Tensor]  # all outputs as one vector of real numbers
STEPS = {torch.float64: (1e-3, 1e-5, 1e-7), torch.float32: (3e-2, 3e-3)}
AGREEMENT = {torch.float64: 1e-5, torch.float32: 1e-2}  # of the two differences, relative: then h is kept


def real(value: Tensor) -> Tensor:
    """A tensor as a vector of real numbers; a complex number is two of them."""
    value = value.detach().resolve_conj().resolve_neg()
    return (torch.view_as_real(value) if value.is_complex() else value).reshape(-1)


def moved(value: Tensor, element: int, step: float) -> Tensor:
    """A copy in which one real number is moved; of the same strides."""
    flat = real(value).clone()
    flat[element] += step
    return like(flat, value)


def like(flat: Tensor, value: Tensor) -> Tensor:
    """The vector of real numbers as a tensor of this shape, dtype and strides."""
    if value.is_complex():
        flat = torch.view_as_complex(flat.reshape(*value.shape, 2))
    result = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
    return result.copy_(flat.reshape(value.shape))


def sizes(value: Tensor) -> list[float]:
    """The size of each real number, against which it moves: its own, or where it is 0 the largest, or 1."""
    flat = real(value).abs().double()
    largest = float(flat.max()) if flat.numel() else 0.0
    return torch.where(flat > 0, flat, largest or 1.0).tolist()


def column(outputs: Outputs, inputs: Sequence[Tensor], index: int, element: int) -> tuple[Tensor, bool]:
    """The derivative of all outputs by one number, and whether it is the same from both sides."""
    value = inputs[index]
    dtype = torch.float32 if value.dtype in (torch.float32, torch.complex64) else torch.float64
    size = sizes(value)[element]
    here = outputs(inputs)
    best, misfit = torch.zeros_like(here), torch.inf

    def at(step: float) -> Tensor:
        others = list(inputs)
        others[index] = moved(value, element, step)
        return outputs(others)

    for h in (relative * size for relative in STEPS[dtype]):
        sides = [(at(step), at(-step)) for step in (h, h / 2)]
        wide, narrow = ((up - down) / (2 * step) for (up, down), step in zip(sides, (h, h / 2), strict=True))
        largest = float(torch.stack([wide, narrow]).abs().max()) if here.numel() else 0.0
        found = float((wide - narrow).abs().max()) / largest if largest > 0 else 0.0
        if found < misfit:
            best, misfit = (4 * narrow - wide) / 3, found
        if found <= AGREEMENT[dtype]:
            # The two one-sided differences: apart by O(h) where it is smooth, by as much as ever on a kink.
            outer, inner = (
                float(((up + down - 2 * here) / step).abs().max()) if here.numel() else 0.0
                for (up, down), step in zip(sides, (h, h / 2), strict=True)
            )
            noise = AGREEMENT[dtype] * (largest + float(here.abs().max()) / size if here.numel() else 0.0)
            return best, outer <= noise or inner <= 0.75 * outer
    return best, False
