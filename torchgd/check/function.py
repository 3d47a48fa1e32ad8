"""The backward of a `torch.autograd.Function`, or of any function of tensors, against differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from torchgd.check.calling import raised
from torchgd.check.diagnose import examine
from torchgd.check.differences import real
from torchgd.check.function_points import ACCURACY, FunctionPoint, function_points, is_float
from torchgd.check.gather import Answers
from torchgd.check.mistakes import Cause
from torchgd.check.report import Diagnosis, GradientReport
from torchgd.check.subject import Answer, Candidate, Subject
from torchgd.errors import InputError

_WIDER = {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64,
          torch.complex64: torch.complex128}  # fmt: skip


def check_function(function: Callable[..., Any], *inputs: Any, seed: int = 0) -> GradientReport:
    """Check the backward that somebody wrote for a `torch.autograd.Function`, and name the mistake in it.

    What is right: backward(v) = Jᵀ v with J the Jacobian of forward, by differences in float64 (or in the
    dtype of the inputs, where forward takes no other), at these inputs and at some near them.

    Args:
        function: the class, with forward and backward; or a function of tensors that applies one.
        inputs: what ``function.apply`` takes; small tensors, as every element is moved. Where some of them
            require a gradient, only theirs are judged; else None for an input declares it a constant.
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
    return examine(FunctionGradient(function, name, inputs, seed))


class FunctionGradient(Subject):
    """A backward; ``apply`` runs it, ``given`` are the user's inputs on the CPU."""

    same = "It does not depend on the incoming gradient."

    def __init__(self, function: Any, name: str, inputs: Sequence[Any], seed: int) -> None:
        self.function, self.seed = name, seed
        self.code = function
        is_class = isinstance(function, type) and issubclass(function, Function)
        self.apply: Callable[..., Any] = function.apply if is_class else function
        self.given = [value.detach().cpu() if isinstance(value, Tensor) else value for value in inputs]
        marked = [i for i, v in enumerate(inputs) if is_float(v) and v.requires_grad]
        self.marked = bool(marked)
        floats = marked or [i for i, v in enumerate(inputs) if is_float(v)]
        self.names = {f"input {i}": i for i in floats}
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
        values = {}
        for (name, index), g in zip(self.names.items(), grads, strict=True):
            flat = torch.zeros_like(real(point.x[index])) if g is None else real(g)
            values[name] = flat.double()[point.place.elements[name]]
        dtypes = frozenset(g.dtype.to_real() for g in grads if g is not None)
        return Answer(values, dtypes, changed=changed)

    def _raised(self, error: BaseException) -> Diagnosis:
        """An exception in forward or backward, or autograd's complaint about what backward returned."""
        failure = raised(getattr(self.code, "backward", self.code), error)
        shape = "invalid gradient" in failure.message or "incorrect number of gradients" in failure.message
        return Diagnosis(Cause.wrong_shape, failure.message) if shape else failure

    def misshapen(self, name: str, point: FunctionPoint, shape: tuple[int, ...], due: tuple[int, ...]) -> str:
        return f"It gives {name} a gradient of shape {shape} where {due} is due."

    def candidates(self, answers: Answers, name: str) -> Iterator[Sequence[Candidate]]:
        message = "The incoming gradient is missing: backward(ctx, v) must multiply by v (chain rule)."
        yield [Candidate(Cause.missing_input, message, lambda point: point.of_ones(name))]
        for other in answers.names:
            sizes = {len(answers.due(a.point, n).value) for a in answers.points for n in (name, other)}
            if other != name and len(sizes) == 1:
                message = f"It is the gradient of {other}: are the two exchanged?"
                yield [Candidate(Cause.wrong_variable, message, partial(_of_input, other))]


def _of_input(other: str, point: FunctionPoint) -> Tensor:
    return point.due(False)[other].value


def _copy(v: Tensor) -> Tensor:
    """A copy that lies in memory as it does."""
    return torch.empty_strided(v.shape, v.stride(), dtype=v.dtype).copy_(v)
