"""Where gradient descent on a squared error settles, from the data.

One epoch in a fixed order is an affine map of the weights, w ← A w + b, composed of the updates

    w ← w − lr · (2/|B|) X_Bᵀ (X_B w − y_B)

It settles at (I − A)⁻¹ b where every eigenvalue of A lies within the unit circle; else the
largest one moves it away from there. For one weight A is a number, and random orders are covered too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from torchgd.batches import Batches
from torchgd.epoch_maps import compose
from torchgd.history import History, Settling
from torchgd.model import LinearModel
from torchgd.moments import Moments
from torchgd.optim import is_plain

MOST_UPDATES = 1000  # an epoch with more than one weight; each update is a product of matrices
MOST_CONDITION = 1e6  # of I − A; above it the place has fewer than about ten digits, and is not given


def settling_of(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, batches: Batches) -> Settling:
    """What is known of a run under the mean squared error; nothing if an epoch is not an affine map.

    Args:
        model, optimizer, x, y, batches: as for :func:`torchgd.train`.

    Example:
        >>> from torchgd import LinearModel, StochasticGradientDescent, course
        >>> model = LinearModel(dtype=torch.float64)
        >>> optimizer = StochasticGradientDescent(model.parameters(), lr=0.01)
        >>> found = settling_of(model, optimizer, *course(), optimizer.batches(3))
        >>> found.affine, found.at.item(), round(found.growth, 6)
        (True, 2.0, 0.739312)
    """
    (group, *others), bias = optimizer.param_groups, getattr(model, "bias", None)
    linear = type(model).forward in (LinearModel.forward, nn.Linear.forward)
    if not linear or not (is_plain(optimizer) or (type(optimizer) is SGD and not group["momentum"])):
        return Settling(affine=False)
    part = len(group["params"]) < sum(1 for _ in model.parameters())
    if others or part or group["maximize"] or group.get("weight_decay"):
        return Settling()
    x, y = (data.detach().to("cpu", torch.float64).reshape(len(data), -1) for data in (x, y))
    if bias is not None:
        x = torch.cat([x, x.new_ones(len(x), 1)], 1)
    lr = float(group["lr"]) / y.shape[1]  # the mean is over the outputs too
    fixed = batches.order == "sequential" or batches.batch_size == batches.n
    if x.shape[1] == 1:
        return _of_one_weight(x[:, 0], y, lr, batches.batch_size, fixed=fixed)
    if not fixed or len(batches) > MOST_UPDATES:
        return Settling()
    found = _of_weights(x, y, lr, batches.batch_size)
    if bias is None or found.at is None:
        return found
    at = found.at.reshape(y.shape[1], -1)  # in the order of the parameters: all weights, then the biases
    return Settling(torch.cat([at[:, :-1].reshape(-1), at[:, -1]]), found.growth)


def far_from_best(history: History, known: Settling, moments: Moments, batches: Batches) -> str:
    """A warning if the weight settles farther from least squares than noise explains; else empty.

    If that weight is not known, it is taken from the later half of the epochs, if they move to and fro.

    Args:
        history: of the run, judged.
        known: from :func:`settling_of`.
        moments: of the samples.
        batches: of the run.
    """
    if history.weight.dim() != 1 or len(batches) == 1 or not known.affine or history.status == "diverged":
        return ""
    if known.at is not None:
        place = known.at.to(torch.float64)
    else:
        place = history.weight[len(history.weight) // 2 :].double()
        turns = (place.diff()[1:] * place.diff()[:-1] < 0).double()
        if len(turns) < 4 or turns.mean() < 0.25:
            return ""
    best, noise = moments.least_squares, moments.standard_error
    distance = (place - best).square().mean().sqrt().item()
    if not max(noise, 1e-9 * abs(best)) < distance < math.inf:
        return ""
    what = (
        f"; but it settles {distance:.3g} from least squares {best:.6g}, and the noise of the data explains"
    )
    steps = f"{batches.batch_size} sample{'s' * (batches.batch_size != 1)}"
    return f"{what} {noise:.3g}: lr is too large for steps of {steps}"


def _of_one_weight(x: Tensor, y: Tensor, lr: float, batch_size: int, *, fixed: bool) -> Settling:
    """One weight for each output, shape (n,) and (n, m)."""
    squares = x.square()
    best = (x @ y) / squares.sum()
    residuals = x * (y - x[:, None] * best).mT
    if not fixed:
        # This is the mean logarithm of an epoch's factor in either random order.
        growth: float | None = _exp((1 - 2 * lr * squares).abs().log().sum().item())
        if batch_size > 1:
            # If no single sample can move the weight farther away, no batch can; else it is unknown.
            growth = 1.0 if (lr * squares <= 1).all() else None
        exact = (residuals.abs() <= 1e-12 * (squares * best.abs().max()).max()).all()
        return Settling(best if exact and growth is not None and growth < 1 else None, growth)
    sizes = x.new_tensor([len(batch) for batch in x.split(batch_size)])
    lost, *drifts = (
        2 * lr * torch.stack([part.sum() for part in row.split(batch_size)]) / sizes
        if batch_size > 1
        else 2 * lr * row
        for row in (squares, *residuals)
    )
    scale, lost, *shifts = compose(1 - lost, lost, *drifts)
    growth = abs(scale.item())
    at = best + torch.stack(shifts) / lost
    return Settling(at if growth < 1 and at.isfinite().all() else None, growth)


def _of_weights(x: Tensor, y: Tensor, lr: float, batch_size: int) -> Settling:
    """Several weights for each output, in a fixed order."""
    a, b = torch.eye(x.shape[1], dtype=x.dtype, device="cpu"), x.new_zeros(x.shape[1], y.shape[1])
    for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
        rate = 2 * lr / len(xs)
        a, b = a - rate * xs.mT @ (xs @ a), b - rate * xs.mT @ (xs @ b - ys)
    if not (a.isfinite().all() and b.isfinite().all()):
        return Settling()
    growth = torch.linalg.eigvals(a).abs().max().item()
    lost = torch.eye(len(a), dtype=a.dtype, device="cpu") - a
    sizes = torch.linalg.svdvals(lost)
    if growth >= 1 or sizes[-1] * MOST_CONDITION <= sizes[0]:
        return Settling(growth=growth)
    return Settling(torch.linalg.solve(lost, b).mT.reshape(-1), growth)


def _exp(logarithm: float) -> float:
    return math.exp(logarithm) if logarithm < 709 else math.inf
