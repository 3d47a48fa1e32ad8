"""Opens the file that a person names; and the messages about names and numbers that several readers use.

No file is trusted: only regular files are opened, so that nothing blocks; every error is an
:class:`InputError` that names the place.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, TYPE_CHECKING

from torchgd.errors import InputError

if TYPE_CHECKING:  # a missing file is reported without waiting for torch
    import torch


WORDS = ("course", "hubble", "grunfeld")  # data that need no file


def check_word(word: str) -> None:
    """Raise InputError for a word that is not a file, but nearly one of WORDS."""
    near = difflib.get_close_matches(word.casefold(), WORDS, n=1, cutoff=0.8)
    if near and not os.path.exists(word):  # noqa: PTH110 (which raises where the folder is closed)
        raise InputError(f"{shown(Path(word))}: no such file; did you mean {near[0]}?")


@dataclass(frozen=True)
class Wanted:
    """The columns that --x and --y name: one x, several with commas between them, or ``all`` (all but y)."""

    x: str
    y: str

    def of(self, header: Sequence[str]) -> list[str]:
        """The names, y last.

        Raises:
            InputError: a column is named twice, or ``all`` are none.

        Example:
            >>> Wanted("a,b", "y").of(["a", "b", "y"]), Wanted("all", "y").of(["y", "a"])
            (['a', 'b', 'y'], ['a', 'y'])
        """
        if self.x in header:
            return [self.x, self.y]
        if self.x == "all":
            others = [name for name in header if name != self.y]
            if header and not others:
                raise InputError(f"the table has no column but {self.y!r}, which is y; add a column for x")
            return [*others, self.y]
        names = [name.strip() for name in self.x.split(",")]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"x names the column {name!r} twice; name it once (--x)")
        if len(names) > 1 and self.y in names:
            raise InputError(f"the column {self.y!r} is y; leave it out of x (--x)")
        return [*names, self.y]

    def among(self, header: Sequence[str]) -> bool:
        """Whether the header has all of them."""
        return set(self.of(header)) <= set(header)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The regular file at the path, open for reading; InputError if the system refuses it."""
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
    """The path; quoted if it holds a line break, so that the message stays one line."""
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
    """The bound below which a number does not round to infinity: a little above the dtype's largest."""
    import torch

    return torch.finfo(dtype).max * (1 + torch.finfo(dtype).eps / 4)


def too_large(where: str, number: str, dtype: torch.dtype) -> InputError:
    """The error for a finite number that is infinite in the dtype."""
    kind = str(dtype).removeprefix("torch.")
    return InputError(f"{where}: {number} is too large for {kind}; use another unit or type")


def check_memory(size: int, name: str, mend: str) -> None:
    """Raise InputError for more than half of the machine's memory, if the system says how much it has."""
    if hasattr(os, "sysconf") and size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2:
        raise InputError(f"{name}: takes {size / 2**30:.1f} GiB, over half of the memory; {mend}")
