"""Affine maps w ↦ a w + b of one weight, many in order composed to one, in memory that is kept."""

from __future__ import annotations

import torch
from torch import Tensor


class Tree:
    """Maps w ↦ a w + b in order, composed in pairs, the pairs in pairs, and so on up to one.

    Node 1 of the heap is the whole, nodes 2i and 2i + 1 are the earlier and the later half of node i,
    and node 0 is the identity. There are 2^height leaves.
    """

    def __init__(self, height: int, device: torch.device) -> None:
        self.height = height
        with torch.inference_mode(False):  # a tree serves later epochs too, in that mode or not
            self.heap = torch.empty(2, 2 << self.height, dtype=torch.float64, device=device)
        self.heap[:, 0] = torch.tensor([1.0, 0.0])
        a, b = self.heap.unbind()
        (a1, a2), (b1, b2) = a.view(-1, 2).unbind(1), b.view(-1, 2).unbind(1)
        levels = [1, *(1 << depth for depth in range(self.height))]  # how many nodes have two halves, on each
        rows = (a1, a2, b1, b2, a[: 1 << self.height], b[: 1 << self.height])
        # The views are made once: making them costs as much as the products of a small level.
        self.steps = list(zip(*(row.split(levels)[:0:-1] for row in rows), strict=True))

    def leaves(self, count: int) -> tuple[Tensor, Tensor]:
        """Where the a and b of the maps belong; the places left over are made the identity."""
        a, b = self.heap[:, 1 << self.height :]
        a[count:], b[count:] = 1, 0
        return a[:count], b[:count]

    def compose(self) -> tuple[float, float]:
        """The whole: on every level (a₂, b₂) ∘ (a₁, b₁) = (a₂ a₁, a₂ b₁ + b₂)."""
        for a1, a2, b1, b2, a, b in self.steps:
            torch.addcmul(b2, a2, b1, out=b)
            torch.mul(a2, a1, out=a)
        scale, shift = self.heap[:, 1].tolist()
        return scale, shift

    def prefixes(self, counts: list[int]) -> list[tuple[float, float]]:
        """The maps of the first so many leaves: one node for each binary digit 1 of the count."""
        digits = torch.arange(self.height, -1, -1, device=self.heap.device).unsqueeze(1)
        above = torch.tensor(counts, device=self.heap.device) >> digits  # nodes of each size before the count
        nodes = ((1 << (self.height - digits)) + above - 1) * (above & 1)
        factors, terms = self.heap[:, nodes]
        scale, shift = torch.ones_like(factors[0]), torch.zeros_like(terms[0])
        for a, b in zip(factors, terms, strict=True):
            shift = torch.addcmul(b, a, shift)
            scale = a * scale
        return list(zip(scale.tolist(), shift.tolist(), strict=True))
