"""A plan: which samples one update sees, in which order, at which rate. Only here are the methods listed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgd.errors import InputError

if TYPE_CHECKING:  # not imported at run time: the command line's --help need not wait for torch
    from torch import Tensor

    from torchgd.batches import Batches
    from torchgd.optim import GradientDescent

LOSSES = ("mean", "sum", "half")
MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Method:
    """One method of gradient descent.

    Attributes:
        label: its name in tables and pictures.
        colour: its colour in pictures; colour-blind eyes tell the colours apart too.
        optimizer: the name of its class in :mod:`torchgd.optim`.
        samples: how many an update sees: "all", "one", or "some" (the plan's batch size).
    """

    label: str
    colour: str
    optimizer: str
    samples: str


METHODS = {
    "gd": Method("full batch", "#0072B2", "GradientDescent", "all"),
    "sgd": Method("per sample", "#D55E00", "StochasticGradientDescent", "one"),
    "minibatch": Method("mini-batch", "#009E73", "MiniBatchGradientDescent", "some"),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run descends: the method, with all that decides its updates.

    Args:
        method: a name in METHODS: "gd", "sgd" or "minibatch".
        batch_size: samples in a mini-batch; None for the other methods.
        order: "sequential", "shuffled" or "replacement"; the full batch has no order, and takes "sequential".
        seed: of the order.
        lr: the learning rate, in units of 1/x²; None is "auto", see :func:`torchgd.auto_lr`.
        loss: what is descended: the "mean" of the squares, "half" of it, or their "sum" over the batch.

    Raises:
        InputError: a value is not one of these.

    Example:
        >>> plan = Plan(method="minibatch", batch_size=2, lr=0.01)
        >>> plan.label, list(plan.batches(3))
        ('mini-batch of 2', [[0, 1], [2]])
    """

    method: str = "gd"
    batch_size: int | None = None
    order: str = "sequential"
    seed: int = 0
    lr: float | None = None
    loss: str = "mean"

    def __post_init__(self) -> None:
        orders: tuple[str, ...] = ("sequential",)
        if self.order not in orders:  # imported here, so that a wrong file is reported before torch loads
            from torchgd.batches import ORDERS

            orders = ORDERS

        for name, value, allowed in (
            ("method", self.method, METHODS),
            ("order", self.order, orders),
            ("loss", self.loss, LOSSES),
        ):
            if value not in allowed:
                raise InputError(f"{name} is {value!r}; give one of {', '.join(allowed)}")
        samples = METHODS[self.method].samples
        if samples == "some" and self.batch_size is None:
            raise InputError(f"{self.method} needs a batch size; give e.g. batch_size=2 (--batch-size 2)")
        if samples != "some" and self.batch_size is not None:
            mend = "leave out batch_size (--batch-size), or take the method minibatch"
            raise InputError(f"{self.method} takes no batch size; {mend}")
        if not 0 <= self.seed <= MOST_SEED:
            raise InputError(f"seed is {self.seed}; give a whole number from 0 to {MOST_SEED}")
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"lr is {self.lr!r}; give a finite number above 0")
        if samples == "all":
            object.__setattr__(self, "order", "sequential")

    @property
    def label(self) -> str:
        """The name in tables and pictures."""
        label = METHODS[self.method].label
        return f"{label} of {self.batch_size}" if self.batch_size else label

    @property
    def sampling(self) -> dict[str, Any]:
        """The arguments of a certificate besides the data and lr, see :func:`torchgd.stability`."""
        return {name: getattr(self, name) for name in ("method", "batch_size", "order", "loss", "seed")}

    def batch_size_of(self, n: int) -> int:
        """Samples in a batch, of n samples in all."""
        return {"all": n, "one": 1}.get(METHODS[self.method].samples, self.batch_size or 1)

    def batches(self, n: int) -> Batches:
        """The index batches of an epoch over n samples, in the order of the seed."""
        import torch

        from torchgd.batches import Batches

        return Batches(n, self.batch_size_of(n), self.order, torch.Generator().manual_seed(self.seed))

    @property
    def rate(self) -> float:
        """The learning rate, which must have been given or chosen by now."""
        if self.lr is None:
            raise InputError("the plan has no learning rate yet; give it lr")
        return self.lr

    def optimizer(self, params: Iterable[Tensor]) -> GradientDescent:
        """The method's optimizer; its own batches come in the order of the seed."""
        import torch

        from torchgd import optim

        options: dict[str, Any] = {"lr": self.rate}
        if METHODS[self.method].samples != "all":
            options |= {"order": self.order, "generator": torch.Generator().manual_seed(self.seed)}
        if self.batch_size is not None:
            options["batch_size"] = self.batch_size
        made: GradientDescent = getattr(optim, METHODS[self.method].optimizer)(params, **options)
        return made
