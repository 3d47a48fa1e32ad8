"""The training loop against the lecture's plain Python, closed forms and itself."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchgd import (
    GradientDescent,
    History,
    LinearModel,
    MiniBatchGradientDescent,
    StochasticGradientDescent,
    train,
)

EPS = 2.0**-52
XS, YS = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]


def start(weight: float = 1.0, dtype: torch.dtype = torch.float64) -> LinearModel:
    return LinearModel(weight, dtype=dtype)


def optimizer_of(
    batch_size: int, n: int, model: LinearModel, lr: float, **options: object
) -> GradientDescent:
    """The method whose batches are of this size."""
    if batch_size == n:
        return GradientDescent(model.parameters(), lr=lr)
    if batch_size == 1:
        return StochasticGradientDescent(model.parameters(), lr=lr, **options)  # type: ignore[arg-type]
    return MiniBatchGradientDescent(model.parameters(), lr=lr, batch_size=batch_size, **options)  # type: ignore[arg-type]


def run(
    batch_size: int,
    xs: Sequence[float] = XS,
    ys: Sequence[float] = YS,
    *,
    lr: float = 0.01,
    epochs: int = 100,
    weight: float = 1.0,
    dtype: torch.dtype = torch.float64,
    gradient: str | Callable[..., Tensor] = "hand",
    **options: object,
) -> History:
    model = start(weight, dtype)
    x, y = torch.tensor(xs, dtype=dtype), torch.tensor(ys, dtype=dtype)
    optimizer = optimizer_of(batch_size, len(xs), model, lr, **options)
    return train(model, x, y, optimizer, epochs, gradient=gradient)


def plain(
    batch_size: int, xs: Sequence[float], ys: Sequence[float], lr: float, epochs: int, w: float = 1.0
) -> dict[str, list[float]]:
    """The lecture's loop in plain Python, with what it could print."""

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    def losses(i: int) -> list[float]:
        return [(w * a - b) ** 2 for a, b in zip(xs[i : i + batch_size], ys[i : i + batch_size], strict=True)]

    seen: dict[str, list[float]] = {
        name: [] for name in ("weight", "cost", "update_weight", "gradient", "loss_before", "loss_after")
    }
    for epoch in range(epochs + 1):
        seen["weight"].append(w)
        seen["cost"].append(mean([(w * a - b) ** 2 for a, b in zip(xs, ys, strict=True)]))
        if epoch == epochs:
            return seen
        for i in range(0, len(xs), batch_size):
            batch = list(zip(xs[i : i + batch_size], ys[i : i + batch_size], strict=True))
            g = mean([2 * a * (w * a - b) for a, b in batch])
            seen["loss_before"].append(mean(losses(i)))
            w -= lr * g
            seen["loss_after"].append(mean(losses(i)))
            seen["gradient"].append(g)
            seen["update_weight"].append(w)
    raise AssertionError


@pytest.mark.parametrize("gradient", ["hand", "autograd"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["float64", "float32"]
)
def test_every_number_of_every_epoch_is_the_plain_loops(
    gradient: str, batch_size: int, dtype: torch.dtype, digits: float
) -> None:
    history = run(batch_size, gradient=gradient, dtype=dtype)
    expected = plain(batch_size, XS, YS, 0.01, 100)
    assert history.epoch.tolist() == list(range(101))
    assert history.update.tolist() == list(range(1, 100 * math.ceil(3 / batch_size) + 1))
    for name in ("weight", "update_weight"):
        assert getattr(history, name).tolist() == pytest.approx(expected[name], rel=digits)
    # w is known to a few ulps, δ: then a residual w x − y to xδ, a loss to 2 |residual| xδ, a gradient
    # to 2 x²δ, where x ≤ 3; near the solution residuals are differences of near numbers, with few digits
    delta = 8 * torch.finfo(dtype).eps
    assert history.gradient.tolist() == pytest.approx(expected["gradient"], rel=digits, abs=18 * delta)
    for name in ("cost", "loss_before", "loss_after"):
        got = getattr(history, name).tolist()
        for value, due in zip(got, expected[name], strict=True):
            assert abs(value - due) <= digits * due + 6 * math.sqrt(due) * delta + 9 * delta**2


def digits12(values: Sequence[float]) -> list[str]:
    return [f"{value:.12g}" for value in values]


def test_the_facts_of_full_batch() -> None:
    history = run(3)
    assert digits12(history.weight[:4].tolist()) == digits12(
        [1.0, 1.0933333333333333, 1.1779555555555554, 1.2546797037036036]
    )
    assert digits12(history.cost[:3].tolist()) == digits12(
        [4.666666666666667, 3.8362074074074086, 3.1535329869958857]
    )
    assert digits12(history.weight[99:].tolist()) == digits12([1.9999387202080534, 1.9999444396553017])
    # w − 2 is −6e-5, known to the last digits of w: 4e-12 of it, twice as much of its square
    assert history.cost[99].item() == pytest.approx(1.752432687141379e-08, rel=1.5e-11)


@pytest.mark.parametrize("gradient", ["hand", "autograd"])
def test_the_facts_of_per_sample(gradient: str) -> None:
    """The two programs of lectures 3 and 4 print two losses of one update; the cost is a third number."""
    history = run(1, gradient=gradient)
    assert digits12(history.gradient[:3].tolist()) == ["-2", "-7.84", "-16.2288"]
    assert digits12(history.weight[:3].tolist()) == digits12([1.0, 1.260688, 1.453417766656])
    assert history.loss_after[[2, 5]].tolist() == pytest.approx(
        [4.919240100095999, 2.688769240265834], rel=1e-12
    )
    assert history.loss_before[2].item() == pytest.approx(7.315943039999998, rel=1e-12)
    assert history.cost[1].item() == pytest.approx(2.5507170889386663, rel=1e-12)
    assert history.weight[100].item() == pytest.approx(1.9999999999999236, rel=1e-15)


def test_lecture_4_in_float32() -> None:
    history = run(1, dtype=torch.float32, gradient="autograd", epochs=1)
    assert f"{history.loss_before[2]:.7f}" == "7.3159437"


def test_the_prediction_for_4() -> None:
    for batch_size, expected in ((3, 7.999777758621207), (1, 7.9999999999996945)):
        model = start()
        train(
            model,
            torch.tensor(XS).double(),
            torch.tensor(YS).double(),
            optimizer_of(batch_size, 3, model, 0.01),
        )
        assert model(4.0).item() == pytest.approx(expected, rel=1e-12)


# Closed forms


@given(
    lr=st.floats(1e-4, 0.3),
    w0=st.floats(-5, 5),
    xs=st.lists(st.floats(-2, 2).filter(lambda x: abs(x) > 1e-2), min_size=1, max_size=6),
)
def test_the_error_is_a_power_of_1_minus_2_lr_mean_x2(lr: float, w0: float, xs: list[float]) -> None:
    """wₜ − w* = (1 − 2 lr mean x²)ᵗ (w₀ − w*), here with w* = 3."""
    history = run(len(xs), xs, [3 * x for x in xs], lr=lr, weight=w0, epochs=12)
    factor = 1 - 2 * lr * math.fsum(x * x for x in xs) / len(xs)
    # each epoch adds a rounding of some ulps of numbers no larger than those below, times the factors to come
    size = max(abs(w0), 3.0) + abs(w0 - 3)
    for t in range(13):
        bound = 16 * len(xs) * EPS * size * sum(max(1.0, abs(factor)) ** s for s in range(t + 1)) * 4
        assert abs(history.weight[t].item() - (3 + factor**t * (w0 - 3))) <= bound


def test_one_step_at_half_the_limit() -> None:
    history = run(3, lr=3 / 28, epochs=2)
    assert history.weight[1].item() == pytest.approx(2.0, abs=4 * EPS)


@pytest.mark.parametrize(("lr", "status"), [(3 / 14 * 0.999, "finished"), (3 / 14 * 1.001, "diverged")])
def test_the_limit_of_the_learning_rate(lr: float, status: str) -> None:
    history = run(3, lr=lr, epochs=60)
    assert history.status == status
    assert (history.cost[-1] < history.cost[0]).item() == (status == "finished")


def test_the_island_of_per_sample() -> None:
    """At lr 0.5 the first sample lands on w = 2 exactly; full batch passes 7e11 by epoch 21."""
    per_sample = run(1, lr=0.5, epochs=30)
    assert per_sample.update_weight[0].item() == 2.0
    assert per_sample.weight[1:].eq(2.0).all()
    assert per_sample.status == "converged"
    full = run(3, lr=0.5, epochs=30)
    assert full.weight[21].abs().item() > 7e11
    assert full.status == "diverged"


@given(seed=st.integers(0, 2**31))
def test_without_noise_every_order_ends_the_epoch_at_the_same_weight(seed: int) -> None:
    shuffled = run(1, epochs=3, order="shuffled", generator=torch.Generator().manual_seed(seed))
    sequential = run(1, epochs=3)
    assert sequential.weight[1].item() == pytest.approx(1.260688, rel=1e-15)
    assert shuffled.weight.tolist() == pytest.approx(sequential.weight.tolist(), rel=8 * EPS)


def test_with_noise_the_order_decides_where_it_settles() -> None:
    ys = [2.0, 5.0, 6.0]
    assert run(1, XS, ys, epochs=400).weight[-1].item() == pytest.approx(2.1258209, abs=5e-8)
    assert run(1, XS[::-1], ys[::-1], epochs=400).weight[-1].item() == pytest.approx(2.1503713, abs=5e-8)
    assert run(3, XS, ys, epochs=400).weight[-1].item() == pytest.approx(15 / 7, rel=1e-9)  # least squares


# One method seen through another


samples = st.lists(st.tuples(st.floats(-2, 2), st.floats(-5, 5)), min_size=1, max_size=9)
methods = st.sampled_from(["hand", "autograd"])


@given(pairs=samples, gradient=methods)
def test_a_mini_batch_of_all_is_full_batch_and_of_one_is_per_sample(
    pairs: list[tuple[float, float]], gradient: str
) -> None:
    x, y = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    for batch_size, other in ((len(x), GradientDescent), (1, StochasticGradientDescent)):
        mini, model = start(), start()
        first = train(
            mini,
            x,
            y,
            MiniBatchGradientDescent(mini.parameters(), batch_size=batch_size),
            4,
            gradient=gradient,
        )
        second = train(model, x, y, other(model.parameters()), 4, gradient=gradient)
        for field in fields(History):
            a, b = getattr(first, field.name), getattr(second, field.name)
            assert a.tolist() == b.tolist() if isinstance(a, Tensor) else a == b


def test_a_ragged_last_batch_weighs_what_it_holds(noisy_data: tuple[Tensor, Tensor]) -> None:
    """The mean of the batches' gradients at one w is the full gradient only where each weighs its size."""
    x, y = noisy_data
    tiny = 2.0**-40  # so small a learning rate that w stays where it is
    for batch_size in range(1, 8):
        model = start()
        optimizer = MiniBatchGradientDescent(model.parameters(), lr=tiny, batch_size=batch_size)
        history = train(model, x, y, optimizer, 1, gradient="hand")
        sizes = torch.diff(history.samples_seen, prepend=torch.tensor([0]))
        assert sizes.tolist() == [len(batch) for batch in optimizer.batches(7)]
        weighed = (sizes * history.gradient).sum() / 7
        full = (2 * x * (x - y)).mean()
        assert weighed.item() == pytest.approx(full.item(), rel=1e-9)  # w moved by some 2⁻⁴⁰ ≈ 1e-12
    history = run(2, epochs=1, lr=tiny)
    assert history.gradient.mean().item() == pytest.approx(-11.5, rel=1e-9)  # the plain mean
    assert ((2 * history.gradient[0] + history.gradient[1]) / 3).item() == pytest.approx(-28 / 3, rel=1e-9)


@given(scale=st.sampled_from([0.25, 0.5, 2.0, 4.0]), batch_size=st.integers(1, 3))
def test_other_units_of_x_are_another_lr(scale: float, batch_size: int) -> None:
    """x → s x divides w by s; lr is in units of 1/x². Powers of 2 are exact."""
    one = run(batch_size, epochs=20)
    other = run(batch_size, [scale * x for x in XS], lr=0.01 / scale**2, weight=1 / scale, epochs=20)
    assert torch.equal(one.weight, other.weight * scale)
    assert torch.equal(one.cost, other.cost)
