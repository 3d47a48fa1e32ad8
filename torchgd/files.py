"""Opening what a person names, and reading the columns of a CSV file.

Files are hostile until read: only regular files are opened, so that nothing blocks; lines are bounded, so
that nothing fills the memory; every complaint is an :class:`InputError` that names the place.
"""

from __future__ import annotations

import csv
import difflib
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

_LONGEST_LINE = 1 << 24  # bytes: a million columns fit, and a file without line ends cannot fill the memory
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The regular file at the path, open for reading; what the system refuses is an InputError."""
    name = shown(path)
    try:
        status = path.stat()
        if S_ISDIR(status.st_mode):
            raise InputError(f"{name}: is a folder; give a file")
        if not S_ISREG(status.st_mode):
            raise InputError(f"{name}: is a pipe or a device; save the data in a file first")
        if status.st_size == 0:
            raise InputError(f"{name}: the file is empty; give one that holds data")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the file") from None


def shown(path: Path) -> str:
    """The path as it is, or quoted where a line break in it would break the one line of a message."""
    return str(path) if str(path).isprintable() else repr(str(path))


def missing(name: str, what: str, names: Sequence[str]) -> str:
    """``no column 'z'; the columns are x, y: did you mean y?``"""
    several = ", ".join(reprlib.repr(other) for other in names[:8]) + (", ..." if len(names) > 8 else "")
    nearest = difflib.get_close_matches(name, names[:1000], n=1)
    end = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"no {what} {name!r}; there is {several or 'none'}{end}"


def read_csv(path: Path, x_name: str, y_name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The two columns of a CSV file whose first line names its columns."""
    x, y = array("d"), array("d")
    limit = torch.finfo(dtype).max * (
        1 + torch.finfo(dtype).eps / 4
    )  # what is nearer to max than to the next one up
    with opened(path) as file:
        rows = csv.reader(_lines(file, shown(path)), strict=True, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(rows, [])]
            x_at, y_at = _places(header, x_name, y_name, shown(path))
            for row in rows:
                if len(row) != len(header):
                    if not row:  # a blank line
                        continue
                    raise InputError(
                        f"{shown(path)}, line {rows.line_num}: has {len(row)} cells, but the header has "
                        f"{len(header)}; give each column one value, without thousands separators"
                    )
                for column, at in ((x, x_at), (y, y_at)):
                    cell = row[at]
                    try:
                        number = float(cell)
                    except ValueError:
                        number = math.nan
                    # float() takes 1_000 and other scripts' digits, which are no numbers in a CSV file
                    if not -limit <= number <= limit or "_" in cell or not cell.isascii():
                        place = f"{shown(path)}, line {rows.line_num}, column {reprlib.repr(header[at])}"
                        raise InputError(f"{place}: {_complaint(cell, dtype)}")
                    column.append(number)
        except csv.Error as error:
            raise InputError(f"{shown(path)}, line {rows.line_num}: {error}; mend the quotes there") from None
    if not x:
        raise InputError(f"{shown(path)}: has a header but no samples; add a line for each sample")
    nothing_to_learn(any(x), shown(path))
    return torch.frombuffer(x, dtype=torch.float64).to(dtype), torch.frombuffer(y, dtype=torch.float64).to(
        dtype
    )


def nothing_to_learn(x_has_nonzero: bool, name: str) -> None:
    """Refuse data whose x is 0 throughout: then w·x is 0 for every w, and no gradient moves w."""
    if not x_has_nonzero:
        raise InputError(
            f"{name}: x is 0 in every sample, so there is nothing to learn; give an x other than 0"
        )


def _lines(file: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a text file in UTF-8, with or without a byte order mark; the header must be valid."""
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise InputError(
                f"{name}, line {number}: is longer than {_LONGEST_LINE} bytes; is it a CSV file?"
            )
        text = line.decode("utf-8", "surrogateescape")
        if number == 1 and re.search("[\0\udc80-\udcff]", text):
            raise InputError(f"{name}, line 1: is not text in UTF-8; save the data as CSV in UTF-8")
        yield text


def _places(header: list[str], x_name: str, y_name: str, name: str) -> tuple[int, int]:
    """Where the header has the two columns."""
    place = f"{name}, line 1"
    for separator, word in ((";", "';'"), ("\t", "tabs"), ("|", "'|'"), (" ", "spaces")):
        if len(header) == 1 and separator in header[0] and header[0] not in (x_name, y_name):
            raise InputError(f"{place}: looks separated by {word}; save it with commas")
    if header and all(_NUMBER.fullmatch(cell) for cell in header):
        raise InputError(f"{place}: holds numbers, not the names of columns; add a header such as x,y")
    for wanted in (x_name, y_name):
        if wanted not in header:
            raise InputError(f"{place}: {missing(wanted, 'column', header)}")
        if header.count(wanted) > 1:
            raise InputError(
                f"{place}: column {wanted!r} occurs {header.count(wanted)} times; name each once"
            )
    return header.index(x_name), header.index(y_name)


def _complaint(cell: str, dtype: torch.dtype) -> str:
    """What is wrong with a cell, and how to mend it."""
    text = reprlib.repr(cell)
    if not cell.strip():
        return "is blank; write a number, or leave the line out"
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", cell.strip()):
        return f"{text} has thousands separators; write it without commas"
    if re.fullmatch(r"[-+]?\d*,\d+", cell.strip()):
        return f"{text} has a decimal comma; write a point"
    if re.fullmatch(r"[-+]?(nan|inf|infinity)", cell.strip(), re.IGNORECASE):
        return f"{text} is not a finite number; mend it, or leave the line out"
    if _NUMBER.fullmatch(cell.strip()):
        return f"{text} is too large for {str(dtype).removeprefix('torch.')}; scale the column down"
    return f"{text} is not a number; write one, such as 1.5"
