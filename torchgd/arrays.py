"""The arrays of an .npz file, and the vectors of .npy files, mapped into memory and read in blocks.

The header of an array says how large it is; it is checked against the file and the machine before any
memory is taken. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgd.errors import InputError
from torchgd.files import missing, nothing_to_learn, opened, shown

BLOCK = (
    1 << 17
)  # samples: a block of x and y stays in the processor's cache, and the loop over blocks costs nothing
_LONGEST_HEADER = 10_000
_MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    SyntaxError,
    OverflowError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)
_TORN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class _Header:
    """What the header of an array says: its type, its length n, and where its numbers begin."""

    dtype: np.dtype[np.generic]
    length: int
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.length * self.dtype.itemsize


def _header(file: IO[bytes], name: str, size: int) -> _Header:
    """The header of an array in a file of that size, which must be a whole vector of real numbers."""
    head = io.BytesIO(file.read(_LONGEST_HEADER))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's advice to save a file of Python 2 again
            version = np.lib.format.read_magic(head)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
                version
            ]
            shape, _, dtype = read(head)
    except _MALFORMED:
        raise InputError(f"{name}: is not an .npy array; save it with numpy.save") from None
    if dtype.hasobject:
        raise InputError(f"{name}: holds pickled objects, which are never loaded; save it as float64")
    if dtype.kind not in "iuf":
        raise InputError(f"{name}: holds {dtype}, not real numbers; save it as float64")
    if len(shape) != 1:
        raise InputError(f"{name}: has shape {shape}, not (n,); save it as a.reshape(-1)")
    if shape[0] < 1:
        raise InputError(f"{name}: is empty; give at least one sample")
    header = _Header(dtype, shape[0], head.tell())
    if header.end != size:
        raise InputError(
            f"{name}: is {size} bytes long, but its header says {header.end}; is it a whole copy?"
        )
    return header


def _tensor(numbers: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    """The numbers as a tensor, sharing their memory where they are already of that type."""
    if numbers.dtype.str not in ("<f4", "<f8") or not numbers.flags.aligned:
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float64)
    return torch.from_numpy(numbers).to(dtype)


def _check_finite(block: Tensor, numbers: NDArray[np.generic], name: str, begin: int) -> bool:
    """Refuse NaN and infinities in a block that begins at that index; is any number other than 0?"""
    low, high = (bound.item() for bound in block.aminmax())  # one pass; NaN if any is NaN
    if not -float("inf") < low <= high < float("inf"):
        at = int((~block.isfinite()).nonzero()[0])
        what = f"{numbers[at]}, too large for {str(block.dtype).removeprefix('torch.')}; scale it down"
        if not np.isfinite(numbers[at]):
            what = f"{numbers[at]}; mend it, or leave the sample out"
        raise InputError(f"{name}: index {begin + at} holds {what}")
    return bool(low or high)


def read_npz(path: Path, x_name: str, y_name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two arrays of an .npz file."""
    with opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = [name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")]
                for wanted in (x_name, y_name):
                    if wanted not in names:
                        raise InputError(f"{shown(path)}: {missing(wanted, 'array', names)}")
                x = _member(archive, x_name, f"{shown(path)}, array {x_name!r}", dtype)
                y = _member(archive, y_name, f"{shown(path)}, array {y_name!r}", dtype)
        except _TORN as error:
            raise InputError(
                f"{shown(path)}: is not a whole .npz file ({error}); save it with numpy.savez"
            ) from None
    if len(x) != len(y):
        raise InputError(
            f"{shown(path)}: {x_name!r} has {len(x)} samples and {y_name!r} {len(y)}; give one y for each x"
        )
    nothing_to_learn(bool(x.any()), shown(path))
    return x, y


def _member(archive: zipfile.ZipFile, member: str, name: str, dtype: torch.dtype) -> Tensor:
    """One array of the archive, unpacked block by block."""
    info = archive.getinfo(f"{member}.npy")
    mend = "save x and y as .npy files, which are not unpacked"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{name}: is packed in a way that numpy does not use; save it with numpy.savez")
    if info.file_size > (64 << 20) and info.file_size > 100 * info.compress_size:
        raise InputError(f"{name}: unpacks to {info.file_size} bytes, over 100 times its size; {mend}")
    if info.file_size > _memory() // 4:
        raise InputError(f"{name}: unpacks to {info.file_size} bytes, over a quarter of the memory; {mend}")
    with archive.open(info) as file:
        header = _header(file, name, info.file_size)
        file.seek(header.offset)
        tensor = torch.empty(header.length, dtype=dtype)
        for begin in range(0, header.length, BLOCK):
            count = min(BLOCK, header.length - begin)
            numbers = np.frombuffer(bytearray(file.read(count * header.dtype.itemsize)), header.dtype)
            if len(numbers) < count:
                raise EOFError("it ends early")
            block = _tensor(numbers, dtype)
            _check_finite(block, numbers, name, begin)
            tensor[begin : begin + count] = block
    return tensor


def _memory() -> int:
    """The machine's memory in bytes; 4 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 << 30


@dataclass(frozen=True)
class _File:
    """One .npy file and the samples it holds, from first to last, last not included."""

    path: Path
    header: _Header
    first: int
    last: int


class MappedVector:
    """A vector of shape (n,) in .npy files, one after the other: ``len(v)`` and ``v[start:stop]``.

    One file at a time is mapped into memory. A slice within one file of the right type shares the file's
    pages: read it, do not write into it, for nothing reaches the file.

    Args:
        paths: the files, in order; all of one type.
        dtype, device: of the slices.
    """

    def __init__(
        self, paths: Sequence[Path], dtype: torch.dtype, device: torch.device | str | None = None
    ) -> None:
        self.dtype, self.device = dtype, device
        self.files: list[_File] = []
        self._mapped: tuple[_File, mmap.mmap] | None = None
        for path in paths:
            with opened(path) as file:
                header = _header(file, shown(path), os.fstat(file.fileno()).st_size)
            self.files.append(_File(path, header, len(self), len(self) + header.length))
            first = self.files[0]
            if header.dtype != first.header.dtype:
                other = f"{shown(first.path)} holds {first.header.dtype}"
                raise InputError(f"{shown(path)}: holds {header.dtype}, but {other}; save all shards in one type")

    def __len__(self) -> int:
        return self.files[-1].last if self.files else 0

    def __getitem__(self, samples: slice) -> Tensor:
        """The samples from start to stop, shape (stop − start,)."""
        start, stop, _ = samples.indices(len(self))
        pieces = self._pieces(start, stop)
        numbers = next(pieces, (np.empty(0),))[0]
        if len(numbers) == stop - start:
            return _tensor(numbers, self.dtype).to(self.device)
        whole = torch.empty(stop - start, dtype=self.dtype)
        whole[: len(numbers)] = _tensor(numbers, self.dtype)
        for numbers, file, begin in pieces:
            at = file.first + begin - start
            whole[at : at + len(numbers)] = _tensor(numbers, self.dtype)
        return whole.to(self.device)

    def check_finite(self) -> bool:
        """Read all of it once, in blocks; refuse NaN and infinities; is any number other than 0?"""
        nonzero = False
        for start in range(0, len(self), BLOCK):
            for numbers, file, begin in self._pieces(start, min(start + BLOCK, len(self))):
                nonzero |= _check_finite(_tensor(numbers, self.dtype), numbers, shown(file.path), begin)
            self.release(start, start + BLOCK)
        return nonzero

    def release(self, start: int, stop: int) -> None:
        """Let the system take back the memory of these samples; read again, they come from the file."""
        if self._mapped is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        file, pages = self._mapped
        size = file.header.dtype.itemsize
        begin = file.header.offset + max(0, start - file.first) * size
        end = min(file.header.end, file.header.offset + (stop - file.first) * size)
        begin -= begin % mmap.PAGESIZE
        if begin < end:
            pages.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[NDArray[np.generic], _File, int]]:
        """The samples from start to stop, file by file: numbers, file, index of the first one in it."""
        while start < stop:
            file = self.files[bisect_right(self.files, start, key=lambda file: file.first) - 1]
            begin, count = start - file.first, min(stop, file.last) - start
            offset = file.header.offset + begin * file.header.dtype.itemsize
            yield np.frombuffer(self._map(file), file.header.dtype, count, offset), file, begin
            start += count

    def _map(self, file: _File) -> mmap.mmap:
        """The pages of the file; the last file's are given back as soon as no slice shares them."""
        if self._mapped is None or self._mapped[0] is not file:
            with opened(file.path) as stream:
                # copy on write: a tensor wants writable memory, and the file must not change
                self._mapped = file, mmap.mmap(stream.fileno(), file.header.end, access=mmap.ACCESS_COPY)
        return self._mapped[1]


def map_pairs(
    x_paths: Sequence[Path], y_paths: Sequence[Path], dtype: torch.dtype, device: torch.device | str | None
) -> tuple[MappedVector, MappedVector]:
    """x and y in .npy files, one file or as many shards each, every number checked once."""
    if len(x_paths) != len(y_paths) or not x_paths:
        raise InputError(
            f"x is in {len(x_paths)} files and y in {len(y_paths)}; give one y file for each x file"
        )
    x, y = MappedVector(x_paths, dtype, device), MappedVector(y_paths, dtype, device)
    for x_file, y_file in zip(x.files, y.files, strict=True):
        if x_file.header.length != y_file.header.length:
            raise InputError(
                f"{shown(x_file.path)} has {x_file.header.length} samples and {shown(y_file.path)} "
                f"{y_file.header.length}; give one y for each x"
            )
    nothing_to_learn(x.check_finite(), shown(x_paths[0]))
    y.check_finite()
    return x, y
