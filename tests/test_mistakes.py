"""Wrong gradients as learners write them: (function, the name that is due, the factor that is due)."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from torchgd.check.gradient import check_gradient
from torchgd.check.mistakes import Cause
from torchgd.data.dataset import hubble

Function = Callable[[Any, Any, Any], Any]
X, Y = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]


def predict(w: Any, x: Any) -> Any:
    return x * w


# approximate -----------------------------------------------------------------------------------------


def forward_difference(w: Any, x: Any, y: Any) -> Any:
    h = 1e-4

    def cost(w: Any) -> Any:
        return sum((w * a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(x)

    return (cost(w + h) - cost(w)) / h


def central_difference(w: Any, x: Any, y: Any) -> Any:
    h = 1e-5
    return (((w + h) * x - y) ** 2 - ((w - h) * x - y) ** 2).mean() / (2 * h)


def half_precision(w: Any, x: Any, y: Any) -> Any:
    x, y = x.to(torch.bfloat16), y.to(torch.bfloat16)
    return (2 * x * (w.to(torch.bfloat16) * x - y)).mean()


def rounded_to_four_digits(w: Any, x: Any, y: Any) -> Any:
    gradient = sum(2 * a * (w * a - b) for a, b in zip(x, y, strict=True)) / len(x)
    return float(f"{gradient:.3e}")


# factor ----------------------------------------------------------------------------------------------


def two_twice(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * 2 * a * (w * a - b)
    return gradient / len(x)


def two_missing(w: Any, x: Any, y: Any) -> Any:
    return (x * (w * x - y)).mean()


def sign_turned(w: Any, x: Any, y: Any) -> Any:
    return np.mean(2 * x * (y - w * x))


def mean_of_the_mean(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * a * (a * w - b) / len(x)
    return gradient / len(x)


def sum_without_two(w: Any, x: Any, y: Any) -> Any:
    return torch.dot(x, w * x - y)


def two_and_mean_of_the_mean(w: Any, x: Any, y: Any) -> Any:
    return (4 * x * (w * x - y)).mean() / x.numel()


def divided_by_ten(w: Any, x: Any, y: Any) -> Any:
    return sum(2 * a * (w * a - b) for a, b in zip(x, y, strict=True)) / 10


def n_minus_one(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).sum() / (len(x) - 1)


def learning_rate_inside(w: Any, x: Any, y: Any) -> Any:
    return 0.01 * (2 * x * (w * x - y)).mean()


def share_of_each_sample(w: Any, x: Any, y: Any) -> Any:
    return 2 * x * (w * x - y) / len(x)


# lucky -----------------------------------------------------------------------------------------------


def three_written_out(w: Any, x: Any, y: Any) -> Any:
    return sum(2 * a * (w * a - b) for a, b in zip(x, y, strict=True)) / 3


def three_samples_only(w: Any, x: Any, y: Any) -> Any:
    return (2 * x[0] * (w * x[0] - y[0]) + 2 * x[1] * (w * x[1] - y[1]) + 2 * x[2] * (w * x[2] - y[2])) / 3


def own_data(w: Any, x: Any, y: Any) -> Any:
    return sum(2 * a * (w * a - b) for a, b in zip(X, Y, strict=True)) / len(X)


def slope_of_the_course(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * x * (w - 2)).mean()


# missing_input ---------------------------------------------------------------------------------------


def no_x(w: Any, x: Any, y: Any) -> Any:
    return 2 * (w * x - y).mean()


def no_x_in_the_loop(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * (predict(w, a) - b)
    return gradient / len(x)


def no_x_and_summed(w: Any, x: Any, y: Any) -> Any:
    return np.sum(w * x - y)


def x_twice(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * x * (w * x - y)).mean()


def no_x_of_each(w: Any, x: Any, y: Any) -> Any:
    return [2 * (w * a - b) for a, b in zip(x, y, strict=True)]


# wrong_variable --------------------------------------------------------------------------------------


def by_x(w: Any, x: Any, y: Any) -> Any:
    return (2 * w * (w * x - y)).mean()


def by_x_in_the_loop(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * w * (w * a - b)
    return gradient / len(x)


def by_y(w: Any, x: Any, y: Any) -> Any:
    return (-2 * (w * x - y)).mean()


def by_the_wrong_leaf(w: Any, x: Any, y: Any) -> Any:
    x = x.detach().requires_grad_()
    loss = ((w * x - y) ** 2).sum()
    return torch.autograd.grad(loss, x)[0]


# misplaced_bracket -----------------------------------------------------------------------------------


def bracket_before_y(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (x * w) - y).mean()


def bracket_before_y_in_the_loop(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * a * (a * w) - b
    return gradient / len(x)


def no_bracket(w: Any, x: Any, y: Any) -> Any:
    return sum(a * w - b * a for a, b in zip(x, y, strict=True)) / len(x)


def two_for_the_first_term(w: Any, x: Any, y: Any) -> Any:
    return np.mean(2 * x * x * w - x * y)


def x_inside_the_bracket(w: Any, x: Any, y: Any) -> Any:
    return 2 * (x * x * w - y).mean()


def division_of_the_last_term(w: Any, x: Any, y: Any) -> Any:
    return 2 * w * (x * x).sum() - 2 * (x * y).sum() / len(x)


# wrong_residual --------------------------------------------------------------------------------------


def plus_y(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x + y)).mean()


def prediction_only(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, _ in zip(x, y, strict=True):
        gradient += 2 * a * predict(w, a)
    return gradient / len(x)


def target_only(w: Any, x: Any, y: Any) -> Any:
    return np.mean(2 * x * y)


def size_of_the_residual(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y).abs()).mean()


def input_for_prediction(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (x - y)).mean()


# other_loss ------------------------------------------------------------------------------------------


def absolute_error(w: Any, x: Any, y: Any) -> Any:
    return (x * torch.sign(w * x - y)).mean()


def absolute_error_in_the_loop(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += a if w * a > b else -a
    return gradient / len(x)


def root_of_the_mean(w: Any, x: Any, y: Any) -> Any:
    w = w.detach().requires_grad_()
    loss = torch.sqrt(functional.mse_loss(w * x, y))
    return torch.autograd.grad(loss, w)[0]


def square_not_lowered(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y) ** 2).mean()


def with_weight_decay(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).mean() + 2 * 0.05 * w


def with_lasso(w: Any, x: Any, y: Any) -> Any:
    return np.mean(2 * x * (w * x - y)) + 0.3 * math.copysign(1.0, w)


def fourth_power(w: Any, x: Any, y: Any) -> Any:
    return (4 * x * (w * x - y) ** 3).mean()


def smooth_l1(w: Any, x: Any, y: Any) -> Any:
    w = w.detach().requires_grad_()
    return torch.autograd.grad(functional.smooth_l1_loss(w * x, y), w)[0]


def the_loss_itself(w: Any, x: Any, y: Any) -> Any:
    return sum((w * a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(x)


def the_new_weight(w: Any, x: Any, y: Any) -> Any:
    return w - 0.01 * (2 * x * (w * x - y)).mean()


# product_of_means ------------------------------------------------------------------------------------


def mean_times_mean(w: Any, x: Any, y: Any) -> Any:
    return 2 * x.mean() * (w * x - y).mean()


def mean_times_mean_of_lists(w: Any, x: Any, y: Any) -> Any:
    mean_x = sum(x) / len(x)
    mean_residual = sum(w * a - b for a, b in zip(x, y, strict=True)) / len(x)
    return 2 * mean_x * mean_residual


def square_of_the_mean(w: Any, x: Any, y: Any) -> Any:
    return 2 * (w * np.mean(x) ** 2 - np.mean(x * y))


def means_of_x_and_y(w: Any, x: Any, y: Any) -> Any:
    return 2 * w * (x**2).mean() - 2 * x.mean() * y.mean()


# part_of_the_data ------------------------------------------------------------------------------------


def return_inside_the_loop(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * a * (w * a - b)
        return gradient / len(x)
    return None


def assigned_not_added(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient = 2 * a * (w * a - b)
    return gradient


def range_from_one(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for i in range(1, len(x)):
        gradient += 2 * x[i] * (w * x[i] - y[i])
    return gradient / len(x)


def without_the_last(w: Any, x: Any, y: Any) -> Any:
    return (2 * x[:-1] * (w * x[:-1] - y[:-1])).mean()


def without_the_last_in_the_loop(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for i in range(len(x) - 1):
        gradient += 2 * x[i] * (w * x[i] - y[i])
    return gradient / (len(x) - 1)


# reduction -------------------------------------------------------------------------------------------


def summed(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).sum()


def summed_in_the_loop(w: Any, x: Any, y: Any) -> Any:
    gradient = 0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * a * (predict(w, a) - b)
    return gradient


def mean_of_a_dot(w: Any, x: Any, y: Any) -> Any:
    return np.dot(2 * x, w * x - y).mean()


def mean_for_each(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).mean() * torch.ones_like(x)


# saturated -------------------------------------------------------------------------------------------


def signed(w: Any, x: Any, y: Any) -> Any:
    return torch.sign((2 * x * (w * x - y)).mean())


def clamped(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).mean().clamp(-5, 5)


def clamped_in_python(w: Any, x: Any, y: Any) -> Any:
    gradient = sum(2 * a * (w * a - b) for a, b in zip(x, y, strict=True)) / len(x)
    return max(-1.0, min(1.0, gradient))


def each_clamped(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).clamp(-10, 10)


def mean_of_clamped(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).clamp(-10, 10).mean()


def normalised(w: Any, x: Any, y: Any) -> Any:
    gradient = np.mean(2 * x * (w * x - y))
    return gradient / (abs(gradient) + 1e-8)


def clipped_to_a_norm(w: Any, x: Any, y: Any) -> Any:
    w = w.detach().requires_grad_()
    functional.mse_loss(w * x, y).backward()
    torch.nn.utils.clip_grad_norm_([w], 2.0)
    return w.grad


# constant --------------------------------------------------------------------------------------------

weight = 1.5


def global_weight(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (weight * x - y)).mean()


def global_weight_in_the_loop(w: Any, x: Any, y: Any) -> Any:
    gradient = 0.0
    for a, b in zip(x, y, strict=True):
        gradient += 2 * a * (a * weight - b)
    return gradient / len(x)


def a_number(w: Any, x: Any, y: Any) -> Any:
    return -9.333333333333334


# nondeterministic ------------------------------------------------------------------------------------

total = 0.0
stored: Any = None


def random_sample(w: Any, x: Any, y: Any) -> Any:
    i = random.randrange(len(x))
    return 2 * x[i] * (w * x[i] - y[i])


def random_batch(w: Any, x: Any, y: Any) -> Any:
    batch = torch.randperm(len(x))[: (len(x) + 1) // 2]
    return (2 * x[batch] * (w * x[batch] - y[batch])).mean()


def sum_kept_between_calls(w: Any, x: Any, y: Any) -> Any:
    global total
    for a, b in zip(x, y, strict=True):
        total += 2 * a * (w * a - b)
    return total / len(x)


# mutates_input ---------------------------------------------------------------------------------------


def subtracts_in_place(w: Any, x: Any, y: Any) -> Any:
    residual = y
    residual -= w * x
    return (-2 * x * residual).mean()


def pops(w: Any, x: Any, y: Any) -> Any:
    gradient, n = 0.0, len(x)
    while x:
        a, b = x.pop(), y.pop()
        gradient += 2 * a * (w * a - b)
    return gradient / n


def updates_w(w: Any, x: Any, y: Any) -> Any:
    gradient = (2 * x * (w * x - y)).mean()
    w -= 0.01 * gradient
    return gradient


# non_finite, wrong_shape, wrong_dtype, detached, raises ----------------------------------------------


def divides_by_zero(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).mean() / (x - x).sum()


def square_root_of_minus(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y) * (-x.abs()).sqrt()).mean()


def logarithm_of_minus(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).mean() * torch.log(-(x**2).mean())


def column(w: Any, x: Any, y: Any) -> Any:
    return 2 * x[:, None] * (w * x[:, None] - y[:, None])


def number_in_a_list(w: Any, x: Any, y: Any) -> Any:
    return [sum(2 * a * (w * a - b) for a, b in zip(x, y, strict=True)) / len(x)]


def all_pairs(w: Any, x: Any, y: Any) -> Any:
    return 2 * x[:, None] * (w * x[:, None] - y)


def returns_nothing(w: Any, x: Any, y: Any) -> Any:
    global stored
    stored = (2 * x * (w * x - y)).mean()


def returns_text(w: Any, x: Any, y: Any) -> Any:
    return f"{sum(2 * a * (w * a - b) for a, b in zip(x, y, strict=True)) / len(x)}"


def whole_number(w: Any, x: Any, y: Any) -> Any:
    return int(sum(2 * a * (w * a - b) for a, b in zip(x, y, strict=True)) / len(x))


def is_it_positive(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).mean() > 0


def backward_of_an_item(w: Any, x: Any, y: Any) -> Any:
    w = w.clone().requires_grad_()
    loss = torch.tensor(functional.mse_loss(w * x, y).item())
    loss.backward()
    return w.grad


def backward_without_a_graph(w: Any, x: Any, y: Any) -> Any:
    w = w.clone().requires_grad_()
    with torch.no_grad():
        loss = functional.mse_loss(w * x, y)
    return torch.autograd.grad(loss, w)[0]


def weight_not_in_the_graph(w: Any, x: Any, y: Any) -> Any:
    leaf = w.clone().requires_grad_()
    loss = functional.mse_loss(torch.ones((), dtype=x.dtype, requires_grad=True) * x, y)
    return torch.autograd.grad(loss, leaf)[0]


def unbound_name(w: Any, x: Any, y: Any) -> Any:
    if len(x) > 100:
        target = y
    return (2 * x * (w * x - target)).mean()


def index_out_of_range(w: Any, x: Any, y: Any) -> Any:
    return sum(2 * x[i] * (w * x[i] - y[i]) for i in range(len(x) + 1)) / len(x)


def wrong_attribute(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).average()


# unknown ---------------------------------------------------------------------------------------------


def wrong_pairs(w: Any, x: Any, y: Any) -> Any:
    return sum(2 * x[i] * (w * x[i] - y[i - 1]) for i in range(len(x))) / len(x)


def exponential(w: Any, x: Any, y: Any) -> Any:
    return (2 * x * (w * x - y)).mean() * math.exp(0.01 * float(w) / (1 + abs(float(w))) + 1)


def larger_for_small(w: Any, x: Any, y: Any) -> Any:
    return sum(2 * abs(a) ** 1.5 * (w * a - b) for a, b in zip(x, y, strict=True)) / len(x)


C = Cause
WRONG: list[tuple[Function, Cause, float | None]] = [
    (forward_difference, C.approximate, None),
    (central_difference, C.approximate, None),
    (half_precision, C.approximate, None),
    (rounded_to_four_digits, C.approximate, None),
    (two_twice, C.factor, 2.0),
    (two_missing, C.factor, 0.5),
    (sign_turned, C.factor, -1.0),
    (mean_of_the_mean, C.factor, 1 / 3),
    (sum_without_two, C.factor, 3 / 2),
    (two_and_mean_of_the_mean, C.factor, 2 / 3),
    (divided_by_ten, C.factor, 3 / 10),
    (n_minus_one, C.factor, 3 / 2),
    (learning_rate_inside, C.factor, 0.01),
    (share_of_each_sample, C.factor, 1 / 3),
    (three_written_out, C.lucky, 1.0),
    (three_samples_only, C.lucky, None),
    (own_data, C.lucky, None),
    (slope_of_the_course, C.lucky, None),
    (no_x, C.missing_input, None),
    (no_x_in_the_loop, C.missing_input, None),
    (no_x_and_summed, C.missing_input, 3 / 2),
    (x_twice, C.missing_input, None),
    (no_x_of_each, C.missing_input, None),
    (by_x, C.wrong_variable, None),
    (by_x_in_the_loop, C.wrong_variable, None),
    (by_y, C.wrong_variable, None),
    (by_the_wrong_leaf, C.wrong_variable, None),
    (bracket_before_y, C.misplaced_bracket, None),
    (bracket_before_y_in_the_loop, C.misplaced_bracket, None),
    (no_bracket, C.misplaced_bracket, None),
    (two_for_the_first_term, C.misplaced_bracket, None),
    (x_inside_the_bracket, C.misplaced_bracket, None),
    (division_of_the_last_term, C.misplaced_bracket, None),
    (plus_y, C.wrong_residual, None),
    (prediction_only, C.wrong_residual, None),
    (target_only, C.wrong_residual, None),
    (size_of_the_residual, C.wrong_residual, None),
    (input_for_prediction, C.wrong_residual, None),
    (absolute_error, C.other_loss, None),
    (absolute_error_in_the_loop, C.other_loss, None),
    (root_of_the_mean, C.other_loss, None),
    (square_not_lowered, C.other_loss, 2 / 3),
    (with_weight_decay, C.other_loss, None),
    (with_lasso, C.other_loss, None),
    (fourth_power, C.other_loss, None),
    (smooth_l1, C.other_loss, None),
    (the_loss_itself, C.other_loss, None),
    (the_new_weight, C.other_loss, None),
    (mean_times_mean, C.product_of_means, None),
    (mean_times_mean_of_lists, C.product_of_means, None),
    (square_of_the_mean, C.product_of_means, None),
    (means_of_x_and_y, C.product_of_means, None),
    (return_inside_the_loop, C.part_of_the_data, None),
    (assigned_not_added, C.part_of_the_data, None),
    (range_from_one, C.part_of_the_data, None),
    (without_the_last, C.part_of_the_data, None),
    (without_the_last_in_the_loop, C.part_of_the_data, None),
    (summed, C.reduction, 3.0),
    (summed_in_the_loop, C.reduction, 3.0),
    (mean_of_a_dot, C.reduction, 3.0),
    (mean_for_each, C.reduction, None),
    (signed, C.saturated, None),
    (clamped, C.saturated, None),
    (clamped_in_python, C.saturated, None),
    (each_clamped, C.saturated, None),
    (mean_of_clamped, C.saturated, None),
    (normalised, C.saturated, None),
    (clipped_to_a_norm, C.saturated, None),
    (global_weight, C.constant, None),
    (global_weight_in_the_loop, C.constant, None),
    (a_number, C.constant, None),
    (random_sample, C.nondeterministic, None),
    (random_batch, C.nondeterministic, None),
    (sum_kept_between_calls, C.nondeterministic, None),
    (subtracts_in_place, C.mutates_input, None),
    (pops, C.mutates_input, None),
    (updates_w, C.mutates_input, None),
    (divides_by_zero, C.non_finite, None),
    (square_root_of_minus, C.non_finite, None),
    (logarithm_of_minus, C.non_finite, None),
    (column, C.wrong_shape, None),
    (number_in_a_list, C.wrong_shape, None),
    (all_pairs, C.wrong_shape, None),
    (returns_nothing, C.wrong_dtype, None),
    (returns_text, C.wrong_dtype, None),
    (whole_number, C.wrong_dtype, None),
    (is_it_positive, C.wrong_dtype, None),
    (backward_of_an_item, C.detached, None),
    (backward_without_a_graph, C.detached, None),
    (weight_not_in_the_graph, C.detached, None),
    (unbound_name, C.raises, None),
    (index_out_of_range, C.raises, None),
    (wrong_attribute, C.raises, None),
    (wrong_pairs, C.unknown, None),
    (exponential, C.unknown, None),
    (larger_for_small, C.unknown, None),
]


@pytest.mark.parametrize(("f", "cause", "factor"), WRONG, ids=[row[0].__name__ for row in WRONG])
def test_mistake_is_named(f: Function, cause: Cause, factor: float | None) -> None:
    report = check_gradient(f, X, Y)
    assert report.cause is cause, report
    assert report.factor == (None if factor is None else pytest.approx(factor, rel=1e-9)), report
    assert not report.ok


OF_THIS_DATA_ONLY = {C.lucky, C.approximate}
ELSEWHERE = [row for row in WRONG if row[1] not in OF_THIS_DATA_ONLY]


@pytest.mark.parametrize(
    ("f", "cause"), [row[:2] for row in ELSEWHERE], ids=[row[0].__name__ for row in ELSEWHERE]
)
def test_mistake_has_the_same_name_on_other_data(f: Function, cause: Cause) -> None:
    """On nebulae, one of which fits exactly at w = 400, and on tiny and huge numbers."""
    distance, velocity = hubble()
    assert check_gradient(f, distance, velocity, 400.0).cause is cause
    generator = torch.Generator().manual_seed(3)
    for x_size, y_size in ((1e-7, 1e5), (1e6, 1e-4)):
        x, y = torch.randn(2, 11, generator=generator, dtype=torch.float64)
        assert check_gradient(f, x_size * x, y_size * y, y_size / x_size).cause is cause


def test_every_cause_has_three_wrong_gradients() -> None:
    counts = Counter(cause for _, cause, _ in WRONG)
    # of modules and of autograd Functions, whose tables stand in test_mutants and test_function_check
    others = {Cause.activation, Cause.broadcast, Cause.missing_path, Cause.surrogate, Cause.transposed}
    assert {cause for cause in Cause if counts[cause] < 3} == {Cause.correct, Cause.wrong_axis, *others}
