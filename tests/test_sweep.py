"""All learning rates at once, against one run after another."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from torchgd import InputError, course
from torchgd.batches import Batches
from torchgd.convergence.certificate import stability
from torchgd.convergence.rate import log_distance
from torchgd.convergence.sweep import sweep_lr
from torchgd.gradient import cost, gradient

Data = tuple[Tensor, Tensor]
METHODS = [("gd", None), ("sgd", None), ("minibatch", 3)]
ORDERS = ["sequential", "shuffled", "replacement"]


def run(
    x: Tensor, y: Tensor, lr: float, size: int, order: str, epochs: int, w0: float, seed: int
) -> list[float]:
    """One run by the hand-written gradient, with the seed's samples."""
    batches = Batches(len(x), size, order, torch.Generator().manual_seed(seed))
    weights = [w0]
    for _ in range(epochs):
        w = weights[-1]
        for batch in batches:
            w -= lr * gradient(w, x[batch], y[batch]).item()
        weights.append(w)
    return weights


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_column_is_a_run(noisy_data: Data, method: str, batch_size: int | None, order: str) -> None:
    x, y = noisy_data
    asked = {"method": method, "batch_size": batch_size, "order": order, "epochs": 6, "w0": 0.5, "seed": 3}
    sweep = sweep_lr(x, y, 0.01, 1.0, 7, **asked)  # type: ignore[arg-type]
    size = {"gd": 7, "sgd": 1}.get(method, 3)
    for column, lr in enumerate(sweep.lr.tolist()):
        weights = run(x, y, lr, size, "sequential" if method == "gd" else order, 6, 0.5, seed=3)
        assert sweep.weight[:, column].tolist() == pytest.approx(weights, rel=1e-11, abs=1e-11)
        costs = [cost(w, x, y).item() for w in weights]
        assert sweep.cost[:, column].tolist() == pytest.approx(costs, rel=1e-10)


@pytest.mark.parametrize("order", ORDERS)
def test_the_epochs_are_those_after_which_two_starts_meet(noisy_data: Data, order: str) -> None:
    x, y = noisy_data
    sweep = sweep_lr(x, y, 0.02, 0.6, 9, method="sgd", order=order, epochs=30, tolerance=1e-4, seed=1)
    assert sweep.epochs.isfinite().any()
    for lr, epochs in zip(sweep.lr.tolist(), sweep.epochs.tolist(), strict=True):
        pair = [run(x, y, lr, 1, order, 30, w0, seed=1) for w0 in (0.0, 1000.0)]
        left = [abs(b - a) / 1000 for a, b in zip(*pair, strict=True)]
        assert epochs == next((epoch for epoch, part in enumerate(left) if part <= 1e-4), math.inf)


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
def test_the_certificate_predicts_the_epochs(noisy_data: Data, method: str, batch_size: int | None) -> None:
    x, y = noisy_data
    sweep = sweep_lr(x, y, points=40, method=method, batch_size=batch_size, epochs=200, tolerance=1e-5)
    certificate = stability(x, y, method=method, batch_size=batch_size)
    assert sweep.epoch.intervals == certificate.intervals
    for lr, epochs in zip(sweep.lr.tolist(), sweep.epochs.tolist(), strict=True):
        predicted = max(1, math.ceil(sweep.predicted(lr) - 1e-9)) if lr < certificate.limit else math.inf
        assert epochs == (predicted if predicted <= 200 else math.inf)
    distances = [log_distance(sweep.epoch, lr, 200) for lr in sweep.lr.tolist()]
    assert distances[sweep.best] == min(distances)
    assert sweep.best_lr == stability(x, y, method=method, batch_size=batch_size, epochs=200).best_lr


def test_the_points_are_spaced_as_asked() -> None:
    x, y = course()
    ratios = sweep_lr(x, y, 1e-4, 1e-1, 4).lr
    assert ratios.tolist() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1], rel=1e-12)
    assert sweep_lr(x, y, 0.1, 0.4, 4, linear=True).lr.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    around = sweep_lr(x, y).lr
    assert len(around) == 100
    assert (around[0].item(), around[-1].item()) == pytest.approx((0.01 * 3 / 14, 1.5 * 3 / 14), rel=1e-12)


def test_samples_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(501, generator=generator, dtype=torch.float64)
    y = 2 * x + torch.randn(501, generator=generator, dtype=torch.float64)
    whole = sweep_lr(x, y, 1e-4, 1e-2, 3, method="sgd", epochs=3)
    monkeypatch.setattr("torchgd.convergence.sweep.BLOCK", 24)
    blocks = sweep_lr(x, y, 1e-4, 1e-2, 3, method="sgd", epochs=3)
    torch.testing.assert_close(blocks.weight, whole.weight, rtol=1e-13, atol=1e-13)


def test_a_divergence_ends_in_infinity_and_its_history_before_it() -> None:
    x, y = course()
    sweep = sweep_lr(x, y, 0.1, 1e9, 3, epochs=100)
    assert not sweep.weight.isnan().any()
    assert sweep.weight[-1].isinf().tolist() == [False, True, True]
    assert sweep.epochs.tolist()[1:] == [math.inf, math.inf]
    history = sweep.history(2)
    assert history.status == "diverged"
    assert history.weight.isfinite().all()
    assert history.cost.isfinite().all()
    assert len(history.weight) == len(history.epoch) < 101
    assert sweep.history(0).end_samples[-1].item() == 300


def test_progress_counts_the_epochs() -> None:
    seen: list[int] = []
    sweep_lr(*course(), epochs=5, on_epoch=seen.append)
    assert seen == [1, 2, 3, 4, 5]


ERRORS: list[tuple[dict[str, object], str]] = [
    ({"points": 1}, "points is 1; give 2 or more"),
    ({"epochs": 0}, "epochs is 0; give 1 or more"),
    ({"tolerance": 0.0}, "tolerance is 0; give a number between 0 and 1, e.g. 1e-6"),
    ({"w0": math.nan}, "w0 is nan; give a finite number"),
    ({"lr_min": 0.5, "lr_max": 0.1}, "lr_min is 0.5 and lr_max is 0.1; give finite numbers, 0 < lr_min"),
    ({"lr_min": 0.5, "lr_max": 0.5}, "lr_min is 0.5 and lr_max is 0.5; give finite numbers, 0 < lr_min"),
    ({"lr_min": 0.0}, "lr_min is 0 and lr_max is 0.321429; give finite numbers, 0 < lr_min"),
    ({"lr_max": math.inf}, "lr_max is inf; give finite numbers, 0 < lr_min < lr_max"),
    ({"lr_min": math.nan}, "lr_min is nan and lr_max is 0.321429; give finite numbers, 0 < lr_min"),
    ({"x": torch.zeros(3)}, "x is 0 in every sample"),
    ({"method": "minibatch", "batch_size": 5}, "batch_size is 5, but there are 3 samples; give 1 to 3"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors(arguments: dict[str, object], message: str) -> None:
    x, y = course()
    with pytest.raises(InputError, match=re.escape(message)):
        sweep_lr(**{"x": x, "y": y, **arguments})  # type: ignore[arg-type]
