"""The bottom of the tree in one pass over the samples, by torch.compile, where there is a compiler."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

BLOCK = 1 << 20  # samples of one call: enough to hide its cost, few enough for a cache
CHUNK = 8 * 8 * 8  # updates that become one map

ChunkMaps = Callable[[Tensor, Tensor, Tensor, Tensor], "tuple[Tensor, Tensor]"]


@cache
def chunk_maps(device_type: str) -> ChunkMaps | None:
    """A function of BLOCK samples x and y, of 2 lr and of the centre, that maps every CHUNK updates.

    Compiling takes seconds, once a process and device type; None where it cannot be done.
    """
    x, y = torch.zeros(2, BLOCK, dtype=torch.float64, device=device_type)
    rate, center = x.new_zeros(2)
    try:
        compiled: ChunkMaps = torch.compile(_chunk_maps, dynamic=False)
        compiled(x, y, rate, center)
    except Exception:  # no compiler, an old one, a platform without: each raises its own
        return None
    return compiled


def _chunk_maps(x: Tensor, y: Tensor, rate: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """The a and b, b without its factor 2 lr, of runs of CHUNK updates w ← a w + b about the centre."""
    a, b = 1 - rate * x * x, (y - center * x) * x
    for _ in range(3):
        a, b = _eights(a.view(-1, 8), b.view(-1, 8))
    return a, b


def _eights(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Eight maps in a row, one after another."""
    scale, shift = a[:, 0], b[:, 0]
    for i in range(1, 8):
        scale, shift = a[:, i] * scale, a[:, i] * shift + b[:, i]
    return scale, shift
