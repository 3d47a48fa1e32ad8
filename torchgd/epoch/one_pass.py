"""One pass over the samples of an epoch, in which its updates are composed."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from torchgd.epoch.blocks import Block, a_thousand, checked, refuse_non_finite, rough_weight
from torchgd.epoch.compiled import BLOCK as COMPILED_BLOCK
from torchgd.epoch.compiled import ChunkMaps, chunk_maps
from torchgd.epoch.composition import Tree
from torchgd.epoch_maps import NEAR_ONE, EpochMap, number_or_inf, times
from torchgd.errors import InputError
from torchgd.moments import Moments

_WORTH_COMPILING = 1 << 32  # samples: the compiled pass saves about 1 ns on each and costs 4 to 8 s
BLOCK = {"cpu": 1 << 17, "cuda": 1 << 24}  # samples composed at once: a thread's cache full, and a GPU's work


class _Kept(threading.local):
    """Trees by their height, kept for the next epoch: fresh memory costs more than the arithmetic in it."""

    def __init__(self) -> None:
        self.trees: dict[int, Tree] = {}


_kept = _Kept()


class OnePass:
    """The state between blocks: the map so far, and the batch that is still open."""

    def __init__(
        self,
        lr: float,
        batch_size: int,
        stops: Sequence[int] | Tensor,
        *,
        compiled: bool | None,
        with_moments: bool = False,
    ) -> None:
        if not (math.isfinite(lr) and lr > 0):
            raise InputError(f"lr must be finite and above 0, not {lr}; give e.g. 0.01")
        if not batch_size >= 1:
            what = f"batch_size must be 1 or more, not {batch_size}"
            raise InputError(f"{what}; give the samples of one update")
        self.lr, self.batch_size, self.compiled = lr, batch_size, compiled
        self.stops = [int(stop) for stop in stops]  # those not yet reached
        if self.stops != sorted(self.stops) or min(self.stops, default=0) < 0:
            raise InputError("stops must ascend from 0; sort them")
        self.with_moments, self.moments = with_moments, Moments()
        self.map = EpochMap()
        self.maps: list[EpochMap] = []
        self.samples = self.updates = 0
        self.open = 0  # samples of the open batch, and their Σ x² and Σ x (y − c x):
        self.sums = (0.0, 0.0)
        self.trees: dict[int, Tree] = {}

    def over(self, blocks: Iterable[Block]) -> list[EpochMap]:
        """Read the blocks; the maps at the stops, and last that of the whole."""
        for x, y in checked(blocks):
            self._read(x, y)
        return self._finish()

    def _read(self, x: Tensor, y: Tensor) -> None:
        """Compose the updates of a block."""
        if self.samples == 0:
            strong = self._strength(a_thousand(x)) > 1
            self.map = EpochMap(center=rough_weight(x, y) if strong else 0.0)
        if self.compiled is None and max(len(x), self.samples) >= _WORTH_COMPILING:
            self.compiled = True
        begin = 0
        while begin < len(x):
            begin += self._compose_next(x[begin:], y[begin:])

    def _strength(self, x: Tensor) -> float:
        """How far an update goes: 2 lr x² of the largest of these x, of their mean in larger batches."""
        order, count = (math.inf, 1) if self.batch_size == 1 else (2, len(x))
        size: float = torch.linalg.vector_norm(x, order).item()
        return 2 * self.lr * size * size / count

    def _finish(self) -> list[EpochMap]:
        """The maps at the stops and of the whole; the last batch may be smaller than the others."""
        if self.open:
            self._close(self.open, self._ends(1))
        if self.stops:
            raise InputError(f"stop {self.stops[0]} is beyond the epoch, which has {self.updates} updates")
        return [*self.maps, self.map]

    def _compose_next(self, x: Tensor, y: Tensor) -> int:
        """Compose as many of these samples as is best at once; returns how many."""
        size, most = self.batch_size, min(len(x), room(x.device))
        fold = chunk_maps(x.device.type) if self.compiled and size == 1 and len(x) >= COMPILED_BLOCK else None
        if fold and bisect_right(self.stops, self.updates + COMPILED_BLOCK) == 0:
            count = COMPILED_BLOCK
            self._compose_compiled(fold, x[:count], y[:count])
        elif self.open == 0 and size <= most:
            count = most // size * size
            self._compose(x[:count], y[:count])
        else:
            count = min(most, size - self.open)
            self._collect(x[:count], y[:count])
        if self.with_moments:
            self.moments = self.moments.plus(x[:count], y[:count])
        self.samples += count
        return count

    def _compose(self, x: Tensor, y: Tensor) -> None:
        """Compose whole batches, by the tree; where it overflows, the epoch need not: one after another."""
        ends, rate = self._ends(len(x) // self.batch_size), 2 * self.lr / self.batch_size
        tree = self._tree_for(ends[-1], x.device)
        a, b = self._updates(x, y, tree)
        whole = tree.compose()
        found = [*tree.prefixes(ends[:-1]), whole] if len(ends) > 1 else [whole]
        if all(math.isfinite(scale + shift) for scale, shift in found):
            lost = self._lost(x, ends) if abs(1 - whole[0]) <= NEAR_ONE else [math.nan] * len(ends)
            maps = zip(found, lost, strict=True)
            self._move([self.map.then(EpochMap(a, b * rate, self.map.center, part)) for (a, b), part in maps])
        else:
            refuse_non_finite(x, y, self.samples)
            self._in_order(a.tolist(), (b * rate).tolist(), ends)

    def _updates(self, x: Tensor, y: Tensor, tree: Tree) -> tuple[Tensor, Tensor]:
        """The a and b, b without its factor 2 lr / batch_size, of each update, as leaves of the tree."""
        x, y, size = x.double(), y.double(), self.batch_size
        a, b = tree.leaves(len(x) // size)
        rate = 2 * self.lr / size
        if size == 1:
            torch.addcmul(x.new_ones(()), x, x, value=-rate, out=a)
            torch.mul(_residual(x, y, self.map.center), x, out=b)
        else:  # a product with ones is the quickest sum of short rows
            ones = x.new_ones(size)
            torch.mv((x * x).view(-1, size), ones, out=a).mul_(-rate).add_(1)
            torch.mv((_residual(x, y, self.map.center) * x).view(-1, size), ones, out=b)
        return a, b

    def _lost(self, x: Tensor, ends: list[int]) -> list[float]:
        """1 − the scale of the updates up to each end, which a small lr does not lose to rounding."""
        rate = 2 * self.lr / self.batch_size
        logs = torch.log1p(-rate * x.double().square().view(-1, self.batch_size).sum(1)).cumsum(0)
        parts: list[float] = (-torch.expm1(torch.nn.functional.pad(logs, (1, 0))[ends])).tolist()
        return parts

    def _tree_for(self, leaves: int, device: torch.device) -> Tree:
        """A tree of the least height: the thread's, but on a GPU, where it is large, this pass's."""
        height = (leaves - 1).bit_length()
        trees = _kept.trees if device.type == "cpu" else self.trees
        if height not in trees:
            trees[height] = Tree(height, device)
        return trees[height]

    def _compose_compiled(self, fold: ChunkMaps, x: Tensor, y: Tensor) -> None:
        """Compose COMPILED_BLOCK samples, no stop among them; what overflows goes the other way."""
        rate = 2 * self.lr
        numbers = torch.tensor([rate, self.map.center], dtype=torch.float64, device=x.device)
        maps = fold(x.double(), y.double(), numbers[0], numbers[1])
        tree = self._tree_for(len(maps[0]), x.device)
        for leaves, values in zip(tree.leaves(len(maps[0])), maps, strict=True):
            leaves.copy_(values)
        scale, shift = tree.compose()
        if math.isfinite(scale + shift):
            self._ends(len(x))
            self._move([self.map.then(EpochMap(scale, shift * rate, self.map.center))])
        else:
            self._compose(x, y)

    def _collect(self, x: Tensor, y: Tensor) -> None:
        """Add samples to the open batch, and close it when it is full."""
        self.open += len(x)
        xx, xz = _batch_sums(x, y, self.map.center)
        self.sums = (self.sums[0] + xx, self.sums[1] + xz)
        if not math.isfinite(sum(self.sums)):
            refuse_non_finite(x, y, self.samples)
        if self.open == self.batch_size:
            self._close(self.open, self._ends(1))
            self.open = 0

    def _close(self, samples: int, ends: list[int]) -> None:
        """Compose the update of the open batch."""
        rate = 2 * self.lr / samples
        lost = rate * self.sums[0]
        after = self.map.then(EpochMap(1 - lost, rate * self.sums[1], self.map.center, lost))
        self._move([after if end else self.map for end in ends])
        self.sums = (0.0, 0.0)

    def _in_order(self, a: list[float], b: list[float], ends: list[int]) -> None:
        """Compose one update after another."""
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


def room(device: torch.device) -> int:
    """How many samples are composed at once."""
    if device.type == "cpu":
        return BLOCK["cpu"] << (min(torch.get_num_threads(), 8) - 1).bit_length()
    return BLOCK.get(device.type, BLOCK["cpu"])


def _residual(x: Tensor, y: Tensor, center: float) -> Tensor:
    """z = y − c x."""
    return torch.sub(y, x, alpha=center) if center else y


def _batch_sums(x: Tensor, y: Tensor, center: float) -> tuple[float, float]:
    """Σ x² and Σ x z."""
    x, y = x.double(), y.double()
    return torch.dot(x, x).item(), torch.dot(x, _residual(x, y, center)).item()
