"""The record of a run, and the verdict drawn from it."""

import itertools
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from torchgd import GradientDescent, History, LinearModel, StochasticGradientDescent, train
from torchgd.batches import Batches
from torchgd.history import COLUMNS, MOST_ROWS, judge, spacing


def history(weights: list[float], dtype: torch.dtype = torch.float64, gradient: float = 1.0) -> History:
    """A full-batch run through these weights."""
    weight = torch.tensor(weights, dtype=dtype)
    numbers = torch.arange(len(weights))
    values = torch.full_like(weight[1:], gradient)
    return History(
        epoch=numbers,
        end_update=numbers,
        end_samples=numbers,
        weight=weight,
        cost=weight * weight,
        update=numbers[1:],
        samples_seen=numbers[1:],
        update_weight=weight[1:],
        gradient=values,
        loss_before=values,
        loss_after=values,
    )


def geometric(ratio: float, epochs: int, first: float = 1.0, end: float = 2.0) -> list[float]:
    """Weights whose error shrinks or grows by a constant ratio, as in a fixed order."""
    return [end - first * ratio**t for t in range(epochs + 1)]


@given(
    ratio=st.floats(-1.6, 1.6).filter(lambda r: abs(r) > 0.01 and abs(abs(r) - 1) > 0.02),
    epochs=st.integers(10, 60),
)
def test_a_constant_ratio_is_judged_exactly(ratio: float, epochs: int) -> None:
    status, _ = judge(history(geometric(ratio, epochs)), random_order=False)
    if abs(ratio) > 1:
        assert status == "diverged"
        return
    # the last step is |1 − r| |r|^(T − 1), and those to come are |r|, |r|², … times as long
    left = abs(1 - ratio) * abs(ratio) ** epochs / (1 - abs(ratio))
    assume(not 0.9 < left / 2e-9 < 1.1)  # 1e-9 of the weight, which is 2
    assert status == ("converged" if left < 2e-9 else "finished")


@pytest.mark.parametrize("epochs", [1, 2, 3, 100])
def test_growth_needs_two_steps(epochs: int) -> None:
    """The ratio of two steps is the factor of the affine map."""
    status, _ = judge(history(geometric(1.5, epochs)), random_order=False)
    assert status == ("diverged" if epochs >= 2 else "finished")


def test_growth_proves_nothing_in_a_random_order_or_with_momentum() -> None:
    grown = history(geometric(1.5, 10))
    assert judge(grown, random_order=True)[0] == "finished"
    assert judge(grown, random_order=False, affine=False)[0] == "finished"
    assert judge(history(geometric(1.5, 20)), random_order=True)[0] == "diverged"  # 1.5¹⁹ > 1000


def test_the_reasons() -> None:
    table: list[tuple[list[float], float, str]] = [
        (geometric(2.0, 5), 1.0, "the weight's steps grow 2 times an epoch"),
        (geometric(0.1, 30), 1.0, "the weight is within 1e-09 of where it settles"),
        (geometric(0.5, 1), 1.0, "1 epoch done"),
        (geometric(0.5, 4), 1.0, "4 epochs done, the last of which moved the weight by 0.0625"),
        ([2.0] * 5, 0.0, "the gradient is 0"),
        ([2.0] * 5, 1.0, "the steps are too small to move the weight in torch.float64"),
    ]
    for weights, gradient, reason in table:
        assert judge(history(weights, gradient=gradient), random_order=False)[1] == reason


def test_float32_converges_at_its_own_precision() -> None:
    weights = geometric(0.5, 20)  # 1e-6 is left
    assert judge(history(weights, torch.float32), random_order=False)[0] == "converged"
    assert judge(history(weights, torch.float64), random_order=False)[0] == "finished"


def test_a_history_is_frozen_and_on_the_cpu(course_data: tuple[Tensor, Tensor]) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    record = train(model, *course_data, GradientDescent(model.parameters()), 3)
    with pytest.raises(FrozenInstanceError):
        record.status = "other"  # type: ignore[misc]
    for name in ("epoch", "end_update", "end_samples", "update", "samples_seen"):
        assert getattr(record, name).dtype == torch.int64
    for name in ("weight", "cost", "update_weight", "gradient", "loss_before", "loss_after"):
        assert getattr(record, name).dtype == torch.float64
        assert not getattr(record, name).requires_grad


def test_shapes_and_axes(course_data: tuple[Tensor, Tensor]) -> None:
    """Row e stands before epoch e, row e + 1 after it; samples seen is the axis that methods share."""
    for method, updates in ((GradientDescent, 1), (StochasticGradientDescent, 3)):
        model = LinearModel(1.0, dtype=torch.float64)
        record = train(model, *course_data, method(model.parameters()), 4)
        assert record.epoch.tolist() == [0, 1, 2, 3, 4]
        assert record.end_update.tolist() == [updates * e for e in range(5)]
        assert record.end_samples.tolist() == [3 * e for e in range(5)]
        assert record.update.tolist() == list(range(1, 4 * updates + 1))
        assert record.samples_seen.tolist() == [3 // updates * u for u in record.update.tolist()]
        assert torch.equal(record.update_weight[updates - 1 :: updates], record.weight[1:])
        assert record.weight[0].item() == 1.0


def test_it_says_itself_in_a_line(course_data: tuple[Tensor, Tensor]) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    record = train(model, *course_data, StochasticGradientDescent(model.parameters()), 100)
    reason = "the weight is within 1e-09 of where it settles"
    assert repr(record) == f"<History: 300 updates, 300 recorded; converged: {reason}>"


def test_join_puts_parts_one_after_another() -> None:
    whole = history([1.0, 1.5, 1.75, 1.875])
    names = ["epoch", "end_update", "end_samples", "weight", "cost"]
    points = ["update", "samples_seen", "update_weight", "gradient", "loss_before", "loss_after"]

    def rows(start: int, stop: int) -> History:
        cut = {name: getattr(whole, name)[start:stop] for name in names}
        cut |= {name: getattr(whole, name)[max(start - 1, 0) : stop - 1] for name in points}
        return replace(whole, **cut, reason=f"{start}")

    for cuts in ([0, 4], [0, 1, 4], [0, 2, 3, 4]):
        parts = [rows(a, b) for a, b in itertools.pairwise(cuts)]
        joined = History.join(parts)
        for name in names + points:
            assert torch.equal(getattr(joined, name), getattr(whole, name)), name
        assert joined.reason == parts[-1].reason


def test_the_number_of_rows_is_bounded_whatever_the_parts() -> None:
    """Evenly spaced, with the first epoch and the last; the parts decide nothing."""
    batches, weight = Batches(3, 1), torch.tensor(0.0).double()
    for epochs in (9_998, 9_999, 10_000, 25_001):
        ends = [{"epoch": epoch, "weight": 1.0 / (epoch + 1), "cost": 1.0} for epoch in range(epochs + 1)]
        whole = History.join([History.of(batches, weight, ends)])
        step = spacing(epochs)
        assert whole.epoch.tolist() == [*range(0, epochs, step), epochs]
        assert MOST_ROWS / 2 <= len(whole.epoch) <= MOST_ROWS
        assert torch.equal(whole.weight, 1 / (whole.epoch + 1).double())
        parts = None
        for start in range(0, epochs + 1, 4_321):
            part = History.of(batches, weight, ends[start : start + 4_321])
            parts = History.join([parts, part]) if parts else part
        assert parts is not None
        assert torch.equal(parts.end_update, whole.end_update)


@pytest.mark.parametrize("parameters", [1, 2])
def test_a_table_of_all_rows(parameters: int) -> None:
    model = torch.nn.Linear(parameters, 1, bias=False).double()
    x = torch.ones(3, parameters).double()
    optimizer = StochasticGradientDescent(model.parameters(), lr=0.1)
    record = train(model, x, x.sum(1, keepdim=True), optimizer, 2, max_points=3)
    table = record.table()
    weights = ["weight"] if parameters == 1 else ["weight_0", "weight_1"]
    assert list(table)[:-4] == ["epoch", "update", "samples_seen", *weights]
    assert list(table)[-4:] == ["cost", "loss_before", "loss_after", "gradient"]
    assert table["epoch"] == [0, None, 1, None, 2]
    assert table["update"] == table["samples_seen"] == [0, 2, 3, 4, 6]
    assert [value is None for value in table["gradient"]] == [True, False, True, False, False]
    lines = record.to_csv().splitlines()
    assert lines[0].split(",") == list(table)
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "2", "3", "4", "6"]


def test_csv_and_pandas_have_the_same_numbers(course_data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    model = LinearModel(1.0, dtype=torch.float64)
    record = train(model, *course_data, StochasticGradientDescent(model.parameters()), 3)
    record.to_csv(tmp_path / "history.csv")
    read = pandas.read_csv(tmp_path / "history.csv")
    frame = record.to_pandas()
    assert list(read.columns) == list(frame.columns)
    # what read_csv makes of the last digit is its own
    assert ((read.fillna(-1) - frame.fillna(-1)).abs() <= 1e-15).all(axis=None)
    assert record.weight.tolist() == frame["weight"][frame["epoch"].notna()].tolist()


def test_a_notebook_shows_a_few_epochs(course_data: tuple[Tensor, Tensor]) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    record = train(model, *course_data, GradientDescent(model.parameters()), 100)
    page = record._repr_html_()
    assert str(record) in page
    assert page.count("<tr>") == 1 + 11
    assert "<td>100</td><td>100</td><td>300</td><td>1.99994444</td>" in page.replace(
        "1.999944440", "1.99994444"
    )


def test_plot_draws_the_cost(course_data: tuple[Tensor, Tensor]) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    record = train(model, *course_data, GradientDescent(model.parameters()), 20)
    axes = record.plot(label="gd")
    (line,) = axes.get_lines()
    assert line.get_ydata().tolist() == record.cost.tolist()
    assert (axes.get_yscale(), axes.get_xlabel(), line.get_label()) == ("log", "epoch", "gd")
    assert record.plot(axes) is axes
    assert len(axes.get_lines()) == 2
    assert axes.figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows


def test_every_column_is_declared_where_history_is() -> None:
    record = history([1.0, 1.5])
    assert [name for name, value in vars(record).items() if isinstance(value, Tensor)] == list(COLUMNS)
