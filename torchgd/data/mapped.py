"""Vectors in .npy files, mapped into memory and read in blocks: data larger than memory."""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgd.data.arrays import BLOCK, Header, as_tensor, check_exact, check_finite, read_header
from torchgd.data.files import check_memory, opened, shown
from torchgd.errors import InputError
from torchgd.samples import check_learnable


@dataclass(frozen=True)
class _Shard:
    """One .npy file, and where in the whole vector its samples begin and end."""

    path: Path
    header: Header
    first: int
    after: int


class MappedVector:
    """A vector of shape (n,) in .npy files, one after the other: ``len(v)`` and ``v[start:stop]``.

    One file at a time is mapped into memory. A slice within one file of the right type shares its pages;
    do not write into it (this would not change the file). The files must not change meanwhile.

    Args:
        paths: the files, in order, all of one type.
        dtype, device: what the slices are. Every number in a slice is finite.

    Raises:
        InputError: a file is not a vector of real numbers. From a slice: a number is NaN or infinite in the
            dtype (with its file and index), or the file has changed.
    """

    def __init__(self, paths: Sequence[Path], dtype: torch.dtype, device: torch.device | str | None) -> None:
        self.dtype, self.device = dtype, torch.device("cpu" if device is None else device)
        self.shards: list[_Shard] = []
        self._mapped: tuple[_Shard, mmap.mmap] | None = None
        for path in paths:
            with opened(path) as file:
                header = read_header(file, shown(path), os.fstat(file.fileno()).st_size)
            self.shards.append(_Shard(path, header, len(self), len(self) + header.length))
            head = self.shards[0]
            if header.dtype != head.header.dtype:
                other = f"{shown(head.path)} holds {head.header.dtype}"
                raise InputError(f"{shown(path)}: holds {header.dtype}, but {other}; save all in one type")

    def __len__(self) -> int:
        return self.shards[-1].after if self.shards else 0

    def __getitem__(self, samples: slice) -> Tensor:
        """The samples from start to stop, shape (stop − start,)."""
        start, stop, step = samples.indices(len(self))
        if step != 1:
            raise InputError(f"a slice of mapped samples has the step {step}; give start and stop only")
        stop = max(start, stop)
        parts = list(self._parts(start, stop))
        mapped = len(parts) == 1 and str(self.dtype) == f"torch.{self.shards[0].header.dtype}"
        if not mapped:
            size = (stop - start) * self.dtype.itemsize
            check_memory(size, shown(self.shards[0].path), "read it in blocks")
        if len(parts) == 1:
            return self._part(*parts[0]).to(self.device)
        whole = torch.empty(stop - start, dtype=self.dtype)
        for shard, begin, end in parts:
            whole[begin - start : end - start] = self._part(shard, begin, end)
        return whole.to(self.device)

    def has_nonzero(self) -> bool:
        """Whether any number is not 0; reads up to the first one."""
        for start in range(0, len(self), BLOCK):
            if self[start : start + BLOCK].any():
                return True
            self.release(start, start + BLOCK)
        return False

    def release(self, start: int, stop: int) -> None:
        """Free the memory of these samples; if they are read again, they come from the file."""
        if self._mapped is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        shard, pages = self._mapped
        size = shard.header.dtype.itemsize
        begin = shard.header.begin + max(0, start - shard.first) * size
        end = min(shard.header.begin + (stop - shard.first) * size, shard.header.end)
        begin -= begin % mmap.PAGESIZE
        if begin < end:
            pages.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def _parts(self, start: int, stop: int) -> Iterator[tuple[_Shard, int, int]]:
        """The samples from start to stop, shard by shard."""
        while start < stop:
            shard = self.shards[bisect_right(self.shards, start, key=lambda shard: shard.first) - 1]
            yield shard, start, min(stop, shard.after)
            start = shard.after

    def _part(self, shard: _Shard, start: int, stop: int) -> Tensor:
        """The samples from start to stop of one shard. If all are finite, their sum mostly is finite too."""
        numbers = self._numbers(shard, start, stop)
        check_exact(numbers, shown(shard.path), start - shard.first)
        values = as_tensor(numbers, self.dtype)
        if not values.sum().isfinite():
            check_finite(numbers, self.dtype, shown(shard.path), start - shard.first)
        return values

    def _numbers(self, shard: _Shard, start: int, stop: int) -> NDArray[np.generic]:
        """The numbers of one shard, in its pages; the last shard's are freed when no slice shares them."""
        header = shard.header
        changed = InputError(f"{shown(shard.path)}: has changed since it was first read; start again")
        if self._mapped is None or self._mapped[0] is not shard:
            with opened(shard.path) as file:
                if os.fstat(file.fileno()).st_size != header.end:
                    raise changed
                # Copy on write, because a tensor needs writable memory and the file must not change.
                self._mapped = shard, mmap.mmap(file.fileno(), header.end, access=mmap.ACCESS_COPY)
        if self._mapped[1].size() != header.end:  # of the file: pages beyond its end would kill the process
            raise changed
        offset = header.begin + (start - shard.first) * header.dtype.itemsize
        return np.frombuffer(self._mapped[1], header.dtype, stop - start, offset)


def map_pairs(
    x_paths: Sequence[Path], y_paths: Sequence[Path], dtype: torch.dtype, device: torch.device | str | None
) -> tuple[MappedVector, MappedVector]:
    """x and y in .npy files, one file each or equally many shards each."""
    if len(x_paths) != len(y_paths) or not x_paths:
        counts = f"x is in {len(x_paths)} files, y in {len(y_paths)}"
        raise InputError(f"{counts}; give one y file for each x file")
    x, y = MappedVector(x_paths, dtype, device), MappedVector(y_paths, dtype, device)
    for a, b in zip(x.shards, y.shards, strict=True):
        if a.header.length != b.header.length:
            lengths = f"has {a.header.length} samples, {shown(b.path)} {b.header.length}"
            raise InputError(f"{shown(a.path)}: {lengths}; give one y for each x")
    check_learnable(x.has_nonzero(), f"{shown(x_paths[0])}: ")
    return x, y
