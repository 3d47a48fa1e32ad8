"""The methods and orders by name, each with what its epoch does to the error."""

from __future__ import annotations

from torchgd.batches import ORDERS, Batches
from torchgd.convergence.epochs import FixedOrder, ShuffledSamples, Updates
from torchgd.convergence.random_epochs import RandomEpoch, Replacement, ShuffledBatches
from torchgd.errors import InputError
from torchgd.samples import Numbers, samples

METHODS = ("gd", "sgd", "minibatch")
LOSSES = ("mean", "sum", "half")

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
    for name, value, allowed in (
        ("method", method, METHODS),
        ("order", order, ORDERS),
        ("loss", loss, LOSSES),
    ):
        if value not in allowed:
            raise InputError(f"{name} is {value!r}; give one of {', '.join(allowed)}")
    if (batch_size is not None) != (method == "minibatch"):
        mend = "give batch_size" if batch_size is None else "leave batch_size out, or take method 'minibatch'"
        raise InputError(f"method is {method!r} and batch_size is {batch_size}; {mend}")
    x, y = samples(x, y)
    largest = x.abs().max().item()
    if not 1e-150 < largest < 1e150:  # curvatures and learning rates are of the size of x² and 1/x²
        raise InputError(f"the largest |x| is {largest:g}, its square is out of range; use another unit")
    size = Batches(len(x), {"gd": len(x), "sgd": 1}.get(method, batch_size or 0)).batch_size
    updates = Updates.of(x, y, size, loss)
    if method == "gd" or order == "sequential" or (order == "shuffled" and size == len(x)):
        return FixedOrder(updates)
    if order == "replacement":
        return Replacement(updates, seed)
    return ShuffledSamples(updates, seed) if size == 1 else ShuffledBatches(updates, seed)
