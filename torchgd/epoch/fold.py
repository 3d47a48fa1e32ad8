"""The updates of samples in a row as one map, and their moments: what one thread does by itself."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from torchgd.epoch.tree import Tree
from torchgd.epoch_maps import EpochMap
from torchgd.moments import Moments

# How many samples one call of PyTorch takes. From 2¹⁵ numbers on a call takes all threads of a CPU and waits for
# the last of them, which on a busy machine may be away; and the last bit of a sum depends on how many they are.
PIECE = {"cpu": 15 << 11, "cuda": 1 << 22}
LOW = 5  # levels of a tree over each of many pieces, whose tops are the leaves of another


def piece(device: torch.device) -> int:
    """How many samples one call of PyTorch takes."""
    return PIECE.get(device.type, PIECE["cpu"])


@dataclass(frozen=True)
class Rule:
    """The update of every batch: w ← w − 2 lr / batch_size · Σ x (w x − y) over its samples.

    Args:
        lr: the learning rate.
        batch_size: samples per update.
        center: the weight about which maps and moments are written.
        small: whether 1 − scale is carried beside the scale, because it may be small.
        with_moments: whether the moments are wanted too.
    """

    lr: float
    batch_size: int
    center: float = 0.0
    small: bool = False
    with_moments: bool = False

    @property
    def rate(self) -> float:
        """What multiplies the sums of a batch."""
        return 2 * self.lr / self.batch_size


class Space:
    """Memory to work in, kept for the next fold: fresh memory costs more than the arithmetic in it."""

    def __init__(self) -> None:
        self.trees: dict[tuple[int, int, torch.device, int | None], Tree] = {}
        self.scratch: dict[torch.device, Tensor] = {}

    def tree(self, leaves: int, shifts: int, device: torch.device, height: int | None = None) -> Tree:
        """A tree with place for the leaves, and for up to an eighth more."""
        step = 1 << max(0, leaves.bit_length() - 4)
        key = -(-leaves // step) * step, shifts, device, height
        if key not in self.trees:
            if len(self.trees) == 16:
                self.trees.clear()
            self.trees[key] = Tree(*key)
        return self.trees[key]

    def rows(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Two rows of as many numbers."""
        if device not in self.scratch:
            with torch.inference_mode(False):
                self.scratch[device] = torch.empty(2, piece(device), dtype=torch.float64, device=device)
        first, second = self.scratch[device][:, :count]
        return first, second


_spaces: list[Space] = []  # those at rest; append and pop are atomic


def fold(x: Tensor, y: Tensor, rule: Rule, stops: list[int]) -> tuple[list[EpochMap] | None, Moments]:
    """The updates of whole batches, in order.

    Returns:
        The maps up to the stops, which count updates from 1 on, and last the map of all; None where a product
        overflows, as the updates need not. The moments, of which zz is 0 unless it is wanted.
    """
    space = _spaces.pop() if _spaces else Space()
    length = piece(x.device) // rule.batch_size * rule.batch_size
    low = LOW if x.numel() > 2 * length and not stops else None
    moments, updates, before = Moments(c=rule.center), 0, (1.0, 0.0, 0.0)
    found: list[tuple[float, ...]] = []
    lows: list[Tensor] = []
    for xs, ys in _pieces(x, y, length):
        count = xs.numel() // rule.batch_size
        tree = space.tree(count, 1 + rule.small, x.device, low)
        moments = _plant(xs, ys, rule, tree.leaves(count), space, moments)
        if low:
            lows.append(tree.compose().clone())
            continue
        tops = tree.compose().tolist()
        if stops:
            here = stops[len(found) : bisect_right(stops, updates + count)]
            found += _prefixes(tree, tops, [stop - updates for stop in here], before)
        updates, before = updates + count, _composed(before, tops)
    if low:
        rows = torch.cat(lows, 1)
        tree = space.tree(rows.shape[1], 1 + rule.small, x.device)
        for place, row in zip(tree.leaves(rows.shape[1]), rows, strict=True):
            place.copy_(row)
        before = _composed(before, tree.compose().tolist())
    _spaces.append(space)
    found.append(before)
    if not all(math.isfinite(a + b) for a, b, *_ in found):
        return None, moments
    maps = [EpochMap(a, b * rule.rate, rule.center) for a, b, *_ in found]
    return ([*maps[:-1], replace(maps[-1], lost=before[2])] if rule.small else maps), moments


def _pieces(x: Tensor, y: Tensor, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples in float64, so many at a time."""
    if x.numel() <= length:  # split costs as much as a small piece
        yield x.double(), y.double()
    else:
        for xs, ys in zip(x.split(length), y.split(length), strict=True):
            yield xs.double(), ys.double()


def _composed(before: tuple[float, float, float], tops: list[list[float]]) -> tuple[float, float, float]:
    """The scale, the shift and where it is carried 1 − scale, after some maps more."""
    scale, shift, lost = before
    if len(tops) == 2:
        for a, b in zip(*tops, strict=True):
            scale, shift = a * scale, a * shift + b
    else:
        for a, b, part in zip(*tops, strict=True):
            scale, shift, lost = a * scale, a * shift + b, a * lost + part
    return scale, shift, lost


def sums(x: Tensor, y: Tensor, rule: Rule) -> Moments:
    """The moments of samples, of which zz is 0 unless it is wanted."""
    space = _spaces.pop() if _spaces else Space()
    moments = Moments(c=rule.center)
    for xs, ys in _pieces(x, y, piece(x.device)):
        first, second = space.rows(len(xs), x.device)
        z = torch.sub(ys, xs, alpha=rule.center, out=second)
        xx, xz = torch.mul(xs, xs, out=first).sum().item(), torch.mul(xs, z, out=first).sum().item()
        zz = torch.mul(z, z, out=first).sum().item() if rule.with_moments else 0.0
        moments = moments.with_sums(len(xs), xx, xz, zz)
    _spaces.append(space)
    return moments


def leaves(x: Tensor, y: Tensor, rule: Rule) -> tuple[list[float], list[float]]:
    """The a and b of each update of a piece, as numbers, to be composed one after another."""
    count = len(x) // rule.batch_size
    places = Tree(count, 1 + rule.small, x.device).leaves(count)
    _plant(x.double(), y.double(), rule, places, Space(), Moments())
    return places[0].tolist(), (places[1] * rule.rate).tolist()


def _plant(
    x: Tensor, y: Tensor, rule: Rule, places: list[Tensor], space: Space, moments: Moments
) -> Moments:
    """Write a = 1 − rate Σx² and b = Σxz, of which the rate is left out, for each batch; z = y − center · x."""
    size, rate = rule.batch_size, rule.rate
    a, b = places[:2]
    one = _one(x.device)
    if size == 1 and not (rule.small or rule.with_moments):
        z = torch.sub(y, x, alpha=rule.center) if rule.center else y
        torch.addcmul(one, x, x, value=-rate, out=a)
        torch.mul(x, z, out=b)
        return moments
    first, second = space.rows(len(x), x.device)
    z = torch.sub(y, x, alpha=rule.center, out=second) if rule.center else y
    xx = xz = zz = 0.0
    squares = torch.mul(x, x, out=first)
    if rule.with_moments:
        xx = squares.sum().item()
    of_batch = squares if size == 1 else _row_sums(squares.view(-1, size), a)
    if rule.small:
        torch.mul(of_batch, rate, out=places[2])
    torch.sub(one, of_batch, alpha=rate, out=a)
    products = torch.mul(x, z, out=b if size == 1 else first)
    if size > 1:
        _row_sums(products.view(-1, size), b)
    if rule.with_moments:
        xz, zz = products.sum().item(), torch.mul(z, z, out=first).sum().item()
    return moments.with_sums(len(x), xx, xz, zz)


@cache
def _one(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.ones((), dtype=torch.float64, device=device)


def _row_sums(rows: Tensor, out: Tensor) -> Tensor:
    """The sum of each row: of short rows by columns, which is the quicker."""
    if rows.shape[1] > 3:
        return torch.sum(rows, 1, out=out)
    first, second, *others = rows.unbind(1)
    torch.add(first, second, out=out)
    for column in others:
        out.add_(column)
    return out


def _prefixes(
    tree: Tree, tops: list[list[float]], counts: list[int], before: tuple[float, float, float]
) -> list[tuple[float, float]]:
    """The scale and shift up to each count of leaves of the tree, from those before the tree."""
    at_top = [before[:2]]
    for a, b in zip(tops[0], tops[1], strict=True):
        scale, shift = at_top[-1]
        at_top.append((a * scale, a * shift + b))
    found = []
    for count, nodes in zip(counts, tree.below(counts), strict=True):
        scale, shift = at_top[count >> tree.height]
        for a, b in nodes:
            scale, shift = a * scale, a * shift + b
        found.append((scale, shift))
    return found
