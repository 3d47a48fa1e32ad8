"""Two columns of a table: a CSV file whose header names its columns, packed by gzip or not.

The exact reader here says what is wrong with a line. For large files a quick one is tried first, which
gives the same numbers or none: see :mod:`torchgd.data.quick`.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import re
import reprlib
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torchgd.data.files import Wanted, check_memory, largest, missing, opened, shown, too_large
from torchgd.errors import InputError

if TYPE_CHECKING:  # a wrong column is reported without waiting for torch
    import torch
    from torch import Tensor

_LONGEST_LINE = 1 << 24  # characters: enough for a million columns, but not for all memory
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_MISSING = {"", "na", "n/a", "nan", "null", "none"}  # cells in lower case that drop_missing leaves out
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_PREFACE = 100  # lines that are searched for a header
_QUICK = 1 << 20  # bytes; for smaller files the import of the quick reader takes longer


@dataclass(frozen=True)
class Layout:
    """What the first lines of a file say: its columns, the separator, and the line where the header ends."""

    names: list[str]
    separator: str
    lines: int
    columns: tuple[int, ...] = ()

    @property
    def named(self) -> list[str]:
        """The names of the columns that are read."""
        return [self.names[at] for at in self.columns]


def read_layout(path: Path, wanted: Wanted, encoding: str | None) -> tuple[_Text, Layout]:
    """The table as text, and its layout; InputError if a column is missing."""
    text = _Text(path, encoding)
    with text.lines() as lines:
        first = list(itertools.islice(lines, _PREFACE))
    return text, _layout(first, shown(path), wanted)


def read_table(
    path: Path,
    wanted: Wanted,
    dtype: torch.dtype,
    encoding: str | None = None,
    drop_missing: bool = False,
) -> tuple[list[Tensor], list[str], int]:
    """The wanted columns, their names, and how many rows were left out because a value was missing."""
    from torchgd.samples import check_learnable

    text, layout = read_layout(path, wanted, encoding)
    columns: Sequence[Tensor] | None = None
    if encoding is None and not drop_missing and not text.packed and path.stat().st_size >= _QUICK:
        from torchgd.data.quick import read_quickly

        columns = read_quickly(path, layout, largest(dtype))
    dropped = 0
    if columns is None:
        columns, dropped = _read_exactly(text, layout, dtype, drop_missing)
    read = [column.to(dtype) for column in columns]
    check_learnable(any(bool(column.any()) for column in read[:-1]), f"{shown(path)}: ")
    return read, layout.named, dropped


def _read_exactly(
    text: _Text, layout: Layout, dtype: torch.dtype, drop_missing: bool
) -> tuple[list[Tensor], int]:
    """The columns in float64, and how many rows were dropped; the first wrong cell is named."""
    name, limit, dropped = shown(text.path), largest(dtype), 0
    columns = [(array("d"), at) for at in layout.columns]
    with text.lines() as lines:
        rest = itertools.islice(lines, layout.lines, None)
        rows = csv.reader(
            _without_comments(rest, layout, name),
            strict=True,
            skipinitialspace=True,
            delimiter=layout.separator,
        )
        try:
            for row in filter(None, rows):  # a blank line is not a row
                place = f"{name}, line {layout.lines + rows.line_num}"
                if len(row) != len(layout.names):
                    raise InputError(f"{place}: {_ragged(row, layout)}")
                if drop_missing and any(row[at].strip().lower() in _MISSING for _, at in columns):
                    dropped += 1
                    continue
                for column, at in columns:
                    cell = row[at]
                    try:
                        number = float(cell)
                    except ValueError:
                        number = math.nan
                    # float() also accepts 1_000 and the digits of other scripts.
                    if not -limit <= number <= limit or "_" in cell or not cell.isascii():
                        where = f"{place}, column {reprlib.repr(layout.names[at])}"
                        raise _complaint(where, cell.strip(), dtype)
                    column.append(number)
        except csv.Error as error:
            place = f"{name}, line {layout.lines + rows.line_num}"
            raise InputError(f"{place}: {error}; check the quotes there") from None
    if not columns[0][0]:
        left = (
            f"has {dropped} rows, and x or y is missing in each" if dropped else "has a header but no samples"
        )
        raise InputError(f"{name}: {left}; add a line for each sample")
    import torch

    return [torch.frombuffer(column, dtype=torch.float64) for column, _ in columns], dropped


class _Text:
    """The lines of a file, which gzip may have packed."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self.path, self.encoding = path, encoding
        with opened(path) as file:
            self.packed = file.read(2) == b"\x1f\x8b"

    @contextmanager
    def lines(self) -> Iterator[Iterator[str]]:
        """The lines, with or without a byte order mark; unused cells may be in another encoding."""
        name, encoding = shown(self.path), self.encoding or "utf-8-sig"
        try:
            with opened(self.path) as file:
                unpacked = gzip.GzipFile(fileobj=file) if self.packed else file
                with io.TextIOWrapper(unpacked, encoding, "surrogateescape", newline="") as text:
                    yield self._bounded(text, name)
        except LookupError:
            what = f"encoding {encoding!r} is not a text encoding that Python knows"
            raise InputError(f"{what}; give e.g. utf-8, gbk or cp1252") from None
        except UnicodeError:
            raise InputError(f"{name}: is not text in {encoding}; give its encoding (--encoding)") from None
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise InputError(f"{name}: is not a whole gzip file; copy or pack it again") from None

    def _bounded(self, text: io.TextIOWrapper, name: str) -> Iterator[str]:
        size = 0
        for number in itertools.count(1):
            line = text.readline(_LONGEST_LINE)
            if len(line) == _LONGEST_LINE:
                long = f"is over {_LONGEST_LINE} characters long"
                raise InputError(f"{name}, line {number}: {long}; give a CSV file")
            if not line:
                return
            size += len(line)
            if self.packed and number % 10_000 == 0:
                check_memory(2 * size, name, "save x and y as .npy files, which are read in blocks")
            yield line


def _without_comments(lines: Iterator[str], layout: Layout, name: str) -> Iterator[str]:
    """Replace lines that begin with '#' by blank lines."""
    for number, line in enumerate(lines, layout.lines + 1):
        if not line.startswith("#"):
            yield line
            continue
        full = line.count(layout.separator) == len(layout.names) - 1
        if full and 0 not in layout.columns:
            what = "begins with '#' and has a cell for each column"
            raise InputError(f"{name}, line {number}: {what}; delete the line, or the '#' of a sample")
        yield "\n"


def _layout(lines: list[str], name: str, wanted: Wanted) -> Layout:
    """Where the header stands and what it says; lines that begin with '#' and blank lines may precede it."""
    at = next((at for at, line in enumerate(lines) if not _is_preface(line)), 0)
    for line in lines[: at + 1]:
        if re.search("[\0\udc80-\udcff]", line):
            mend = "save the data as CSV in UTF-8, or give its encoding (--encoding)"
            raise InputError(f"{name}, line 1: is not text in UTF-8; {mend}")
    read = _header(lines[at:], wanted)
    place = f"{name}, line {at + read.lines}"
    if not wanted.among(read.names):
        for later in range(at + 1, len(lines)):
            if wanted.among((found := _header(lines[later : later + 1], wanted)).names):
                header = reprlib.repr(lines[later].strip())
                before = f"line {at + 1}" if later == at + 1 else f"lines {at + 1} to {later}"
                what = (
                    f"{reprlib.repr(lines[at].strip())} is not the header, but line {later + found.lines} is"
                )
                raise InputError(f"{name}, line {at + 1}: {what} ({header}); delete {before}")
    columns = tuple(_index(read.names, column, place) for column in wanted.of(read.names))
    return Layout(read.names, read.separator, at + read.lines, columns)


def _is_preface(line: str) -> bool:
    return not line.strip() or line.startswith("#")


def _header(lines: list[str], wanted: Wanted) -> Layout:
    """The first row, split by the separator that gives the wanted names, or else the most cells."""
    found = []
    for separator in _SEPARATORS:
        rows = csv.reader(lines, strict=True, skipinitialspace=True, delimiter=separator)
        try:
            names = [name.strip() for name in next(rows, [])]
        except csv.Error:
            names = [lines[0].strip()]
        found.append(Layout(names, separator, max(1, rows.line_num)))
    named = [layout for layout in found if wanted.among(layout.names)]
    return (named or sorted(found, key=lambda layout: -len(layout.names)))[0]


def _index(header: list[str], wanted: str, place: str) -> int:
    """The index of the column in the header."""
    if header.count(wanted) == 1:
        return header.index(wanted)
    if wanted in header:
        raise InputError(
            f"{place}: column {wanted!r} occurs {header.count(wanted)} times; rename all but one"
        )
    if len(header) == 1 and " " in header[0]:
        raise InputError(f"{place}: looks separated by spaces; save it with commas")
    if any(header) and all(_NUMBER.fullmatch(name) for name in header if name):
        raise InputError(
            f"{place}: holds numbers, not names; add a first line that names the columns, such as x,y"
        )
    raise InputError(f"{place}: {missing(wanted, 'column', header if any(header) else [])}")


def _ragged(row: list[str], layout: Layout) -> str:
    """What is wrong with a row of more or fewer cells than the header, and how to correct it."""
    count = f"has {len(row)} cells, but the header has {len(layout.names)}"
    mend = "give each column one value, without thousands separators"
    if len(row) == len(layout.names) + 1 and not row[-1].strip():
        mend = f"delete the {_SEPARATORS[layout.separator]} at its end, or end the header in one"
    return f"{count}; {mend}"


def _complaint(place: str, cell: str, dtype: torch.dtype) -> InputError:
    """Why a cell is not a number of that type, and how to correct it."""
    from torchgd.samples import not_finite

    text = reprlib.repr(cell)
    if cell.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return not_finite(place, text)
    if _NUMBER.fullmatch(cell):
        return too_large(place, text, dtype)
    what = f"{text} is not a number; write one, such as 1.5"
    if not cell:
        what = "is blank; write a number, or leave such lines out with drop_missing (--drop-missing)"
    elif re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", cell):
        what = f"{text} has thousands separators; write it without commas"
    elif re.fullmatch(r"[-+]?\d*,\d+", cell):
        what = f"{text} has a decimal comma; write a point"
    return InputError(f"{place}: {what}")
