"""The verdict on right gradients, in every form, and on multiples of them; bad input; what a report says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from torchgd import InputError, LinearModel, StochasticGradientDescent, train
from torchgd.check.gradient import check_gradient
from torchgd.check.mistakes import Cause
from torchgd.check.probes import own_probes, your_probes
from torchgd.gradient import gradient, gradients

Function = Callable[[Any, Any, Any], Any]
X, Y = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]


def vectorised(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).mean()


def matrix_form(w: Any, x: Any, y: Any) -> Any:
    return 2 * x @ (x * w - y) / len(x)


def expanded(w: Any, x: Any, y: Any) -> Any:
    return 2 * (w * (x * x).mean() - (x * y).mean())


def loop_over_tensors(w: Any, x: Any, y: Any) -> Any:
    gradient = torch.zeros((), dtype=x.dtype)
    for i in range(x.shape[0]):
        gradient = gradient + 2 * x[i] * (w * x[i] - y[i])
    return gradient / x.shape[0]


def loop_over_numbers(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * a * (a * w - b)
    return gradient / len(x)


def carefully_summed(w: Any, x: Any, y: Any) -> Any:
    return math.fsum(2 * a * (w * a - b) for a, b in zip(x, y, strict=True)) / len(x)


def one_sample(w: Any, x: Any, y: Any) -> Any:
    return 2 * x * (w * x - y) if float(x) != 0 else 0.0


def in_numpy(w: Any, x: Any, y: Any) -> Any:
    return np.dot(x, np.multiply(w, x) - y) * 2 / np.size(x)


def in_float32(w: Any, x: Any, y: Any) -> Any:
    w, x, y = w.float(), x.float(), y.float()
    return (2 * x * (w * x - y)).mean()


def in_float32_as_a_number(w: Any, x: Any, y: Any) -> Any:
    return (2 * x.float() * (w.float() * x.float() - y.float())).mean().item()


def each(w: Any, x: Any, y: Any) -> Any:
    return [2 * a * (w * a - b) for a, b in zip(x, y, strict=True)]


def autograd(w: Any, x: Any, y: Any) -> Any:
    w = torch.tensor(w, dtype=x.dtype, requires_grad=True)
    functional.mse_loss(w * x, y).backward()
    return w.grad


def func_grad(w: Any, x: Any, y: Any) -> Any:
    return torch.func.grad(lambda w: ((w * x - y) ** 2).mean())(w)


def per_sample_grad(w: Any, x: Any, y: Any) -> Any:
    return torch.func.vmap(torch.func.grad(lambda w, x, y: (w * x - y) ** 2), (None, 0, 0))(w, x, y)


RIGHT = [
    (vectorised, "tensors", 99),
    (matrix_form, "tensors", 99),
    (expanded, "tensors", 99),
    (loop_over_tensors, "tensors", 99),
    (loop_over_numbers, "lists of numbers", 99),
    (carefully_summed, "lists of numbers", 99),
    (one_sample, "one sample at a time", 99),
    (in_numpy, "numpy arrays", 99),
    (in_float32, "tensors", 99),
    (in_float32_as_a_number, "tensors", 99),
    (each, "lists of numbers", 99),
    (autograd, "tensors and a number w", 99),
    (func_grad, "tensors", 22),
    (per_sample_grad, "tensors", 22),
]


def data_sets(count: int) -> list[tuple[float, Tensor, Tensor]]:
    """Seeded data of 1 to 12 samples: tiny, huge, noisy or not, with zeros, constant, at the optimum."""
    generator = torch.Generator().manual_seed(2)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    sets = []
    for index in range(count):
        n = 1 + index % 12
        x_size, y_size = (10.0 ** (8 * float(randn())) for _ in range(2))
        x = x_size * randn(n)
        if index % 7 == 0:
            x = x_size * torch.ones(n, dtype=torch.float64)
        if index % 11 == 0:
            x[0] = 0.0
        slope = y_size / x_size
        y = slope * x + (y_size * randn(n) if index % 3 else 0.0)
        w = (slope, 1.0, 0.0, float(randn()))[index % 4]
        sets.append((w, x, y))
    return sets


@pytest.mark.parametrize(("f", "form", "count"), RIGHT, ids=[row[0].__name__ for row in RIGHT])
def test_no_false_alarm(f: Function, form: str, count: int) -> None:
    """Seeded data sets: a right gradient is right on each, in whatever form it is written."""
    given_as: dict[str, Callable[[Tensor], Any]] = {
        "lists of numbers": Tensor.tolist,
        "numpy arrays": Tensor.numpy,
    }
    as_given = given_as.get(form, torch.clone)
    for w, x, y in data_sets(count):
        report = check_gradient(f, as_given(x), as_given(y), w)
        assert report.cause is Cause.correct, f"{report}\n{w}, {x}, {y}"
        assert report.form == form


@given(st.floats(-1e6, 1e6), st.sampled_from([vectorised, loop_over_numbers, each]))
@example(0.0, vectorised)
@example(1 + 1e-6, vectorised)
@example(3.0, vectorised)  # as many as there are samples: no factor N
@example(1e-6, each)
def test_any_constant_factor_is_found(k: float, f: Function) -> None:
    assume(abs(k - 1) > 1e-9 and (k == 0 or abs(k) > 1e-12))

    def multiple(w: Any, x: Any, y: Any) -> Any:
        answer = f(w, x, y)
        return [k * item for item in answer] if isinstance(answer, list) else k * answer

    report = check_gradient(multiple, X, Y)
    assert report.cause is Cause.factor
    assert report.factor == pytest.approx(k, rel=1e-9)  # six digits are due


@given(st.floats(1e-3, 1e3), st.sampled_from([-1, 1]))
def test_a_constant_factor_of_float32_code_is_found_to_six_digits(k: float, sign: int) -> None:
    assume(abs(k - 1) > 1e-4)
    report = check_gradient(lambda w, x, y: sign * k * in_float32(w, x, y), torch.tensor(X), torch.tensor(Y))
    assert report.cause is Cause.factor
    assert report.factor == pytest.approx(sign * k, rel=1e-6)


@pytest.mark.parametrize(
    ("k", "power", "name"),
    [
        (2.0, 0, "2"),
        (0.5, 0, "½"),
        (-0.5, 0, "−½"),
        (-1.0, 0, "−1"),
        (1.0, 1, "N"),
        (1.0, -1, "1/N"),
        (2.0, -1, "2/N"),
        (0.5, 1, "N/2"),
        (1.5, 1, "3 N/2"),
        (-1.0, 1, "−N"),
        (0.5, -1, "1/(2 N)"),
        (1.0, 2, "N²"),
        (math.pi, 0, "3.141593"),
    ],
)
def test_factor_has_its_name(k: float, power: int, name: str) -> None:
    report = check_gradient(lambda w, x, y: 2 * x * (w * x - y) * k * len(x) ** power, X, Y)
    assert (report.cause, report.factor_name) == (Cause.factor, name)
    assert report.factor == pytest.approx(k * 3.0**power, rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_three_ways_agree(seed: int) -> None:
    """The exact derivative, autograd and the central difference, each to N + 8 roundings of its terms."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 1 + seed, generator=generator, dtype=torch.float64)
    for probe in [*own_probes(seed), *your_probes(1.5, x, y, seed)]:
        tolerance = 2.0**-52 * (probe.n + 8) * probe.scale
        assert torch.equal(probe.right, gradients(probe.w, probe.x, probe.y))
        assert (probe.autograd[1] - probe.right).abs().le(tolerance).all()
        assert abs(probe.autograd[0] - gradient(probe.w, probe.x, probe.y)) <= tolerance.mean()
        # A difference of two losses over 2 h: rounding of losses of the size of (|w x| + |y| + |h x|)².
        step = max(abs(probe.w), float(probe.y.abs().max() / probe.x.abs().max()))
        size = ((abs(probe.w) + step) * probe.x.abs() + probe.y.abs()) ** 2 / step
        assert (probe.difference[1] - probe.right).abs().le(2.0**-52 * 8 * size).all()


@pytest.mark.parametrize(
    ("f", "per_sample", "reduction", "cause"),
    [
        (vectorised, False, "mean", Cause.correct),
        (vectorised, True, "mean", Cause.reduction),
        (each, False, "mean", Cause.reduction),
        (each, True, "mean", Cause.correct),
        (vectorised, None, "sum", Cause.reduction),
        (lambda w, x, y: (2 * x * (w * x - y)).sum(), None, "sum", Cause.correct),
        (lambda w, x, y: (x * (w * x - y)).sum(), None, "sum", Cause.factor),
        (each, None, "sum", Cause.correct),
        (lambda w, x, y: 2 * (w * x - y).sum(), None, "sum", Cause.missing_input),
    ],
)
def test_what_is_due_can_be_told(f: Function, per_sample: bool | None, reduction: str, cause: Cause) -> None:
    assert check_gradient(f, X, Y, per_sample=per_sample, reduction=reduction).cause is cause


def test_a_mistake_is_found_on_data_that_hide_it() -> None:
    """With x = 1 the x of the chain rule cannot be seen; with one sample the sum is the mean."""
    no_x = check_gradient(lambda w, x, y: 2 * (w * x - y).mean(), [1.0, 1.0], [2.0, 5.0])
    summed = check_gradient(lambda w, x, y: (2 * x * (w * x - y)).sum(), [2.0], [5.0])
    assert (no_x.cause, summed.cause) == (Cause.missing_input, Cause.lucky)


def test_a_right_gradient_that_fails_for_one_sample_is_lucky() -> None:
    def needs_two(w: Any, x: Any, y: Any) -> Any:
        if len(x) < 2:
            raise ZeroDivisionError("too few")
        return vectorised(w, x, y)

    report = check_gradient(needs_two, X, Y)
    assert report.cause is Cause.lucky
    assert "at N = 1" in report.message
    assert "raised ZeroDivisionError: too few (line" in report.message


def test_data_are_not_changed_and_no_random_number_is_drawn() -> None:
    x, y = torch.tensor(X), torch.tensor(Y)
    before = torch.random.get_rng_state()
    check_gradient(vectorised, x, y)
    check_gradient(lambda w, x, y: (x * y).mean(), x, y)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (x.tolist(), y.tolist()) == (X, Y)


def test_check_works_without_gradients_enabled() -> None:
    with torch.no_grad():
        report = check_gradient(autograd, torch.tensor(X), torch.tensor(Y))
        assert report.ok
        assert all(row.ok for row in report.evidence)


def test_report_prints_at_80_columns() -> None:
    def summed(w: Any, xs: Any, ys: Any) -> Any:
        gradient = 0.0
        for x, y in zip(xs, ys, strict=True):
            gradient += 2 * x * (w * x - y)
        return gradient

    report = check_gradient(summed, X, Y)
    lines = str(report).splitlines()
    assert lines[:5] == [
        "summed: wrong (reduction)",
        "  It is the sum over the samples where the mean is due: N times too large.",
        "  Write:",
        "    return sum(2 * a * (w * a - b) for a, b in zip(xs, ys)) / len(xs)",
        "  It was given lists of numbers.",
    ]
    assert max(map(len, lines)) <= 80
    assert "  your data    3         1           -28     -9.33333     -9.33333  ✗" in lines
    assert report.factor == 3.0


@pytest.mark.parametrize("f", [row[0] for row in RIGHT if row[2] == 99])
def test_the_line_to_write_is_right(f: Function) -> None:
    """The line that a report gives for twice the gradient, put into a function, is right."""
    for per_sample in (False, True):
        report = check_gradient(doubled(f), X, Y, per_sample=per_sample)
        assert report.line
        names: dict[str, Any] = {}
        exec(f"def mended(w, x, y):\n    {report.line}\n", names)
        assert check_gradient(names["mended"], X, Y, per_sample=per_sample).ok, report


def doubled(f: Function) -> Function:
    def twice(w: Any, x: Any, y: Any) -> Any:
        answer = f(w, x, y)
        return [2 * item for item in answer] if isinstance(answer, list) else 2 * answer

    return twice


def test_each_sample_is_in_the_evidence() -> None:
    report = check_gradient(lambda w, x, y: [2 * (w * a - b) for a, b in zip(x, y, strict=True)], X, Y)
    rows = [row for row in report.evidence if row.data == "your data" and row.at == "1"]
    assert [(row.entry, row.hand, row.autograd, row.difference) for row in rows] == [
        ("sample 0", -2.0, -2.0, -2.0),
        ("sample 1", -4.0, -8.0, -8.0),
        ("sample 2", -6.0, -18.0, -18.0),
    ]
    assert [row.ok for row in rows] == [True, False, False]


BAD_INPUT: list[tuple[Any, Any, Any, Any, str]] = [
    (3.0, X, Y, 1.0, "float is not a function; give the gradient as a function f(w, x, y)"),
    (
        lambda x, y: 0.0,
        X,
        Y,
        1.0,
        "<lambda>(x, y) reads no number from outside: which is the weight? Write def <lambda>(w, x, y)",
    ),
    (
        lambda x, y, w: 0.0,
        X,
        Y,
        1.0,
        "<lambda>(x, y, w) has its arguments in another order; write <lambda>(w, x, y)",
    ),
    (vectorised, [], [], 1.0, "x has shape (0,) and y has shape (0,); give one y for each x"),
    (vectorised, X, [2.0], 1.0, "x has shape (3,) and y has shape (1,); give one y for each x"),
    (
        vectorised,
        [[1.0], [2.0]],
        [2.0, 4.0],
        1.0,
        "x has shape (2, 1) and y has shape (2,); flatten both to (n,)",
    ),
    (
        vectorised,
        X,
        [2.0, math.nan, 6.0],
        1.0,
        "y[1]: nan is not finite; correct it, or leave the sample out",
    ),
    (vectorised, X, Y, math.inf, "w is inf; give one finite number"),
    (vectorised, X, Y, [1.0, 2.0], "w is [1.0, 2.0]; give one finite number"),
    (vectorised, "abc", Y, 1.0, "x is a str; give numbers: a tensor, an array or a list"),
]


@pytest.mark.parametrize(("f", "x", "y", "w", "message"), BAD_INPUT, ids=[row[4] for row in BAD_INPUT])
def test_bad_input(f: Any, x: Any, y: Any, w: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_gradient(f, x, y, w)
    assert str(caught.value).startswith(message)


def test_unknown_reduction() -> None:
    with pytest.raises(InputError, match="reduction is 'average'; give 'mean' or 'sum'"):
        check_gradient(vectorised, X, Y, reduction="average")


w = 1.0


def forward(x: Any) -> Any:
    return x * w


def of_the_lecture(xs: Any, ys: Any) -> Any:
    gradient = 0
    for x, y in zip(xs, ys, strict=True):
        gradient += 2 * x * (x * w - y)
    return gradient / len(xs)


def of_the_second_program(x: Any, y: Any) -> Any:
    return 2 * x * (forward(x) - y)


def test_a_weight_that_is_a_global_is_found_and_put_back() -> None:
    """Lecture 3's own code: gradient(xs, ys), with w a global of the file or read by another function."""
    here = 2.0
    for f in (of_the_lecture, of_the_second_program, lambda x, y: (2 * x * (x * here - y)).mean()):
        report = check_gradient(f, torch.tensor(X), torch.tensor(Y))
        assert report, report
        assert report.form.startswith("tensors, and w as the global ")
    assert check_gradient(lambda x, y: (x * (x * here - y)).mean(), X, Y).factor == 0.5
    assert (w, here) == (1.0, 2.0)


def test_one_samples_gradient_trains_with_batches_of_one() -> None:
    models = [LinearModel(), LinearModel()]
    ways: list[Any] = ["hand", lambda w, x, y: 2 * x * (w * x - y)]
    for model, f in zip(models, ways, strict=True):
        train(
            model,
            torch.tensor(X),
            torch.tensor(Y),
            StochasticGradientDescent(model.parameters()),
            3,
            gradient=f,
        )
    assert models[0].weight == models[1].weight


def test_of_many_samples_some_are_tried() -> None:
    x = torch.linspace(1, 2, 20_001)
    report = check_gradient(lambda w, x, y: (2 * x * (w * x - y)).sum(), x, 2 * x)
    assert (report.cause, report.factor) == (Cause.reduction, 20_001)
    assert report.message.endswith(" Of your 20,001 samples 6,667 were tried.")
