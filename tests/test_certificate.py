"""The certificate against plain loops, closed forms and the facts of the course."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchgd import GradientDescent, InputError, LinearModel, course, hubble, train
from torchgd.convergence.certificate import auto_lr, stability

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
    assert certificate.weight_after(epochs, 1.0) == pytest.approx(trained, rel=1e-10, abs=1e-10)


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


def test_the_best_lr_forgets_the_start_in_one_epoch(noisy_data: Data) -> None:
    x, y = noisy_data
    for method, batch_size in METHODS:
        c = stability(x, y, method=method, batch_size=batch_size)
        ends = {round(run(x, y, c.best_lr, c.batch_size, 1, w), 12) for w in (-10.0, 0.0, 10.0)}
        assert ends == {round(c.fixed_point, 12)}
        assert (c.best_factor, c.epochs) == (0.0, 1)


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
    assert certificate.weight_after(2, 1.0) == pytest.approx(1.1779555555555554, rel=1e-15)


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
    assert stability(x.to(dtype), y.to(dtype), lr=0.01) == stability(x, y, lr=0.01)


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
    def test_otherwise_the_smallest_that_is_enough(
        self, noisy_data: Data, method: str, batch_size: int | None, order: str, epochs: int
    ) -> None:
        asked = {"method": method, "batch_size": batch_size, "order": order}
        lr, reason = auto_lr(*noisy_data, **asked, epochs=epochs)  # type: ignore[arg-type]
        chosen = stability(*noisy_data, lr, **asked)  # type: ignore[arg-type]
        assert 0 < lr <= chosen.best_lr
        assert f"{epochs} epochs" in reason
        assert epochs == 10 or lr < chosen.best_lr  # a thousand epochs are enough below the best
        if lr < chosen.best_lr:
            smaller = stability(*noisy_data, lr * (1 - 1e-6), **asked)  # type: ignore[arg-type]
            assert epochs * math.log(abs(chosen.factor)) <= math.log(1e-6) * (1 - 1e-9)
            assert epochs * math.log(abs(smaller.factor)) > math.log(1e-6)

    def test_too_few_epochs_take_the_best(self, course_data: Data) -> None:
        lr, reason = auto_lr(*course_data, method="minibatch", batch_size=2, order="replacement", epochs=1)
        assert lr == stability(*course_data, method="minibatch", batch_size=2, order="replacement").best_lr
        assert "leave more than 1e-06" in reason


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
        stability(**{"x": ONE, "y": ONE, **arguments})  # type: ignore[arg-type]


def test_a_weight_beyond_the_numbers_is_infinite(course_data: Data) -> None:
    for lr in (0.25, 5.0):
        assert stability(*course_data, lr=lr).weight_after(100_000, 1.0) == math.inf
