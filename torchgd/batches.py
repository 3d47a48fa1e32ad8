"""Which samples one update sees: the index batches of an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from torchgd.errors import InputError

ORDERS = ("sequential", "shuffled", "replacement")


class Batches(Sampler[list[int]]):
    """The index batches of one epoch over n samples; each iteration is a fresh epoch.

    It is a ``batch_sampler`` as :class:`torch.utils.data.DataLoader` takes it.

    Args:
        n: the number of samples.
        batch_size: samples in a batch, 1 … n; the last batch holds the rest.
        order: "sequential" (0 … n−1), "shuffled" (a fresh permutation an epoch) or
            "replacement" (n independent draws an epoch).
        generator: where the randomness comes from; PyTorch's global one if not given.

    Example:
        >>> list(Batches(5, batch_size=2))
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, n: int, batch_size: int, order: str = "sequential", generator: torch.Generator | None = None
    ) -> None:
        check_order(order)
        if n < 1:
            raise InputError("there are no samples; give at least one")
        if not (isinstance(batch_size, int) and 1 <= batch_size <= n):
            raise InputError(f"batch_size is {batch_size}, but there are {n} samples; give 1 to {n}")
        self.n, self.batch_size, self.order, self.generator = n, batch_size, order, generator

    def indices(self) -> Tensor:
        """The samples of one fresh epoch in the order in which they are seen; int64, shape (n,)."""
        if self.order == "shuffled":
            return torch.randperm(self.n, generator=self.generator, device="cpu")
        if self.order == "replacement":
            return torch.randint(self.n, (self.n,), generator=self.generator, device="cpu")
        return torch.arange(self.n, device="cpu")

    def state(self) -> Tensor | None:
        """The state of the generator, from which the next epoch's order follows; None in a fixed order."""
        return None if self.order == "sequential" else self._random.get_state()

    def restore(self, state: Tensor | None) -> None:
        """Set the generator to this :meth:`state`, which decides the next epoch; None changes nothing."""
        if state is not None and self.order != "sequential":
            self._random.set_state(state)

    @property
    def _random(self) -> torch.Generator:
        return self.generator or torch.default_generator

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.indices().split(self.batch_size):
            yield batch.tolist()

    def __len__(self) -> int:
        return math.ceil(self.n / self.batch_size)

    def samples_after(self, updates: int) -> int:
        """The number of samples seen after this number of updates, epoch after epoch."""
        epochs, rest = divmod(updates, len(self))
        return epochs * self.n + rest * self.batch_size


def check_order(order: str) -> None:
    """Raise InputError for an order that is not in ORDERS."""
    if order not in ORDERS:
        raise InputError(f"order is {order!r}; give one of {', '.join(ORDERS)}")
