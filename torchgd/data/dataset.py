"""The data: the course's three samples, Hubble's 24 nebulae, or a person's own files."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from torchgd.data.arrays import BLOCK, read_npz
from torchgd.data.files import read_csv, shown
from torchgd.data.mapped import MappedVector, map_pairs
from torchgd.errors import InputError

Source = str | PathLike[str]
WORDS = ("course", "hubble")  # data that need no file


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples of y against x, in memory or in files larger than memory.

    Args:
        inputs: x, shape (n,): a tensor, or a vector mapped from files.
        targets: y, shape (n,), of the same dtype and device.
        name: what the data are called, e.g. ``"hubble"``.
        x_label, y_label: what x and y are, with their units.
        source: where the data come from.
        names: the name of each sample, or empty.

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
    source: str = ""
    names: tuple[str, ...] = ()

    @cached_property
    def x(self) -> Tensor:
        """All of x, shape (n,); one file of this dtype stays memory-mapped, others are read at first use."""
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

        Of data in files only the present block is resident in memory; read it, do not write into it.

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
        source="《PyTorch深度学习实践》, lecture 2, linear model (2020)",
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
        x: distance in Mpc, y: radial velocity in km/s, shape (24,); the names of the nebulae.

    Example:
        >>> distance, velocity = hubble()
        >>> H = (distance * velocity).sum() / (distance * distance).sum()
        >>> f"{H:.4f} km/s/Mpc"
        '423.9373 km/s/Mpc'

    Source: E. Hubble, PNAS 15 (1929) 168, table 1.
    """
    rows = [nebula.strip().rsplit(" ", 2) for nebula in _NEBULAE.split(",")]
    return Dataset(
        torch.tensor([float(distance) for _, distance, _ in rows], dtype=dtype, device=device),
        torch.tensor([float(velocity) for _, _, velocity in rows], dtype=dtype, device=device),
        name="hubble",
        x_label="distance (Mpc)",
        y_label="velocity (km/s)",
        source="E. Hubble, PNAS 15 (1929) 168, table 1",
        names=tuple(name for name, _, _ in rows),
    )


def load(
    path: Source | None = None,
    *,
    x: Source | Sequence[Source] | None = None,
    y: Source | Sequence[Source] | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Dataset:
    """Read samples from a CSV file, an .npz file, or .npy files.

    Every number is checked to be finite: those of .npy files, which may be larger than memory, when they
    are read.

    Args:
        path: a CSV file with a header line, or an .npz file; None if x and y are files.
        x, y: with a path, the names of the columns (``"x"`` and ``"y"`` unless told);
            without one, an .npy file each, or as many shards each, in order. These are
            memory-mapped and may be larger than memory: see :meth:`Dataset.blocks`.
        dtype: the floating-point type of the result.
        device: where the result lives.

    Raises:
        InputError: what is wrong with the file, where (line, column or index), and how to mend it.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "kitchen.csv"
        >>> _ = file.write_text("flour,bread\\n1,1.6\\n2,3.1\\n")
        >>> load(file, x="flour", y="bread").y
        tensor([1.6000, 3.1000], dtype=torch.float64)
    """
    if dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"dtype {dtype} is no floating-point type to compute in; give torch.float64")
    if path is None:
        if x is None or y is None:
            raise InputError("no data: give a path, or both x and y as .npy files")
        inputs, targets = map_pairs(_paths(x), _paths(y), dtype, device)
        first = inputs.shards[0].path
        return Dataset(inputs, targets, first.stem, source=f"{first}, {targets.shards[0].path}")
    x_name, y_name = ("x" if x is None else x), ("y" if y is None else y)
    if not (isinstance(x_name, str) and isinstance(y_name, str)):
        raise InputError(f"{str(path)!r} is the file, so x and y are names of its columns; give strings")
    suffix = Path(path).suffix.casefold()
    if suffix == ".npy":
        raise InputError(f"{str(path)!r} holds one vector; give x and y each as an .npy file (--x, --y)")
    read = read_npz if suffix == ".npz" else read_csv
    on_device = [column.to(device) for column in read(Path(path), x_name, y_name, dtype)]
    return Dataset(on_device[0], on_device[1], Path(path).stem, x_name, y_name, str(path))


def _paths(files: Source | Sequence[Source]) -> list[Path]:
    return [Path(files)] if isinstance(files, str | PathLike) else [Path(file) for file in files]


def open_data(
    word: str,
    *,
    x: str | None = None,
    y: str | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Dataset:
    """The data that the command line's words name: ``course``, ``hubble``, a file, or .npy files in x and y.

    A file of the name ``course`` or ``hubble`` is ``./course``. An .npy word may list
    shards: ``x0.npy,x1.npy``, or a pattern, ``'x*.npy'``, whose matches are taken by number.
    """
    if word in {"", "course"} and x is None and y is None:
        return course(dtype=dtype, device=device)
    if word in {"", "course"}:
        for option, value in (("--x", x), ("--y", y)):
            if value is None:
                raise InputError(f"{option} is missing; give both --x and --y as .npy files")
            if not value.casefold().endswith(".npy"):
                raise InputError(f"{option} {value!r} is not an .npy file; for a column, name its file first")
        return load(x=_shards(x or ""), y=_shards(y or ""), dtype=dtype, device=device)
    if word == "hubble":
        if x is not None or y is not None:
            raise InputError("hubble has its own x and y; leave out --x and --y")
        return hubble(dtype=dtype, device=device)
    near = difflib.get_close_matches(word.casefold(), WORDS, n=1, cutoff=0.8)
    if near and not os.path.exists(word):  # noqa: PTH110 (which raises where the folder is closed)
        raise InputError(f"{shown(Path(word))}: no such file; did you mean {near[0]}?")
    return load(word, x=x, y=y, dtype=dtype, device=device)


def _shards(word: str) -> list[Path]:
    """The files of a list, ``a.npy,b.npy``, or of a pattern, ``a*.npy``, by number: a2 before a10."""
    found: list[Path] = []
    for path in map(Path, word.split(",")):
        pattern = re.sub(r"\*+", "*", path.name)
        found += (sorted(path.parent.glob(pattern), key=_by_number) if "*" in pattern else []) or [path]
    return found


def _by_number(path: Path) -> list[tuple[int, str]]:
    """A key that sorts the numbers in a name by their size."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


__all__ = ["Dataset", "course", "hubble", "load", "open_data"]
