"""One update on a batch: its gradient, by hand or by autograd, and one step of the optimizer."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchgd import gradient as by_hand
from torchgd.errors import InputError, users_frame
from torchgd.model import LinearModel
from torchgd.samples import check_prediction, loss_name

SAMPLES_CHECKED = 1000

LossFunction = Callable[[Tensor, Tensor], Tensor]
GradientFunction = Callable[[Tensor, Tensor, Tensor], "Tensor | float"]
Update = Callable[[Tensor, Tensor], "Tensor | None"]  # of (x, y); returns the loss before it, if it is known


def update_of(
    model: nn.Module,
    optimizer: Optimizer,
    gradient: str | GradientFunction,
    loss_fn: LossFunction,
    x: Tensor,
    y: Tensor,
) -> Update:
    """The function that does one update on a batch; arguments and errors as for :func:`torchgd.train`."""
    if gradient == "autograd":
        return _by_autograd(model, optimizer, loss_fn)
    if gradient == "hand" and loss_name(loss_fn) != "mse_loss":
        raise InputError("the gradient by hand is that of mse_loss; leave out loss_fn, or give 'autograd'")
    if type(model) is nn.Linear and model.out_features == 1 and gradient == "hand":
        return _by_hand_of_several(model, optimizer, y)
    if not isinstance(model, LinearModel):
        where = "for LinearModel, and gradient='hand' for nn.Linear with one output"
        raise InputError(f"a gradient by hand is {where}; for another module give gradient='autograd'")
    if isinstance(gradient, str) and gradient != "hand":
        raise InputError(f"gradient is {gradient!r}; give 'autograd', 'hand' or a function f(w, x, y)")
    weight = model.weight
    if isinstance(gradient, str):
        w = weight.detach()
        by_hand.gradient(w, x, y)  # raises InputError if the shapes do not fit

        def update_by_hand(x: Tensor, y: Tensor) -> None:
            weight.grad = by_hand.gradient(w, x, y)
            optimizer.step()

        return update_by_hand
    function = gradient
    first = function(weight.detach().clone(), x, y)
    if not isinstance(first, Tensor | Real):
        raise InputError(f"the gradient is {first!r}; return a number or a tensor of shape ()")
    # Shape (1,) is what a gradient of each sample returns for a batch of one.
    if isinstance(first, Tensor) and first.shape not in ((), (1,)):
        raise InputError(f"the gradient has shape {tuple(first.shape)}; return the batch's mean, shape ()")

    def update(x: Tensor, y: Tensor) -> None:
        # f gets a clone, because it may write into its argument.
        value = function(weight.detach().clone(), x, y)
        weight.grad = torch.as_tensor(value, dtype=weight.dtype, device=weight.device).reshape(())
        optimizer.step()

    return update


def _by_hand_of_several(model: nn.Linear, optimizer: Optimizer, y: Tensor) -> Update:
    """The update of y = w·x + b with several features, by :func:`torchgd.gradient.linear_gradient`."""
    if y.dim() != 2 or y.shape[1] != 1:
        raise InputError(f"y has shape {tuple(y.shape)}; nn.Linear predicts (n, 1), give y.reshape(-1, 1)")
    weight, bias = model.weight, model.bias

    def update(x: Tensor, y: Tensor) -> Tensor:
        b = 0.0 if bias is None else bias.detach()[0]
        dw, db = by_hand.linear_gradient(weight.detach()[0], b, x, y[:, 0])
        weight.grad = dw[None]
        if bias is not None:
            bias.grad = db[None]
        loss = (x @ weight.detach()[0] + b - y[:, 0]).square().mean()
        optimizer.step()
        return loss

    return update


def _by_autograd(model: nn.Module, optimizer: Optimizer, loss_fn: LossFunction) -> Update:
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("no parameter requires a gradient; set requires_grad, or give gradient='hand'")
    step: Any = optimizer.step
    takes_closure = bool(inspect.signature(step).parameters)

    def update(x: Tensor, y: Tensor) -> Tensor:
        losses: list[Tensor] = []

        def closure() -> Any:
            # Enabled here, because an optimizer may call it with gradients off.
            with torch.enable_grad():
                optimizer.zero_grad()
                loss = loss_fn(model(x), y)
                loss.backward()
            losses.append(loss.detach())
            return loss

        if takes_closure:
            # LBFGS evaluates the closure several times in one update.
            step(closure)
        else:
            closure()
            step()
        if not losses:
            raise InputError("the optimizer's step(closure) did not call the closure; let it do so first")
        return losses[0]

    return update


def of_equal_shapes(loss_fn: LossFunction) -> LossFunction:
    """The loss, with an InputError for shapes that would broadcast, such as (n, 1) and (n,)."""

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        check_prediction(prediction, target, loss_fn)
        return loss_fn(prediction, target)

    loss.__name__ = loss_name(loss_fn)
    return loss


def is_right(gradient: GradientFunction, model: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Whether f is the derivative of the cost; if not, a warning names the mistake."""
    from torchgd.check.gradient import check_gradient  # slow to load, and few runs need it

    weight = next(model.parameters()).item()
    report = check_gradient(gradient, x[:SAMPLES_CHECKED], y[:SAMPLES_CHECKED], weight)
    if not report.ok and report.cause != "approximate":  # finite differences may be intended
        warnings.warn(
            f"the gradient is wrong ({report.cause.value}): {report.message}", stacklevel=users_frame()[1]
        )
    return report.ok
