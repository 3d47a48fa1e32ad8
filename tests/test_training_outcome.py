"""How a run ends: finished, converged or diverged, and what it refuses to begin."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from torchgd import (
    GradientDescent,
    History,
    LinearModel,
    MiniBatchGradientDescent,
    StochasticGradientDescent,
    train,
)
from torchgd.batches import Batches
from torchgd.errors import InputError
from torchgd.history import judge

X, Y = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 4.0, 6.0]).double()


def start(weight: float = 1.0) -> LinearModel:
    return LinearModel(weight, dtype=torch.float64)


# Divergence


def square(r: float) -> float:
    return r * r  # 1e200 ** 2 raises an error, 1e200 * 1e200 is inf


def first_overflow(
    x: Tensor, y: Tensor, lr: float, batch_size: int, *, losses: bool
) -> tuple[int, float, str]:
    """By brute force in plain Python: the first update with a number that is not finite, the weight before it
    and which number it is. Where no losses are recorded, weights and the costs of epochs count."""
    w, updates = 1.0, 0
    pairs = list(zip(x.tolist(), y.tolist(), strict=True))

    def overflows(samples: list[tuple[float, float]]) -> bool:
        return not math.isfinite(sum(square(w * a - b) for a, b in samples))

    while True:
        for i in range(0, len(pairs), batch_size):
            batch = pairs[i : i + batch_size]
            before, last, updates = overflows(batch), w, updates + 1
            w -= lr * (sum(2 * a * (w * a - b) for a, b in batch) / len(batch))
            if not math.isfinite(w):
                return updates, last, "weight"
            if i + batch_size >= len(pairs) and overflows(pairs):
                return updates, last, "cost"
            if losses and (before or overflows(batch)):
                return updates, last, "loss"


@pytest.mark.parametrize("gradient", ["hand", "autograd"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("lr", [0.6, 2.0, 1e3, 1e60])
@pytest.mark.parametrize("max_points", [10_000, 1])
def test_the_first_number_that_is_not_finite_ends_the_run(
    gradient: str, batch_size: int, lr: float, max_points: int
) -> None:
    model = start()
    optimizer = MiniBatchGradientDescent(model.parameters(), lr=lr, batch_size=batch_size)
    history = train(model, X, Y, optimizer, 1000, gradient=gradient, max_points=max_points)
    update, last, what = first_overflow(X, Y, lr, batch_size, losses=max_points > 1)
    assert history.status == "diverged"
    assert history.reason.startswith(f"the {what} is not finite")
    assert history.reason.endswith(f" update {update}")
    # each update multiplies the rounding errors with the error itself: relative to it they only add up
    assert model.weight.item() == pytest.approx(last, rel=update * 1e-14)
    every_number_is_finite(history)
    assert history.end_update.tolist() == list(range(0, update, math.ceil(3 / batch_size)))
    assert history.update.tolist() == (list(range(1, update)) if max_points > 1 else [])


def every_number_is_finite(history: History) -> None:
    for name in ("weight", "cost", "update_weight", "gradient", "loss_before", "loss_after"):
        assert getattr(history, name).isfinite().all(), name
    assert len(history.epoch) == len(history.weight) == len(history.cost) == len(history.end_update)
    assert len(history.update) == len(history.update_weight) == len(history.loss_before)


def test_an_overflow_in_the_middle_of_an_epoch() -> None:
    """Losses overflow long before weights do; neither stands in the history."""
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    for max_points in (10_000, 1):
        model = start()
        optimizer = StochasticGradientDescent(model.parameters(), lr=1.0)
        history = train(model, x, 2 * x, optimizer, 1, gradient="hand", max_points=max_points)
        update, last, what = first_overflow(x, 2 * x, 1.0, 1, losses=max_points > 1)
        assert history.reason.startswith(f"the {what} is not finite")
        assert history.reason.endswith(f" update {update}")
        assert model.weight.item() == pytest.approx(last, rel=1e-10)
        every_number_is_finite(history)
        assert len(history.update) == (update - 1 if max_points > 1 else 0)


def test_a_gradient_that_is_not_finite() -> None:
    """A gradient of one's own breaks at the third update: the weight after the second stays."""
    calls = iter([1.0, 1.0, 1.0, math.nan, 1.0])  # the first call is a look at its shape
    model = start(0.0)
    history = train(
        model,
        X,
        Y,
        GradientDescent(model.parameters(), lr=0.5),
        10,
        gradient=lambda w, x, y: next(calls, 1.0),
        check=False,
    )
    assert history.status == "diverged"
    assert history.reason == "the weight is not finite after update 3"
    assert model.weight.item() == -1.0
    assert history.weight.tolist() == [0.0, -0.5, -1.0]


def test_a_module_keeps_finite_parameters() -> None:
    model = nn.Linear(1, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.6)
    history = train(model, X[:, None], Y[:, None], optimizer, 10_000)
    assert history.status == "diverged"
    assert all(p.isfinite().all() for p in model.parameters())
    assert history.cost.isfinite().all()
    assert history.loss_before.isfinite().all()
    assert history.loss_after.isnan().all()


def test_growth_is_proof_before_anything_overflows() -> None:
    model = start()
    history = train(model, X, Y, GradientDescent(model.parameters(), lr=0.22), 50)
    assert history.status == "diverged"
    growth = 2 * 0.22 * 14 / 3 - 1  # |1 − 2 lr mean x²|
    assert history.reason == f"the weight's steps grow {growth:.6g} times an epoch"


def test_at_the_start_it_is_the_inputs_fault() -> None:
    model = start(1e200)
    with pytest.raises(InputError) as error:
        train(model, X, Y, GradientDescent(model.parameters()), 5)
    assert str(error.value) == "the cost before the first update is not finite; check the data and the weight"
    assert model.weight.item() == 1e200


# What is and is not proved


def status(lr: float, epochs: int, method: Any = GradientDescent) -> str:
    model = start()
    return train(model, X, Y, method(model.parameters(), lr=lr), epochs, gradient="hand").status


@pytest.mark.parametrize("lr", [1e-3, 1e-6, 1e-9, 1e-12, 1e-15, 1e-18])
@pytest.mark.parametrize("method", [GradientDescent, StochasticGradientDescent])
def test_slow_is_not_converged(lr: float, method: Any) -> None:
    assert status(lr, 50, method=method) == "finished"


@pytest.mark.parametrize(
    ("method", "settled"), [(GradientDescent, 205), (StochasticGradientDescent, 67)], ids=["gd", "sgd"]
)
def test_converged_is_near_the_solution(method: Any, settled: int) -> None:
    for epochs in (1, 2, 3, 10, 50, *range(settled - 8, settled + 8), 300):
        model = start()
        history = train(model, X, Y, method(model.parameters(), lr=0.01), epochs, gradient="hand")
        near = abs(model.weight.item() - 2) <= 1e-9 * 2
        assert history.status == ("converged" if near else "finished"), epochs


def test_converged_at_once_and_at_the_solution() -> None:
    assert status(3 / 28, 10) == "converged"  # the one-step learning rate
    model = start(2.0)
    history = train(model, X, Y, GradientDescent(model.parameters()), 10, gradient="hand")
    assert (history.status, history.reason) == ("converged", "the gradient is 0")


def test_a_random_order_that_settles_on_noise_is_neither() -> None:
    """Every weight stays near the solution for ever, and no limit is approached."""
    x = torch.randn(20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = 2 * x + torch.randn(20, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for seed in range(5):
        model = start()
        optimizer = StochasticGradientDescent(
            model.parameters(), lr=0.05, order="shuffled", generator=torch.Generator().manual_seed(seed)
        )
        assert train(model, x, y, optimizer, 40, gradient="hand").status == "finished"


def test_momentum_gathers_speed_without_diverging() -> None:
    for epochs in range(2, 12):
        model = start()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        assert train(model, X, Y, optimizer, epochs).status == "finished"


def test_momentum_turns_without_having_settled() -> None:
    """At the turning point the weight stands still; every number of epochs is tried."""
    model = start()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.95)
    history = train(model, X, Y, optimizer, 60)
    for epochs in range(2, 61):
        part = replace(history, weight=history.weight[: epochs + 1])
        assert judge(part, random_order=False, affine=False)[0] == "finished"


YEARS = torch.arange(1990.0, 2021.0)[:, None].double()
TWO_WEIGHTS = {  # x, the slope and the bias, lr as a part of the limit
    "years": (YEARS, 0.02, -25.0, 0.5),
    "sizes": (torch.tensor([50.0, 80, 100, 120, 150, 200, 250, 300])[:, None].double(), 3.0, 40.0, 0.4),
    "centred": (torch.tensor([-2.0, -1, 0, 1, 2])[:, None].double(), 3.0, 40.0, 0.5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("name", TWO_WEIGHTS)
def test_two_weights_converge_where_both_have(name: str, batch_size: int | None, dtype: torch.dtype) -> None:
    """The fast direction has settled long before the slow one."""
    x, slope, bias, part = TWO_WEIGHTS[name]
    columns = torch.cat([x, torch.ones_like(x)], 1)
    if batch_size is None:
        limit = 2 / torch.linalg.eigvalsh(2 * columns.mT @ columns / len(x))[-1].item()
    else:
        limit = 1 / columns.square().sum(1).max().item()
    for epochs in (2, 3, 6, 20, 60, 400):
        model = nn.Linear(1, 1).to(dtype)
        for p in model.parameters():
            nn.init.zeros_(p)
        optimizer = GradientDescent(model.parameters(), lr=part * limit)
        history = train(model, x, (slope * x + bias), optimizer, epochs, batches=batch_size, max_points=1)
        gap = (history.weight[-1].double() - torch.tensor([slope, bias]).double()).norm().item()
        tolerance = 1e-5 if dtype == torch.float32 else 1e-9
        near = gap <= tolerance * math.hypot(slope, bias)
        assert history.status == ("converged" if near else "finished"), (epochs, gap)


def test_float32_stalls_far_from_where_it_settles() -> None:
    model = LinearModel(1.98)
    history = train(model, X, Y, GradientDescent(model.parameters(), lr=1e-4), 400, gradient="hand")
    assert history.weight[-1].item() == pytest.approx(1.98623, abs=1e-5)  # 0.7 % are left
    assert history.status == "finished"


@pytest.mark.parametrize("order", ["shuffled", "replacement"])
def test_a_first_step_that_is_small_by_chance_proves_nothing(order: str) -> None:
    x = torch.tensor([0.0, 0.0, 1.0, 2.0]).double()
    for seed in range(40):
        model = start(0.0)
        generator = torch.Generator().manual_seed(seed)
        optimizer = StochasticGradientDescent(model.parameters(), lr=0.005, order=order, generator=generator)
        history = train(model, x, 2 * x, optimizer, 10, gradient="hand")
        assert history.status == "finished", (seed, history.reason)


@pytest.mark.parametrize("order", ["shuffled", "replacement"])
def test_a_random_order_of_data_on_a_line_converges_to_it(order: str) -> None:
    for lr, status in ((0.05, "converged"), (0.6, "diverged")):
        model = start()
        optimizer = StochasticGradientDescent(model.parameters(), lr=lr, order=order)
        history = train(model, X, Y, optimizer, 60, gradient="hand")
        assert history.status == status
    assert "grows" in history.reason


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.LinearLR(o, 1e-3, 1.0, 50),  # steps grow while it warms up
        lambda o: lr_scheduler.ExponentialLR(o, 0.1),  # steps shrink far from the solution
    ],
)
def test_a_schedule_proves_nothing(make: Callable[[torch.optim.Optimizer], Any]) -> None:
    model = start()
    optimizer = GradientDescent(model.parameters(), lr=0.01)
    history = train(model, X, Y, optimizer, 30, scheduler=make(optimizer))
    assert history.status == "finished"
    assert history.reason == "30 epochs done, at learning rates that the scheduler chose"


def call(**changes: Any) -> Callable[[], History]:
    def run() -> History:
        model = changes.pop("model", None) or start()
        x, y = changes.pop("x", X), changes.pop("y", Y)
        optimizer = changes.pop("optimizer", None) or GradientDescent(model.parameters())
        return train(model, x, y, optimizer, **changes)

    return run


ERRORS = [
    (call(epochs=0), "epochs is 0; give a whole number, 1 or more"),
    (call(epochs=-1), "epochs is -1; give a whole number, 1 or more"),
    (call(epochs=2.5), "epochs is 2.5; give a whole number, 1 or more"),
    (call(max_points=0), "max_points is 0; give a whole number, 1 or more"),
    (call(y=Y[:2]), "x has 3 samples and y has 2; give one y for each x, at least one"),
    (call(x=X[:0], y=Y[:0]), "x has 0 samples and y has 0; give one y for each x, at least one"),
    (call(x=X[0], y=Y[0]), "x has shape () and y has shape (); give both (n, …)"),
    (call(x=X[:, None]), "x has shape (3, 1) and y has shape (3,); give both the same"),
    (
        call(model=nn.Linear(1, 1).double(), x=X[:, None]),
        "the prediction has shape (3, 1) and the target (3,); give both the same",
    ),
    (
        call(x=X[:, None], y=Y[:, None], gradient="hand"),
        "x has shape (3, 1) and y has shape (3, 1); flatten both to (n,), e.g. y.reshape(-1)",
    ),
    (
        call(gradient="numeric"),
        "gradient is 'numeric'; give 'autograd', 'hand' or a function f(w, x, y)",
    ),
    (
        call(model=nn.Linear(1, 1).double(), gradient="hand"),
        "y has shape (3,); nn.Linear predicts (n, 1), give y.reshape(-1, 1)",
    ),
    (
        call(model=nn.Linear(1, 2).double(), gradient="hand"),
        "a gradient by hand is for LinearModel, and gradient='hand' for nn.Linear with one output; "
        "for another module give gradient='autograd'",
    ),
    (
        call(gradient=lambda w, x, y: 2 * x * (w * x - y)),
        "the gradient has shape (3,); return the batch's mean, shape ()",
    ),
    (call(gradient=lambda w, x, y: None), "the gradient is None; return a number or a tensor of shape ()"),
    (
        call(batches=Batches(5, 2)),
        "the batches are of 5 samples, but x has 3; give both the same",
    ),
    (
        call(optimizer=MiniBatchGradientDescent([nn.Parameter(X)], batch_size=2)),
        "the optimizer has none of the model's parameters; give it model.parameters()",
    ),
    (
        call(model=nn.ReLU(), optimizer=GradientDescent([nn.Parameter(X)])),
        "the model has no parameters; there is nothing to train",
    ),
    (
        call(x=X * math.nan),
        "the cost before the first update is not finite; check the data and the weight",
    ),
]


@pytest.mark.parametrize(
    ("run", "message"), ERRORS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_refused(run: Callable[[], History], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as error:
            run()
    assert str(error.value) == message


def test_a_batch_size_above_n_is_refused() -> None:
    model = start()
    with pytest.raises(InputError, match="batch_size is 4, but there are 3 samples; give 1 to 3"):
        train(model, X, Y, MiniBatchGradientDescent(model.parameters(), batch_size=4))


def test_what_a_gradient_of_ones_own_raises_is_its_own() -> None:
    def broken(w: Tensor, x: Tensor, y: Tensor) -> float:
        raise KeyError("mine")

    model = start()
    with pytest.raises(KeyError, match="mine"):
        train(model, X, Y, GradientDescent(model.parameters()), gradient=broken)
