"""The arrays of an .npz file, and the checks that make any numpy array usable as data.

The header of an array says how large it is; this is checked against the file and the machine before any
memory is allocated. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import reprlib
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from tokenize import TokenError
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgd.data.files import check_memory, largest, missing, opened, shown, too_large
from torchgd.errors import InputError
from torchgd.samples import check_learnable, first_rounded, from_array, not_finite, would_round

BLOCK = 1 << 17  # samples: x and y of a block fit the processor's cache, and a loop over blocks costs little
_LONGEST_HEADER = 10_000  # bytes, as in numpy
_UNSUSPECTED = 64 << 20  # up to this size an array may be any number of times larger than its archive
# What numpy raises for bytes that are not an array, and zipfile for those that are not an archive (seen).
_MALFORMED = (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError, TokenError)
_TORN = (BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


@dataclass(frozen=True)
class Header:
    """What the header of an array says: its type, its length n, and where its numbers begin and end."""

    dtype: np.dtype[np.generic]
    length: int
    begin: int
    end: int


def read_header(file: IO[bytes], name: str, size: int) -> Header:
    """Read the header of an array in a file of this size, which must hold one vector of real numbers."""
    head = io.BytesIO(file.read(_LONGEST_HEADER))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's advice about files of Python 2
            version = np.lib.format.read_magic(head)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = read[version](head)
    except _MALFORMED:
        raise InputError(f"{name}: is not an .npy array; save it with numpy.save") from None
    if dtype.hasobject:
        raise InputError(f"{name}: holds pickled objects, which are never loaded; save it as float64")
    if dtype.names:
        fields = ", ".join(f"a[{field!r}]" for field in dtype.names[:8])
        raise InputError(f"{name}: holds records; save the fields that are x and y alone: {fields}")
    if dtype.kind not in "iuf":
        raise InputError(f"{name}: holds {reprlib.repr(str(dtype))}, not real numbers; save it as float64")
    if len(shape) != 1:
        raise InputError(f"{name}: has shape {reprlib.repr(shape)}, not (n,); {_one_column(shape)}")
    if shape[0] < 1:
        raise InputError(f"{name}: is empty; give at least one sample")
    end = head.tell() + shape[0] * dtype.itemsize
    if end != size:
        numbers = f"does not fit its {reprlib.repr(shape[0])} of {dtype}"
        raise InputError(f"{name}: is {size} bytes long, which {numbers}; copy or save it again")
    return Header(dtype, shape[0], head.tell(), end)


def _one_column(shape: tuple[int, ...]) -> str:
    """How to save an array that is not a vector; reshaping would mix several columns."""
    if sum(size != 1 for size in shape) <= 1:
        return "save it as a.reshape(-1)"
    if len(shape) == 2:
        rows = min(shape) == shape[0] and shape[0] <= 8
        parts = [f"a[{i}]" if rows else f"a[:, {i}]" for i in range(min(3, shape[0 if rows else 1]))]
        return f"save x and y each as one {'row' if rows else 'column'}, e.g. {' and '.join(parts[:2])}"
    return "save x and y each as a vector"


@np.errstate(over="ignore", invalid="ignore")  # a longdouble too large, a signalling NaN
def as_tensor(numbers: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    """The numbers as a tensor; it shares their memory if they have this type."""
    return from_array(numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)).to(dtype)


def checked(numbers: NDArray[Any], dtype: torch.dtype, name: str, begin: int = 0) -> Tensor:
    """The numbers as a tensor; InputError if the dtype cannot hold one. begin: the index of the first."""
    check_finite(numbers, dtype, name, begin)
    check_exact(numbers, name, begin)
    return as_tensor(numbers, dtype)


def check_exact(numbers: NDArray[Any], name: str, begin: int) -> None:
    """Raise InputError for a whole number that float64 would round; begin as for check_finite."""
    at = first_rounded(numbers)
    if at is not None:
        raise would_round(f"{name}, index {begin + at[0]}", numbers[at])


@np.errstate(over="ignore", invalid="ignore")  # a longdouble too large, a signalling NaN
def check_finite(numbers: NDArray[np.generic], dtype: torch.dtype, name: str, begin: int) -> None:
    """Raise InputError for NaN, or infinity in the dtype; begin is the index of the first number."""
    low, high, limit = float(numbers.min()), float(numbers.max()), largest(dtype)  # NaN if any is NaN
    if not -limit <= low <= high <= limit:
        at = int(np.flatnonzero(~((numbers >= np.float64(-limit)) & (numbers <= np.float64(limit))))[0])
        where, number = f"{name}, index {begin + at}", f"{numbers[at]}"
        raise too_large(where, number, dtype) if np.isfinite(numbers[at]) else not_finite(where, number)


def read_npz(path: Path, x_name: str, y_name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two arrays of an .npz file."""
    name = shown(path)
    with opened(path) as file:
        try:
            with ZipFile(file) as archive:
                names = [info.removesuffix(".npy") for info in archive.namelist() if info.endswith(".npy")]
                for wanted in (x_name, y_name):
                    if wanted not in names:
                        raise InputError(f"{name}: {missing(wanted, 'array', names)}")
                x, y = (_member(archive, path, wanted, dtype) for wanted in (x_name, y_name))
        except InputError:
            raise
        except _TORN as error:
            why = shorten(str(error) or "it ends early", 60, placeholder=" ...")  # zipfile quotes the bytes
            raise InputError(f"{name}: is not a whole .npz file ({why}); save it with numpy.savez") from None
    if len(x) != len(y):
        lengths = f"{x_name!r} has {len(x)} samples, {y_name!r} {len(y)}"
        raise InputError(f"{name}: {lengths}; give one y for each x")
    check_learnable(bool(x.any()), f"{name}: ")
    return x, y


def _member(archive: ZipFile, path: Path, wanted: str, dtype: torch.dtype) -> Tensor:
    """One array of the archive, unpacked block by block."""
    name = f"{shown(path)}, array {wanted!r}"
    info = archive.getinfo(f"{wanted}.npy")
    mend = "save x and y as .npy files, which are read in blocks"
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise InputError(f"{name}: is packed in a way that numpy does not use; save it with numpy.savez")
    if info.file_size > max(_UNSUSPECTED, 100 * path.stat().st_size):
        raise InputError(f"{name}: unpacks to {info.file_size} bytes, over 100 times the file; {mend}")
    check_memory(info.file_size, name, mend)
    with archive.open(info) as file:
        header = read_header(file, name, info.file_size)
        file.seek(header.begin)
        whole = torch.empty(header.length, dtype=dtype)
        for begin, part in zip(range(0, header.length, BLOCK), whole.split(BLOCK), strict=True):
            packed = file.read(len(part) * header.dtype.itemsize)
            numbers = np.frombuffer(bytearray(packed), header.dtype, len(part))
            part.copy_(checked(numbers, dtype, name, begin))
    return whole
