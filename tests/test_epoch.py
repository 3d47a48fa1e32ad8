"""Whole epochs as one map, against loops in plain Python that know nothing of maps."""

import math
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchgd import EpochMap, InputError, epoch_map
from torchgd.epoch import fold
from torchgd.epoch.maps import epoch_with_moments
from torchgd.moments import Moments


def loop(x: Tensor, y: Tensor, lr: float, batch_size: int = 1, w: float = 1.0) -> list[float]:
    """The weight before the epoch and after each of its updates, one sample after another."""
    weights = [w]
    for begin in range(0, len(x), batch_size):
        xs, ys = x[begin : begin + batch_size].tolist(), y[begin : begin + batch_size].tolist()
        w -= lr * (sum(2 * a * (w * a - b) for a, b in zip(xs, ys, strict=True)) / len(xs))
        weights.append(w)
    return weights


def samples(n: int, seed: int = 0, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    return x, 3 * x + noise * torch.randn(n, generator=generator, dtype=torch.float64)


def prefix_maps(blocks: Iterable[tuple[Tensor, Tensor]], *options: Any, **more: Any) -> list[EpochMap]:
    return epoch_with_moments(blocks, *options, **more)[0]


@pytest.fixture(params=["one piece", "pieces of 8"])
def paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pieces of 8 samples a small epoch takes the paths of a large one, threads included."""
    if request.param != "one piece":
        monkeypatch.setitem(fold.PIECE, "cpu", 8)


# Both sides round once or twice an update, each by eps/2 = 1.1e-16 of a weight near 3, and the factors
# |a| < 1 forget old errors: 1e-13 leaves room for 300 roundings that all point the same way.
def near(weights: list[float]) -> Any:
    return pytest.approx(weights, rel=1e-13, abs=0)


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 20, 99, 100, 1000])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100])
def test_every_prefix_is_the_loop(n: int, batch_size: int) -> None:
    x, y = samples(n)
    weights = loop(x, y, 0.05, batch_size)
    prefixes = prefix_maps([(x, y)], 0.05, batch_size, range(len(weights)))
    assert [prefix(1.0) for prefix in prefixes] == near([*weights, weights[-1]])
    assert [epoch_map(x, y, 0.05, batch_size)(1.0)] == near([weights[-1]])


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.integers(1, 40),
    st.lists(st.integers(0, 6), max_size=4),
    st.sampled_from([8, 1 << 14]),
)
def test_blocks_make_no_difference(lengths: list[int], batch_size: int, gaps: list[int], block: int) -> None:
    x, y = samples(sum(lengths))
    weights = loop(x, y, 0.05, batch_size)
    stops = [stop for stop in (sum(gaps[: i + 1]) for i in range(len(gaps))) if stop < len(weights)]
    blocks = zip(x.split(lengths), y.split(lengths), strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fold.PIECE, "cpu", block)
        prefixes = prefix_maps(blocks, 0.05, batch_size, torch.tensor(stops))
    assert [prefix(1.0) for prefix in prefixes] == near([weights[stop] for stop in stops] + weights[-1:])


def test_the_course(course_data: tuple[Tensor, Tensor]) -> None:
    x, y = course_data
    in_order, full = epoch_map(x, y, 0.01), epoch_map(x, y, 0.01, 3)
    assert in_order(1.0) == pytest.approx(1.260688, rel=1e-15)
    assert in_order.after(2)(1.0) == pytest.approx(1.453417766656, rel=1e-15)
    assert in_order.after(100)(1.0) == pytest.approx(1.9999999999999236, rel=1e-15)
    assert in_order.scale == pytest.approx((1 - 0.02) * (1 - 0.08) * (1 - 0.18), rel=1e-15)
    assert full.after(100)(1.0) == pytest.approx(1.9999444396553017, rel=1e-14)
    assert full.scale == pytest.approx(1 - 0.01 * 28 / 3, rel=1e-15)
    assert (in_order.fixed_point, full.fixed_point) == pytest.approx((2, 2), rel=1e-15)
    assert in_order.converges
    assert not epoch_map(x, y, 0.25).converges
    assert epoch_map(x, y, 0.5).scale == 0  # the island: the first sample alone lands on w = 2
    assert epoch_map(x, y, 0.5)(1.0) == 2


def test_scale_and_shift_are_the_map() -> None:
    x, y = samples(500)
    epoch = epoch_map(x, y, 0.001)
    for w in (-5.0, 0.0, 1e6):
        assert epoch(w) == pytest.approx(epoch.scale * w + epoch.shift, rel=1e-14)
    assert epoch(torch.tensor(1.0)) == epoch(1.0)
    about_four = EpochMap(0.5, 1.0, center=4.0)  # w ↦ 4 + (w − 4)/2 + 1
    assert (about_four(0.0), about_four.shift, about_four.fixed_point) == (3, 3, 6)
    about_four = EpochMap(0.25, 1.0, center=4.0)
    assert (about_four(0.0), about_four.shift, about_four.fixed_point) == (4, 4, 16 / 3)


def test_a_weight_that_stays_at_the_centre_survives_the_others_overflow() -> None:
    """The loop from w = 2 stays there for two samples of 1e100, and the third moves it by 1."""
    x = torch.tensor([1e100, 1e100, 0.5], dtype=torch.float64)
    y = torch.tensor([2e100, 2e100, 2.0], dtype=torch.float64)
    epoch = epoch_map(x, y, 1.0)
    assert (epoch(2.0), epoch(3.0)) == (3, math.inf)


def test_the_verdict_says_what_epoch_after_epoch_does(course_data: tuple[Tensor, Tensor]) -> None:
    x, y = course_data
    answers = [epoch_map(x, y, lr, 3).verdict for lr in (0.01, 0.25, 1e-30)]
    assert answers == [
        "It converges: an epoch multiplies the error by 0.906667; it settles at 2.",
        "It diverges: an epoch multiplies the error by -1.33333; use a smaller lr.",
        "It converges: an epoch multiplies the error by 1 - 9.33e-30; it settles at 2.",
    ]
    assert EpochMap(0.0, 3.0).verdict == "An epoch ends at 3 wherever it began, to float64."
    assert EpochMap(0.0, math.inf).verdict == "It diverges: an epoch overflows; use a smaller lr."


@pytest.mark.parametrize("calm", [4000, 20_000])
def test_overshooting_samples_at_the_end_are_seen(calm: int) -> None:
    """Forty factors of 1 − 2·1.25² grow the rounding of what came before, unless it is about the centre."""
    x = torch.tensor([0.1] * calm + [1.25] * 40, dtype=torch.float64)
    w = Fraction(1)
    for xi, yi in zip(map(Fraction, x.tolist()), map(Fraction, (2 * x).tolist()), strict=True):
        w -= 2 * xi * (w * xi - yi)
        w = Fraction(int(w * 2**400), 2**400)
    assert epoch_map(x, 2 * x, 1.0)(1.0) == pytest.approx(float(w), rel=1e-12)


def test_an_epoch_in_inference_mode_leaves_no_trace(course_data: tuple[Tensor, Tensor]) -> None:
    x, y = course_data
    fold._one.cache_clear()
    with torch.inference_mode():
        within = epoch_map(x, y, 0.01)
    assert epoch_map(x, y, 0.01) == within


number = st.floats(-2, 2)
maps = st.builds(EpochMap, number, number, number)


@given(maps, maps, number)
def test_then_applies_one_after_the_other(first: EpochMap, second: EpochMap, w: float) -> None:
    # All numbers are below 40, and each side rounds at most ten times.
    assert first.then(second)(w) == pytest.approx(
        second(first(w)), rel=0, abs=10 * 40 * sys.float_info.epsilon
    )


@given(maps, st.integers(0, 40), number)
def test_after_applies_so_many_times(epoch: EpochMap, epochs: int, w: float) -> None:
    expected = w
    for _ in range(epochs):
        expected = epoch(expected)
    size = max(1, abs(epoch.scale)) ** epochs * (6 + 4 * epochs)  # no intermediate weight is larger
    assert epoch.after(epochs)(w) == pytest.approx(expected, rel=0, abs=4 * (epochs + 2) * size * 2.3e-16)


@given(maps)
def test_the_fixed_point_is_fixed(epoch: EpochMap) -> None:
    if epoch.scale == 1:
        assert math.isnan(epoch.fixed_point)
    elif abs(1 - epoch.scale) > 1e-3:  # nearer to 1 the fixed point itself is ill-conditioned
        assert epoch(epoch.fixed_point) == pytest.approx(epoch.fixed_point, rel=1e-12, abs=1e-12)


def test_many_epochs_near_scale_one() -> None:
    # (1 − aᵏ)/(1 − a) would lose all digits of 1 − a = 2⁻⁵⁰; k = 2²⁰ epochs of drift 1 go to (1 − aᵏ)/(1 − a)
    # = k − k(k−1)/2 · 2⁻⁵⁰ + …, whose second term is 5e-10 of the first.
    a, k = 1 - 2.0**-50, 2**20
    with localcontext() as context:
        context.prec = 60
        exact = float((1 - Decimal(a) ** k) / (1 - Decimal(a)))
    assert EpochMap(a, 1.0).after(k)(0.0) == pytest.approx(exact, rel=1e-15)
    assert EpochMap(1.0, 0.5).after(1000)(2.0) == 502
    assert EpochMap(-1.0, 1.0).after(10**9)(0.25) == 0.25
    assert EpochMap(-1.0, 1.0).after(10**9 + 1)(0.25) == 0.75


@pytest.mark.parametrize("lr", [1e-3, 1e-12, 1e-15, 1e-17])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_small_lr_loses_nothing_to_rounding(lr: float, batch_size: int) -> None:
    """1 − the rounded scale has no digit left; the map knows it, in blocks and over 1/lr epochs too."""
    x, y = samples(7, seed=1)
    epoch, epochs = epoch_map(x, y, lr, batch_size), round(0.1 / lr)
    exact, drift = Fraction(1), Fraction(0)
    for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
        step = 2 * Fraction(lr) / len(xs)
        products = [(Fraction(a), Fraction(b)) for a, b in zip(xs.tolist(), ys.tolist(), strict=True)]
        factor = 1 - step * sum(a * a for a, _ in products)
        exact, drift = factor * exact, factor * drift + step * sum(a * b for a, b in products)
    # A few roundings each, of sums of numbers of both signs in the drift.
    assert epoch.lost == pytest.approx(float(1 - exact), rel=1e-14)
    assert epoch.fixed_point == pytest.approx(float(drift / (1 - exact)), rel=1e-13)
    assert prefix_maps([(x[:3], y[:3]), (x[3:], y[3:])], lr, batch_size)[-1].lost == pytest.approx(
        epoch.lost, rel=1e-14
    )
    with localcontext() as context:
        context.prec = 60
        whole = 1 - Decimal((1 - exact).numerator) / Decimal((1 - exact).denominator)
        left = float(whole**epochs)
    settled = epoch.fixed_point
    assert epoch.after(epochs)(1.0) == pytest.approx(settled + left * (1 - settled), rel=1e-12)
    assert epoch.converges
    assert "It converges" in epoch.verdict


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("lr", [1e-4, 0.05, 0.4])
def test_the_error_is_no_larger_than_a_few_times_the_loops(dtype: torch.dtype, lr: float) -> None:
    x, y = (values.to(dtype) for values in samples(3000, seed=3))
    with localcontext() as context:
        context.prec = 60
        exact, two_lr = Decimal(1), 2 * Decimal(lr)
        for a, b in zip(map(Decimal, x.tolist()), map(Decimal, y.tolist()), strict=True):
            exact -= two_lr * a * (exact * a - b)
    w = torch.tensor(1.0, dtype=dtype)
    for a, b in zip(x, y, strict=True):
        w = w - lr * (2 * a * (w * a - b))
    own = abs(Decimal(w.item()) - exact)
    rounding = Decimal(torch.finfo(dtype).eps) * abs(exact)  # of a loop that was lucky
    assert abs(Decimal(epoch_map(x, y, lr)(1.0)) - exact) <= 3 * max(own, rounding)


@pytest.mark.parametrize("lr", [1e-9, 0.01, 0.3])
@pytest.mark.parametrize("unit", [1e-6, 1.0])
@pytest.mark.parametrize("batch_size", [1, 8, 500])
def test_the_solution_may_be_far_away(unit: float, lr: float, batch_size: int) -> None:
    x, y = samples(500)
    weights = loop(unit * x, y, lr, batch_size)
    assert [epoch_map(unit * x, y, lr, batch_size)(1.0)] == near(weights[-1:])


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-10, 10)), min_size=1, max_size=12),
    st.floats(1e-6, 2),
    st.floats(-10, 10),
)
def test_any_learning_rate(points: list[tuple[float, float]], lr: float, w: float) -> None:
    x, y = torch.tensor(points, dtype=torch.float64).unbind(1)
    exact, growth, reach = Fraction(w), 1.0, abs(w) + 1
    for a, b in points:
        exact -= 2 * Fraction(lr) * Fraction(a) * (Fraction(a) * exact - Fraction(b))
        growth *= max(1.0, abs(1 - 2 * lr * a * a))
        reach += abs(2 * lr * a * b)
    epoch = epoch_map(x, y, lr)
    # An update rounds numbers of at most growth · (reach + |centre|) a few times; growth counts what follows.
    bound = 8 * len(points) * sys.float_info.epsilon * growth * (reach + abs(epoch.center))
    assert abs(epoch(w) - float(exact)) <= bound


@pytest.mark.parametrize(
    ("batch_size", "lr", "center"),
    [(1, 0.05, 0.0), (1, 0.06, 2.0), (4, 0.15, 0.0), (4, 0.18, 2.0)],  # 2 lr · 9, and 2 lr · 12/4
)
def test_the_centre_is_the_solution_where_steps_overshoot(batch_size: int, lr: float, center: float) -> None:
    x = torch.tensor([1.0, 1.0, 1.0, 3.0]).double()
    assert epoch_map(x, 2 * x, lr, batch_size).center == center


def test_threads_of_the_user_do_not_meet() -> None:
    """Eight threads map other data at once."""
    data = [samples(3000, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda xy: [epoch_map(xy[0], xy[1], 0.01) for _ in range(20)], data))
    assert found == [[epoch_map(x, y, 0.01)] * 20 for x, y in data]


def test_a_scale_that_underflows_is_harmless() -> None:
    x, y = samples(5000, noise=0.1)
    epoch = epoch_map(x, y, 0.3)
    assert epoch.scale == 0
    assert epoch(1e300) == epoch(-1.0) == pytest.approx(loop(x, y, 0.3)[-1], rel=1e-12)


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("later", [3.0, 30.0, 2.0**333, 2.0**500], ids=["grows", "overflows", "huge", "vast"])
def test_a_zero_factor_lands_and_stays(later: float) -> None:
    """The first sample, of lr = 1/(2x²), lands on w = 2 exactly; the others find no error to grow."""
    x = torch.tensor([1.0] + [later] * 1000, dtype=torch.float64)
    assert loop(x, 2 * x, 0.5)[-1] == 2
    epoch = epoch_map(x, 2 * x, 0.5)
    assert (epoch.scale, epoch(1.0), epoch(-1e9), epoch.after(7)(5.0)) == (0, 2, 2, 2)


@pytest.mark.usefixtures("paths")
def test_updates_after_an_overflow_count() -> None:
    """At w = 2 the factors of 1e120 find nothing to grow; then come samples that are not on the line."""
    x = torch.tensor([1, 1e60, 1e60, 1e60, 1e60, 0.5, 0.5, 0.25, 0.75], dtype=torch.float64)
    y = torch.tensor([2, 2e60, 2e60, 2e60, 2e60, 1.3, 0.9, 0.4, 1.7], dtype=torch.float64)
    weights = loop(x, y, 0.5)
    assert [prefix(1.0) for prefix in prefix_maps([(x, y)], 0.5, 1, range(10))[:-1]] == near(weights)
    assert [epoch_map(x, y, 0.5)(-1e9)] == near(weights[-1:])


def test_sums_of_single_precision_are_double() -> None:
    x, y = (values.float() for values in samples(300_000))
    for batch_size in (1, 300_000):
        (epoch,), moments = epoch_with_moments([(x, y)], 1e-6, batch_size)
        (in_double,), exact = epoch_with_moments([(x.double(), y.double())], 1e-6, batch_size)
        assert (epoch, moments) == (in_double, exact)


@pytest.mark.usefixtures("paths")
def test_at_the_solution_an_overflowing_epoch_stays_there() -> None:
    x = torch.full((1000,), 3.0).double()
    epoch = epoch_map(x, 2 * x, 0.5)
    assert loop(x, 2 * x, 0.5, w=2.0)[-1] == epoch(2.0) == epoch.after(9)(2.0) == 2
    assert not math.isfinite(loop(x, 2 * x, 0.5)[-1])
    assert [abs(w) for w in (epoch(1.0), epoch.after(3)(1.0), epoch.then(EpochMap(0.0))(1.0))] == [
        math.inf
    ] * 3
    assert not epoch.converges


@pytest.mark.usefixtures("paths")
def test_an_overflow_that_comes_back() -> None:
    """The map answers with the weight, or that it diverged, where the loop passes 1e308: never NaN."""
    generator = torch.Generator().manual_seed(1)
    for size, back in ((100, 100), (600, 900), (2000, 3000), (2000, 9000)):
        up, down = torch.full((size,), 2.0).double(), torch.full((back,), 0.8).double()  # a = −3 and 0.36
        x = torch.cat([up, down])
        y = 2 * x + torch.randn(len(x), generator=generator, dtype=torch.float64)
        expected, answer = loop(x, y, 0.5)[-1], epoch_map(x, y, 0.5)(1.0)
        assert not math.isnan(answer)
        if math.isfinite(answer) and math.isfinite(expected):
            # 3^size of growth multiplies each side's rounding, and 0.36^back shrinks it again.
            grown = 1e-16 * size * math.exp(min(600, size * math.log(3) + back * math.log(0.36)))
            assert answer == pytest.approx(expected, rel=1e-12, abs=10 * grown)
        else:
            assert size > 640  # 3^646 is beyond the range of float64
            assert math.isinf(answer)


def test_samples_of_zero_and_huge_samples() -> None:
    zero = torch.zeros(5).double()
    epoch = epoch_map(zero, zero, 0.1)
    assert (epoch.scale, epoch(3.0), epoch.converges) == (1, 3, False)
    huge = torch.tensor([1e200, 1e-200], dtype=torch.float64)
    assert math.isinf(epoch_map(huge, huge, 0.1)(3.0))


def _loaded(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for begin in range(0, len(x), 30):
        yield x[begin : begin + 30].clone(), y[begin : begin + 30].clone()


def test_a_stream_is_read_once_and_shuffled_epochs_compose() -> None:
    x, y = samples(4321)
    w = 1.0
    composed = EpochMap()
    for epoch in range(3):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        w = loop(x[order], y[order], 0.01, w=w)[-1]
        composed = composed.then(prefix_maps(_loaded(x[order], y[order]), 0.01)[-1])
    assert composed(1.0) == pytest.approx(w, rel=1e-12)


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_the_moments_of_the_same_pass(batch_size: int) -> None:
    x, y = samples(100)
    maps, moments = epoch_with_moments(_loaded(x, y), 0.01, batch_size)
    assert maps[-1](1.0) == pytest.approx(epoch_map(x, y, 0.01, batch_size)(1.0), rel=1e-14)
    assert moments.n == 100
    for w in (-1.0, 3.0):  # the sums round a hundred times at most
        residual = w * x - y
        assert moments.cost(w) == pytest.approx(torch.mean(residual**2).item(), rel=1e-13)
        assert moments.gradient(w) == pytest.approx(torch.mean(2 * x * residual).item(), rel=1e-12)


def test_the_moments_are_of_all_samples_where_a_product_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pieces whose factors, of −3 and then of 0.36, overflow and come back; and one without."""
    monkeypatch.setitem(fold.PIECE, "cpu", 2500)
    x = torch.cat([torch.full((700,), 2.0), torch.full((1800,), 0.8), torch.ones(100)]).double()
    y = 3 * x + 1
    moments = epoch_with_moments([(x, y)], 0.5)[1]
    assert moments.n == 2600
    assert moments.cost(3.0) == pytest.approx(1.0, rel=1e-12)


def test_strides_gradients_and_other_dtypes() -> None:
    x, y = samples(300)
    expected = epoch_map(x, y, 0.01)(1.0)
    columns = torch.stack([x, y], dim=1).requires_grad_()
    assert epoch_map(columns[:, 0], columns[:, 1], 0.01)(1.0) == expected
    by_seven = epoch_map(columns[:, 0], columns[:, 1], 0.01, 7)
    assert by_seven(1.0) == pytest.approx(epoch_map(x, y, 0.01, 7)(1.0), rel=1e-15)  # sums in another order
    half = epoch_map(x.half(), y.half(), 0.01)
    assert half == epoch_map(x.half().double(), y.half().double(), 0.01)


def test_large_batches_go_through_many_blocks() -> None:
    x, y = samples(1000)
    weights = loop(x, y, 0.05, 300)
    prefixes = prefix_maps(zip(x.split(70), y.split(70), strict=True), 0.05, 300, range(5))
    assert [prefix(1.0) for prefix in prefixes] == near([*weights, weights[-1]])


@pytest.mark.parametrize("lr", [1e-9, 1e-4, 0.01, 0.3])
def test_one_thread_and_two_end_with_the_same_bits(lr: float) -> None:
    x, y = samples(600_000)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            in_order = epoch_with_moments([(x, y)], lr, 1, [7, 300_000])
            found.append((epoch_map(x, y, lr), in_order, Moments.of([(x, y)])))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("x3", "y3", "message"),
    [
        (0.9, 1.8, None),
        (1.5, 3.0, None),  # a factor of −0.35
        (1e160, 0.0, None),  # beyond float64's range, as the weight is then
        (0.9, 1e308, None),  # within it
        (math.nan, 1.0, r"^x\[3\]: nan is not finite"),
        (0.9, math.inf, r"^y\[3\]: inf is not finite"),
    ],
)
def test_what_later_updates_forget_is_looked_at(
    x3: float, y3: float, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each later factor is 1 − 0.6 · 0.81 = 0.514, whose 1,120th power is 0 in float64."""
    monkeypatch.setitem(fold.PIECE, "cpu", 64)
    x = torch.full((9000,), 0.9).double()
    y = 2 * x
    x[3], y[3] = x3, y3
    if message:
        with pytest.raises(InputError, match=message):
            epoch_map(x, y, 0.3)
    else:
        found, (*_, whole) = epoch_map(x, y, 0.3), prefix_maps([(x, y)], 0.3)
        assert (found.scale, found.converges) == (whole.scale, whole.converges)
        assert abs(found(1.0)) == pytest.approx(abs(whole(1.0)), rel=1e-15)  # ±inf where it diverges


one = torch.ones(3).double()
holed = torch.ones(10).double().index_fill(0, torch.tensor(6), math.nan)
ERRORS = [
    ([(one, one)], {"lr": 0.0}, "lr must be finite and above 0, not 0.0"),
    ([(one, one)], {"lr": -0.1}, "lr must be finite and above 0, not -0.1"),
    ([(one, one)], {"lr": math.nan}, "lr must be finite and above 0, not nan"),
    ([(one, one)], {"batch_size": 0}, "batch_size must be 1 or more, not 0"),
    ([(one, one)], {"stops": [2, 1]}, "stops must ascend"),
    ([(one, one)], {"stops": [-1]}, "stops must ascend"),
    ([(one, one)], {"stops": [1, 4, 5]}, "stop 4 is beyond the epoch, which has 3 updates"),
    ([], {}, "there are no samples"),
    ([([1.0, 2.0], [2.0, 4.0])], {}, "x is a list; give a tensor"),
    (
        [(one, one), (one, one[:2])],
        {},
        r"in block 2 x has shape \(3,\) and y has shape \(2,\); give one y for each x",
    ),
    ([(one.view(3, 1), one)], {}, r"in block 1 x has shape \(3, 1\) and y has shape \(3,\)"),
    ([(one, one), (one[:0], one[:0])], {}, r"in block 2 x has shape \(0,\)"),
    (
        [(one.long(), one.long())],
        {},
        "in block 1 x has dtype torch.int64 on cpu and y torch.int64 on cpu; convert",
    ),
    ([(one, one.float())], {}, "x has dtype torch.float64 on cpu and y torch.float32 on cpu; convert both"),
    (
        [(one, one), (one.float(), one.float())],
        {},
        "in block 2 x has dtype torch.float32 on cpu, but torch.float64",
    ),
    (
        [(one, one), (holed, 2 * holed)],
        {},
        r"x\[9\]: nan is not finite; correct it, or leave the sample out",
    ),
    ([(one, one), (holed, holed)], {"batch_size": 4}, r"x\[9\]: nan"),
    ([(one, one), (holed, holed)], {"batch_size": 99}, r"x\[9\]: nan"),
    ([(one, one / 0)], {}, r"y\[0\]: inf is not finite"),
]


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize(("blocks", "options", "message"), ERRORS)
def test_errors(blocks: list[tuple[Tensor, Tensor]], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prefix_maps(blocks, **{"lr": 0.01, **options})


def test_negative_epochs() -> None:
    with pytest.raises(InputError, match="epochs must be 0 or more, not -1"):
        EpochMap().after(-1)


@pytest.mark.cuda
@pytest.mark.parametrize("batch_size", [1, 7, 10**6])
def test_on_cuda(batch_size: int) -> None:
    x, y = samples(100_000)
    stops = range(0, 1 + len(x) // batch_size, max(1, len(x) // batch_size // 50))
    here = prefix_maps([(x, y)], 1e-5, batch_size, stops)
    there = prefix_maps([(x.cuda(), y.cuda())], 1e-5, batch_size, stops)
    assert [m(1.0) for m in there] == pytest.approx([m(1.0) for m in here], rel=1e-12)
