"""Opening what a person names, and reading two columns of a CSV file.

Files are hostile until read: only regular files are opened, so that nothing blocks; lines are bounded, so
that nothing fills the memory; every complaint is an :class:`InputError` that names the place.
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import math
import re
import reprlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO

import torch
from torch import Tensor

from torchgd.errors import InputError
from torchgd.samples import check_learnable, not_finite

_LONGEST_LINE = 1 << 24  # characters: a million columns fit, and no file without line ends fills the memory
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The regular file at the path, open for reading; what the system refuses is an InputError."""
    name = shown(path)
    try:
        if not path.exists():
            raise InputError(f"{name}: no such file; check the path")
        status = path.stat()
        if S_ISDIR(status.st_mode):
            raise InputError(f"{name}: is a folder; give a file")
        if not S_ISREG(status.st_mode):
            raise InputError(f"{name}: is a pipe or a device; save the data in a file first")
        if status.st_size == 0:
            raise InputError(f"{name}: the file is empty; give one that holds data")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the file") from None


def shown(path: Path) -> str:
    """The path as it is, or quoted where a line break in it would break the one line of a message."""
    return str(path) if str(path).isprintable() else repr(str(path))


def missing(wanted: str, kind: str, names: Sequence[str]) -> str:
    """``no column 'Y'; there is 'x', 'y'; did you mean 'y'?``"""
    some = ", ".join(reprlib.repr(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
    short = {name.casefold(): name for name in names[:1000] if len(name) < 100}  # difflib is slow
    near = difflib.get_close_matches(wanted.casefold(), short, n=1)
    hint = (
        f"did you mean {short[near[0]]!r}?" if near else f"choose the {kind}s by name with x and y (--x, --y)"
    )
    return f"no {kind} {reprlib.repr(wanted)}; there is {some or 'none'}; {hint}"


def largest(dtype: torch.dtype) -> float:
    """What a number may be without rounding to infinity: a little more than the dtype's largest."""
    return torch.finfo(dtype).max * (1 + torch.finfo(dtype).eps / 4)


def too_large(where: str, number: str, dtype: torch.dtype) -> InputError:
    """The one sentence about a number that is finite, but infinite in the dtype."""
    kind = str(dtype).removeprefix("torch.")
    return InputError(f"{where}: {number} is too large for {kind}; use another unit or type")


def read_csv(path: Path, x_name: str, y_name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two columns of a CSV file whose first line names its columns."""
    x, y = array("d"), array("d")
    limit = largest(dtype)
    with opened(path) as file:
        rows = csv.reader(_lines(file, shown(path)), strict=True, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(filter(None, rows), [])]
            place = f"{shown(path)}, line {rows.line_num}"
            columns = [(column, _index(header, name, place)) for column, name in ((x, x_name), (y, y_name))]
            for row in filter(None, rows):  # a blank line is no row
                if len(row) != len(header):
                    count = f"{len(row)} cells, but the header has {len(header)}"
                    mend = "give each column one value, without thousands separators"
                    raise InputError(f"{shown(path)}, line {rows.line_num}: has {count}; {mend}")
                for column, at in columns:
                    cell = row[at]
                    try:
                        number = float(cell)
                    except ValueError:
                        number = math.nan
                    # float() also takes 1_000 and the digits of other scripts
                    if not -limit <= number <= limit or "_" in cell or not cell.isascii():
                        place = f"{shown(path)}, line {rows.line_num}, column {reprlib.repr(header[at])}"
                        raise _complaint(place, cell.strip(), dtype)
                    column.append(number)
        except csv.Error as error:
            raise InputError(
                f"{shown(path)}, line {rows.line_num}: {error}; check the quotes there"
            ) from None
    if not x:
        raise InputError(f"{shown(path)}: has a header but no samples; add a line for each sample")
    inputs, targets = (torch.frombuffer(column, dtype=torch.float64).to(dtype) for column in (x, y))
    check_learnable(bool(inputs.any()), f"{shown(path)}: ")
    return inputs, targets


def _lines(file: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a file in UTF-8, with or without a byte order mark; other bytes pass in unused cells."""
    with io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text:
        for number in itertools.count(1):
            line = text.readline(_LONGEST_LINE)
            if len(line) == _LONGEST_LINE:
                raise InputError(
                    f"{name}, line {number}: is over {_LONGEST_LINE} characters long; give a CSV file"
                )
            if number == 1 and re.search("[\0\udc80-\udcff]", line):
                raise InputError(f"{name}, line 1: is not text in UTF-8; save the data as CSV in UTF-8")
            if not line:
                return
            yield line


def _index(header: list[str], wanted: str, place: str) -> int:
    """Where the header has the column."""
    if header.count(wanted) == 1:
        return header.index(wanted)
    if wanted in header:
        raise InputError(
            f"{place}: column {wanted!r} occurs {header.count(wanted)} times; rename all but one"
        )
    for separator, word in ((";", "';'"), ("\t", "tabs"), ("|", "'|'"), (" ", "spaces")):
        if len(header) == 1 and separator in header[0]:
            raise InputError(f"{place}: looks separated by {word}; save it with commas")
    if header and all(_NUMBER.fullmatch(name) for name in header):
        raise InputError(
            f"{place}: holds numbers, not names; add a first line that names the columns, such as x,y"
        )
    raise InputError(f"{place}: {missing(wanted, 'column', header)}")


def _complaint(place: str, cell: str, dtype: torch.dtype) -> InputError:
    """Why a cell is not a number of that type, and how to correct it."""
    text = reprlib.repr(cell)
    if cell.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return not_finite(place, text)
    if _NUMBER.fullmatch(cell):
        return too_large(place, text, dtype)
    what = f"{text} is not a number; write one, such as 1.5"
    if not cell:
        what = "is blank; write a number, or leave the line out"
    elif re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", cell):
        what = f"{text} has thousands separators; write it without commas"
    elif re.fullmatch(r"[-+]?\d*,\d+", cell):
        what = f"{text} has a decimal comma; write a point"
    return InputError(f"{place}: {what}")
