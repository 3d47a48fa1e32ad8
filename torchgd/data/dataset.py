"""The data: the course's three samples, Hubble's 24 nebulae, or a person's own files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import torch
from torch import Tensor

from torchgd.data.arrays import BLOCK
from torchgd.data.mapped import MappedVector
from torchgd.errors import InputError

Source = str | PathLike[str]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples of y against x, in memory or in files larger than memory.

    Args:
        inputs: x, shape (n,): a tensor, or a vector mapped from files; or shape (n, d) with d features.
        targets: y, shape (n,), of the same dtype and device.
        name: the name of the data, e.g. ``"hubble"``.
        x_label, y_label: what x and y are, with their units.
        dropped: the number of rows that :func:`load` left out because x or y was missing.
        features: the names of d > 1 features; empty for one x.

    Example:
        >>> x, y = Dataset(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
        >>> y / x
        tensor([2., 2.])
    """

    inputs: Tensor | MappedVector
    targets: Tensor | MappedVector
    name: str = "data"
    x_label: str = "x"
    y_label: str = "y"
    dropped: int = 0
    features: tuple[str, ...] = ()

    @cached_property
    def x(self) -> Tensor:
        """All of x, shape (n,); a single file of this dtype stays mapped, others are read at first use."""
        return _whole(self.inputs)

    @cached_property
    def y(self) -> Tensor:
        """All of y, shape (n,), as x."""
        return _whole(self.targets)

    def __len__(self) -> int:
        """The number of samples n."""
        return len(self.inputs)

    def __iter__(self) -> Iterator[Tensor]:
        """Unpack: ``x, y = dataset``."""
        yield self.x
        yield self.y

    def blocks(
        self, size: int = BLOCK, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The samples from start to stop as (x, y) blocks of `size` samples, the last one shorter.

        Of data in files only the present block is in memory; do not write into it.

        Example:
            >>> [len(x) for x, y in course().blocks(2)]
            [2, 1]
        """
        if size < 1:
            raise InputError(f"a block of {size} samples; give at least 1")
        stop = len(self) if stop is None else min(stop, len(self))
        for begin in range(start, stop, size):
            end = min(begin + size, stop)
            yield self.inputs[begin:end], self.targets[begin:end]
            for vector in (self.inputs, self.targets):
                if isinstance(vector, MappedVector):
                    vector.release(begin, end)


def _whole(vector: Tensor | MappedVector) -> Tensor:
    return vector if isinstance(vector, Tensor) else vector[0 : len(vector)]


def course(*, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Dataset:
    """The course's three samples, y = 2x: x = 1, 2, 3 and y = 2, 4, 6.

    Example:
        >>> x, y = course()
        >>> y
        tensor([2., 4., 6.], dtype=torch.float64)

    Source: 《PyTorch深度学习实践》, lecture 2, linear model (2020).
    """
    return Dataset(
        torch.tensor([1.0, 2.0, 3.0], dtype=dtype, device=device),
        torch.tensor([2.0, 4.0, 6.0], dtype=dtype, device=device),
        name="course",
        x_label="x (hours of study)",
        y_label="y (points in the exam)",
    )


_NEBULAE = """
S. Mag. 0.032 170, L. Mag. 0.034 290, NGC 6822 0.214 -130, NGC 598 0.263 -70, NGC 221 0.275 -185,
NGC 224 0.275 -220, NGC 5457 0.45 200, NGC 4736 0.5 290, NGC 5194 0.5 270, NGC 4449 0.63 200,
NGC 4214 0.8 300, NGC 3031 0.9 -30, NGC 3627 0.9 650, NGC 4826 0.9 150, NGC 5236 0.9 500, NGC 1068 1.0 920,
NGC 5055 1.1 450, NGC 7331 1.1 500, NGC 4258 1.4 500, NGC 4151 1.7 960, NGC 4382 2.0 500, NGC 4472 2.0 850,
NGC 4486 2.0 800, NGC 4649 2.0 1090
"""  # name, distance in Mpc, radial velocity in km/s


def hubble(*, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Dataset:
    """Hubble's 24 nebulae of 1929, velocity = H · distance: a law of nature with one weight.

    Returns:
        x: distance in Mpc, y: radial velocity in km/s, shape (24,).

    Example:
        >>> distance, velocity = hubble()
        >>> H = (distance * velocity).sum() / (distance * distance).sum()
        >>> f"{H:.4f} km/s/Mpc"
        '423.9373 km/s/Mpc'

    Source: E. Hubble, PNAS 15 (1929) 168, table 1.
    """
    rows = [nebula.split()[-2:] for nebula in _NEBULAE.split(",")]
    return Dataset(
        torch.tensor([float(distance) for distance, _ in rows], dtype=dtype, device=device),
        torch.tensor([float(velocity) for _, velocity in rows], dtype=dtype, device=device),
        name="hubble",
        x_label="distance (Mpc)",
        y_label="velocity (km/s)",
    )


__all__ = ["Dataset", "course", "hubble"]
