"""Random orders: the formulas against all orders there are, and against seeded simulations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchgd.batches import Batches
from torchgd.convergence.certificate import Certificate, stability
from torchgd.convergence.methods import epoch_of

Data = tuple[Tensor, Tensor]
METHODS = [("sgd", None), ("minibatch", 2), ("minibatch", 3), ("minibatch", 4)]


@pytest.fixture
def few() -> Data:
    """Four samples: 24 orders, 256 epochs of draws."""
    x = torch.tensor([0.5, -1.5, 1.0, 2.0], dtype=torch.float64)
    return x, 2 * x + torch.tensor([0.3, 0.1, -0.4, 0.2], dtype=torch.float64)


def affine(x: Tensor, y: Tensor, lr: float, size: int, order: Iterable[int]) -> tuple[float, float]:
    """Scale and shift of the error by one epoch in this order: plain Python, from two starts."""
    star = ((x * y).sum() / (x * x).sum()).item()
    ends = []
    for start in (0.0, 1.0):
        w, samples = star + start, list(order)
        for at in range(0, len(samples), size):
            batch = samples[at : at + size]
            w -= lr * sum(2 * x[i].item() * (w * x[i].item() - y[i].item()) for i in batch) / len(batch)
        ends.append(w - star)
    return ends[1] - ends[0], ends[0]


def moments(x: Tensor, y: Tensor, lr: float, size: int, order: str) -> tuple[Tensor, Tensor]:
    """Scale and shift of every possible epoch."""
    n = len(x)
    orders = (
        itertools.permutations(range(n)) if order == "shuffled" else itertools.product(range(n), repeat=n)
    )
    pairs = torch.tensor([affine(x, y, lr, size, each) for each in orders], dtype=torch.float64)
    return pairs[:, 0], pairs[:, 1]


def at(data: Data, method: str, batch_size: int | None, order: str, share: float) -> Certificate:
    """The certificate at a share of its own limit."""
    asked = {"method": method, "batch_size": batch_size, "order": order}
    limit = stability(*data, **asked).limit  # type: ignore[call-overload]
    certificate: Certificate = stability(*data, share * limit, **asked)  # type: ignore[call-overload]
    return certificate


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
@pytest.mark.parametrize("order", ["shuffled", "replacement"])
@pytest.mark.parametrize("share", [1e-3, 0.3, 0.9])
def test_all_epochs_there_are(
    few: Data, method: str, batch_size: int | None, order: str, share: float
) -> None:
    """Factor, mean and spread follow from E scale, E scale², E shift, E shift² and E scale·shift."""
    c = at(few, method, batch_size, order, share)
    scale, shift = moments(*few, c.lr, c.batch_size, order)
    assert "simulated" not in c.basis
    rms = scale.square().mean().sqrt().item()
    assert abs(c.factor) == pytest.approx(rms, rel=1e-10, abs=1e-12)
    assert 1 - c.epoch_map.lost == pytest.approx(scale.mean().item(), abs=1e-12)
    mean = shift.mean().item() / (1 - scale.mean().item())
    assert c.fixed_point - c.least_squares == pytest.approx(mean, abs=1e-9)
    second = (shift.square().mean() + 2 * (scale * shift).mean() * mean).item() / (1 - rms**2)
    assert c.spread == pytest.approx(math.sqrt(max(second - mean**2, 0)), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
@pytest.mark.parametrize("order", ["shuffled", "replacement"])
def test_the_limit_is_where_the_mean_square_stops_shrinking(
    few: Data, method: str, batch_size: int | None, order: str
) -> None:
    c = at(few, method, batch_size, order, 1.0)
    size = c.batch_size
    for factor, shrinks in ((1 - 1e-8, True), (1 + 1e-8, False)):
        scale, _ = moments(*few, c.limit * factor, size, order)
        assert (scale.square().mean().item() < 1) == shrinks
    best, _ = moments(*few, c.fastest_lr, size, order)
    for nearby in (0.98, 1.02):
        scale, _ = moments(*few, c.fastest_lr * nearby, size, order)
        assert scale.square().mean() >= best.square().mean() - 1e-15


@pytest.mark.parametrize(("method", "batch_size"), METHODS)
def test_the_almost_sure_limit_is_where_the_mean_logarithm_is_zero(
    few: Data, method: str, batch_size: int | None
) -> None:
    c = at(few, method, batch_size, "replacement", 1.0)
    assert c.almost_sure is not None
    assert c.almost_sure[0][1] > c.limit  # Jensen's inequality
    wide = [(low, high) for low, high in c.almost_sure if high - low > 1e-6 * high]
    for low, high in wide:
        for end, inwards in ((low, 1), (high, -1)):
            for step in (1e-8, -1e-8) if end > 0 else ():
                scale, _ = moments(*few, end * (1 + step), c.batch_size, "replacement")
                assert (scale.abs().log().mean().item() < 0) == (step * inwards > 0)


def test_replacement_facts_of_the_course(course_data: Data) -> None:
    c = stability(*course_data, lr=0.15, method="sgd", order="replacement")
    assert c.limit == pytest.approx(1 / 7, rel=1e-14)
    assert c.almost_sure == stability(*course_data, method="sgd").intervals
    assert not c.converges
    assert "almost every run shrinks nevertheless" in c.verdict
    assert "almost" not in stability(*course_data, lr=0.3, method="sgd", order="replacement").verdict


def test_without_noise_every_order_settles_on_least_squares(course_data: Data) -> None:
    for method, batch_size in METHODS[:2]:
        for order in ("shuffled", "replacement"):
            c = at(course_data, method, batch_size, order, 0.5)
            assert (c.bias, c.spread) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_a_shuffle_of_single_batches_is_that_of_samples(noisy_data: Data) -> None:
    one = stability(*noisy_data, 0.1, method="minibatch", batch_size=1, order="shuffled")
    assert one.intervals == stability(*noisy_data, method="sgd").intervals
    whole = stability(*noisy_data, 0.1, method="minibatch", batch_size=7, order="shuffled")
    assert (whole.factor, whole.basis) == (stability(*noisy_data, 0.1).factor, "exact")


def simulate(x: Tensor, y: Tensor, c: Certificate, runs: int, epochs: int) -> Tensor:
    """The weights of many runs side by side after so many epochs, each with samples of its own."""
    generator = torch.Generator().manual_seed(1)
    w = torch.full((runs,), c.least_squares, dtype=torch.float64)
    for _ in range(epochs):
        batches = Batches(len(x), len(x), c.order, generator)
        order = torch.stack([batches.indices() for _ in range(runs)])
        for batch in order.split(c.batch_size, 1):
            xs, ys = x[batch], y[batch]
            w = w - c.lr * (2 * xs * (w[:, None] * xs - ys)).mean(1)
    return w


@pytest.mark.parametrize(("method", "batch_size"), [("sgd", None), ("minibatch", 3)])
@pytest.mark.parametrize("order", ["shuffled", "replacement"])
def test_simulation(noisy_data: Data, method: str, batch_size: int | None, order: str) -> None:
    """2000 runs, and of the certificate's own simulation 400 shuffles: 5 standard errors of both together.

    An error of the mean shift reaches the settled mean as 1/(1 − scale), the spread as 1/√(1 − scale²).
    """
    c = at(noisy_data, method, batch_size, order, 0.2)
    assert c.spread is not None
    runs, own = 2000, 400 if c.basis.startswith("simulated") else math.inf
    w = simulate(*noisy_data, c, runs, epochs=1 + math.ceil(math.log(1e-3) / math.log(abs(c.factor))))
    slow = (1 + abs(c.factor)) / (1 - abs(c.factor))
    assert w.mean().item() == pytest.approx(
        c.fixed_point, abs=5 * c.spread * math.sqrt(1 / runs + slow / own)
    )
    assert w.std().item() == pytest.approx(c.spread, rel=5 * math.sqrt(1 / (2 * runs) + 1 / (2 * own)))


def test_many_samples_in_a_random_order_are_exact_up_to_half_the_fastest_lr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The power series of many samples meets the polynomial of few; a simulation says its error."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(150, generator=generator, dtype=torch.float64)
    y = x + torch.randn(150, generator=generator, dtype=torch.float64)
    asked: dict[str, Any] = {"method": "sgd", "order": "shuffled"}
    fastest = stability(x, y, **asked).fastest_lr
    rates = [fastest * share for share in (0.01, 0.2, 0.5, 0.8)]
    series = [stability(x, y, lr, **asked) for lr in rates]
    monkeypatch.setattr("torchgd.convergence.shuffled_samples.FEWER", 200)
    for one, other in zip(series, [stability(x, y, lr, **asked) for lr in rates], strict=True):
        assert one.basis == other.basis == "exact"
        # The variance is the small difference of two integrals.
        assert one.fixed_point == pytest.approx(other.fixed_point, rel=1e-13)
        assert one.spread == pytest.approx(other.spread, rel=1e-9)
    monkeypatch.setattr("torchgd.convergence.shuffled_samples.FEW", 10)
    simulated = stability(x, y, rates[-1], **asked)
    assert simulated.basis == "simulated, 400 shuffles, seed 0: the spread to ±7.1 %"
    assert simulated.spread == pytest.approx(series[-1].spread, rel=0.071)


def test_a_limit_that_is_not_enumerated_states_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small data sets both ways: by all partitions, and as large ones are done."""
    generator = torch.Generator().manual_seed(0)
    asked: list[tuple[Tensor, Tensor, int]] = []
    for n, size in ((7, 3), (8, 2), (8, 4), (9, 3), (9, 4), (10, 4), (10, 5), (11, 5)):
        x = torch.randn(n, generator=generator, dtype=torch.float64) + 0.5 * (size % 2)
        asked.append((x, 2 * x + 0.1, size))
    exact = [stability(x, y, method="minibatch", batch_size=b, order="shuffled") for x, y, b in asked]
    assert {(c.basis, c.limit_error) for c in exact} == {("exact", 0.0)}
    monkeypatch.setattr("torchgd.convergence.shuffled_batches.FEW_ORDERS", 0)
    for (x, y, size), c in zip(asked, exact, strict=True):
        found = stability(x, y, method="minibatch", batch_size=size, order="shuffled")
        assert abs(found.limit / c.limit - 1) <= found.limit_error < 0.3
        assert f"the limit to ±{100 * found.limit_error:.2g} %" in found.basis


def test_the_mean_square_of_many_batches_is_made_by_rare_epochs() -> None:
    """400 shuffles of 1,000 samples see none of them, and would put the limit near the almost-sure one."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1000, generator=generator, dtype=torch.float64)
    asked: dict[str, Any] = {"method": "minibatch", "batch_size": 2}
    shuffled = stability(x, 2 * x, order="shuffled", **asked)
    drawn = stability(x, 2 * x, order="replacement", **asked)
    assert shuffled.almost_sure is not None
    assert drawn.limit < shuffled.limit < 0.8 * shuffled.almost_sure[0][1]
    assert shuffled.limit_error < 0.01
    small = epoch_of(x, 2 * x, order="shuffled", **asked).log_factor(1e-15)
    assert small == pytest.approx(-1e-15 * 2 * (x @ x).item() / 2, rel=1e-9)
