"""The certificate against plain loops, closed forms and the facts of the course."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchgd import (
    GradientDescent,
    InputError,
    LinearModel,
    StochasticGradientDescent,
    course,
    hubble,
    train,
)
from torchgd.convergence.certificate import stability
from torchgd.convergence.methods import epoch_of
from torchgd.convergence.rate import auto_lr, log_distance

Data = tuple[Tensor, Tensor]
METHODS = [("gd", None), ("sgd", None), ("minibatch", 3)]


def run(x: Tensor, y: Tensor, lr: float, size: int, epochs: int, w: float = 1.0) -> float:
    """Plain Python: the samples in order, in batches."""
    xs, ys = x.tolist(), y.tolist()
    for _ in range(epochs):
        for start in range(0, len(xs), size):
            batch = list(zip(xs[start : start + size], ys[start : start + size], strict=True))
            w -= lr * sum(2 * a * (w * a - b) for a, b in batch) / len(batch)
    return w


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
@pytest.mark.parametrize("epochs", [1, 7, 100, 10_000])
@pytest.mark.parametrize("share", [1e-4, 0.3, 0.999, 1 - 1e-9])
def test_the_predicted_weight_is_the_trained_one(
    noisy_data: Data, method: str, batch_size: int | None, epochs: int, share: float
) -> None:
    x, y = noisy_data
    lr = share * stability(x, y, method=method, batch_size=batch_size).limit
    certificate = stability(x, y, lr, method=method, batch_size=batch_size)
    trained = run(x, y, lr, certificate.batch_size, epochs)
    assert certificate.converges
    assert certificate.epoch_map.after(epochs)(1.0) == pytest.approx(trained, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
def test_epochs_are_the_fewest_that_reach_the_tolerance(
    noisy_data: Data, method: str, batch_size: int | None
) -> None:
    x, y = noisy_data
    for share in (0.01, 0.2, 0.9):
        lr = share * stability(x, y, method=method, batch_size=batch_size).limit
        c = stability(x, y, lr, method=method, batch_size=batch_size, tolerance=1e-3)
        assert c.epochs is not None
        left = [
            abs(run(x, y, lr, c.batch_size, epochs) - c.fixed_point) for epochs in (0, c.epochs - 1, c.epochs)
        ]
        assert left[2] <= 1e-3 * left[0] * (1 + 1e-9)
        assert c.epochs == 1 or left[1] > 1e-3 * left[0]


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
def test_the_fixed_point_is_fixed(noisy_data: Data, method: str, batch_size: int | None) -> None:
    x, y = noisy_data
    certificate = stability(x, y, method=method, batch_size=batch_size)
    small = stability(x, y, certificate.limit * 1e-6, method=method, batch_size=batch_size)
    for c in (certificate, small):
        assert run(x, y, c.lr, c.batch_size, 1, c.fixed_point) == pytest.approx(c.fixed_point, abs=1e-14)
        assert c.bias == pytest.approx(abs(c.fixed_point - c.least_squares), abs=1e-14)
    # For lr → 0 it comes to the least squares of samples weighed as their batches are: a batch of the last
    # sample alone counts as much as one of three.
    weigh = torch.ones_like(x)
    weigh[-1] = 3.0 if method == "minibatch" else 1.0
    weighed = ((weigh * x * y).sum() / (weigh * x * x).sum()).item()
    assert small.fixed_point == pytest.approx(weighed, abs=1e-5)
    smaller = stability(x, y, certificate.limit * 1e-8, method=method, batch_size=batch_size)
    assert smaller.fixed_point - weighed == pytest.approx(
        (small.fixed_point - weighed) / 100, rel=1e-4, abs=1e-14
    )


def test_the_fastest_lr_forgets_the_start_in_one_epoch(noisy_data: Data) -> None:
    x, y = noisy_data
    for method, batch_size in METHODS:
        fastest = stability(x, y, method=method, batch_size=batch_size).fastest_lr
        c = stability(x, y, fastest, method=method, batch_size=batch_size)
        ends = {round(run(x, y, fastest, c.batch_size, 1, w), 12) for w in (-10.0, 0.0, 10.0)}
        assert ends == {round(c.fixed_point, 12)}
        assert c.factor == pytest.approx(0.0, abs=1e-15)
        assert c.epochs == 1


def test_loss_conventions(noisy_data: Data) -> None:
    """Half the mean needs twice the lr, the sum over n samples one nth."""
    x, y = noisy_data
    mean = stability(x, y)
    assert stability(x, y, loss="half").limit == pytest.approx(2 * mean.limit, rel=1e-14)
    assert stability(x, y, loss="sum").limit == pytest.approx(mean.limit / len(x), rel=1e-14)
    assert stability(x, y, loss="sum", method="sgd").intervals == stability(x, y, method="sgd").intervals
    # A ragged batch of one sample beside two of three: the sum weighs them 3 : 3 : 1.
    parts = [(x[start : start + 3] ** 2).sum().item() for start in (0, 3, 6)]
    ragged = stability(x, y, 0.01, loss="sum", method="minibatch", batch_size=3)
    assert ragged.factor == pytest.approx(math.prod(1 - 0.02 * part for part in parts), rel=1e-14)


def test_full_batch_facts_of_the_course(course_data: Data) -> None:
    certificate = stability(*course_data, lr=0.01)
    assert certificate.limit == pytest.approx(3 / 14, rel=1e-15)
    assert certificate.best_lr == pytest.approx(3 / 28, rel=1e-15)
    assert certificate.factor == pytest.approx(1 - 0.01 * 28 / 3, rel=1e-14)
    assert stability(*course_data, loss="sum").limit == pytest.approx(1 / 14, rel=1e-15)
    assert certificate.epoch_map.after(2)(1.0) == pytest.approx(1.1779555555555554, rel=1e-15)


def test_per_sample_facts_of_the_course(course_data: Data) -> None:
    x, _ = course_data
    certificate = stability(*course_data, lr=0.5, method="sgd")
    assert certificate.converges
    assert certificate.lr > certificate.limit
    assert "island 0.476538 … 0.519014" in certificate.verdict
    assert run(*course_data, lr=0.5, size=1, epochs=1) == 2.0
    assert not stability(*course_data, lr=0.3, method="sgd").converges
    y = torch.tensor([2.0, 5.0, 6.0]).double()
    assert stability(x, y, 0.01, method="sgd").fixed_point == pytest.approx(2.1258209, abs=5e-8)
    backwards = stability(x.flip(0), y.flip(0), 0.01, method="sgd")
    assert backwards.fixed_point == pytest.approx(2.1503713, abs=5e-8)
    assert backwards.least_squares == pytest.approx(15 / 7, rel=1e-15)


def test_hubble_is_said_and_done() -> None:
    """Just below the limit it converges, just above it diverges, and both are said before the first step."""
    x, y = hubble()
    limit = stability(x, y).limit
    assert limit == 0.8130688623591296
    for share, status, says in ((0.97, "converged", "It converges in "), (1.03, "diverged", "It diverges: ")):
        certificate = stability(x, y, share * limit)
        model = LinearModel(0.0, dtype=torch.float64)
        history = train(model, x, y, GradientDescent(model.parameters(), lr=share * limit), epochs=400)
        assert history.status == status
        assert certificate.converges == (status == "converged")
        assert certificate.verdict.startswith(says)
    for share in (1 - 1e-9, 1 + 1e-9):
        weights = [run(x, y, share * limit, len(x), epochs, w=0.0) for epochs in (0, 1000)]
        errors = [abs(weight - stability(x, y).least_squares) for weight in weights]
        assert stability(x, y, share * limit).converges == (share < 1) == (errors[1] < errors[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_any_dtype_is_certified_in_float64(course_data: Data, dtype: torch.dtype) -> None:
    x, y = course_data
    own, exact = stability(x.to(dtype), y.to(dtype), lr=0.01), stability(x, y, lr=0.01)
    rounding = torch.finfo(dtype).eps / torch.finfo(torch.float64).eps
    assert own.accuracy == pytest.approx(rounding * exact.accuracy, rel=0.02)  # type: ignore[operator]
    assert replace(own, accuracy=exact.accuracy, dtype=exact.dtype) == exact


def landing(x: list[float], lr: float) -> Fraction:
    """The exact factor of this very lr."""
    return math.prod((1 - Fraction(lr) * 2 * Fraction(value) ** 2 for value in x), start=Fraction(1))


LANDING = [
    [*range(12, 0, -1)],
    [*range(20, 0, -1)],
    [2000.0, 30.0, 0.07, 0.9, 3.1],
    [5.0, 0.1],
    [1e4, 0.3, 7.0],
]


@pytest.mark.parametrize("x", LANDING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rate_that_lands_is_certified_by_its_interval(x: list[float], dtype: torch.dtype) -> None:
    """At lr = 1/(2 xᵢ²) of the smallest x one factor is 0 or nearly, beside others that are very large."""
    values = torch.tensor(x, dtype=dtype)
    y = 2 * values + 0.1 * torch.cos(torch.arange(len(x))).to(dtype)
    lr = 1 / (2 * values.min().item() ** 2)
    c = stability(values, y, lr, method="sgd")
    exact = landing(values.double().tolist(), lr)
    assert c.factor == pytest.approx(float(exact), rel=1e-9)
    assert c.converges == any(low < lr < high for low, high in c.intervals)
    assert ("It converges" in c.verdict) == c.converges
    model = LinearModel(1.0, dtype=dtype)
    history = train(
        model, values, y, StochasticGradientDescent(model.parameters(), lr=lr), 40, gradient="hand"
    )
    if c.converges and c.accuracy is not None:
        assert abs(history.weight[-1].item() - c.fixed_point) <= c.accuracy
        assert f"rounding in {c.dtype}" in c.verdict or c.accuracy < 1e-6 * abs(c.fixed_point)


def test_no_number_is_not_a_number(noisy_data: Data) -> None:
    """Rates far too large: what overflows is inf or None, the fixed point is that of exact fractions."""
    x, y = noisy_data
    for method, batch_size in METHODS:
        for order in ("sequential", "shuffled", "replacement"):
            for lr in (1e3, 1e100, 1e308):
                c = stability(x, y, lr, method=method, batch_size=batch_size, order=order)
                assert not c.converges
                numbers = [c.factor, c.fixed_point, c.bias, c.best_lr, c.limit]
                assert not any(math.isnan(number) for number in numbers), c
                assert "diverges" in c.verdict
    c = stability(x, y, 1e100, method="sgd")
    scale, shift = Fraction(1), Fraction(0)
    for a, b in zip(map(Fraction, x.tolist()), map(Fraction, y.tolist()), strict=True):
        factor = 1 - Fraction(1e100) * 2 * a * a
        scale, shift = factor * scale, factor * shift + Fraction(1e100) * 2 * a * b
    assert c.fixed_point == pytest.approx(float(shift / (1 - scale)), rel=1e-12)


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
@pytest.mark.parametrize("order", ["sequential", "shuffled", "replacement"])
def test_json_holds_the_fields_and_the_verdict(
    noisy_data: Data, method: str, batch_size: int | None, order: str
) -> None:
    certificate = stability(*noisy_data, method=method, batch_size=batch_size, order=order)
    answer = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert answer["limit"] == certificate.limit
    assert answer["verdict"] == certificate.verdict
    assert re.fullmatch(r"It converges.*\.", certificate.verdict)
    assert answer["intervals"][0] == [0.0, certificate.limit]


@settings(max_examples=40)
@given(
    st.lists(st.floats(-100, 100).filter(lambda value: abs(value) > 1e-3), min_size=1, max_size=12),
    st.sampled_from(["sequential", "shuffled"]),
)
def test_per_sample_the_order_does_not_matter_for_the_limit(values: list[float], order: str) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    forwards = stability(x, 2 * x, method="sgd", order=order)
    backwards = stability(x.flip(0), 2 * x.flip(0), method="sgd")
    assert forwards.intervals == backwards.intervals
    assert 1 / (x * x).max().item() <= 2 * forwards.limit * (1 + 1e-12)


@settings(max_examples=40)
@given(st.floats(1e-3, 1e3), st.floats(0.01, 3.0))
def test_units_of_x_scale_the_learning_rate(unit: float, share: float) -> None:
    """With x in other units, x → u x, the same run has lr → lr/u² and w → w/u."""
    x, y = course()
    y = y + torch.tensor([0.5, -0.25, 0.125], dtype=torch.float64)
    lr = share * 0.2
    one = stability(x, y, lr, method="sgd")
    other = stability(unit * x, y, lr / unit**2, method="sgd")
    assert other.limit * unit**2 == pytest.approx(one.limit, rel=1e-9)
    assert other.factor == pytest.approx(one.factor, rel=1e-9, abs=1e-12)


class TestAutoLr:
    def test_full_batch_lands_in_one_step(self, noisy_data: Data) -> None:
        x, y = noisy_data
        lr, reason = auto_lr(x, y)
        assert run(x, y, lr, len(x), 1) == pytest.approx(stability(x, y).least_squares, abs=1e-14)
        assert "1/(2 mean x²)" in reason

    @pytest.mark.parametrize("epochs", [10, 1000])
    @pytest.mark.parametrize("order", ["sequential", "shuffled", "replacement"])
    @pytest.mark.parametrize(("method", "batch_size"), METHODS[1:])
    def test_otherwise_it_ends_nearest_to_least_squares(
        self, method: str, batch_size: int | None, order: str, epochs: int
    ) -> None:
        asked: dict[str, Any] = {"method": method, "batch_size": batch_size, "order": order}
        lr, reason = auto_lr(*hubble(), **asked, epochs=epochs)
        assert f"{epochs} epochs" in reason
        epoch = epoch_of(*hubble(), **asked)
        distances = [log_distance(epoch, lr * 1.1**power, epochs) for power in range(-5, 6)]
        assert distances[5] <= min(distances) + 0.05  # 2.5 % of the distance: the search stops there
        assert distances[5] <= log_distance(epoch, epoch.fastest_lr, epochs)
        assert lr == stability(*hubble(), **asked, epochs=epochs).best_lr
        assert not stability(*hubble(), lr, **asked).far or epochs == 10  # type: ignore[call-overload]

    @pytest.mark.parametrize(("method", "batch_size"), METHODS[1:])
    def test_on_a_real_table_the_best_rate_is_good_advice(self, method: str, batch_size: int | None) -> None:
        """A run at the best rate ends within the noise, one at the fastest rate may not, which is said."""
        x, y = hubble()
        best = stability(x, y, method=method, batch_size=batch_size)
        assert abs(run(x, y, best.lr, best.batch_size, 100) - best.least_squares) < best.standard_error / 10
        assert "too large" not in best.verdict
        fast = stability(x, y, best.fastest_lr, method=method, batch_size=batch_size)
        assert fast.far == (
            abs(run(x, y, fast.lr, fast.batch_size, 100) - best.least_squares) > best.standard_error
        )
        if method == "sgd":
            assert best.standard_error == pytest.approx(
                math.sqrt(50266.77658179018 * 24 / 23 / (x @ x).item())
            )
            assert "it settles at 545, 121 from least squares 423.937; the noise of" in fast.verdict
            assert "explains 42.2: lr is too large for steps of 1 sample, use lr 0.0013" in fast.verdict

    @pytest.mark.parametrize("order", ["sequential", "shuffled", "replacement"])
    @pytest.mark.parametrize(("method", "batch_size"), [("sgd", None), ("minibatch", 2)])
    def test_on_clean_data_it_forgets_the_start_fastest(
        self, course_data: Data, method: str, batch_size: int | None, order: str
    ) -> None:
        lr, reason = auto_lr(*course_data, method=method, batch_size=batch_size, order=order)
        c = stability(*course_data, lr, method=method, batch_size=batch_size, order=order)
        at_001 = stability(*course_data, 0.01, method=method, batch_size=batch_size, order=order)
        assert lr == c.fastest_lr
        assert abs(c.factor) < abs(at_001.factor)
        assert "every lr settles at least squares" in reason

    def test_a_batch_of_all_samples_is_the_full_batch(self) -> None:
        """NoInt1 of NIST's reference data sets, certified to 15 digits."""
        x = torch.arange(60.0, 71.0, dtype=torch.float64)
        y = torch.arange(130.0, 141.0, dtype=torch.float64)
        lr, _ = auto_lr(x, y, method="minibatch", batch_size=11, epochs=200)
        assert lr == auto_lr(x, y)[0]
        assert run(x, y, lr, 11, 200) == pytest.approx(2.07438016528926, rel=1e-12)


ONE = torch.ones(3, dtype=torch.float64)
NAN = torch.tensor([1.0, math.nan, 2.0], dtype=torch.float64)
ERRORS: list[tuple[dict[str, object], str]] = [
    ({"x": 0 * ONE}, "x is 0 in every sample, so there is nothing to learn; give other data"),
    ({"x": NAN}, "x[1]: nan is not finite; correct it, or leave the sample out"),
    ({"y": NAN}, "y[1]: nan is not finite; correct it, or leave the sample out"),
    ({"x": ONE[:2]}, "x has shape (2,) and y has shape (3,); give one y for each x"),
    ({"lr": 0.0}, "lr is 0.0; give a finite number above 0"),
    ({"lr": math.inf}, "lr is inf; give a finite number above 0"),
    ({"lr": math.nan}, "lr is nan; give a finite number above 0"),
    ({"tolerance": 0.0}, "tolerance is 0.0; give a number between 0 and 1, e.g. 1e-6"),
    ({"tolerance": -1.0}, "tolerance is -1.0; give a number between 0 and 1, e.g. 1e-6"),
    ({"method": "sdg"}, "method is 'sdg'; give one of gd, sgd, minibatch"),
    ({"order": "random"}, "order is 'random'; give one of sequential, shuffled, replacement"),
    ({"loss": "l1"}, "loss is 'l1'; give one of mean, sum, half"),
    ({"method": "minibatch"}, "minibatch needs a batch size; give e.g. batch_size=2 (--batch-size 2)"),
    (
        {"batch_size": 2},
        "gd takes no batch size; leave out batch_size (--batch-size), or take the method minibatch",
    ),
    (
        {"method": "minibatch", "batch_size": 4},
        "batch_size is 4, but there are 3 samples; give 1 to 3",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        stability(**{"x": ONE, "y": ONE, **arguments})  # type: ignore[call-overload]


def test_a_weight_beyond_the_numbers_is_infinite(course_data: Data) -> None:
    for lr in (0.25, 5.0):
        assert stability(*course_data, lr=lr).epoch_map.after(100_000)(1.0) == -math.inf
