"""The backward of a `torch.autograd.Function`, or of any function of tensors, against differences."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call

from torchgd.check.calling import raised
from torchgd.check.diagnose import examine
from torchgd.check.differences import real
from torchgd.check.function_points import ACCURACY, FunctionPoint, function_points, is_float
from torchgd.check.gather import Answers
from torchgd.check.mistakes import Cause
from torchgd.check.probes import YOUR_DATA
from torchgd.check.report import Diagnosis, GradientReport
from torchgd.check.signature import ROLES
from torchgd.check.subject import Answer, Candidate, Subject
from torchgd.check.surrogates import not_the_derivative
from torchgd.errors import InputError

_SAMPLES = 20  # of the data on the command line: each is moved
_WIDER = {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64,
          torch.complex64: torch.complex128}  # fmt: skip


def check_function(
    function: Callable[..., Any], *inputs: Any, second: bool = False, seed: int = 0
) -> GradientReport:
    """Check the backward that somebody wrote for a `torch.autograd.Function`, and name the mistake in it.

    What is right: backward(v) = Jᵀ v with J the Jacobian of forward, by differences in float64 (or in the
    dtype of the inputs, where forward takes no other), at these inputs and at some near them.

    Args:
        function: the class, with forward and backward; or a function of tensors or a module that applies one.
        inputs: what ``function.apply`` takes; small tensors, as every element is moved. Where some of them
            require a gradient, only theirs are judged; else None for an input declares it a constant.
        second: whether the second derivatives are judged as well, which ``create_graph=True`` needs.
        seed: of the inputs near these.

    Raises:
        InputError: it cannot be called, or no input is a floating-point tensor.

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
    name = getattr(function, "__name__", type(function).__name__)
    if not callable(function):
        raise InputError(f"{name} is not a function; give a subclass of torch.autograd.Function")
    if not any(is_float(value) for value in inputs):
        raise InputError(f"{name} got no floating-point tensor; give the inputs of its forward")
    subject = FunctionGradient(function, name, inputs, seed)
    report = examine(subject)
    if not (second and report):
        return report
    # all of them are marked: a second derivative that is None is missing
    twice = FunctionGradient(subject.gradient, name, [*subject.given, *subject.points[0].v], seed)
    twice.marked = True
    report = examine(twice)
    return replace(report, message=f"Of its second derivative: {report.message}")


def inputs_of(function: type[Function], w: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
    """What of (w, x, y) a forward takes, by its names or, where it has others, its number of arguments."""
    takes_ctx = function.setup_context is Function.setup_context
    names = list(inspect.signature(function.forward).parameters)[takes_ctx:]
    x, y = x[:_SAMPLES], y[:_SAMPLES]
    values = (w, x, y)
    roles = [next((role for role, words in enumerate(ROLES) if n.lower() in words), -1) for n in names]
    if -1 not in roles and len(set(roles)) == len(roles):
        return [values[role] for role in roles]
    if not 1 <= len(names) <= 3:
        takes = f"{function.__name__}.forward takes {', '.join(names) or 'nothing'}"
        raise InputError(f"{takes}; in Python, call check_function with its inputs")
    return list(((x,), (x, y), values)[len(names) - 1])


class FunctionGradient(Subject):
    """A backward; ``apply`` runs it, ``given`` are the user's inputs on the CPU."""

    same = "It does not depend on the incoming gradient."

    def __init__(self, function: Any, name: str, inputs: Sequence[Any], seed: int) -> None:
        self.function, self.seed = name, seed
        self.code = function
        is_class = isinstance(function, type) and issubclass(function, Function)
        self.apply: Callable[..., Any] = function.apply if is_class else function
        weights = {}
        if isinstance(function, nn.Module):
            weights = {key: p for key, p in function.named_parameters() if p.requires_grad}
            self.apply = partial(_with_weights, function, list(weights))
        self.given = [v.detach().cpu() if isinstance(v, Tensor) else v for v in (*inputs, *weights.values())]
        marked = [i for i, v in enumerate(inputs) if is_float(v) and v.requires_grad]
        self.marked = bool(marked or weights)
        floats = marked or [i for i, v in enumerate(inputs) if is_float(v)]
        self.names = {f"input {i}": i for i in floats}
        self.names |= {key: len(inputs) + i for i, key in enumerate(weights)}
        self.live: list[bool] = []  # of the outputs that can carry a gradient, those that do

    def prepare(self) -> Diagnosis | None:
        wide = [v.to(_WIDER.get(v.dtype, v.dtype)) if is_float(v) else v for v in self.given]
        try:
            try:
                inputs, first = wide, self.outputs(wide)
            except Exception:  # a kernel for one dtype only
                inputs, first = self.given, self.outputs(self.given)
            second = self.outputs(inputs)
            if any(
                not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True)
            ):
                message = "Two calls of forward with the same inputs give two outputs: is it random?"
                return Diagnosis(Cause.nondeterministic, message)
            if any(not y.isfinite().all() for y in first):
                return Diagnosis(Cause.non_finite, "Its forward gives NaN or infinity for these inputs.")
            ys, grads, _ = self._backward(inputs, [torch.ones_like(y) for y in first])
        except Exception as error:  # anyone's code
            return self._raised(error)
        self.live = [y.requires_grad for y in ys]
        if not any(self.live):
            return Diagnosis(Cause.detached, "None of its outputs requires a gradient.")
        empty = [name for name, index in self.names.items() if not self.given[index].numel()]
        constant = (
            [] if self.marked else [name for name, g in zip(self.names, grads, strict=True) if g is None]
        )
        if set(self.names) > {*constant, *empty}:
            self.names = {name: i for name, i in self.names.items() if name not in (*constant, *empty)}
            if constant:
                self.note = f" A constant, as backward gives None for it: {', '.join(constant)}."
        dtypes = {inputs[i].dtype.to_real() for i in self.names.values()}
        self.accuracy = max(ACCURACY[dtype][0] for dtype in dtypes)
        self.points = function_points(self._live_outputs, inputs, self.names, self.seed)
        kinks = self.points[0].place.kinks if self.points else []
        if kinks:
            self.note += f" Forward has a kink or a jump at {', '.join(kinks[:3])}: judged beside it."
        return None

    def gradient(self, *inputs_and_v: Any) -> tuple[Tensor, ...]:
        """The gradients of the inputs that count as a function of inputs and incoming gradients."""
        counts = self.names.values()
        with torch.enable_grad():
            inputs = [
                v.detach().requires_grad_(i in counts) if is_float(v) and not v.requires_grad else v
                for i, v in enumerate(inputs_and_v[: len(self.given)])
            ]
            ys = [y for y in self._floats(self.apply(*inputs)) if y.requires_grad]
            wanted = [inputs[i] for i in self.names.values()]
            v = inputs_and_v[len(self.given) :]
            return torch.autograd.grad(ys, wanted, v, create_graph=True, materialize_grads=True)

    def outputs(self, inputs: Sequence[Any]) -> list[Tensor]:
        """The floating-point outputs for copies of the inputs."""
        with torch.no_grad():
            return self._floats(self.apply(*(v.clone() if isinstance(v, Tensor) else v for v in inputs)))

    def _floats(self, result: Any) -> list[Tensor]:
        return [y for y in (result if isinstance(result, tuple | list) else (result,)) if is_float(y)]

    def _live_outputs(self, inputs: Sequence[Any]) -> list[Tensor]:
        return [y for y, live in zip(self.outputs(inputs), self.live, strict=True) if live]

    def _backward(
        self, inputs: Sequence[Any], v: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor | None], str]:
        """The outputs, the gradients of the inputs that count, and the names of what was changed in place."""
        counts = self.names.values()
        leaves = [
            value.clone().requires_grad_(i in counts) if is_float(value) else value
            for i, value in enumerate(inputs)
        ]
        # A clone of each leaf: a Function may work in place, but not on a leaf.
        taken = [value.clone() if isinstance(value, Tensor) else value for value in leaves]
        with torch.enable_grad():
            result = self.apply(*taken)
        ys = self._floats(result)
        sent = [_copy(g) for g in v]
        pairs = [(y, g) for y, g in zip(ys, sent[: len(ys)], strict=False) if y.requires_grad]
        wanted = [leaves[i] for i in counts]
        grads: Sequence[Tensor | None] = [None] * len(wanted)
        if pairs:
            grads = torch.autograd.grad(
                [y for y, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True
            )
        changed = [] if all(map(torch.equal, sent, v)) else ["the incoming gradient"]
        for i, (value, was) in enumerate(zip(taken, inputs, strict=True)):
            dirty = any(value is y for y in ys)
            if (
                is_float(value)
                and not dirty
                and not torch.equal(value.detach().nan_to_num(), was.nan_to_num())
            ):
                changed.append(f"input {i}")
        return ys, grads, " and ".join(changed)

    def call(self, point: FunctionPoint) -> Answer:
        try:
            _, grads, changed = self._backward(point.x, point.v)
        except Exception as error:
            return Answer(failure=self._raised(error))
        failure = self._in_their_own_dtype() if point.data == YOUR_DATA else None
        if failure:
            return Answer(failure=failure, changed=changed)
        values = {}
        for (name, index), g in zip(self.names.items(), grads, strict=True):
            flat = torch.zeros_like(real(point.x[index])) if g is None else real(g)
            values[name] = flat.double()[point.place.elements[name]]
        dtypes = frozenset(g.dtype.to_real() for g in grads if g is not None)
        return Answer(values, dtypes, changed=changed)

    def _in_their_own_dtype(self) -> Diagnosis | None:
        """NaN or infinity for the inputs as they were given: float32 overflows where float64 does not."""
        if all(not is_float(value) or value.dtype not in _WIDER for value in self.given):
            return None
        ys, grads, _ = self._backward(self.given, [torch.ones_like(y) for y in self.outputs(self.given)])
        if all(y.isfinite().all() for y in ys):
            for (name, index), g in zip(self.names.items(), grads, strict=True):
                if g is not None and not g.isfinite().all():
                    number, dtype = float(g[~g.isfinite()].real.flatten()[0]), self.given[index].dtype
                    message = f"It returns {number} for {name} in {dtype}, where the gradient is finite."
                    return Diagnosis(Cause.non_finite, message)
        return None

    def _raised(self, error: BaseException) -> Diagnosis:
        """An exception in forward or backward, or autograd's complaint about what backward returned."""
        failure = raised(getattr(self.code, "backward", self.code), error)
        shape = "invalid gradient" in failure.message or "incorrect number of gradients" in failure.message
        return Diagnosis(Cause.wrong_shape, failure.message) if shape else failure

    def misshapen(self, name: str, point: FunctionPoint, shape: tuple[int, ...], due: tuple[int, ...]) -> str:
        return f"It gives {name} a gradient of shape {shape} where {due} is due."

    def special(self, answers: Answers, name: str) -> Diagnosis | None:
        seen = [(a.point, a.values[name]) for a in answers.points if a.values]
        return not_the_derivative(seen, name, self.names[name], answers.eps)

    def candidates(self, answers: Answers, name: str) -> Iterator[Sequence[Candidate]]:
        message = "The incoming gradient is missing: backward(ctx, v) must multiply by v (chain rule)."
        yield [Candidate(Cause.missing_input, message, lambda p: p.product(name, torch.ones_like).value)]
        if all(a.point.element_by_element(name, self.names[name]) for a in answers.points):
            message = "Its backward is that of the identity (a straight-through estimator)."
            index = self.names[name]
            yield [Candidate(Cause.surrogate, message, lambda p: p.element_by_element(name, index)[1])]
        points = [answered.point for answered in answers.points]
        if all(t.is_complex() for p in points for t in (p.x[self.names[name]], *p.v)):
            message = "It is the derivative by z; due is that by its conjugate, v * derivative.conj()."
            yield [Candidate(Cause.wrong_variable, message, partial(_not_conjugate, name))]
        for other in answers.names:
            sizes = {len(answers.due(a.point, n).value) for a in answers.points for n in (name, other)}
            if other != name and len(sizes) == 1:
                message = f"It is the gradient of {other}: are the two exchanged?"
                yield [Candidate(Cause.wrong_variable, message, partial(_of_input, other))]


def _of_input(other: str, point: FunctionPoint) -> Tensor:
    return point.due(False)[other].value


def _not_conjugate(name: str, point: FunctionPoint) -> Tensor:
    """conj(Jᵀ conj(v)); every second real number is imaginary."""
    flipped = point.product(name, lambda v: v * (-1.0) ** torch.arange(len(v))).value
    return flipped * (-1.0) ** torch.tensor(point.place.elements[name])


def _with_weights(module: nn.Module, names: Sequence[str], *values: Any) -> Any:
    """The module's output for its inputs and, after them, its weights."""
    start = len(values) - len(names)
    return functional_call(module, dict(zip(names, values[start:], strict=True)), values[:start])


def _copy(v: Tensor) -> Tensor:
    """A copy that lies in memory as it does."""
    return torch.empty_strided(v.shape, v.stride(), dtype=v.dtype).copy_(v)
