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
        check_function(3, W)
    with pytest.raises(
        InputError, match=r"^SquaredError got no floating-point tensor; give the inputs of its"
    ):
        check_function(squared_error(right), 1.0, 2.0)
    with pytest.raises(InputError, match=r"^SquaredError is an autograd.Function; give it to check_function"):
        check_gradient(squared_error(right), X, Y)
