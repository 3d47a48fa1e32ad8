"""An epoch of updates as one affine map: sequential SGD at the speed of memory.

For y = w·x and the squared loss the update of one sample is affine in the weight,

    w ← w − lr · 2x (w x − y)  =  a w + b,        a = 1 − 2 lr x²,   b = 2 lr x y,

and so is that of a batch, with means of x² and x y. Affine maps compose to affine maps,
(a₂, b₂) ∘ (a₁, b₁) = (a₂ a₁, a₂ b₁ + b₂), and composition is associative: an epoch of N updates,
each of which needs the result of the one before, is *one* map, found by a tree of pairs in parallel;
without shuffling the same map serves every epoch.

The maps here are kept about a centre c, w ↦ c + scale·(w − c) + drift, with c the least-squares weight
of the first samples: the updates then add x (y − c x), which is small, or zero where the data has no
noise, so that nothing cancels when factors a are large on the way. All sums and products are float64,
whatever the dtype of the data.

Source: G. E. Blelloch, Prefix sums and their applications, CMU-CS-90-190 (1990).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from torchgd.compiled import BLOCK as COMPILED_BLOCK
from torchgd.compiled import ChunkMaps, chunk_maps
from torchgd.composition import EpochMap, Tree, number_or_inf, times
from torchgd.errors import InputError

__all__ = ["EpochMap", "epoch_map", "epoch_map_of_blocks", "prefix_maps"]

_WORTH_COMPILING = 1 << 32  # samples: the compiled pass saves about 1 ns on each and costs 4 to 8 s
_BLOCK = {"cpu": 1 << 18, "cuda": 1 << 24}  # samples composed at once: what fits a cache, what fills a GPU


def epoch_map(
    x: Tensor, y: Tensor, lr: float, batch_size: int = 1, *, compiled: bool | None = None
) -> EpochMap:
    """The whole epoch in order, w ↦ Π(1 − 2 lr xᵢ²) w + …, as one map; with batches, of their means.

    Args:
        x: the inputs, shape (n,), floating point, on any device.
        y: the targets, shape (n,).
        lr: the learning rate, in units of 1/x².
        batch_size: samples per update; n or more is the full batch. The last batch may be smaller.
        compiled: whether updates of one sample go through torch.compile where that works: a faster pass after
            seconds of compiling, once a process. None: where there are samples enough to win them back.

    Raises:
        InputError: shapes, dtypes or devices differ, a sample is not finite, lr or batch_size is not above 0.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0]).double()
        >>> epoch = epoch_map(x, 2 * x, lr=0.01)
        >>> round(epoch(1.0), 12), round(epoch.after(100)(1.0), 12)
        (1.260688, 2.0)
    """
    return epoch_map_of_blocks([(x, y)], lr, batch_size, compiled=compiled)


def epoch_map_of_blocks(
    blocks: Iterable[tuple[Tensor, Tensor]], lr: float, batch_size: int = 1, *, compiled: bool | None = None
) -> EpochMap:
    """The same from blocks of samples, read once, in order: the memory needed is that of one block.

    A batch may begin in one block and end in another. The other arguments and the errors are those
    of :func:`epoch_map`; an error names the block.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
        >>> epoch_map_of_blocks([(x[:3], x[:3]), (x[3:], x[3:])], 0.01, 2) == epoch_map(x, x, 0.01, 2)
        True
    """
    return prefix_maps(blocks, lr, batch_size, compiled=compiled)[-1]


def prefix_maps(
    blocks: Iterable[tuple[Tensor, Tensor]],
    lr: float,
    batch_size: int = 1,
    stops: Sequence[int] | Tensor = (),
    *,
    compiled: bool | None = None,
) -> list[EpochMap]:
    """The maps from the start of the epoch to chosen updates, and last the map of the whole epoch.

    Args:
        blocks: pairs of x and y, as for :func:`epoch_map_of_blocks`; ``[(x, y)]`` for tensors.
        lr, batch_size, compiled: as for :func:`epoch_map`; what lies around a stop is not compiled.
        stops: after how many updates, in ascending order; 0 is the identity.

    Raises:
        InputError: as for :func:`epoch_map`, and where stops are not ascending or lie outside the epoch.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0]).double()
        >>> [round(prefix(1.0), 6) for prefix in prefix_maps([(x, 2 * x)], 0.01, 1, [1, 2])]
        [1.02, 1.0984, 1.260688]
    """
    scan = _Scan(lr, batch_size, stops, compiled)
    for number, (x, y) in enumerate(blocks, start=1):
        scan.read(x.detach(), y.detach(), number)
    return scan.finish()


class _Scan:
    """The state between blocks: the map so far, and the sums of the batch that is still open."""

    def __init__(
        self, lr: float, batch_size: int, stops: Sequence[int] | Tensor, compiled: bool | None
    ) -> None:
        if not (math.isfinite(lr) and lr > 0):
            raise InputError(f"lr must be finite and above 0, not {lr}; give e.g. 0.01")
        if not batch_size >= 1:
            raise InputError(
                f"batch_size must be 1 or more, not {batch_size}; give the samples of one update"
            )
        self.lr, self.batch_size, self.compiled = lr, batch_size, compiled
        self.stops = [int(stop) for stop in stops]  # those not yet reached
        if self.stops != sorted(self.stops) or min(self.stops, default=0) < 0:
            raise InputError("stops must ascend from 0; sort them")
        self.map = EpochMap()
        self.maps: list[EpochMap] = []
        self.samples = self.updates = 0
        self.open = (0, 0.0, 0.0)  # the open batch: samples, Σ x², Σ x (y − c x)
        self.tree = Tree(1, torch.device("cpu"))
        self.chunk_maps: ChunkMaps | None = None
        self.kind: tuple[torch.dtype, torch.device] | None = None

    def read(self, x: Tensor, y: Tensor, number: int) -> None:
        """Compose the updates of block `number`."""
        self._check(x, y, number)
        if self.samples == 0:
            self.map = EpochMap(center=_least_squares(x, y))
            self.maps += [self.map] * (len(self._ends(0)) - 1)
        if self.compiled is None and max(len(x), self.samples) >= _WORTH_COMPILING:
            self.compiled = True
        self.chunk_maps = chunk_maps(x.device.type) if self.compiled and self.batch_size == 1 else None
        begin = 0
        while begin < len(x):
            begin += self._compose_next(x[begin:], y[begin:])

    def _compose_next(self, x: Tensor, y: Tensor) -> int:
        """Compose as many of these samples as is best at once; returns how many."""
        block, size = min(len(x), _BLOCK.get(x.device.type, _BLOCK["cpu"])), self.batch_size
        compose: Callable[[Tensor, Tensor], None]
        next_stop = self.stops[0] - self.updates if self.stops else COMPILED_BLOCK + 1
        if self.chunk_maps and len(x) >= COMPILED_BLOCK and next_stop > COMPILED_BLOCK:
            count, compose = COMPILED_BLOCK, partial(self._compose_compiled, self.chunk_maps)
        elif self.open[0] == 0 and size <= block:
            count, compose = block // size * size, self._compose
        else:
            count, compose = min(block, size - self.open[0]), self._collect
        compose(x[:count].double(), y[:count].double())
        self.samples += count
        return count

    def finish(self) -> list[EpochMap]:
        """The maps at the stops and of the whole; the last batch may be smaller than the others."""
        if self.samples == 0:
            raise InputError("there are no samples; give at least one")
        if self.open[0]:
            self._close()
        if self.stops:
            raise InputError(f"stop {self.stops[0]} is beyond the epoch, which has {self.updates} updates")
        return [*self.maps, self.map]

    def _compose(self, x: Tensor, y: Tensor) -> None:
        """Compose whole batches, as many as there are in x, by the tree."""
        size, rows = self.batch_size, len(x) // self.batch_size
        rate = 2 * self.lr / size
        a, b = self._leaves(rows, x.device)
        if size == 1:
            torch.addcmul(x.new_ones(()), x, x, value=-rate, out=a)
            torch.sub(y, x, alpha=self.map.center, out=b).mul_(x)
        else:  # a product with ones is the quickest sum of short rows
            ones = x.new_ones(size)
            torch.mv((x * x).view(rows, size), ones, out=a).mul_(-rate).add_(1)
            torch.mv(torch.sub(y, x, alpha=self.map.center).mul_(x).view(rows, size), ones, out=b)
        whole = self.tree.compose()
        ends = self._ends(rows)
        prefixes = [*self.tree.prefixes(ends[:-1]), whole] if len(ends) > 1 else [whole]
        if all(math.isfinite(scale + shift) for scale, shift in prefixes):
            maps = [EpochMap(scale, shift * rate, self.map.center) for scale, shift in prefixes]
            self._move([self.map.then(prefix) for prefix in maps])
        else:
            self._refuse_non_finite(x, y)
            self._in_order(a.tolist(), (b * rate).tolist(), ends)

    def _compose_compiled(self, chunk_maps: ChunkMaps, x: Tensor, y: Tensor) -> None:
        """Compose COMPILED_BLOCK samples, no stop among them; what overflows goes the other way."""
        rate = 2 * self.lr
        maps = chunk_maps(x, y, x.new_tensor(rate), x.new_tensor(self.map.center))
        for leaves, values in zip(self._leaves(len(maps[0]), x.device), maps, strict=True):
            leaves.copy_(values)
        scale, shift = self.tree.compose()
        if math.isfinite(scale + shift):
            self._move(
                [self.map.then(EpochMap(scale, shift * rate, self.map.center)) for _ in self._ends(len(x))]
            )
        else:
            self._compose(x, y)

    def _leaves(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The leaves of a tree of so many maps."""
        if not self.tree.holds(count, device):
            self.tree = Tree(count, device)
        return self.tree.leaves(count)

    def _collect(self, x: Tensor, y: Tensor) -> None:
        """Add samples to the open batch, and close it when it is full."""
        samples, xx, xz = self.open
        residual = torch.sub(y, x, alpha=self.map.center)
        self.open = (samples + len(x), xx + torch.dot(x, x).item(), xz + torch.dot(x, residual).item())
        if not math.isfinite(self.open[1] + self.open[2]):
            self._refuse_non_finite(x, y)
        if self.open[0] == self.batch_size:
            self._close()

    def _close(self) -> None:
        """Compose the update of the open batch."""
        samples, xx, xz = self.open
        rate = 2 * self.lr / samples
        self._in_order([1 - rate * xx], [rate * xz], self._ends(1))
        self.open = (0, 0.0, 0.0)

    def _in_order(self, a: list[float], b: list[float], ends: list[int]) -> None:
        """Compose one update after another: where a tree overflows, the epoch need not."""
        scale, drift, begin, maps = self.map.scale, self.map.drift, 0, []
        for end in ends:
            for i in range(begin, end):
                scale = times(a[i], scale)
                drift = times(a[i], drift) + b[i]
                if not (math.isfinite(scale) or math.isfinite(drift)):
                    break
            begin = end
            maps.append(EpochMap(number_or_inf(scale), number_or_inf(drift), self.map.center))
        self._move(maps)

    def _ends(self, rows: int) -> list[int]:
        """Count the next updates as done; where among them the stops lie, and last their number."""
        self.updates += rows
        within = bisect_right(self.stops, self.updates)
        ends = [stop - self.updates + rows for stop in self.stops[:within]]
        del self.stops[:within]
        return [*ends, rows]

    def _move(self, maps: list[EpochMap]) -> None:
        """Keep the maps at the stops; the last is the map so far."""
        *at_stops, self.map = maps
        self.maps += at_stops

    def _check(self, x: Tensor, y: Tensor, number: int) -> None:
        """Refuse what PyTorch would broadcast or convert in silence."""
        where = f"in block {number} x has"
        if x.dim() != 1 or x.shape != y.shape or len(x) == 0:
            raise InputError(
                f"{where} shape {tuple(x.shape)} and y {tuple(y.shape)}; give one y for each x, both (n,)"
            )
        if not (x.is_floating_point() and x.dtype == y.dtype and x.device == y.device):
            kinds = f"dtype {x.dtype} on {x.device} and y {y.dtype} on {y.device}"
            raise InputError(f"{where} {kinds}; convert both to the same floating dtype and device")
        self.kind = self.kind or (x.dtype, x.device)
        if self.kind != (x.dtype, x.device):
            raise InputError(
                f"{where} dtype {x.dtype} on {x.device}, but {self.kind[0]} on {self.kind[1]} before; use one"
            )

    def _refuse_non_finite(self, x: Tensor, y: Tensor) -> None:
        """A result that is not finite may come from a sample that is not."""
        wrong = torch.nonzero(~(torch.isfinite(x) & torch.isfinite(y)))
        if len(wrong):
            i = int(wrong[0])
            sample = f"sample {self.samples + i}, counted from 0, is x = {x[i].item()}, y = {y[i].item()}"
            raise InputError(f"{sample}; mend it or leave it out")


def _least_squares(x: Tensor, y: Tensor) -> float:
    """The least-squares weight of up to 8191 samples, or 0 where it explains less than half of y²."""
    every = max(1, len(x) // 4096)
    x, y = x[::every].double(), y[::every].double()
    xx, xy, yy = torch.dot(x, x).item(), torch.dot(x, y).item(), torch.dot(y, y).item()
    return xy / xx if 0 < xx * yy <= 2 * xy * xy < math.inf else 0.0
