"""An epoch of gradient descent on y = w·x with several features, as a matrix on the error of the weights.

The update on a batch B changes the error e = w − w* (w* a least-squares solution) by

    e ← (I − lr H_B) e + lr r_B,    H_B = s mean x xᵀ,    r_B = s mean x (y − w*·x)    (means over B),

with s = 2 for the mean loss, 1 for half of it, 2b for the sum over b samples; a bias is a feature that is 1.
An epoch in a fixed order is the product of these. If features are collinear, everything is said of
the directions that the data determine, because gradient descent never moves the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FLAT = 1e-12  # times the largest singular value; below it the data do not determine a direction
STEPS, POINTS, FINE = 0.02, 64, 24  # step over the safe limit; points of a stretch; of a near miss
SEARCHED = 20_000_000  # numbers in an epoch's matrices; above it the limit is not searched for
MOST_SQUARE = 12  # directions; with more the mean square is not computed
MANY = 60  # learning rates that are tried to find the best
LARGE = 4_000_000  # numbers of the matrices that are computed at once
Radius = Callable[[Tensor], Tensor]


class LinearEpoch:
    """One epoch in a fixed order, in the directions that the data determine: coordinates z with w = basis z.

    Args:
        x, y: shapes (n, d) and (n,), float64; a bias is a column of ones.
        batch_size: samples in a batch.
        strength: the s of the loss for a batch of this size.
    """

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, strength: Callable[[int], float]) -> None:
        u, sizes, v = torch.linalg.svd(x, full_matrices=False)
        seen = sizes > FLAT * sizes[0]
        self.basis, self.sizes = v[seen].T, sizes[seen]
        self.best = self.basis @ ((u[:, seen].T @ y) / self.sizes)
        self.z, self.left = x @ self.basis, y - x @ self.best
        self.batch_size, self.strength, self.n = batch_size, strength, len(x)

    @property
    def eigenvalues(self) -> Tensor:
        """The eigenvalues of the Hessian of the loss of all samples, descending."""
        values: Tensor = self.strength(self.n) * self.sizes.square() / self.n
        return values

    def matrices(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix of the error and its shift, for each lr: shapes (k, r, r) and (k, r)."""
        k, r = len(lr), self.z.shape[1]
        if self.batch_size == self.n:
            diagonal = torch.diag_embed(1 - lr[:, None] * self.eigenvalues)
            return diagonal, torch.zeros(k, r, dtype=torch.float64)
        joined = torch.eye(r + 1, dtype=torch.float64).expand(k, r + 1, r + 1)
        many = max(1, LARGE // (k * (r + 1) ** 2)) * self.batch_size
        for z, left in zip(self.z.split(many), self.left.split(many), strict=True):
            joined = _product(lr, *self._updates(z, left)) @ joined
        return joined[:, :r, :r], joined[:, :r, r]

    def _updates(self, z: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """H and r of each batch."""
        parts = []
        whole = len(z) - len(z) % self.batch_size
        for zs, rest, b in (
            (z[:whole], left[:whole], self.batch_size),
            (z[whole:], left[whole:], len(z) - whole),
        ):
            if len(zs):
                scale = self.strength(b) / b
                zs, rest = zs.unflatten(0, (-1, b)), rest.unflatten(0, (-1, b))
                parts.append((scale * zs.mT @ zs, scale * (zs.mT @ rest[..., None])[..., 0]))
        return torch.cat([h for h, _ in parts]), torch.cat([r for _, r in parts])

    def radius(self, lr: Tensor) -> Tensor:
        """The spectral radius of the epoch at each lr, shape (k,); inf where it overflows."""
        if self.batch_size == self.n:
            return (1 - lr[:, None] * self.eigenvalues).abs().amax(1)
        found = []
        for part in lr.split(max(1, LARGE // (self.n * (self.z.shape[1] + 1) ** 2))):
            matrices, _ = self.matrices(part)
            finite = matrices.isfinite().all(-1).all(-1)
            values = torch.linalg.eigvals(torch.where(finite[:, None, None], matrices, 0.0)).abs().amax(1)
            found.append(torch.where(finite, values, torch.inf))
        return torch.cat(found)

    def safe_limit(self) -> float:
        """2 / max λ(H_B): below it no update lengthens the error, whatever the order of these batches."""
        if self.batch_size == self.n:
            return 2 / self.eigenvalues[0].item()
        h, _ = self._updates(self.z, self.left)
        return 2 / float(torch.linalg.matrix_norm(h, 2).max())

    def settled(self, lr: float) -> Tensor:
        """The weights at which a fixed order settles, less the least-squares ones; shape (d,)."""
        matrix, shift = (part[0] for part in self.matrices(torch.tensor([lr], dtype=torch.float64)))
        lost = torch.eye(len(matrix), dtype=torch.float64) - matrix
        settled: Tensor = self.basis @ torch.linalg.solve(lost, shift)
        return settled

    def after(self, epochs: int, start: Tensor, lr: float) -> Tensor:
        """The weights after this many epochs."""
        matrix, shift = (part[0] for part in self.matrices(torch.tensor([lr], dtype=torch.float64)))
        error = start - self.best
        seen = self.basis.T @ error
        if self.batch_size == self.n:
            moved = matrix.diagonal() ** epochs * seen
        else:
            whole = torch.zeros(len(seen) + 1, len(seen) + 1, dtype=torch.float64)
            whole[:-1, :-1], whole[:-1, -1], whole[-1, -1] = matrix, shift, 1.0
            moved = (torch.linalg.matrix_power(whole, epochs) @ torch.cat([seen, seen.new_ones(1)]))[:-1]
        weights: Tensor = self.best + error - self.basis @ seen + self.basis @ moved
        return weights


def _product(lr: Tensor, h: Tensor, r: Tensor) -> Tensor:
    """The updates of these batches as one matrix on (z, 1), for each lr: shape (k, r + 1, r + 1)."""
    size = h.shape[-1]
    steps = torch.zeros(len(lr), len(h), size + 1, size + 1, dtype=torch.float64)
    rate = lr[:, None, None]
    steps[..., :size, :size] = torch.eye(size, dtype=torch.float64) - rate[..., None] * h
    steps[..., :size, size], steps[..., size, size] = rate * r, 1.0
    return joined(steps)


def joined(steps: Tensor) -> Tensor:
    """The product of matrices, the first one applied first: shape (…, count, m, m) → (…, m, m)."""
    while steps.shape[-3] > 1:
        odd = steps[..., -1:, :, :] if steps.shape[-3] % 2 else steps[..., :0, :, :]
        even = steps.shape[-3] - odd.shape[-3]
        pairs = steps[..., 1:even:2, :, :] @ steps[..., 0:even:2, :, :]
        steps = torch.cat([pairs, odd], -3)
    return steps[..., 0, :, :]


def first_limit(radius: Callable[[Tensor], Tensor], safe: float) -> float:
    """The smallest lr from ``safe`` on at which the spectral radius reaches 1, by search and bisection."""
    low = safe
    while True:
        grid = low + safe * STEPS * torch.arange(POINTS, dtype=torch.float64)
        values = radius(grid)
        near = [
            i
            for i in range(1, POINTS - 1)
            if values[i] >= max(values[i - 1], values[i + 1]) and values[i] > 0.9
        ]
        first = next((i for i in range(POINTS) if values[i] >= 1), None)
        for i in near:  # it may rise above 1 and fall between two points of the grid
            if first is not None and i >= first:
                break
            fine = torch.linspace(grid[i - 1].item(), grid[i + 1].item(), FINE, dtype=torch.float64)
            inside = radius(fine)
            if (inside >= 1).any():
                at = int((inside >= 1).nonzero()[0])
                return _bisect(radius, fine[max(at - 1, 0)].item(), fine[at].item())
        if first is not None:
            return _bisect(radius, grid[max(first - 1, 0)].item(), grid[first].item())
        low = grid[-1].item()


def _bisect(radius: Callable[[Tensor], Tensor], low: float, high: float) -> float:
    """The lr between these at which the spectral radius reaches 1; on its lower side."""
    for _ in range(60):
        middle = (low + high) / 2
        shrinks = bool(radius(torch.tensor([middle], dtype=torch.float64))[0] < 1)
        low, high = (middle, high) if shrinks else (low, middle)
    return low


class MeanSquare:
    """Batches drawn with replacement: the mean of e eᵀ after an update is a linear map of that before it.

    M ← M − lr (H M + M H) + lr² (E[h M h] / b + (1 − 1/b) H M H),    h = s x xᵀ of one sample, H its mean
    """

    def __init__(self, epoch: LinearEpoch) -> None:
        z, n = epoch.z, epoch.n
        r, size = z.shape[1], epoch.batch_size
        one = torch.eye(r, dtype=torch.float64)
        self.parts = []
        pairs = (z[:, :, None] * z[:, None, :]).flatten(1)
        for count, b in ((n // size, size), (1, n % size)):
            if b:
                s = epoch.strength(b)
                mean = s * z.T @ z / n
                fourth = s * s * pairs.T @ pairs / n  # E h ⊗ h, symmetric in all four indices
                linear = torch.kron(mean, one) + torch.kron(one, mean)
                self.parts.append((count, linear, fourth / b + (1 - 1 / b) * torch.kron(mean, mean)))

    def radius(self, lr: Tensor) -> Tensor:
        """The root of the spectral radius of an epoch on the mean square."""
        found = []
        for rate in lr.tolist():
            whole = torch.eye(len(self.parts[0][1]), dtype=torch.float64)
            for count, linear, square in self.parts:
                once = torch.eye(len(linear), dtype=torch.float64) - rate * linear + rate * rate * square
                whole = torch.linalg.matrix_power(once, count) @ whole
            finite = bool(whole.isfinite().all())
            found.append(torch.linalg.eigvals(whole).abs().max().item() ** 0.5 if finite else math.inf)
        return torch.tensor(found, dtype=torch.float64)

    def limit(self) -> float:
        """The lr at which the radius reaches 1: 1/λmax of L⁻¹ Q for a map I − lr L + lr² Q."""
        ends = [
            1 / torch.linalg.eigvals(torch.linalg.solve(linear, square)).real.max().item()
            for _, linear, square in self.parts
        ]
        return ends[0] if len(ends) == 1 else _bisect(self.radius, 0.5 * min(ends), max(ends))


def limit_of(epoch: LinearEpoch, order: str) -> tuple[float, bool, Radius | None]:
    """The limit of lr, whether a larger one is known to diverge, and the spectral radius if it is known."""
    large = epoch.n * epoch.z.shape[1] ** 2 > SEARCHED
    if epoch.batch_size == epoch.n and order != "replacement":
        return epoch.safe_limit(), True, epoch.radius
    if order == "sequential":
        safe = epoch.safe_limit()
        return (safe, False, None) if large else (first_limit(epoch.radius, safe), True, epoch.radius)
    if order == "replacement" and epoch.z.shape[1] <= MOST_SQUARE:
        mean_square = MeanSquare(epoch)
        return mean_square.limit(), True, mean_square.radius
    # No batch is steeper than its steepest sample.
    return 2 / (epoch.strength(epoch.batch_size) * epoch.z.square().sum(1).max().item()), False, None


def best_rate(epoch: LinearEpoch, order: str, limit: float, radius: Radius | None, epochs: int) -> float:
    """Full batch: 2/(λmin + λmax). Else the lr that ends nearest to least squares after these epochs."""
    if epoch.batch_size == epoch.n and order != "replacement":
        return 2 / (epoch.eigenvalues[0] + epoch.eigenvalues[-1]).item()
    if radius is None:
        return limit / 2
    rates = limit * 10 ** torch.linspace(-5, math.log10(0.99), MANY, dtype=torch.float64)
    kept = radius(rates) ** epochs
    if order == "sequential":
        size = epoch.best.norm().item() or 1.0
        kept = torch.hypot(kept, torch.stack([epoch.settled(lr).norm() / size for lr in rates.tolist()]))
    return rates[kept.argmin()].item()
