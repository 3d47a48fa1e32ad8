"""The formulas of the experiments: smoothing, Wilson's interval, the expected excess."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchgd.experiments import saddle, smoothing, tradeoff

X = torch.tensor([1.0, 2.0, 3.0]).double()

amounts = st.just(0.0) | st.floats(1e-6, 1e6)
costs = st.lists(amounts, min_size=1, max_size=60).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)
shares = st.floats(0.01, 0.99)


@given(costs, shares)
def test_the_means_are_weighted_sums(costs: Tensor, beta: float) -> None:
    s = 1 - beta
    lecture, slider = smoothing.lecture_mean(costs, beta), smoothing.slider_mean(costs, s)
    for t in range(len(costs)):
        ages = torch.arange(t, -1, -1).double()
        weights = beta * s**ages
        weights[0] = s**t  # the first value has no predecessor
        bound = 8 * len(costs) * torch.finfo(torch.float64).eps * costs.max().item() / beta
        assert lecture[t].item() == pytest.approx((weights * costs[: t + 1]).sum().item(), abs=bound)
        debiased = (s**ages * costs[: t + 1]).sum() / (s**ages).sum()
        # 1 − s^(t+1) cancels where s is near 1: its relative error is ε / (1 − s)
        assert slider[t].item() == pytest.approx(debiased.item(), abs=bound)


@given(amounts, shares)
def test_a_constant_cost_stays_as_it_is(cost: float, beta: float) -> None:
    costs = torch.full((20,), cost, dtype=torch.float64)
    torch.testing.assert_close(smoothing.lecture_mean(costs, beta), costs, rtol=1e-13, atol=0)
    torch.testing.assert_close(smoothing.slider_mean(costs, 1 - beta), costs, rtol=1e-13, atol=0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_of_wilsons_interval_solve_its_equation(share: tuple[int, int]) -> None:
    hits, trials = share
    low, high = saddle.wilson(hits, trials)
    assert 0 <= low <= hits / trials + 1e-15
    assert hits / trials - 1e-15 <= high <= 1
    for end in (low, high):  # (share − p)² = z² p (1 − p) / n
        assert (hits / trials - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / trials, abs=1e-14)
    mirrored = saddle.wilson(trials - hits, trials)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-14)


@pytest.mark.parametrize("size", [1, 2])
def test_the_expected_excess_is_the_mean_over_all_draws(size: int) -> None:
    x, y = X, torch.tensor([2.0, 5.0, 6.0]).double()
    law, lr, updates = tradeoff.Law(x, y), 0.05, 3
    batches = list(itertools.product(range(3), repeat=size))
    totals = torch.zeros(updates + 1, dtype=torch.float64)
    for draws in itertools.product(batches, repeat=updates):
        w = torch.zeros((), dtype=torch.float64)
        weights = [w]
        for batch in draws:
            chosen = list(batch)
            w = w - lr * (2 * x[chosen] * (w * x[chosen] - y[chosen])).mean()
            weights.append(w)
        totals += law.excess(torch.stack(weights))
    expected = law.expected_excess(torch.tensor([lr], dtype=torch.float64), size, updates)[:, 0]
    torch.testing.assert_close(expected, totals / len(batches) ** updates, rtol=1e-12, atol=0)


def test_the_expected_excess_of_full_batch_is_its_closed_form() -> None:
    law, lr = (
        tradeoff.Law(X, torch.tensor([2.0, 5.0, 6.0]).double()),
        torch.tensor([0.01, 0.1], dtype=torch.float64),
    )
    powers = torch.arange(6).double()[:, None]
    closed = (1 - 2 * lr * 14 / 3) ** (2 * powers)
    torch.testing.assert_close(law.expected_excess(lr, 3, 5), closed, rtol=1e-12, atol=0)
    assert law.best_rate(3) == pytest.approx(3 / 28, rel=0.01)  # one step, to the 2 % of the grid


@given(st.floats(-5, 5))
def test_the_excess_is_what_the_cost_has_above_its_least(w: float) -> None:
    x, y = X, torch.tensor([2.0, 5.0, 6.0]).double()
    law = tradeoff.Law(x, y)

    def cost(w: float) -> float:
        return ((w * x - y) ** 2).mean().item()

    least = cost(15 / 7)  # Σxy / Σx² = 30/14
    assert law.cost(torch.tensor(w, dtype=torch.float64)).item() == pytest.approx(cost(w), rel=1e-12)
    excess = (cost(w) - least) / (cost(0) - least)
    assert law.excess(torch.tensor(w, dtype=torch.float64)).item() == pytest.approx(
        excess, rel=1e-12, abs=1e-13
    )
