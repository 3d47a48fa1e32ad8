"""Affine maps w ↦ a w + b of one weight, many in order composed to a few, in memory that is kept."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

TOPS = 16  # a call of PyTorch costs as much as the composition of this many maps in Python
ONE_CALL = 1 << 13  # of more pairs two calls that touch less memory are quicker


class Tree:
    """Maps in order, composed in pairs, the pairs in pairs, and so on until few are left.

    A small level is one call, (a, b) = (0, b₂) + a₂ · (a₁, b₁), where zeros lie above the b. A large one is two,
    which touch less memory, and so is one with 1 − a, which at a small rate is not lost to rounding.

    Args:
        leaves: how many maps; there is place for some more.
        shifts: 1 for b, 2 for b and 1 − a.
        device: where the maps are.
        height: how many levels lie above the leaves; if it is not given, so many that at most TOPS maps are left.
    """

    def __init__(self, leaves: int, shifts: int, device: torch.device, height: int | None = None) -> None:
        self.height = max(0, (leaves - 1).bit_length() - TOPS.bit_length() + 1) if height is None else height
        sizes = [(-(-leaves >> self.height) << self.height) >> level for level in range(self.height + 1)]
        self.begins = [sum(sizes[:level]) for level in range(self.height + 1)]
        with torch.inference_mode(False):  # a tree serves later epochs too, in that mode or not
            self.rows = torch.zeros(shifts + 2, sum(sizes), dtype=torch.float64, device=device)
        self._levels = self.rows.split(sizes, 1)
        self._steps = []
        # The views are made once: making them costs more than the products of a small level.
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            first, then = below.unflatten(1, (-1, 2)).unbind(2)
            if shifts == 1 and above.shape[1] < ONE_CALL:
                self._steps.append(partial(torch.addcmul, then[::2], first[1:], then[1], out=above[1:]))
            else:
                self._steps.append(partial(torch.addcmul, then[2:], first[2:], then[1], out=above[2:]))
                self._steps.append(partial(torch.mul, first[1], then[1], out=above[1]))
        self.top = self._levels[-1][1:]
        self._count, self._places = -1, list[Tensor]()

    def leaves(self, count: int) -> list[Tensor]:
        """Where the a, the b and the 1 − a of the maps belong; the places left over are made the identity."""
        if count != self._count:
            self._levels[0][1, count:] = 1
            self._levels[0][2:, count:] = 0
            self._count, self._places = count, list(self._levels[0][1:, :count])
        return self._places

    def compose(self) -> Tensor:
        """The a, the b and the 1 − a of the few maps, in order, as rows."""
        for step in self._steps:
            step()
        return self.top

    def below(self, counts: list[int]) -> list[list[tuple[float, float]]]:
        """The a and b of the nodes between the last top before each count of leaves and that count, in order.

        One node for each binary digit 1 of the count, the largest first.
        """
        levels = range(self.height - 1, -1, -1)
        nodes = [[self.begins[k] + (count >> k) - 1 for k in levels if count >> k & 1] for count in counts]
        a, b = self.rows[1:3, [node for of_count in nodes for node in of_count]].tolist()
        pairs = iter(zip(a, b, strict=True))
        return [[next(pairs) for _ in of_count] for of_count in nodes]
