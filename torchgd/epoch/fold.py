"""The updates of samples in a row as one map, and their moments: what one thread does by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from torchgd.epoch_maps import EpochMap, compose_reversed, products
from torchgd.moments import Moments

# How many samples one call of PyTorch takes. From 2¹⁵ numbers on, a call on a CPU takes all threads and waits
# for the last of them, long on a busy machine; and the last bit of a sum depends on the number of threads.
PIECE = {"cpu": 15 << 11, "cuda": 1 << 24}


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


def piece(device: torch.device) -> int:
    """How many samples one call of PyTorch takes."""
    return PIECE.get(device.type, PIECE["cpu"])


def fold(x: Tensor, y: Tensor, rule: Rule, ends: list[int]) -> tuple[list[EpochMap] | None, Moments]:
    """The updates of whole batches, in order.

    Args:
        x, y: the samples.
        rule: the update.
        ends: after how many updates a map is wanted, in ascending order; the last is their number.

    Returns:
        The maps, or None if a product overflows (the updates themselves may not). The moments, if wanted.
    """
    size, longest = rule.batch_size, piece(x.device) // rule.batch_size
    scale, shift, lost, moments = 1.0, 0.0, 0.0, Moments(c=rule.center)
    found, overflows = {0: (1.0, 0.0, 0.0)}, False
    cuts = sorted({0, *range(longest, ends[-1], longest), *ends})
    for begin, end in pairwise(cuts):
        part = slice(begin * size, end * size)
        xs, ys = (x, y) if len(cuts) == 2 else (x[part], y[part])
        rows, moments = _updates(xs.double(), ys.double(), rule, moments)
        a, b, *small = (row.item() for row in compose_reversed(*rows))
        overflows = overflows or (a == 0 and _overflows(rows[0]))
        scale, shift = a * scale, a * shift + b
        lost = a * lost + small[0] if small else math.nan
        found[end] = scale, shift, lost
    if overflows or not all(math.isfinite(a + b) for a, b, _ in found.values()):
        return None, moments
    rate = 2 * rule.lr / size
    return [EpochMap(a, b * rate, rule.center, part) for a, b, part in (found[end] for end in ends)], moments


def sums(x: Tensor, y: Tensor, rule: Rule) -> Moments:
    """The moments of samples that are a part of one batch."""
    moments = Moments(c=rule.center)
    for xs, ys in zip(x.split(piece(x.device)), y.split(piece(x.device)), strict=True):
        xs = xs.double()
        z = torch.sub(ys.double(), xs, alpha=rule.center)
        total = [(xs * xs).sum().item(), (xs * z).sum().item(), (z * z).sum().item()]
        moments = moments.with_sums(len(xs), *total)
    return moments


def leaves(x: Tensor, y: Tensor, rule: Rule) -> tuple[list[float], list[float]]:
    """The a and b of each update w ← a w + b, as numbers, for composing them one after another."""
    (a, b, *_), _ = _updates(x.double(), y.double(), rule, Moments())
    return a.tolist()[::-1], (b * (2 * rule.lr / rule.batch_size)).tolist()[::-1]


def _updates(x: Tensor, y: Tensor, rule: Rule, moments: Moments) -> tuple[list[Tensor], Moments]:
    """For each batch, the last one first: a = 1 − rate Σx², b = Σxz (without the rate), and 1 − a.

    Here z = y − center · x. Results overwrite numbers that are not needed any more, because memory in the
    cache is fast.
    """
    size, rate = rule.batch_size, 2 * rule.lr / rule.batch_size
    x, z = x.flip(0), y.flip(0)
    if rule.center:
        z.sub_(x, alpha=rule.center)
    one = _one(x.device)
    if size == 1 and not (rule.small or rule.with_moments):
        products = z.mul_(x)
        return [torch.addcmul(one, x, x, value=-rate, out=x), products], moments
    zz = (z * z).sum().item() if rule.with_moments else 0.0
    products, squares = z.mul_(x), x.mul_(x)
    if rule.with_moments:
        moments = moments.with_sums(x.numel(), squares.sum().item(), products.sum().item(), zz)
    if size > 1:
        squares, products = _row_sums(squares.view(-1, size)), _row_sums(products.view(-1, size))
    small = [squares * rate] if rule.small else []
    return [torch.sub(one, squares, alpha=rate, out=squares), products, *small], moments


def _overflows(factors: Tensor) -> bool:
    """Whether a product of the first updates overflows; the first update is the last of these factors."""
    return bool(factors.abs().max() > 1 and not products(factors.flip(0)).abs().max() < math.inf)


@cache
def _one(device: torch.device) -> Tensor:
    """1, made once."""
    with torch.inference_mode(False):
        return torch.ones((), dtype=torch.float64, device=device)


def _row_sums(rows: Tensor) -> Tensor:
    """The sum of each row; short rows are added column by column, which is faster."""
    if rows.shape[1] > 3:
        return rows.sum(1)
    first, second, *others = rows.unbind(1)
    total = first + second
    for column in others:
        total += column
    return total
