"""Reads the data that a person names: a file, numbers in memory, or a word such as ``course``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchgd.data.arrays import read_npz
from torchgd.data.dataset import Dataset, course, hubble
from torchgd.data.files import WORDS, Wanted, check_word, missing, shown
from torchgd.data.mapped import map_pairs
from torchgd.data.table import read_table
from torchgd.errors import InputError
from torchgd.samples import Array, Numbers, as_tensor, check_finite, samples

Source = str | PathLike[str]
_GRUNFELD = Path(__file__).with_name("grunfeld.csv")


def load(
    path: Source | Array | None = None,
    *,
    x: Source | Sequence[Source] | Numbers | None = None,
    y: Source | Sequence[Source] | Numbers | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    encoding: str | None = None,
    drop_missing: bool = False,
) -> Dataset:
    """Read samples from a CSV, Parquet, .npz or .npy file, or take those in memory.

    Every number is checked to be finite; those of .npy files, which may be larger than memory, are checked
    when they are read.

    Args:
        path: a CSV file with a header line, packed by gzip or not, a Parquet or an .npz file, or a DataFrame;
            None if x and y are files or numbers.
        x, y: with a path, the names of the columns (default: ``"x"`` and ``"y"``); several names with commas,
            or ``"all"`` (all columns but y), give x of shape (n, d);
            without a path, n numbers each, or an .npy file each, or equally many shards each, in order. Files
            are memory-mapped and may be larger than memory: see :meth:`Dataset.blocks`.
        dtype: the floating-point type of the result.
        device: where the result lives.
        encoding: that of a CSV file, e.g. ``"gbk"`` (default: UTF-8).
        drop_missing: leave out the rows of a table in which x or y is missing, and count them in ``dropped``.

    Raises:
        InputError: what is wrong with the file, where (line, column or index), and how to correct it.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "kitchen.csv"
        >>> _ = file.write_text("flour,bread\\n1,1.6\\n2,3.1\\n")
        >>> load(file, x="flour", y="bread").y
        tensor([1.6000, 3.1000], dtype=torch.float64)
    """
    if dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"dtype {dtype} is not a floating-point type to compute in; give torch.float64")
    if path is None:
        if x is None or y is None:
            raise InputError("no data: give a path, or both x and y as .npy files")
        if not (_names_files(x) and _names_files(y)):
            return _in_memory(x, y, dtype, device)
        mapped = map_pairs(_paths(x), _paths(y), dtype, device)
        return Dataset(*mapped, mapped[0].shards[0].path.stem)
    x_name, y_name = ("x" if x is None else x), ("y" if y is None else y)
    if not (isinstance(x_name, str) and isinstance(y_name, str)):
        raise InputError(f"{str(path)!r:.60} is the table, so x and y are names of its columns; give strings")
    if not isinstance(path, str | PathLike):
        return _of_frame(path, x_name, y_name, dtype, device, drop_missing)
    suffix = Path(path).suffix.casefold()
    if suffix == ".npy":
        raise InputError(f"{str(path)!r} holds one vector; give x and y each as an .npy file (--x, --y)")
    if encoding is not None and suffix in {".npz", ".parquet"}:
        raise InputError(f"{shown(Path(path))}: an encoding is for CSV files; leave it out")
    names, dropped = [x_name, y_name], 0
    if suffix == ".npz":
        if drop_missing:
            raise InputError(
                f"{shown(Path(path))}: drop_missing is for tables; leave it out, and such samples too"
            )
        columns = list(read_npz(Path(path), x_name, y_name, dtype))
    elif suffix == ".parquet":
        from torchgd.data.quick import read_parquet

        columns, names, dropped = read_parquet(Path(path), Wanted(x_name, y_name), dtype, drop_missing)
    else:
        wanted = Wanted(x_name, y_name)
        columns, names, dropped = read_table(Path(path), wanted, dtype, encoding, drop_missing)
    name = Path(Path(path).stem).stem if suffix == ".gz" else Path(path).stem
    return _of_columns([column.to(device) for column in columns], names, name, dropped)


def grunfeld(
    *,
    x: str = "value,capital",
    y: str = "invest",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Dataset:
    """Investment of 11 American firms in 20 years: several raw columns, for y = w·x + b.

    Args:
        x, y: names of columns: invest (gross investment), value (of the firm on the market) and capital (the
            plant and equipment), in millions of dollars of 1947; and year.
        dtype, device: of the result.

    Returns:
        x: shape (220, 2) unless you name other columns; y: shape (220,).

    Example:
        >>> data = grunfeld()
        >>> data.features, tuple(data.x.shape)
        (('value', 'capital'), (220, 2))

    Source: Y. Grunfeld, The Determinants of Corporate Investment, thesis, Chicago (1958), in the version of
    C. Kleiber and A. Zeileis, The Grunfeld Data at 50 (2008), as statsmodels 0.14.5 ships it: public domain.
    """
    return replace(load(_GRUNFELD, x=x, y=y, dtype=dtype, device=device), name="grunfeld")


def _names_files(value: object) -> bool:
    """Whether x or y is the name of a file or a list of names, and not numbers."""
    listed = value if isinstance(value, list | tuple) and value else [value]
    return all(isinstance(item, str | PathLike) for item in listed) or value == []


def _in_memory(x: Any, y: Any, dtype: torch.dtype, device: torch.device | str | None) -> Dataset:
    inputs, targets = samples(x, y)
    return Dataset(inputs.to(device, dtype), targets.to(device, dtype))


def _of_columns(columns: list[Tensor], names: list[str], name: str, dropped: int) -> Dataset:
    """The samples of these columns; the last one is y."""
    *inputs, targets = columns
    if len(inputs) == 1:
        return Dataset(inputs[0], targets, name, names[0], names[-1], dropped)
    x = torch.stack(inputs, 1)
    return Dataset(x, targets, name, ", ".join(names[:-1]), names[-1], dropped, tuple(names[:-1]))


def _of_frame(
    frame: Any, x: str, y: str, dtype: torch.dtype, device: torch.device | str | None, drop_missing: bool
) -> Dataset:
    """Columns of a DataFrame of pandas, polars or others that are indexed by name."""
    header = [str(name) for name in getattr(frame, "columns", ())]
    names = Wanted(x, y).of(header)
    for wanted in names:
        if wanted not in header:
            raise InputError(f"the data: {missing(wanted, 'column', header)}")
    columns = [as_tensor(frame[name], name) for name in names]
    kept = torch.ones(len(columns[0]), dtype=torch.bool)
    if drop_missing:
        kept = ~torch.stack([column.isnan() for column in columns]).any(0)
    columns = [
        samples(column[kept], columns[-1][kept])[0] if len(names) == 2 else column[kept] for column in columns
    ]
    for column, name in zip(columns, names, strict=True):
        check_finite(column, name)
    return _of_columns([column.to(device, dtype) for column in columns], names, "data", int((~kept).sum()))


def _paths(files: Any) -> list[Path]:
    return [Path(files)] if isinstance(files, str | PathLike) else [Path(file) for file in files]


def open_data(
    word: str,
    *,
    x: str | None = None,
    y: str | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    encoding: str | None = None,
    drop_missing: bool = False,
) -> Dataset:
    """The data of the command line's words: ``course``, ``hubble``, ``grunfeld``, a file, or .npy files.

    For a file of the name ``course`` write ``./course``. An .npy word may list
    shards: ``x0.npy,x1.npy``, or a pattern, ``'x*.npy'``, whose matches are taken by number.
    """
    own = word in {"", *WORDS}
    if own and (encoding is not None or drop_missing):
        option = "--drop-missing" if encoding is None else "--encoding"
        raise InputError(f"{option} is for a table in a file; leave it out, or name the file")
    if word in {"", "course"} and x is None and y is None:
        return course(dtype=dtype, device=device)
    if word in {"", "course"}:
        for option, value in (("--x", x), ("--y", y)):
            if value is None:
                raise InputError(f"{option} is missing; give both --x and --y as .npy files")
            if not value.casefold().endswith(".npy"):
                raise InputError(f"{option} {value!r} is not an .npy file; for a column, name its file first")
        return load(x=_shards(x or ""), y=_shards(y or ""), dtype=dtype, device=device)
    if word == "grunfeld":
        return grunfeld(x=x or "value,capital", y=y or "invest", dtype=dtype, device=device)
    if word == "hubble":
        if x is not None or y is not None:
            raise InputError("hubble has its own x and y; leave out --x and --y")
        return hubble(dtype=dtype, device=device)
    check_word(word)
    return load(word, x=x, y=y, dtype=dtype, device=device, encoding=encoding, drop_missing=drop_missing)


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


__all__ = ["load", "open_data"]
