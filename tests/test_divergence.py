"""Runs made to diverge on purpose, and the reason that is found for each."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from torchgd import InputError, StochasticGradientDescent, course, hubble, train
from torchgd.batches import Batches
from torchgd.convergence.certificate import stability
from torchgd.convergence.divergence import explain_divergence
from torchgd.convergence.suspects import Cause
from torchgd.model import LinearModel

Data = tuple[Tensor, Tensor]


def run(
    x: Tensor,
    y: Tensor,
    lr: float,
    size: int,
    *,
    order: str = "sequential",
    times: float = 1.0,
    total: bool = False,
    everyone: bool = False,
    power: int = 1,
    momentum: float = 0.0,
    nesterov: bool = False,
    decay: float = 0.0,
    gamma: float = 1.0,
    every: int = 1,
    w0: float = 1.0,
    epochs: int = 60,
) -> list[float]:
    """A plain loop with a mistake in it: another gradient, update or learning rate."""
    generator = torch.Generator().manual_seed(5)
    batches = Batches(len(x), size, order, generator)
    xs, ys = x.tolist(), y.tolist()
    weights, v = [w0], 0.0
    for epoch in range(epochs):
        w = weights[-1]
        for batch in batches:
            slope = sum(2 * xs[i] ** power * (w * xs[i] - ys[i]) for i in batch)
            slope = times * slope / (1 if total else len(xs) if everyone else len(batch)) + decay * w
            v = momentum * v + slope
            w -= lr * gamma ** (epoch // every) * (slope + momentum * v if nesterov else v)
        weights.append(w)
    return weights


def line(n: int, seed: int, unit: float = 1.0) -> Data:
    """n noisy samples of y = 3x, with x of the size of the unit."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator, dtype=torch.float64) + 2
    return unit * x, 3 * x + torch.randn(n, generator=generator, dtype=torch.float64)


def outlier() -> Data:
    x, y = line(20, 8)
    x[7] = 300.0
    return x, y


SGD = {"method": "sgd"}
PAIRS = {"method": "minibatch", "batch_size": 2}
FIVES = {"method": "minibatch", "batch_size": 5}
SHUFFLED = {"method": "sgd", "order": "shuffled"}
DRAWN = {"method": "sgd", "order": "replacement"}
#        what, the data, the asked-for method, lr in limits, the mistakes in the loop, the cause
PLANTED = [
    ("1 % too large", course(), {}, 1.01, {}, Cause.LR),
    ("1 % too large", hubble(), {}, 1.01, {}, Cause.LR),
    ("1 % too large, per sample", hubble(), SGD, 1.01, {}, Cause.LR),
    ("1 % too large, in pairs", line(9, 1), PAIRS, 1.01, {}, Cause.LR),
    ("1 % too large, drawn", line(30, 2), DRAWN, 2.0, {}, Cause.LR),
    ("a thousand times too large", course(), {}, 1000, {}, Cause.LR),
    ("a thousand times too large, per sample", course(), SGD, 1000, {}, Cause.LR),
    ("a thousand times too large, per sample", hubble(), SGD, 1000, {}, Cause.LR),
    ("a thousand times too large, shuffled", line(9, 3), SHUFFLED, 1000, {}, Cause.LR),
    ("a thousand times too large, many samples", line(400, 4), SGD, 1000, {}, Cause.LR),
    ("a bad start is no cause", course(), {}, 1.2, {"w0": 1e6}, Cause.LR),
    ("a bad start is no cause, per sample", hubble(), SGD, 1.2, {"w0": -1e9}, Cause.LR),
    ("a good start is none either", course(), {}, 1.2, {"w0": 2 + 1e-9}, Cause.LR),
    ("the sum for the mean", course(), {}, 0.5, {"total": True}, Cause.SUM),
    ("the sum for the mean", hubble(), {}, 0.3, {"total": True}, Cause.SUM),
    ("the sum for the mean, many samples", line(1000, 5), {}, 0.9, {"total": True}, Cause.SUM),
    ("the sum for the mean, in pairs", line(9, 6), PAIRS, 0.9, {"total": True}, Cause.SUM),
    ("the sum, and said so", course(), {"loss": "sum"}, 2.0, {"total": True}, Cause.SUM),
    ("x in thousandths", line(12, 7, 1000.0), {}, 1e6 * 0.3, {}, Cause.UNITS),
    ("x in thousandths, per sample", line(12, 7, 1000.0), SGD, 1e6 * 0.05, {}, Cause.UNITS),
    ("Hubble's distances in kiloparsec", (1000 * hubble().x, hubble().y), {}, 1e6 * 0.5, {}, Cause.UNITS),
    ("x in tens, shuffled", line(12, 9, 10.0), SHUFFLED, 40.0, {}, Cause.UNITS),
    ("an outlier", outlier(), {}, 500.0, {}, Cause.OUTLIER),
    ("an outlier, per sample", outlier(), SGD, 200.0, {}, Cause.OUTLIER),
    ("an outlier, drawn", outlier(), DRAWN, 300.0, {}, Cause.OUTLIER),
    ("uphill", course(), {}, 0.1, {"times": -1.0}, Cause.SIGN),
    ("uphill, per sample", hubble(), SGD, 0.1, {"times": -1.0}, Cause.SIGN),
    ("twice the gradient", course(), {}, 0.6, {"times": 2.0}, Cause.TWICE),
    ("twice the gradient, per sample", line(9, 3), SGD, 0.9, {"times": 2.0}, Cause.TWICE),
    ("x squared in the gradient", line(9, 10, 3.0), {}, 0.5, {"power": 2}, Cause.POWER),
    ("x forgotten, per sample", line(9, 10, 0.1), SGD, 0.9, {"power": 0}, Cause.POWER),
    ("x cubed in the gradient, per sample", line(9, 10), SGD, 0.5, {"power": 3}, Cause.GRADIENT),
    ("four times the gradient: uphill would be as fast", course(), {}, 0.3316, {"times": 4.0}, Cause.TIMES),
    ("a stale learning rate", line(9, 11), SGD, 0.4, {"times": 3.3}, Cause.TIMES),
    ("ten times the gradient, shuffled", line(6, 12), SHUFFLED, 0.5, {"times": 10.0}, Cause.TIMES),
    ("half of the sum", line(9, 13), FIVES, 0.9, {"times": 0.5, "total": True}, Cause.HALF_SUM),
    ("half the gradient", line(9, 13), SGD, 5.0, {"times": 0.5}, Cause.HALF),
    ("all n instead of the batch", line(9, 14), FIVES, 5.0, {"everyone": True}, Cause.ALL_SAMPLES),
    ("zero_grad forgotten", hubble(), {}, 2.2, {"momentum": 1.0}, Cause.ZERO_GRAD),
    ("zero_grad forgotten, per sample", line(6, 15), SGD, 0.7, {"momentum": 1.0}, Cause.ZERO_GRAD),
    ("momentum", hubble(), {}, 2.2, {"momentum": 0.9}, Cause.MOMENTUM),
    ("an unusual momentum", line(9, 16), {}, 2.2, {"momentum": 0.83}, Cause.MOMENTUM),
    ("Nesterov's momentum", line(9, 16), PAIRS, 0.9, {"momentum": 0.9, "nesterov": True}, Cause.MOMENTUM),
    ("weight decay", line(9, 17), {}, 0.9, {"decay": 4.4}, Cause.DECAY),
    ("a growing learning rate", hubble(), {}, 0.9, {"gamma": 1.1}, Cause.SCHEDULE),
    ("a growing learning rate, per sample", line(6, 18), SGD, 0.9, {"gamma": 1.1}, Cause.SCHEDULE),
    ("a falling learning rate", course(), {}, 9.0, {"gamma": 0.5, "every": 8}, Cause.SCHEDULE),
    ("two samples: the sum is twice the mean", line(2, 19), {}, 0.9, {"total": True}, Cause.SEVERAL),
]


@pytest.mark.parametrize(
    ("data", "asked", "limits", "mistakes", "cause"),
    [row[1:] for row in PLANTED],
    ids=[f"{row[0]}-{number}" for number, row in enumerate(PLANTED)],
)
def test_planted(
    data: Data, asked: dict[str, object], limits: float, mistakes: dict[str, object], cause: Cause
) -> None:
    x, y = data
    certificate = stability(x, y, **asked)  # type: ignore[call-overload]
    lr = limits * certificate.limit
    weights = run(x, y, lr, certificate.batch_size, order=certificate.order, **mistakes)  # type: ignore[arg-type]
    found = explain_divergence(weights, x, y, lr, **asked)  # type: ignore[arg-type]
    assert found.cause is cause
    assert found.limit == certificate.limit
    assert str(found).startswith(cause.value.capitalize())
    assert f"the limit {certificate.limit:.6g}" in found.message
    # The lr to use is one that converges, for the run as it is meant.
    assert stability(x, y, found.lr, **asked).converges  # type: ignore[call-overload]


def test_at_least_twenty_cases_are_planted() -> None:
    assert len(PLANTED) >= 20
    assert {row[-1] for row in PLANTED} == set(Cause) - {Cause.NONE, Cause.OPTIMIZER}


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Adagrad"])
def test_another_optimizer_is_named(name: str) -> None:
    x, y = line(6, 20)
    w = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = getattr(torch.optim, name)([w], lr=1.0)
    weights = [1.0]
    for _ in range(8):
        for i in range(6):
            w.grad = 2 * x[i] * (w.detach() * x[i] - y[i])
            optimizer.step()
        weights.append(w.item())
    found = explain_divergence([*weights, math.inf], x, y, 1.0, method="sgd")
    assert found.cause is Cause.OPTIMIZER
    assert f"torch.optim.{name}," in found.message


@pytest.mark.parametrize("seed", range(12))
def test_a_right_gradient_is_never_accused(seed: int) -> None:
    """The growth of a run in random batches varies; it is held against the batches, not against one order."""
    x, y = line(5 + seed, seed, 1.0)
    for order in ("shuffled", "replacement"):
        for asked in ({"method": "sgd"}, {"method": "minibatch", "batch_size": 3}):
            plan = {**asked, "order": order}
            lr = (2.0 + seed) * stability(x, y, **plan).limit  # type: ignore[call-overload]
            weights = run(x, y, lr, plan.get("batch_size", 1), order=order, epochs=6 + seed)  # type: ignore[arg-type]
            found = explain_divergence(weights, x, y, lr, **plan)  # type: ignore[arg-type]
            assert found.cause is Cause.LR, (plan, found.message)


def test_two_causes_are_both_named() -> None:
    x, y = line(2, 19)
    lr = 0.9 * stability(x, y).limit
    found = explain_divergence(run(x, y, lr, 2, total=True), x, y, lr)
    assert found.causes == (Cause.SUM, Cause.TWICE)
    assert (
        "the sum instead of the mean; or a gradient twice as large: they alone do not tell" in found.message
    )


@pytest.mark.parametrize("rounded", [lambda w: round(w, 5), lambda w: torch.tensor(w).item()])
def test_weights_that_are_known_to_a_few_digits_are_explained(rounded: Callable[[float], float]) -> None:
    """Five decimals, or float32."""
    x, y = course()
    weights = [rounded(w) for w in run(x, y, 0.25, 3, epochs=12)]
    assert explain_divergence(weights, x, y, 0.25).cause is Cause.LR


def test_a_history_is_explained_as_its_weights_are() -> None:
    x, y = course()
    model = LinearModel(1.0, dtype=torch.float64)
    history = train(model, x, y, StochasticGradientDescent(model.parameters(), lr=0.3), epochs=20)
    assert explain_divergence(history, x, y, 0.3, method="sgd") == explain_divergence(
        history.weight, x, y, 0.3, method="sgd"
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("times", "cause"), [(1.0, Cause.LR), (2.0, Cause.TWICE), (-1.0, Cause.SIGN)])
def test_shuffled_single_samples_tell_as_much_as_a_fixed_order(seed: int, times: float, cause: Cause) -> None:
    """Every order has the same factor, sign included; only the ends of the run are noisy."""
    x, y = line(6, seed)
    lr = 1.2 * stability(x, y, **SHUFFLED).intervals[-1][1]  # type: ignore[call-overload]  # beyond all islands
    weights = run(x, y, lr, 1, order="shuffled", times=times, epochs=30)
    assert explain_divergence(weights, x, y, lr, **SHUFFLED).cause is cause  # type: ignore[arg-type]


def test_the_message_has_the_numbers() -> None:
    x, y = course()
    found = explain_divergence(run(x, y, 0.25, 3, epochs=40), x, y, 0.25)
    assert found.measured == pytest.approx(-4 / 3, rel=1e-9)
    assert found.predicted == pytest.approx(-4 / 3, rel=1e-12)
    assert found.epoch == 40
    assert found.message == (
        "The learning rate is too large: after epoch 40 the weight is -99435.3. An epoch multiplied the "
        "error by -1.33333, predicted -1.33333; lr 0.25 is 1.16667 times the limit 0.214286. Use lr 0.107143."
    )


def test_the_outlier_is_named() -> None:
    x, y = outlier()
    found = explain_divergence(run(x, y, 0.01, 20), x, y, 0.01)
    assert "x[7] = 300 is far from the rest" in found.message


def test_the_unit_is_named() -> None:
    x, y = line(12, 7, 1000.0)
    assert "scale x by 0.001" in explain_divergence(run(x, y, 0.1, 12), x, y, 0.1).message


def test_a_run_that_did_not_diverge_is_not_explained_away(noisy_data: Data) -> None:
    x, y = noisy_data
    for order in ("sequential", "shuffled", "replacement"):
        weights = run(x, y, 0.1, 1, order=order)
        found = explain_divergence(weights, x, y, 0.1, method="sgd", order=order)
        assert found.cause is Cause.NONE


def test_an_epoch_that_overflows_at_once_is_explained() -> None:
    x, y = line(2000, 11)
    lr = 3 * stability(x, y, method="sgd").limit
    for weights in ([1.0, math.inf], [1.0]):
        found = explain_divergence(weights, x, y, lr, method="sgd")
        assert (found.cause, found.measured, found.epoch) == (Cause.LR, None, 0)
        assert "an epoch later it is not finite. An epoch overflowed" in found.message


def test_two_weights_before_an_overflow_are_explained() -> None:
    """A history may end before the epoch in which the weight overflowed."""
    x, y = line(100, 12)
    lr = 100 * stability(x, y, method="sgd").limit
    weights = run(x, y, lr, 1, epochs=2)
    assert [math.isfinite(weight) for weight in weights] == [True, True, False]
    for known in (weights, weights[:2]):
        assert explain_divergence(known, x, y, lr, method="sgd").cause is Cause.LR


def test_the_history_of_a_run_in_float32_is_explained() -> None:
    x, y = (values.float() for values in hubble())
    model = LinearModel(1.0)
    history = train(model, x, y, StochasticGradientDescent(model.parameters(), lr=0.9), epochs=20)
    found = explain_divergence(history.weight, x, y, 0.9, method="sgd")
    assert found.cause is Cause.LR
    assert found.measured == pytest.approx(found.predicted, rel=1e-3)


@pytest.mark.parametrize("weights", [[], [math.nan, 1.0]])
def test_errors(weights: list[float]) -> None:
    x, y = course()
    with pytest.raises(InputError, match="give w0, finite, then the weight of each epoch"):
        explain_divergence(weights, x, y, 0.1)
