"""One pass over the samples of an epoch: threads compose its updates, and meet at its end.

Each thread composes the updates of some samples in a row. Which samples, and in which order all is
composed, depends on the data alone, so that any number of threads gives the same bits.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import TypeVar

import torch
from torch import Tensor

from torchgd.epoch.blocks import Block, a_thousand, checked, refuse_non_finite, rough_weight
from torchgd.epoch.fold import Rule, fold, leaves, piece, sums
from torchgd.epoch_maps import EpochMap, number_or_inf, times
from torchgd.errors import InputError
from torchgd.moments import Moments

Part = TypeVar("Part")
Found = TypeVar("Found")
PIECES = 8  # pieces that a thread takes at once, so that distributing them costs little


@dataclass(frozen=True)
class _Part:
    """Samples in a row: whole batches, or some samples of one batch; the batch ends here if ends has one.

    Args:
        x, y: the samples.
        first: the index of the first of them.
        ends: after how many of the part's updates a map is wanted; the last is their number.
        of_batch: for some samples of one batch, how many of the batch there are up to their end; else 0.
    """

    x: Tensor
    y: Tensor
    first: int
    ends: list[int]
    of_batch: int


def _work(rule: Rule, part: _Part) -> tuple[list[EpochMap] | None, Moments]:
    """What one thread does alone."""
    if part.of_batch:
        return None, sums(part.x, part.y, rule)
    return fold(part.x, part.y, rule, part.ends)


def in_threads(
    work: Callable[[Part], Found], parts: Iterable[Part], x: Tensor
) -> Iterator[tuple[Part, Found]]:
    """Each part with its result, in order; computed by all threads if x, the whole, is large.

    This thread takes parts as the others do. At the end it waits for them no longer than a part took, because
    a busy machine may stop a thread for long; this thread then computes that part again.
    """
    if x.device.type != "cpu" or x.numel() < 2 * PIECES * piece(x.device):
        yield from ((part, work(part)) for part in parts)
        return
    parts, began = list(parts), time.monotonic()
    todo, found = deque(range(len(parts))), dict[int, Found]()

    def take_parts() -> None:
        while True:
            try:
                i = todo.popleft()
            except IndexError:
                return
            found[i] = work(parts[i])

    others = [Thread(target=take_parts) for _ in range(torch.get_num_threads() - 1)]
    try:
        for other in others:
            other.start()
        take_parts()
    finally:
        todo.clear()  # also after an interruption
    for other in others:
        other.join((time.monotonic() - began) / len(parts) * len(others))
    for i, part in enumerate(parts):
        yield part, found[i] if i in found else work(part)


class OnePass:
    """The state between parts: the map so far, and the batch that is still open."""

    def __init__(
        self, lr: float, batch_size: int, stops: Sequence[int] | Tensor = (), *, with_moments: bool = False
    ) -> None:
        if not (math.isfinite(lr) and lr > 0):
            raise InputError(f"lr must be finite and above 0, not {lr}; give e.g. 0.01")
        if not batch_size >= 1:
            what = f"batch_size must be 1 or more, not {batch_size}"
            raise InputError(f"{what}; give the samples of one update")
        self.rule = Rule(lr, batch_size, with_moments=with_moments)
        self.stops = [int(stop) for stop in stops]  # those not yet reached
        if self.stops != sorted(self.stops) or min(self.stops, default=0) < 0:
            raise InputError("stops must ascend from 0; sort them")
        self.map = EpochMap()
        self.maps: list[EpochMap] = []
        self.samples = self.updates = self.open = 0  # open: samples so far in the open batch
        self.moments = self.batch = Moments()  # batch: those of the open batch

    def over(self, blocks: Iterable[Block]) -> list[EpochMap]:
        """Read the blocks; returns the maps at the stops, and the map of the whole epoch last."""
        for x, y in checked(blocks):
            if self.samples == 0:
                self._begin(x, y)
            for part, found in in_threads(partial(_work, self.rule), self._parts(x, y), x):
                self._take(part, *found)
        if self.open:
            self._close(self.open, self._ends(1))
        if self.stops:
            raise InputError(f"stop {self.stops[0]} is beyond the epoch, which has {self.updates} updates")
        return [*self.maps, self.map]

    def _begin(self, x: Tensor, y: Tensor) -> None:
        """Choose the centre, and whether 1 − scale is carried, from a thousand samples of the first block."""
        squares, rule = a_thousand(x).square(), self.rule
        mean, most = (2 * rule.lr * value.item() for value in (squares.mean(), squares.max()))
        strong = (most if rule.batch_size == 1 else mean) > 1
        center = rough_weight(x, y) if strong or rule.with_moments else 0.0
        small = mean * x.numel() <= rule.batch_size
        self.rule = Rule(rule.lr, rule.batch_size, center, small, rule.with_moments)
        self.map = EpochMap(center=self.rule.center)
        self.moments = self.batch = Moments(c=self.rule.center)

    def _parts(self, x: Tensor, y: Tensor) -> Iterator[_Part]:
        """Cut a block into parts."""
        size, length, begin, n = self.rule.batch_size, piece(x.device), 0, x.numel()
        while begin < n:
            most = min(n - begin, PIECES * length)
            if self.open == 0 and size <= min(most, length):
                count, of_batch = most // size * size, 0
                ends = self._ends(count // size)
            else:
                count = min(most, size - self.open)
                of_batch = self.open + count
                self.open = of_batch % size
                ends = [] if self.open else self._ends(1)
            end = begin + count
            samples = (x, y) if count == n else (x[begin:end], y[begin:end])
            yield _Part(*samples, self.samples, ends, of_batch)
            begin = end
            self.samples += count

    def _take(self, part: _Part, maps: list[EpochMap] | None, moments: Moments) -> None:
        """Compose what a thread has found with the map so far."""
        sums = moments.n, moments.xx, moments.xz, moments.zz
        if self.rule.with_moments:
            self.moments = self.moments.with_sums(*sums)
        if part.of_batch:
            self.batch = self.batch.with_sums(*sums)
            if not math.isfinite(self.batch.xx + self.batch.xz):
                refuse_non_finite(part.x, part.y, part.first)
            if part.ends:
                self._close(part.of_batch, part.ends)
        elif maps is not None:
            self._move([self.map.then(each) for each in maps])
        else:
            self._piece_by_piece(part)

    def _piece_by_piece(self, part: _Part) -> None:
        """Do the updates of a piece one after another, because the product of their maps overflows."""
        rule, done = replace(self.rule, with_moments=False), 0
        length = piece(part.x.device) // rule.batch_size * rule.batch_size
        for x, y in zip(part.x.split(length), part.y.split(length), strict=True):
            updates = len(x) // rule.batch_size
            stops = [end - done for end in part.ends[:-1] if done < end <= done + updates or end == done == 0]
            maps, _ = fold(x, y, rule, [*stops, updates])
            if maps is None:
                refuse_non_finite(x, y, part.first + done * rule.batch_size)
                self._in_order(*leaves(x, y, rule), [*stops, updates])
            else:
                self._move([self.map.then(each) for each in maps])
            done += updates

    def _close(self, samples: int, ends: list[int]) -> None:
        """Compose the update of the open batch."""
        rate = 2 * self.rule.lr / samples
        lost = rate * self.batch.xx
        after = self.map.then(EpochMap(1 - lost, rate * self.batch.xz, self.map.center, lost))
        self._move([after if end else self.map for end in ends])
        self.batch = Moments(c=self.rule.center)

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
        """Count the next updates as taken; returns the stops among them, and their number last."""
        self.updates += rows
        within = bisect_right(self.stops, self.updates)
        ends = [stop - self.updates + rows for stop in self.stops[:within]]
        del self.stops[:within]
        return [*ends, rows]

    def _move(self, maps: list[EpochMap]) -> None:
        """Keep the maps at the stops; the last is the map so far."""
        *at_stops, self.map = maps
        self.maps += at_stops
