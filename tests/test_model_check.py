"""The gradients of a module's parameters, by hand: right ones, wrong ones, bad input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from torchgd import InputError
from torchgd.check.gradient import check_gradient
from torchgd.check.mistakes import Cause

Gradients = dict[str, Any]
X, Y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])


def linear(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
    """Lecture 5: weight and bias, mean squared error."""
    residual = x @ p["weight"].T + p["bias"] - y
    return {"weight": 2 * residual.T @ x / len(x), "bias": 2 * residual.mean(0)}


def of_each(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
    residual = x @ p["weight"].T + p["bias"] - y
    return {"weight": 2 * residual[:, :, None] * x[:, None, :], "bias": 2 * residual}


def network(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
    """Back propagation by hand: two layers, ReLU, cross entropy."""
    before = x @ p["0.weight"].T + p["0.bias"]
    hidden = before.relu()
    output = hidden @ p["2.weight"].T + p["2.bias"]
    of_output = (output.softmax(1) - functional.one_hot(y, 3)) / len(x)
    of_hidden = (of_output @ p["2.weight"]) * (before > 0)
    return {
        "0.weight": of_hidden.T @ x,
        "0.bias": of_hidden.sum(0),
        "2.weight": of_output.T @ hidden,
        "2.bias": of_output.sum(0),
    }


def by_autograd(loss_fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Gradients]:
    def gradients(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
        w, b = p["weight"].requires_grad_(), p["bias"].requires_grad_()
        of_w, of_b = torch.autograd.grad(loss_fn(x @ w.T + b, y), (w, b))
        return {"weight": of_w, "bias": of_b}

    return gradients


def spoiled(**change: Callable[[Gradients, Gradients], Any]) -> Callable[..., Gradients]:
    """The right gradients, but some: change(all the right ones, the parameters)."""

    def gradients(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
        right = linear(p, x, y)
        return {**right, **{name: new(right, p) for name, new in change.items()}}

    return gradients


def in_float32(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
    return linear({name: value.float() for name, value in p.items()}, x.float(), y.float())


@pytest.mark.parametrize("f", [linear, of_each, in_float32, by_autograd(functional.mse_loss)])
@pytest.mark.parametrize("seed", [0, 5, 9])
def test_right_gradients_of_a_line(f: Callable[..., Gradients], seed: int) -> None:
    torch.manual_seed(seed)
    size = 10.0 ** (seed - 5)
    x = size * torch.randn(7, 1)
    assert check_gradient(f, x, 3 * x + size, model=nn.Linear(1, 1), seed=seed).cause is Cause.correct
    assert check_gradient(f, X, Y, model=nn.Linear(1, 1), seed=seed).cause is Cause.correct


@pytest.mark.parametrize("seed", range(6))
def test_right_gradients_of_a_network(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    x, y = torch.randn(40, 4), torch.randint(3, (40,))
    twin = copy.deepcopy(net).double()

    def one(p: Gradients, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(twin, p, (x[None],)), y[None])

    for f in (network, vmap(grad(one), (None, 0, 0)))[: 1 + (seed < 2)]:
        report = check_gradient(f, x, y, model=net, loss_fn=functional.cross_entropy, seed=seed)
        assert report.ok, report
        assert all(row.ok for row in report.evidence)
        largest = max(abs(row.autograd) for row in report.evidence)
        # Central differences with a step of 1e-5: truncation 1e-10, rounding 1e-16 / 1e-5, of the largest.
        assert all(abs(row.autograd - row.difference) < 1e-8 * (1 + largest) for row in report.evidence)


WRONG: list[tuple[str, Callable[..., Any], Cause, float | None, str]] = [
    ("bias twice", spoiled(bias=lambda g, p: 2 * g["bias"]), Cause.factor, 2.0, "bias: It is 2 times"),
    ("sign", spoiled(weight=lambda g, p: -g["weight"]), Cause.factor, -1.0, "weight: Its sign is turned"),
    ("zero", spoiled(bias=lambda g, p: 0 * g["bias"]), Cause.factor, 0.0, "bias: It is always 0"),
    (
        "sum",
        lambda p, x, y: {name: len(x) * g for name, g in linear(p, x, y).items()},
        Cause.reduction,
        3.0,
        "weight, bias: It is the sum over the samples where the mean is due",
    ),
    (
        "no x",
        spoiled(weight=lambda g, p: g["bias"].reshape(1, 1)),
        Cause.missing_input,
        None,
        "weight: The input of the layer is missing",
    ),
    (
        "all but the last",
        lambda p, x, y: linear(p, x[:-1], y[:-1]),
        Cause.part_of_the_data,
        None,
        "weight, bias: The last sample is left out",
    ),
    (
        "the first only",
        lambda p, x, y: linear(p, x[:1], y[:1]),
        Cause.part_of_the_data,
        None,
        "weight, bias: Only the first sample counts",
    ),
    (
        "absolute error",
        by_autograd(functional.l1_loss),
        Cause.other_loss,
        None,
        "weight, bias: This is the gradient of the absolute error",
    ),
    (
        "weight decay",
        spoiled(weight=lambda g, p: g["weight"] + 0.1 * p["weight"]),
        Cause.other_loss,
        None,
        "weight: A weight penalty is in it: it adds 0.1 times the parameter",
    ),
    (
        "signs",
        spoiled(weight=lambda g, p: g["weight"].sign(), bias=lambda g, p: g["bias"].sign()),
        Cause.saturated,
        None,
        "weight, bias: Only the sign of the gradient is left",
    ),
    (
        "constant",
        spoiled(bias=lambda g, p: torch.ones(1)),
        Cause.constant,
        None,
        "bias: It is the same at all parameters",
    ),
    (
        "roughly",
        spoiled(bias=lambda g, p: g["bias"] * (1 + 1e-5 * torch.cos(p["bias"]))),
        Cause.approximate,
        None,
        "bias: It is right only roughly, to 5 digits",
    ),
    (
        "unknown",
        spoiled(bias=lambda g, p: g["bias"] * (1 + p["bias"] ** 2)),
        Cause.unknown,
        None,
        "bias is the first, from the loss backwards, that is wrong: bias[0] is ",
    ),
    ("a name too few", lambda p, x, y: {"weight": linear(p, x, y)["weight"]}, Cause.wrong_shape, None,
     "It gives gradients for weight; due are weight, bias."),
    ("shape", spoiled(weight=lambda g, p: g["weight"][0]), Cause.wrong_shape, None,
     "It gives weight a gradient of shape (1,) where (1, 1) is due."),
    ("nothing", lambda p, x, y: None, Cause.wrong_dtype, None, "It returned None: a return is missing"),
    ("None in it", spoiled(bias=lambda g, p: None), Cause.detached, None, "It gives bias None"),
    ("text", spoiled(bias=lambda g, p: "1"), Cause.wrong_dtype, None, "It gives bias a str for a gradient."),
    ("NaN", spoiled(bias=lambda g, p: g["bias"] * torch.nan), Cause.non_finite, None,
     "It returns nan for bias at N = 5"),
    ("random", spoiled(bias=lambda g, p: torch.rand(1)), Cause.nondeterministic, None,
     "Two calls with the same numbers give two answers"),
    ("in place", spoiled(bias=lambda g, p: p["bias"].sub_(g["bias"])), Cause.mutates_input, None,
     "It changes bias in place"),
    ("another name", spoiled(bias=lambda g, p: p["intercept"]), Cause.raises, None,
     "It raised KeyError: 'intercept' (line"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("f", "cause", "factor", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_mistake_is_named(f: Callable[..., Any], cause: Cause, factor: float | None, message: str) -> None:
    torch.manual_seed(1)
    report = check_gradient(f, X, Y, model=nn.Linear(1, 1))
    assert report.cause is cause, report
    assert report.factor == factor
    assert report.message.startswith(message)
    assert max(map(len, str(report).splitlines())) <= 80


def test_a_mistake_in_one_layer_is_found_there() -> None:
    def halved(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
        right = network(p, x, y)
        return {name: g / 2 if name.startswith("0") else g for name, g in right.items()}

    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    report = check_gradient(
        halved, torch.randn(8, 4), torch.randint(3, (8,)), model=net, loss_fn=nn.CrossEntropyLoss()
    )
    assert (report.cause, report.factor) == (Cause.factor, 0.5)
    said = "It is ½ times the right gradient, at every point tried."
    assert report.message == f"0.weight, 0.bias: {said} Right: 2.weight, 2.bias."


def test_two_parameters_exchanged() -> None:
    class Quadratic(nn.Module):
        """Lecture 4's exercise: y = w1 x² + w2 x + b."""

        def __init__(self) -> None:
            super().__init__()
            self.w1, self.w2, self.b = (nn.Parameter(torch.tensor(float(i))) for i in range(1, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.w1 * x**2 + self.w2 * x + self.b

    def gradients(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
        residual = 2 * (p["w1"] * x**2 + p["w2"] * x + p["b"] - y)
        return {"w1": (residual * x).mean(), "w2": (residual * x**2).mean(), "b": residual.mean()}

    report = check_gradient(gradients, X.flatten(), Y.flatten(), model=Quadratic())
    assert report.cause is Cause.wrong_variable
    assert report.message == "w2: This is the gradient of w1. w1: This is the gradient of w2. Right: b."


def test_what_is_due_can_be_told() -> None:
    model = nn.Linear(1, 1)
    assert check_gradient(linear, X, Y, model=model, per_sample=True).cause is Cause.reduction
    assert check_gradient(of_each, X, Y, model=model, per_sample=False).cause is Cause.reduction
    share = check_gradient(
        lambda p, x, y: {k: g / len(x) for k, g in of_each(p, x, y).items()}, X, Y, model=model
    )
    assert (share.cause, share.factor_name) == (Cause.factor, "1/N")


def test_a_model_that_cannot_take_one_sample() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))

    def gradients(p: Gradients, x: Tensor, y: Tensor) -> Gradients:
        leaves = {name: value.requires_grad_() for name, value in p.items()}
        twin = copy.deepcopy(model).double()
        loss = functional.mse_loss(functional_call(twin, leaves, (x,)), y)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    before = copy.deepcopy(model.state_dict())
    assert check_gradient(gradients, X, Y, model=model).cause is Cause.correct
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


BAD_INPUT: list[tuple[nn.Module, Any, Any, str]] = [
    (nn.Dropout(), X, Y, "the model has no parameter that requires a gradient; give one that has"),
    (nn.Linear(2, 1), X, Y, "the model or its loss raised RuntimeError: "),
    (nn.Linear(1, 1), X, Y[:2], "x has 3 samples and y has 2; give one y for each x"),
    (nn.Linear(1, 1), 1.0, 2.0, "x has shape () and y has shape (); give both (n, …)"),
]


@pytest.mark.parametrize(("model", "x", "y", "message"), BAD_INPUT, ids=[row[3] for row in BAD_INPUT])
def test_bad_input(model: nn.Module, x: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_gradient(linear, x, y, model=model)
    assert str(caught.value).startswith(message)
