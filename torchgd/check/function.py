"""The backward of a `torch.autograd.Function`, against central differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.gradcheck import GradcheckError

from torchgd.check.calling import raised
from torchgd.check.explain import Factor, simplest
from torchgd.check.mistakes import Cause
from torchgd.check.probes import YOUR_DATA
from torchgd.check.report import Evidence, GradientReport
from torchgd.check.verdict import Verdict, factor_verdict
from torchgd.errors import InputError

_PRECISION = 1e-6  # relative; central differences in float64 are good to 1e-9 or so
_POINTS = 4


def check_function(function: type[Function], *inputs: Any, seed: int = 0) -> GradientReport:
    """Check the backward that somebody wrote for a `torch.autograd.Function`, and name the mistake in it.

    What is right: backward(v) = Jᵀ v with J the Jacobian of forward; `torch.autograd.gradcheck` decides, in
    float64 whatever the dtype of the inputs, at these inputs and at some near them.

    Args:
        function: the class, with forward and backward.
        inputs: what ``function.apply`` takes; small tensors, as every element is moved once.
        seed: of the inputs near these.

    Raises:
        InputError: it is no Function, or no input is a floating-point tensor.

    Example:
        >>> class Square(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x
        ...
        ...     @staticmethod
        ...     def backward(ctx, v):
        ...         return v * ctx.saved_tensors[0]
        >>> report = check_function(Square, torch.tensor([1.0, 2.0]))
        >>> report.cause.value, report.factor
        ('factor', 0.5)

    Source: `torch.autograd.gradcheck`, PyTorch (2017).
    """
    if not (isinstance(function, type) and issubclass(function, Function)):
        raise InputError(
            "this is no subclass of torch.autograd.Function; a plain function is for check_gradient"
        )
    if not any(_is_float(value) for value in inputs):
        raise InputError(f"{function.__name__} got no floating-point tensor; give the inputs of its forward")
    name = function.__name__
    points = [_point(inputs, seed + i if i else None) for i in range(_POINTS)]
    try:
        faults = [fault for fault in (_gradcheck(function, point) for point in points) if fault]
        compared = [_compare(function, point, seed) for point in points]
    except Exception as error:  # anyone's code
        return _failed(function, error)
    if any("not reentrant" in fault for fault in faults):
        message = "Two calls of backward with the same numbers give two answers: is it random?"
        return GradientReport(name, Cause.nondeterministic, message)
    message = (
        f"Its backward is right at all {len(points)} points tried, by torch.autograd.gradcheck in float64."
    )
    verdict = _verdict(compared) if faults else Verdict(Cause.correct, message)
    rows = partial(_evidence, compared)
    return GradientReport(
        name, verdict.cause, verdict.message, verdict.factor, verdict.factor_name, rows=rows
    )


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _point(inputs: Sequence[Any], seed: int | None) -> list[Any]:
    """The inputs in float64, as they are or each number changed by a tenth or so."""
    point = []
    for value in inputs:
        if _is_float(value):
            value = value.detach().cpu().double()
            if seed is not None:
                generator = torch.Generator().manual_seed(seed)
                value = value * (1 + 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
            value = value.clone().requires_grad_()
        point.append(value)
    return point


def _gradcheck(function: type[Function], point: Sequence[Any]) -> str:
    """What gradcheck has to say against it."""
    try:
        torch.autograd.gradcheck(function.apply, point, check_undefined_grad=False)
    except GradcheckError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Comparison:
    """Backward and central differences, for one input at one point."""

    index: int
    backward: Tensor
    again: Tensor  # backward of twice the incoming gradient
    difference: Tensor
    of_ones: Tensor  # the difference for an incoming gradient of ones


def _compare(function: type[Function], point: Sequence[Any], seed: int) -> list[Comparison]:
    """Jᵀ v for a random v, in both ways."""

    def outputs() -> list[Tensor]:
        result = function.apply(*point)
        return [y for y in (result if isinstance(result, tuple) else (result,)) if _is_float(y)]

    generator = torch.Generator().manual_seed(seed)
    ys = outputs()
    v = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in ys]
    floats = [value for value in point if _is_float(value)]
    once, twice = (
        torch.autograd.grad(outputs(), floats, [size * u for u in v], allow_unused=True) for size in (1, 2)
    )
    compared = []
    for index, value in enumerate(floats):
        sides = torch.zeros(2, value.numel(), dtype=torch.float64)
        for element in range(value.numel()):
            moved = []
            step = 1e-6 * max(1.0, abs(float(value.detach().reshape(-1)[element])))
            for sign in (1, -1):
                with torch.no_grad():
                    kept = value.reshape(-1)[element].clone()
                    value.view(-1)[element] += sign * step
                    moved.append([y.clone() for y in outputs()])
                    value.view(-1)[element] = kept
            changes = [(above - below) / (2 * step) for above, below in zip(*moved, strict=True)]
            sides[0, element] = sum((u * change).sum() for u, change in zip(v, changes, strict=True))
            sides[1, element] = sum(change.sum() for change in changes)
        nothing = torch.zeros(value.numel(), dtype=torch.float64)
        first, second = (nothing if g[index] is None else g[index].reshape(-1) for g in (once, twice))
        compared.append(Comparison(index, first, second, sides[0], sides[1]))
    return compared


def _verdict(compared: Sequence[Sequence[Comparison]]) -> Verdict:
    """The first input whose backward is wrong, and why, where one reason fits every point."""
    for points in zip(*compared, strict=True):
        given = torch.cat([point.backward for point in points])
        due = torch.cat([point.difference for point in points])
        if _close(given, due):
            continue
        where = f"Of input {points[0].index}: "
        if not given.any():
            return Verdict(Cause.factor, where + "it is always 0, or None is returned.", 0.0, "0")
        k = float((given * due).sum() / (due * due).sum()) if due.any() else 0.0
        if k and _close(given, k * due):
            found = factor_verdict(Factor(simplest(k, _PRECISION)), 1, per_sample=True, square=False)
            return Verdict(found.cause, where + found.message, found.factor, found.factor_name)
        ones = torch.cat([point.of_ones for point in points])
        if _close(given, torch.cat([point.again for point in points])) and _close(given, ones):
            message = "the incoming gradient is missing: backward(ctx, v) must multiply by v (chain rule)."
            return Verdict(Cause.missing_input, where + message)
        for others in zip(*compared, strict=True):
            other = torch.cat([point.difference for point in others])
            if other.shape == given.shape and _close(given, other):
                message = f"it is the gradient of input {others[0].index}: are the two exchanged?"
                return Verdict(Cause.wrong_variable, where + message)
        return Verdict(Cause.unknown, where + "it is wrong, and no known mistake explains all the evidence.")
    return Verdict(Cause.unknown, "gradcheck finds a fault, but products with random gradients are right.")


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= _PRECISION * b.norm())


def _failed(function: type[Function], error: Exception) -> GradientReport:
    """An exception in forward or backward, or autograd's complaint about what backward returned."""
    problem = raised(function.backward, error)
    shape = "invalid gradient" in problem.text or "incorrect number of gradients" in problem.text
    return GradientReport(
        function.__name__, Cause.wrong_shape if shape else problem.cause, f"It {problem.text}."
    )


def _evidence(compared: Sequence[Sequence[Comparison]]) -> Iterator[Evidence]:
    """Of each input at each point, the element that differs most."""
    for number, inputs in enumerate(compared):
        for side in inputs:
            worst = int((side.backward - side.difference).abs().argmax())
            yield Evidence(
                data="near it" if number else YOUR_DATA,
                n=side.backward.numel(),
                at="",
                entry=f"input {side.index}[{worst}]",
                hand=float(side.backward[worst]),
                autograd=float(side.backward[worst]),
                difference=float(side.difference[worst]),
                ok=_close(side.backward, side.difference),
            )
