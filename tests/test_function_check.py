"""The backward of an autograd.Function: right ones, wrong ones, bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchgd import InputError
from torchgd.check.function import check_function
from torchgd.check.gradient import check_gradient
from torchgd.check.mistakes import Cause

W, X, Y = torch.tensor(1.5), torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 3.0, 2.0])
Backward = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Any, ...]]


def squared_error(backward: Backward) -> Any:
    """ℓᵢ = (w xᵢ − yᵢ)² with this backward(v, w, x, y)."""

    class SquaredError(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
            ctx.save_for_backward(w, x, y)
            return (w * x - y) ** 2

        @staticmethod
        def backward(ctx: Any, v: Tensor) -> Any:
            return backward(v, *ctx.saved_tensors)

    return SquaredError


def right(v: Tensor, w: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r = w * x - y
    return (v * 2 * r * x).sum(), v * 2 * r * w, -v * 2 * r


def with_first(change: Callable[..., Any]) -> Backward:
    return lambda v, w, x, y: (change(v, w, x, y), *right(v, w, x, y)[1:])


WRONG: list[tuple[str, Backward, Cause, float | None, str]] = [
    ("half", with_first(lambda v, w, x, y: (v * (w * x - y) * x).sum()), Cause.factor, 0.5,
     "input 0: It is ½ times the right gradient"),
    ("sign", with_first(lambda v, w, x, y: (v * 2 * (y - w * x) * x).sum()), Cause.factor, -1.0,
     "input 0: It is −1 times the right gradient"),
    ("odd factor", with_first(lambda v, w, x, y: 0.7354 * right(v, w, x, y)[0]), Cause.factor, 0.7354,
     "input 0: It is 0.7354 times the right gradient"),
    ("none", lambda v, w, x, y: (*right(v, w, x, y)[:2], None), Cause.factor, 0.0,
     "input 2: It is always 0"),
    ("no v", lambda v, w, x, y: (right(v, w, x, y)[0], 2 * (w * x - y) * w, right(v, w, x, y)[2]),
     Cause.missing_input, None, "input 1: The incoming gradient is missing"),
    ("exchanged", lambda v, w, x, y: (right(v, w, x, y)[0], right(v, w, x, y)[2], right(v, w, x, y)[1]),
     Cause.wrong_variable, None, "input 1: It is the gradient of input 2"),
    ("no x", with_first(lambda v, w, x, y: (v * 2 * (w * x - y)).sum()), Cause.unknown, None,
     "input 0: It is wrong at"),
    ("random", with_first(lambda v, w, x, y: torch.rand((), dtype=v.dtype)), Cause.nondeterministic, None,
     "Two calls with the same numbers"),
    ("too few", lambda v, w, x, y: right(v, w, x, y)[:2], Cause.wrong_shape, None,
     "It raised RuntimeError: "),
    ("shape", lambda v, w, x, y: (right(v, w, x, y)[0], v[:2], v), Cause.wrong_shape, None,
     "It raised RuntimeError: "),
    ("raises", with_first(lambda v, w, x, y: v.average()), Cause.raises, None, "It raised AttributeError: "),
]  # fmt: skip


@pytest.mark.parametrize("inputs", [(W, X, Y), (W.double(), X.double(), Y.double()), (W, X[:1], Y[:1])])
def test_right(inputs: tuple[Tensor, ...]) -> None:
    """float32 inputs are taken to float64, where differences have the digits to decide."""
    report = check_function(squared_error(right), *inputs)
    assert report.ok, report
    assert all(row.ok for row in report.evidence)
    assert all(row.hand == pytest.approx(row.difference, rel=1e-6) for row in report.evidence)


@pytest.mark.parametrize(
    ("backward", "cause", "factor", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_mistake_is_named(backward: Backward, cause: Cause, factor: float | None, message: str) -> None:
    report = check_function(squared_error(backward), *(value.clone().requires_grad_() for value in (W, X, Y)))
    assert report.cause is cause, report
    assert report.factor == (None if factor is None else pytest.approx(factor, rel=1e-6))
    assert report.message.startswith(message)
    assert max(map(len, str(report).splitlines())) <= 80


def test_inputs_are_left_alone() -> None:
    x = X.clone().requires_grad_()
    check_function(squared_error(right), W, x, Y)
    assert torch.equal(x, X)
    assert x.grad is None


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"^int is not a function; give a subclass of torch.autograd.Func"):
        check_function(3, W)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"^SquaredError got no floating-point tensor; give the inputs of its"
    ):
        check_function(squared_error(right), 1.0, 2.0)
    with pytest.raises(InputError, match=r"^SquaredError is an autograd.Function; give it to check_function"):
        check_gradient(squared_error(right), X, Y)


def function(forward: Callable[..., Any], backward: Callable[..., Any], setup: Any = None) -> Any:
    """A Function whose backward gets ctx, with all inputs in ctx.saved_tensors or ctx.rest, and v."""

    class Made(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
            result = forward(*inputs)
            if setup:
                setup(ctx, inputs, result)
            return result

        @staticmethod
        def backward(ctx: Any, *v: Any) -> Any:
            return backward(ctx, *v)

    return Made


def saved(ctx: Any) -> Any:
    return ctx.saved_tensors[0]


def as_if_contiguous(v: Tensor) -> Tensor:
    return torch.as_strided(v, v.shape, torch.empty(v.shape).stride(), v.storage_offset())


def guarded(x: Tensor) -> Tensor:
    if x.dtype is not torch.float32:
        raise TypeError("expected Float")
    return x * x


def add_to_second(a: Tensor, b: Tensor) -> Tensor:
    a[1:2] += b
    return a


D = torch.float64
Z = torch.tensor([1 + 2j, -0.5 + 1j])
square = function(torch.square, lambda ctx, v: 2 * v * saved(ctx))
BASE = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7]])

RIGHT: list[tuple[str, Any, tuple[Any, ...], str]] = [
    (
        "None for what is not marked",
        function(
            lambda x, t: (x - t) ** 2,
            lambda ctx, v: (2 * v * (ctx.saved_tensors[0] - ctx.saved_tensors[1]), None),
        ),
        (X, Y),
        "as backward gives None for it: input 1",
    ),
    ("transposed", square, (BASE.T,), ""),
    ("channels last", square, (torch.randn(1, 2, 2, 2).to(memory_format=torch.channels_last),), ""),
    (
        "an output without a derivative",
        function(
            lambda x: (x * x, x.detach() * 3),
            lambda ctx, v, _: 2 * v * saved(ctx),
            lambda ctx, i, result: ctx.mark_non_differentiable(result[1]),
        ),
        (X,),
        "",
    ),
    ("an output None", function(lambda x: (x * x, None), lambda ctx, v, _: 2 * v * saved(ctx)), (X,), ""),
    ("float32 only", function(guarded, lambda ctx, v: 2 * v * saved(ctx)), (X,), ""),
    (
        "in place",
        function(add_to_second, lambda ctx, v: (v, v[1:2]), lambda ctx, i, result: ctx.mark_dirty(i[0])),
        (torch.ones(2), torch.ones(1)),
        "",
    ),
    (
        "on a kink",
        function(torch.relu, lambda ctx, v: v * (saved(ctx) > 0)),
        (torch.tensor([0.0, 1.0, -1.0]),),
        "Forward has a kink or a jump at input 0[0]: judged beside it.",
    ),
    (
        "small under a logarithm",
        function(torch.log, lambda ctx, v: v / saved(ctx)),
        (torch.tensor([1e-6, 1e-3, 2.0]),),
        "",
    ),
    (
        "empty input",
        function(
            lambda x, b: 3 * x.sum() + b.sum(),
            lambda ctx, v: (3 * v * torch.ones_like(saved(ctx)), v * torch.ones_like(ctx.saved_tensors[1])),
        ),
        (X, torch.empty(0)),
        "",
    ),
    ("complex", function(torch.square, lambda ctx, v: v * (2 * saved(ctx)).conj()), (Z,), ""),
    (
        "symmetric",
        function(
            lambda a, b: (b * (a @ b)).sum(-2),
            lambda ctx, v: (
                ctx.saved_tensors[1] @ (v[:, None] * ctx.saved_tensors[1].T),
                2 * (ctx.saved_tensors[0] @ ctx.saved_tensors[1]) * v,
            ),
        ),
        (BASE.T @ BASE, torch.randn(3, 4)),
        "",
    ),
    ("a plain function", lambda x: square.apply(x + x.T), (BASE[:, :2],), ""),
]

NOT_RIGHT: list[tuple[str, Any, tuple[Any, ...], Cause, str]] = [
    (
        "takes v for contiguous",
        function(lambda x: 3 * x, lambda ctx, v: 3 * as_if_contiguous(v)),
        (BASE,),
        Cause.lucky,
        "input 0: It takes v, the incoming gradient, for contiguous",
    ),
    (
        "writes into v",
        function(lambda x: 2 * x, lambda ctx, v: v.mul_(2)),
        (X,),
        Cause.mutates_input,
        "It changes the incoming gradient in place",
    ),
    (
        "NaN in float32",
        function(
            torch.sigmoid, lambda ctx, v: v * torch.exp(-saved(ctx)) / (1 + torch.exp(-saved(ctx))) ** 2
        ),
        (torch.tensor([-100.0, 0.5]),),
        Cause.non_finite,
        "It is right elsewhere, but at your inputs: It returns nan for input 0 in torch.float32",
    ),
    (
        "NaN",
        function(torch.square, lambda ctx, v: v * torch.nan),
        (X,),
        Cause.non_finite,
        "It returns nan for inp",
    ),
    (
        "loss without v",
        function(lambda x: x.square().mean(), lambda ctx, v: 2 * saved(ctx) / 3),
        (X,),
        Cause.missing_input,
        "input 0: The incoming gradient is missing",
    ),
    (
        "0.05 percent",
        function(torch.square, lambda ctx, v: 2.001 * v * saved(ctx)),
        (X,),
        Cause.factor,
        "input 0: It is 1.0005 times",
    ),
    (
        "drops negative v",
        function(torch.relu, lambda ctx, v: v.relu() * (saved(ctx) > 0)),
        (X,),
        Cause.surrogate,
        "input 0: Backward is not linear in v, the incoming gradient: what is negative in v",
    ),
    (
        "clips v",
        function(lambda x: x * 1.0, lambda ctx, v: v.clamp(-1, 1)),
        (X,),
        Cause.surrogate,
        "input 0: Backward is not linear in v, the incoming gradient: v is clipped at 1.",
    ),
    (
        "right at 0 only",
        function(torch.tanh, lambda ctx, v: v),
        (torch.zeros(3),),
        Cause.surrogate,
        "input 0: Its backward is that of the identity",
    ),
    (
        "0 for negative x only",
        function(torch.relu, lambda ctx, v: 0 * v),
        (-5 - X.abs(),),
        Cause.factor,
        "input 0: It is a",
    ),
    (
        "reversal",
        function(lambda x, a: x.view_as(x), lambda ctx, v: (-ctx.saved_tensors[1] * v, None)),
        (X, torch.tensor(0.5)),
        Cause.surrogate,
        "input 0: Forward is the identity, and backward takes v -0.5 times",
    ),
    (
        "straight through",
        function(torch.round, lambda ctx, v: v),
        (3 * X,),
        Cause.surrogate,
        "input 0: The derivative of forward is 0 wherever it was tried; its backward",
    ),
    (
        "spike",
        function(lambda x: (x > 0).to(x.dtype), lambda ctx, v: v / (1 + 25 * saved(ctx).abs()) ** 2),
        (X,),
        Cause.surrogate,
        "input 0: The derivative of forward is 0 wherever it was tried; its backward",
    ),
    (
        "sigmoid spike",
        function(
            lambda x: (x > 0).to(x.dtype),
            lambda ctx, v: v * 25 * torch.sigmoid(25 * saved(ctx)) * torch.sigmoid(-25 * saved(ctx)),
        ),
        (0.1 * X,),
        Cause.surrogate,
        "input 0: The derivative of forward is 0 wherever it was tried; its backward",
    ),
    ("no conjugate", square, (Z,), Cause.wrong_variable, "input 0: It is the derivative by z"),
    (
        "real in, complex out",
        function(torch.view_as_complex, lambda ctx, v: 2 * torch.view_as_real(v)),
        (BASE[:, :2].contiguous(),),
        Cause.factor,
        "input 0: It is 2 times",
    ),
    (
        "random forward",
        function(lambda x: x * (torch.rand_like(x) > 0.5), lambda ctx, v: v),
        (torch.ones(64),),
        Cause.nondeterministic,
        "Two calls of forward",
    ),
    (
        "changes its input",
        function(lambda x: x.mul_(2).clone(), lambda ctx, v: 2 * v),
        (X,),
        Cause.mutates_input,
        "It changes input 0 in place",
    ),
]


@pytest.mark.parametrize(
    ("made", "inputs", "said"), [row[1:] for row in RIGHT], ids=[row[0] for row in RIGHT]
)
def test_right_functions_of_every_kind(made: Any, inputs: tuple[Any, ...], said: str) -> None:
    report = check_function(made, *inputs)
    assert report.ok, report
    assert said in report.message
    assert all(row.ok for row in report.evidence)


@pytest.mark.parametrize(
    ("made", "inputs", "cause", "said"), [row[1:] for row in NOT_RIGHT], ids=[row[0] for row in NOT_RIGHT]
)
def test_wrong_functions_of_every_kind(made: Any, inputs: tuple[Any, ...], cause: Cause, said: str) -> None:
    report = check_function(made, *inputs)
    assert report.cause is cause, report
    assert report.message.startswith(said)
    assert not report


def test_weights_inside_a_module() -> None:
    class Scale(torch.nn.Module):
        def __init__(self, made: Any) -> None:
            super().__init__()
            self.made, self.weight = made, torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

        def forward(self, x: Tensor) -> Any:
            return self.made.apply(x, self.weight)

    def product(k: float) -> Any:
        return function(torch.mul, lambda ctx, v: (v * ctx.saved_tensors[1], k * v * ctx.saved_tensors[0]))

    assert check_function(Scale(product(1)), X)
    wrong = check_function(Scale(product(2)), X)
    assert wrong.message == "weight: It is 2 times the right gradient, at every point tried. Right: input 0."


def test_second_derivatives_on_request() -> None:
    assert check_function(square, X, second=True)
    detached = function(torch.square, lambda ctx, v: 2 * v * saved(ctx).detach())
    assert check_function(detached, X)
    report = check_function(detached, X, second=True)
    assert (report.cause, report.factor) == (Cause.factor, 0.0)
    assert report.message.startswith("Of its second derivative: input 0: It is always 0")
