"""Every learning rate at which a fixed sequence of updates converges.

One epoch multiplies the error by P(lr) = Π (1 − lr hⱼ)^cⱼ, with hⱼ > 0 the distinct curvatures and cⱼ how
often each occurs. It converges where |P| < 1. With v = log lr and the zeros of P at pⱼ = −log hⱼ,

    log|P| = Σ cⱼ k(v − pⱼ),    k(d) = log|exp d − 1|,

and k is concave on either side of its pole. So log|P| is concave between two neighbouring zeros and has at
most two roots there; after the last zero it rises without limit and has one. Every root has its own bracket.

A million updates have a million gaps. They are searched as a tree: over a narrow stretch of v the zeros far
away add up to a smooth function, which a polynomial of degree 20 gives to rounding (its Bernstein ellipse
reaches to the nearest far zero, at 3 half-widths: 5.8⁻²¹ < 2⁻⁵³); a stretch where all is on one side is
skipped. The far zeros themselves are summed by cells: 21 weighted zeros in each give the same far function.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.chebyshev import chebval, chebvander
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEGREE = 20
NODES = -np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE)  # both ends of [-1, 1] are among them
COEFFICIENTS = np.linalg.inv(chebvander(NODES, DEGREE))
WIDEST = 4.0  # so the complex poles of k, at ±2πi, are as far away as the far zeros
FEW = 64  # zeros that are summed one by one
MANY = 10_000  # for more zeros a bound replaces the sum
BLOCK = 1 << 15  # numbers in a block of a large sum
SMALLEST = 53 * np.log(2)  # in float64 a factor 1 − lr h is 0 or at least 2⁻⁵³


def converging_intervals(curvatures: Array, weights: Array | None = None) -> tuple[tuple[float, float], ...]:
    """The open intervals of lr > 0 with |Π (1 − lr h)| < 1, in rising order; the first begins at 0.

    An interval of no more than a few float64 numbers (around a zero at a far too large lr) is left out.

    Args:
        curvatures: hⱼ ≥ 0, one for each update, shape (m,), in units of 1/lr; not all 0.
        weights: how often each update is done in an epoch, on average, shape (m,); once if not given.

    Example:
        >>> for low, high in converging_intervals(np.array([2.0, 8.0, 18.0])):  # the course, per sample
        ...     print(round(low, 8), round(high, 8))
        0.0 0.20401794
        0.47653762 0.51901447
    """
    moving = curvatures > 0
    if weights is None:
        distinct, counts = np.unique(curvatures[moving], return_counts=True)
    else:
        distinct, which = np.unique(curvatures[moving], return_inverse=True)
        counts = np.bincount(which, weights[moving])
    if len(distinct) == 1:
        return ((0.0, 2.0 / float(distinct[0])),)
    scale = distinct[-1]
    zeros = np.log(scale) - np.log(distinct[::-1])  # rising from 0
    first = np.flatnonzero(np.diff(zeros, prepend=-1.0))  # neighbours may have the same logarithm
    joined = np.add.reduceat(counts[::-1].astype(np.float64), first)
    if len(first) == 1:
        return ((0.0, 2.0 / float(scale)),)
    diverging = _diverging(_Zeros(zeros[first], joined))
    intervals = [(0.0, diverging[0][0])]
    intervals += [(low, high) for (_, low), (high, _) in itertools.pairwise(diverging)]
    # An interval must contain a few float64 numbers to be found: 8 roundings of v.
    wide = [(a, b) for a, b in intervals if a == 0 or b - a > 8 * np.spacing(max(1.0, b))]
    return tuple((float(np.exp(a) / scale) if a else 0.0, float(np.exp(b) / scale)) for a, b in wide)


class _Zeros:
    """The zeros of P in rising order from 0, how often each occurs, and in cells of width WIDEST · 2⁻ˡ.

    From a cell's width away or farther, 21 zeros with weights at its nodes replace the zeros in it.
    """

    def __init__(self, places: Array, counts: Array) -> None:
        self.places, self.counts = places, counts
        self.levels = max(0, int(np.log2(max(1, len(places) / FEW) * WIDEST / (places[-1] + WIDEST))))
        width = WIDEST / 2**self.levels
        cells = 2**self.levels * int(places[-1] / WIDEST + 1)
        moments = np.zeros((cells, DEGREE + 1))
        for start in range(0, len(places), BLOCK):
            some = places[start : start + BLOCK] / width
            cell = np.minimum(some.astype(np.int64), cells - 1)
            values = chebvander(2 * (some - cell) - 1, DEGREE) * counts[start : start + BLOCK, None]
            first = np.flatnonzero(np.diff(cell, prepend=-1))
            moments[cell[first]] += np.add.reduceat(values, first)
        self.weights = [moments @ COEFFICIENTS]
        halves = [(chebvander((NODES + side) / 2, DEGREE) @ COEFFICIENTS) for side in (-1, 1)]
        for _ in range(self.levels):  # from the finest cells up, two join to one
            left, right = self.weights[-1][0::2], self.weights[-1][1::2]
            self.weights.append(left @ halves[0] + right @ halves[1])
        self.weights.reverse()

    def near(self, low: float, high: float) -> tuple[int, int, int]:
        """The zeros within a width of this stretch, from whole cell to whole cell, and the cells' level."""
        width = high - low
        level = max(0, int(np.ceil(np.log2(WIDEST / width))))
        if level > self.levels:
            first, last = np.searchsorted(self.places, [low - width, high + width], side="right")
            return int(first), int(last), level
        cell = WIDEST / 2**level
        ends = np.array([np.floor((low - width) / cell) * cell, np.ceil((high + width) / cell) * cell])
        first, last = np.searchsorted(self.places, ends, side="left")
        return int(first), int(last), level

    def far_sum(self, v: Array, part: slice, level: int) -> Array:
        """Σ cⱼ k(v − pⱼ) over this part of the zeros, for v all a cell's width or more away."""
        cell, count = WIDEST / 2**level, part.stop - part.start
        if count <= FEW or level > self.levels:
            return _sum(v, self.places[part], self.counts[part])
        first = int(self.places[part.start] / cell)
        last = int(self.places[part.stop - 1] / cell) + 1
        if (last - first) * (DEGREE + 1) >= count:
            return _sum(v, self.places[part], self.counts[part])
        nodes = (np.arange(first, last)[:, None] + (NODES + 1) / 2) * cell
        return _sum(v, nodes.ravel(), self.weights[level][first:last].ravel())


@dataclass(frozen=True)
class _Stretch:
    """log|P| for low ≤ v ≤ high: the zeros near it one by one, those far away as a polynomial."""

    zeros: _Zeros
    low: float
    high: float
    near: slice
    far: Array  # the polynomial's values at the nodes

    def nodes(self) -> Array:
        return self.low + (NODES + 1) / 2 * (self.high - self.low)

    def smooth(self, v: Array) -> Array:
        position = (2 * v - self.low - self.high) / (self.high - self.low)
        return np.asarray(chebval(position, COEFFICIENTS @ self.far))

    def __call__(self, v: Array) -> Array:
        return self.smooth(v) + _sum(v, self.zeros.places[self.near], self.zeros.counts[self.near])

    def narrow(self, low: float, high: float) -> _Stretch:
        """The same function on a part of the stretch; zeros far from this part join the polynomial."""
        first, last, level = self.near.start, self.near.stop, 0
        if high - low <= WIDEST:
            first, last, level = self.zeros.near(low, high)
            first, last = max(first, self.near.start), min(last, self.near.stop)
        child = _Stretch(self.zeros, low, high, slice(first, last), self.far)
        v = child.nodes()
        far = self.smooth(v)
        for left in (slice(self.near.start, first), slice(last, self.near.stop)):
            if left.stop > left.start:
                far = far + self.zeros.far_sum(v, left, level)
        return _Stretch(self.zeros, low, high, child.near, far)

    def side(self) -> int:
        """+1 if no float64 in the stretch converges, −1 if all do, 0 if this is not yet known."""
        zeros, counts = self.zeros.places[self.near], self.zeros.counts[self.near]
        if min(self.far[0], self.far[-1]) > SMALLEST * counts.sum():  # concave, so smallest at an end
            return 1
        # Concave, so between two nodes it rises above both by at most 3 times the largest difference.
        top = self.far.max() + 3 * (self.far.max() - self.far.min())
        with np.errstate(divide="ignore"):
            if len(zeros) > MANY:  # the first and the last zero are farthest from the ends
                farthest = np.array([self.high - zeros[0], self.low - zeros[-1]])
                return -1 if top + counts.sum() * _kernel(farthest).max() < 0 else 0
            largest = np.maximum(_kernel(self.low - zeros), _kernel(self.high - zeros))
        return -1 if top + counts @ largest < 0 else 0


def _diverging(zeros: _Zeros) -> list[tuple[float, float]]:
    """The stretches of v on which log|P| ≥ 0, in rising order; the last one has no end."""
    # Beyond the last zero every factor is above 1 for lr ≥ 2/h.
    edges = np.append(zeros.places, zeros.places[-1] + np.log(3))
    everything = slice(0, len(zeros.places))
    whole = _Stretch(zeros, edges[0], edges[-1], everything, np.zeros(DEGREE + 1))
    found: list[tuple[float, float]] = []
    stack = [(0, len(zeros.places), whole)]  # gaps first … last − 1; gap i lies between edges i and i + 1
    while stack:
        first, last, parent = stack.pop()
        stretch = parent.narrow(edges[first], edges[last])
        side = stretch.side()
        if side > 0:
            found.append((edges[first], edges[last]))
        elif side == 0 and (last - first == 1 or stretch.near.stop - stretch.near.start <= FEW):
            found.extend(_in_gaps(stretch, edges[first:last], edges[first + 1 : last + 1]))
        elif side == 0:
            middle = int(np.searchsorted(edges, (edges[first] + edges[last]) / 2))
            middle = min(max(middle, first + 1), last - 1)
            stack += [(middle, last, stretch), (first, middle, stretch)]
    return found


def _in_gaps(f: _Stretch, low: Array, high: Array) -> list[tuple[float, float]]:
    """The part of each gap on which f > 0: f is concave there, so that part is one interval or none."""
    left, right = low, high
    for _ in range(60):  # (2/3)^60 < 1e-10 of the gap: f is flat at its peak, so f(peak) is right to rounding
        third = (right - left) / 3
        a, b = left + third, right - third
        at_a, at_b = np.split(f(np.concatenate([a, b])), 2)
        rises = at_a < at_b
        left, right = np.where(rises, a, left), np.where(rises, right, b)
    peak = (left + right) / 2
    above = f(peak) > 0
    low, high, peak = low[above], high[above], peak[above]
    return list(zip(_root(f, low, peak).tolist(), _root(f, high, peak).tolist(), strict=True))


def _root(f: _Stretch, below: Array, above: Array) -> Array:
    """Bisect between a point with f ≤ 0 and one with f > 0, for all pairs at once."""
    for _ in range(60):
        middle = (below + above) / 2
        positive = f(middle) > 0
        below, above = np.where(positive, below, middle), np.where(positive, middle, above)
    return (below + above) / 2


def _kernel(d: Array) -> Array:
    """log|exp d − 1|."""
    d = np.minimum(d, 700.0)  # exp overflows beyond, where a curvature is 10³⁰⁰ times another
    return np.log(np.abs(np.expm1(d, out=d), out=d), out=d)


def _sum(v: Array, zeros: Array, counts: Array) -> Array:
    """Σ cⱼ k(v − pⱼ) for each v, in blocks that fit into the cache."""
    total = np.zeros_like(v)
    step = max(1, BLOCK // max(1, len(v)))
    with np.errstate(divide="ignore"):
        for start in range(0, len(zeros), step):
            block = slice(start, start + step)
            total += _kernel(v[:, None] - zeros[block]) @ counts[block]
    return total
