"""Two optimizers on the same batches: their two curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer

from torchgd.data.dataset import Dataset
from torchgd.figures import cost_curve
from torchgd.model import LinearModel
from torchgd.picture import to_png
from torchgd.plan import Plan
from torchgd.training import train


def curves(
    optimizers: Mapping[str, Callable[..., Optimizer]],
    plan: Plan,
    data: Dataset,
    *,
    weight: float,
    epochs: int,
) -> bytes:
    """The cost of each optimizer after each epoch, as a PNG.

    Args:
        optimizers: name → a function that makes the optimizer from the parameters.
        plan: gives the batches, the same for each.
        data: the samples.
        weight: the weight before training.
        epochs: passes over the data.
    """
    histories = {}
    for name, make in optimizers.items():
        model = LinearModel(weight, device=data.inputs.device, dtype=data.inputs.dtype)
        optimizer: Any = make(model.parameters())
        histories[name] = train(model, data.x, data.y, optimizer, epochs, batches=plan.batches(len(data)))
    title = f"{data.name}, {plan.label}, lr = {plan.rate:.6g}"
    return to_png(cost_curve(histories, title=title))[0]
