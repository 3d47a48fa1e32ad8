"""What people hand in: parameters and gradients of every shape, a penalty in the loss, other targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from torchgd import Cause, InputError, check_gradient

D = torch.float64
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(9, 3, generator=GENERATOR, dtype=D)
Y = torch.randn(9, 1, generator=GENERATOR, dtype=D)
LINE = nn.Linear(3, 1).double()


def of_line(w: Any, b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    residual = x @ w.T + b - y
    return 2 * residual.T @ x / len(x), 2 * residual.mean(0)


def in_grad(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> None:
    grads = of_line(parameters["weight"], parameters["bias"], x, y)
    for p, g in zip(parameters.values(), grads, strict=True):
        p.grad = g


def by_backward(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> None:
    functional.mse_loss(x @ w.T + b, y).backward()


def of_a_module(model: nn.Module, x: Tensor, y: Tensor) -> None:
    functional.mse_loss(model(x), y).backward()


def in_numpy(w: Any, b: Any, x: Any, y: Any) -> dict[str, Any]:
    residual = np.dot(x, w.T) + b - y
    return {"dw": 2 * np.dot(residual.T, x) / np.size(y), "db": 2 * residual.mean(axis=0)}


FORMS: list[tuple[Callable[..., Any], str]] = [
    (lambda p, x, y: dict(zip(p, of_line(p["weight"], p["bias"], x, y), strict=True)), "a dict of tensors"),
    (lambda p, x, y: of_line(p["weight"], p["bias"], x, y), "a dict of tensors"),
    (lambda p, x, y: list(of_line(p["weight"], p["bias"], x, y)), "a dict of tensors"),
    (of_line, "a tensor for each parameter"),
    (lambda bias, weight, x, y: of_line(weight, bias, x, y)[::-1], "a tensor for each parameter"),
    (lambda b1, w1, x, y: of_line(w1, b1, x, y)[::-1], "a tensor for each parameter"),
    (in_grad, "a dict of tensors"),
    (by_backward, "a tensor for each parameter, that require a gradient"),
    (of_a_module, "the module"),
    (in_numpy, "a tensor for each parameter: numpy arrays"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "form"), FORMS, ids=range(len(FORMS)))
def test_every_form_is_taken(f: Callable[..., Any], form: str) -> None:
    report = check_gradient(f, X, Y, model=LINE)
    assert report.ok, report
    assert report.form == form
    assert check_gradient(f, X.numpy(), Y.numpy(), model=LINE).ok


def test_a_vector_of_weights_needs_no_module() -> None:
    def right(theta: Any, x: Any, y: Any) -> Any:
        return 2 * x.T @ (x @ theta - y) / len(y)

    for y in (Y, Y.flatten()):
        assert check_gradient(right, X, y)
        assert check_gradient(lambda theta, x, y: right(theta, x, y) / 2, X, y).factor == 0.5
    assert check_gradient(right, X, Y.flatten(), torch.tensor([1.0, 2.0, 3.0]))


def test_a_penalty_of_the_loss_is_due() -> None:
    def ridge(prediction: Tensor, y: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        return functional.mse_loss(prediction, y) + 0.1 * (parameters["weight"] ** 2).sum()

    def right(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        of_w, of_b = of_line(w, b, x, y)
        return of_w + 0.2 * w, of_b

    assert check_gradient(right, X, Y, model=LINE, loss_fn=ridge)
    missing = check_gradient(of_line, X, Y, model=LINE, loss_fn=ridge)
    assert (missing.cause, missing.message.split(":")[0]) == (Cause.other_loss, "weight")


def test_a_loss_with_a_weight_for_each_sample_takes_all_samples_only() -> None:
    s = torch.linspace(0.1, 1, 9, dtype=D)[:, None]

    def right(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        residual = 2 * s * (x @ w.T + b - y)
        return residual.T @ x / len(x), residual.mean(0)

    def weighted(prediction: Tensor, y: Tensor) -> Tensor:
        return (s * (prediction - y) ** 2).mean()

    assert check_gradient(right, X, Y, model=LINE, loss_fn=weighted)
    assert not check_gradient(of_line, X, Y, model=LINE, loss_fn=weighted)


def sigmoid_minus(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    d = ((x @ w.T + b).sigmoid() - y) / y.numel()
    return d.T @ x, d.sum(0)


def by_cases(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    p = (x @ w.T + b).sigmoid()
    d = torch.where(y == 1, p - 1, p) / len(x)
    return d.T @ x, d.sum(0)


def of_signs(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    d = torch.where(y > 0, -torch.sigmoid(-(x @ w.T + b)), torch.sigmoid(x @ w.T + b)) / len(x)
    return d.T @ x, d.sum(0)


def softmax_minus(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    due = y if y.is_floating_point() else functional.one_hot(y, len(w)).to(x.dtype)
    d = ((x @ w.T + b).softmax(1) - due) / len(x)
    return d.T @ x, d.sum(0)


def of_counts(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    assert bool((y == y.round()).all() and (y >= 0).all())
    d = ((x @ w.T + b).exp() - y) / len(x)
    return d.T @ x, d.sum(0)


def logistic(prediction: Tensor, y: Tensor) -> Tensor:
    return functional.softplus(-y * prediction).mean()


BITS, CLASSES = (Y > 0).to(D), torch.arange(9) % 4
THREE = nn.Linear(3, 4).double()
TARGETS: list[tuple[str, nn.Module, Callable[..., Any], Any, Tensor]] = [
    ("bits", LINE, functional.binary_cross_entropy_with_logits, sigmoid_minus, BITS),
    ("bits by cases", LINE, nn.BCEWithLogitsLoss(), by_cases, BITS),
    ("bits by a sigmoid", nn.Sequential(LINE, nn.Sigmoid()), nn.BCELoss(), sigmoid_minus, BITS),
    ("between 0 and 1", LINE, functional.binary_cross_entropy_with_logits, sigmoid_minus, Y.sigmoid()),
    ("signs", LINE, logistic, of_signs, 2 * BITS - 1),
    ("classes", THREE, functional.cross_entropy, softmax_minus, CLASSES),
    ("one-hot", THREE, functional.cross_entropy, softmax_minus, functional.one_hot(CLASSES, 4).to(D)),
    ("counts", LINE, nn.PoissonNLLLoss(), of_counts, (3 * BITS + 1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "loss_fn", "f", "y"), [row[1:] for row in TARGETS], ids=[r[0] for r in TARGETS]
)
def test_other_targets_are_of_the_same_kind(
    model: nn.Module, loss_fn: Callable[..., Tensor], f: Callable[..., Any], y: Tensor
) -> None:
    for seed in range(3):
        assert check_gradient(f, X, y, model=model, loss_fn=loss_fn, seed=seed).ok

    def summed(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
        return [len(x) * g for g in f(w, b, x, y)]

    report = check_gradient(summed, X, y, model=model, loss_fn=loss_fn)
    assert (report.cause, report.factor) == (Cause.reduction, 9.0), report


def test_a_frozen_parameter_is_given_and_not_asked_for() -> None:
    model = nn.Linear(3, 1).double()
    model.bias.requires_grad_(False)

    def right(p: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"weight": of_line(p["weight"], p["bias"], x, y)[0]}

    assert check_gradient(right, X, Y, model=model)
    assert check_gradient(of_line, X, Y, model=model)


@pytest.mark.parametrize("loss_fn", [functional.mse_loss, nn.MSELoss(), nn.L1Loss(), nn.HuberLoss()])
def test_shapes_that_a_loss_would_broadcast(loss_fn: Any) -> None:
    with pytest.raises(
        InputError, match=r"^the prediction has shape \(9, 1\) and the target \(9,\); give both"
    ):
        check_gradient(of_line, X, Y.flatten(), model=LINE, loss_fn=loss_fn)


def test_dropout_by_hand_draws_the_same_mask() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)).double()

    def right(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mask = functional.dropout(torch.ones(len(x), 1, dtype=x.dtype), 0.5)
        d = 2 * mask * (mask * (x @ w.T + b) - y) / len(x)
        return d.T @ x, d.sum(0)

    assert check_gradient(right, X, Y, model=model)
    with pytest.raises(
        InputError, match=r"^two calls of the model give two gradients, as dropout does; call mod"
    ):
        check_gradient(of_line, X, Y, model=model)


def test_the_sum_is_due_where_it_is_asked_for() -> None:
    def summed(w: Tensor, b: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
        return [len(x) * g for g in of_line(w, b, x, y)]

    for loss_fn in (None, nn.MSELoss(), lambda prediction, y: ((prediction - y) ** 2).mean()):
        assert check_gradient(summed, X, Y, model=LINE, loss_fn=loss_fn, reduction="sum")
    assert check_gradient(of_line, X, Y, model=LINE, reduction="sum").cause is Cause.reduction
