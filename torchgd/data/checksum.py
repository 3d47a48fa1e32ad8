"""A checksum of all samples, taken from the blocks of a reading that is done anyway."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgd.data.dataset import Dataset

CHUNK = 1 << 17  # samples at fixed places in the data, whatever the blocks
_ROWS, _COLUMNS = 256, 512  # of the square whose rows and columns are added up


class Checksum:
    """64 bits for x and 64 for y, in which every bit and the place of every sample count.

    A chunk's bits are 64-bit numbers in a square; its rows and its columns are added modulo 2⁶⁴, so that one
    number changed, and two exchanged, always show, and the sums are hashed with the chunk's place. The hashes
    are added: blocks, processes and devices may share the work as they like.

    Example:
        >>> from torchgd import course
        >>> checksum = Checksum(course())
        >>> for block in checksum.reading():
        ...     pass
        >>> checksum.hexdigest() == measured(course())
        True
    """

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._sums = [0, 0]
        # chunk → the sums of x and of y, of what was seen of it
        self._open: dict[int, list[NDArray[np.int64]]] = {}

    def reading(
        self, size: int = CHUNK, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The blocks of the data, as :meth:`Dataset.blocks`, each of which is counted."""
        for x, y in self._data.blocks(size, start, stop):
            self._add(start, x, y)
            yield x, y
            start += len(x)

    def hexdigest(self, total: Callable[[Tensor], Tensor] | None = None) -> str:
        """32 hexadecimal digits, once all samples were read.

        Args:
            total: adds a tensor over the processes that share the reading.
        """
        if total is not None:
            # chunks of which several processes have a part; every process asks for the same ones
            parts = torch.zeros(-(-len(self._data) // CHUNK), dtype=torch.int64)
            parts[list(self._open)] = 1
            for chunk in total(parts).nonzero().reshape(-1).tolist():
                own = self._open.get(
                    chunk, [0 * sums for sums in _pair(self._data.inputs[0:1], self._data.targets[0:1], 0)]
                )
                self._open[chunk] = [total(torch.from_numpy(sums)).cpu().numpy() for sums in own]
            wrapped = np.array([value % 2**64 for value in self._sums], np.uint64).view(np.int64)
            self._sums = total(torch.from_numpy(wrapped)).tolist()
        values = self._sums
        for chunk, pair in self._open.items():
            values = _plus(values, chunk, pair)
        return "".join(f"{value % 2**64:016x}" for value in values)

    def _add(self, start: int, x: Tensor, y: Tensor) -> None:
        """Count samples, of which the first has this index."""
        begin = 0
        while begin < len(x):
            chunk, at = divmod(start + begin, CHUNK)
            count = min(CHUNK - at, len(x) - begin)
            pair = _pair(x[begin : begin + count], y[begin : begin + count], at)
            if count == CHUNK:
                self._sums = _plus(self._sums, chunk, pair)
            elif chunk in self._open:
                self._open[chunk] = [a + b for a, b in zip(self._open[chunk], pair, strict=True)]
            else:
                self._open[chunk] = pair
            begin += count


def measured(data: Dataset) -> str:
    """The checksum, by a separate reading of the data."""
    checksum = Checksum(data)
    for _ in checksum.reading():
        pass
    return checksum.hexdigest()


def _pair(x: Tensor, y: Tensor, at: int) -> list[NDArray[np.int64]]:
    columns = ((values.reshape(len(values), -1).unbind(1)) for values in (x, y))
    return [np.concatenate([_sums(column, at) for column in each]) for each in columns]


def _sums(values: Tensor, at: int) -> NDArray[np.int64]:
    """The sums of the rows and the columns of a chunk, of which these values begin at a place."""
    if len(values) < CHUNK:
        whole = values.new_zeros(CHUNK)
        whole[at : at + len(values)] = values
        values = whole
    # numpy's sums take one thread, which waits for no other on a busy machine
    bits = values.cpu().contiguous().view(torch.int64).view(-1, _COLUMNS).numpy()
    rows = bits.sum(1)
    return np.concatenate([bits.sum(0), rows, np.zeros(_ROWS - len(rows), np.int64)])


def _plus(values: list[int], chunk: int, pair: list[NDArray[np.int64]]) -> list[int]:
    """With the hashes of a chunk's sums."""
    salt = chunk.to_bytes(8, "little")
    hashed = (hashlib.blake2b(sums.tobytes(), digest_size=8, salt=salt).digest() for sums in pair)
    return [value + int.from_bytes(digest, "little") for value, digest in zip(values, hashed, strict=True)]
