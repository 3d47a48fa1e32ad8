"""Large tables, read quickly: by polars where it is installed, else a CSV file by numpy.

An irregular CSV file is left to the exact reader of :mod:`torchgd.data.table`, which gives the same numbers
or an error.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchgd.data.arrays import checked
from torchgd.data.files import Wanted, check_memory, missing, opened, shown
from torchgd.errors import InputError
from torchgd.samples import check_learnable, from_array

if TYPE_CHECKING:
    from torchgd.data.table import Layout

_BLOCK = 1 << 18  # bytes whose separators are checked together; they fit the cache


def read_quickly(path: Path, layout: Layout, limit: float) -> list[Tensor] | None:
    """The columns in float64, or None where a line is irregular or a number is not within the limit."""
    read = _by_polars if importlib.util.find_spec("polars") else _by_numpy
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            regular = len(layout.names) == 2 or _is_regular(path, layout)
            columns = read(path, layout) if regular else None
    except Exception:  # readers raise many types for a bad line
        return None
    for column in columns or ():
        low, high = (end.item() for end in column.aminmax())  # NaN if any is NaN
        if not -limit <= low <= high <= limit:
            return None
    return columns


def _by_polars(path: Path, layout: Layout) -> list[Tensor] | None:
    polars: Any = importlib.import_module("polars")
    # The names of polars for columns without a header: "column_1", from 2.0 on "column_0".
    numbered = polars.read_csv(b",".join([b"0"] * len(layout.names)), has_header=False).columns
    names = [numbered[at] for at in layout.columns]
    table = polars.read_csv(
        str(path.absolute()),
        has_header=False,
        skip_rows=layout.lines,
        columns=None if len(numbered) == 2 else list(dict.fromkeys(names)),
        separator=layout.separator,
        schema_overrides=dict.fromkeys(names, polars.Float64),
        glob=False,
    )
    # a long row, or a short one, a blank cell, a blank line
    if (len(numbered) == 2 and table.width != 2) or any(table[name].null_count() for name in names):
        return None
    read = {name: from_array(table.drop_in_place(name).to_numpy()) for name in dict.fromkeys(names)}
    return [read[name] if names.index(name) == at else read[name].clone() for at, name in enumerate(names)]


def _by_numpy(path: Path, layout: Layout) -> list[Tensor] | None:
    with path.open("rb") as file:  # numpy would read a line of any length
        if not all(b"\n" in block for block in iter(lambda: file.read(1 << 24), b"")):
            return None
    every = len(layout.names) == 2
    table = np.loadtxt(
        path.absolute(),
        delimiter=layout.separator,
        comments=None,
        skiprows=layout.lines,
        usecols=None if every else layout.columns,
        ndmin=2,
        encoding="latin-1",  # accepts every byte, and numbers are ASCII
    )
    if table.shape[1] != (2 if every else len(layout.columns)):
        return None
    at = layout.columns if every else range(len(layout.columns))
    return [torch.from_numpy(np.ascontiguousarray(table[:, i])) for i in at]


def _is_regular(path: Path, layout: Layout) -> bool:
    """Whether every line has as many separators as the header, and there is no quote and no '#'."""
    width, separator = len(layout.names), ord(layout.separator)
    with path.open("rb") as file:
        for _ in range(layout.lines):
            file.readline()
        rest = b"\n"
        while block := file.read(_BLOCK):
            block = rest + block
            end = block.rfind(b"\n")
            if b'"' in block or b"\n#" in block or end <= 0:
                return False
            rest = block[end:]
            if not _each_line_has(block[1 : end + 1], width, separator):
                return False
    return len(rest) == 1 or _each_line_has(rest[1:] + b"\n", width, separator)


def _each_line_has(lines: bytes, width: int, separator: int) -> bool:
    """Whether exactly every ``width``-th of the separators and line ends is a line end."""
    content = np.frombuffer(lines, np.uint8)
    marks = content[np.flatnonzero((content == separator) | (content == 10))] == 10
    if len(marks) % width:
        return False
    marks = marks.reshape(-1, width)
    return bool(marks[:, -1].all()) and not marks[:, :-1].any()


def read_parquet(
    path: Path, wanted: Wanted, dtype: torch.dtype, drop_missing: bool = False
) -> tuple[list[Tensor], list[str], int]:
    """The wanted columns of a Parquet file; returns what :func:`torchgd.data.table.read_table` returns."""
    name = shown(path)
    if not importlib.util.find_spec("polars"):
        raise InputError(
            f"{name}: Parquet is read by polars; pip install 'torchgd[fast]', or save the data as CSV"
        )
    polars: Any = importlib.import_module("polars")
    with opened(path) as file:
        try:
            schema = dict(polars.read_parquet_schema(file))
        except polars.exceptions.PolarsError:
            raise InputError(f"{name}: is not a whole Parquet file; save it again") from None
    names = wanted.of(list(schema))
    for column in names:
        if column not in schema:
            raise InputError(f"{name}: {missing(column, 'column', list(schema))}")
        if not (schema[column].is_numeric()):
            raise InputError(
                f"{name}, column {column!r}: holds {schema[column]}, not numbers; choose another"
            )
    try:
        table = polars.read_parquet(str(path.absolute()), columns=list(dict.fromkeys(names)), glob=False)
    except polars.exceptions.PolarsError:
        raise InputError(f"{name}: is not a whole Parquet file; save it again") from None
    rows = len(table)
    check_memory(8 * len(names) * rows, name, "save x and y as .npy files, which are read in blocks")
    if drop_missing:
        table = table.drop_nulls().drop_nans()
    columns = []
    for each in names:
        column = table[each]
        if column.null_count():
            mend = "write a number, or leave such rows out with drop_missing (--drop-missing)"
            raise InputError(
                f"{name}, column {each!r}, index {column.is_null().arg_true()[0]}: is missing; {mend}"
            )
        columns.append(checked(column.to_numpy(), dtype, f"{name}, column {each!r}"))
    if not rows or not len(columns[0]):
        raise InputError(f"{name}: has no samples; give at least one row with x and y")
    check_learnable(any(bool(column.any()) for column in columns[:-1]), f"{name}: ")
    return columns, names, rows - len(columns[0])
