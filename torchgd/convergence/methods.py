"""What an epoch of a plan does to the error."""

from __future__ import annotations

from torchgd.convergence.epochs import FixedOrder, Updates
from torchgd.convergence.random_epochs import RandomEpoch, Replacement
from torchgd.convergence.shuffled_batches import ShuffledBatches
from torchgd.convergence.shuffled_samples import ShuffledSamples
from torchgd.errors import InputError
from torchgd.plan import Plan
from torchgd.samples import Numbers, samples

Epoch = FixedOrder | RandomEpoch


def epoch_of(
    x: Numbers,
    y: Numbers,
    *,
    method: str,
    batch_size: int | None = None,
    order: str = "sequential",
    loss: str = "mean",
    seed: int = 0,
) -> Epoch:
    """What an epoch does to the error, in fixed batches, per sample in random order, or in random batches.

    Arguments and errors as for :func:`torchgd.stability`.
    """
    plan = Plan(method=method, batch_size=batch_size, order=order, loss=loss, seed=seed)
    x, y = samples(x, y)
    largest = x.abs().max().item()
    if not 1e-150 < largest < 1e150:  # x² and 1/x² must fit float64
        raise InputError(f"the largest |x| is {largest:g}, its square is out of range; use another unit")
    size = plan.batches(len(x)).batch_size  # InputError if the size does not fit
    updates = Updates.of(x, y, size, loss)
    if plan.order == "sequential" or (plan.order == "shuffled" and size == len(x)):
        return FixedOrder(updates)
    if plan.order == "replacement":
        return Replacement(updates, seed)
    return ShuffledSamples(updates, seed) if size == 1 else ShuffledBatches(updates, seed)
