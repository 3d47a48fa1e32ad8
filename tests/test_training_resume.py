"""Going on: a run in pieces has the bits of a run in one, wherever it was interrupted."""

import copy
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import mse_loss

import torchgd.training
from torchgd import GradientDescent, History, LinearModel, MiniBatchGradientDescent, train
from torchgd.training import Place

X = torch.randn(7, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
Y = 3 * X + torch.randn(7, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def same(a: History, b: History) -> None:
    for field in fields(History):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5)), field.name
        else:
            assert one == other, field.name


class InterruptedRunError(Exception):
    pass


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and report after every update."""
    monkeypatch.setattr(torchgd.training, "UPDATES_A_LOOK", 1)
    monkeypatch.setattr(torchgd.training, "SECONDS_A_REPORT", -1.0)


def make(order: str, batch_size: int) -> tuple[LinearModel, MiniBatchGradientDescent]:
    model = LinearModel(1.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    return model, MiniBatchGradientDescent(
        model.parameters(), lr=0.05, batch_size=batch_size, order=order, generator=generator
    )


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("gradient", ["hand", "autograd"])
@pytest.mark.parametrize("max_points", [10_000, 6])
@pytest.mark.parametrize("order", ["sequential", "shuffled", "replacement"])
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_interrupted_at_every_update_in_turn(
    gradient: str, max_points: int, order: str, batch_size: int
) -> None:
    """Each piece does a few updates, is interrupted, and the next goes on in a new process, as it were."""
    options: dict[str, Any] = {"gradient": gradient, "max_points": max_points}
    model, optimizer = make(order, batch_size)
    whole = train(model, X, Y, optimizer, 5, **options)

    model, optimizer = make(order, batch_size)
    resume: tuple[History, Place] | None = None
    pieces = 0
    for piece in range(1000):
        parts: list[History] = [resume[0]] if resume else []
        saved: list[Any] = []

        def on_progress(
            part: History,
            place: Place,
            parts: list[History] = parts,
            saved: list[Any] = saved,
            piece: int = piece,
        ) -> None:
            parts.append(part)
            if len(parts) > 1 + piece % 3:
                saved.extend((History.join(parts), copy.deepcopy(place)))
                raise InterruptedRunError

        try:
            history = train(model, X, Y, optimizer, 5, on_progress=on_progress, resume=resume, **options)
            break
        except InterruptedRunError:
            pieces += 1
            resume = (saved[0], saved[1])
            again, other = make(order, batch_size)  # with a generator that knows nothing
            again.load_state_dict(copy.deepcopy(model.state_dict()))
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            list(other.batches(7))
            model, optimizer = again, other
    assert pieces >= 2
    same(history, whole)


@given(place=st.integers(1, 35), order=st.sampled_from(["sequential", "shuffled"]))
def test_interrupted_anywhere_and_then_let_run(place: int, order: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchgd.training, "UPDATES_A_LOOK", 1)
        patch.setattr(torchgd.training, "SECONDS_A_REPORT", -1.0)
        model, optimizer = make(order, 1)
        whole = train(model, X, Y, optimizer, 5, gradient="hand")
        model, optimizer = make(order, 1)
        parts: list[History] = []
        at: list[Place] = []

        def on_progress(part: History, here: Place) -> None:
            parts.append(part)
            at.append(here)
            if len(parts) == place and place < 35:
                raise InterruptedRunError

        try:
            train(model, X, Y, optimizer, 5, gradient="hand", on_progress=on_progress)
        except InterruptedRunError:
            assert at[-1] == Place(place // 7, place % 7, at[-1].generator)
    same(train(model, X, Y, optimizer, 5, gradient="hand", resume=(History.join(parts), at[-1])), whole)


def test_more_epochs_after_the_end() -> None:
    model, optimizer = make("shuffled", 2)
    whole = train(model, X, Y, optimizer, 9)
    model, optimizer = make("shuffled", 2)
    places: list[Place] = []
    first = train(model, X, Y, optimizer, 4, on_progress=lambda part, place: places.append(place))
    assert places[-1].epoch == 4
    assert places[-1].update == 0
    same(train(model, X, Y, optimizer, 9, resume=(first, places[-1])), whole)


def test_nothing_is_left_to_do() -> None:
    model, optimizer = make("sequential", 2)
    places: list[Place] = []
    first = train(model, X, Y, optimizer, 4, on_progress=lambda part, place: places.append(place))
    weight = model.weight.item()
    same(train(model, X, Y, optimizer, 4, resume=(first, places[-1])), first)
    assert model.weight.item() == weight


# Progress


@pytest.mark.parametrize("epochs", [1, 3, 700])
def test_the_parts_make_the_history(epochs: int) -> None:
    model, optimizer = make("shuffled", 3)
    parts: list[History] = []
    places: list[Place] = []

    def on_progress(part: History, place: Place) -> None:
        parts.append(part)
        places.append(place)

    history = train(model, X, Y, optimizer, epochs, on_progress=on_progress)
    joined = History.join(parts)
    for field in fields(History):
        if field.name not in {"status", "reason"}:
            assert torch.equal(getattr(joined, field.name), getattr(history, field.name)), field.name
    assert [(place.epoch, place.update) for place in places] == sorted((p.epoch, p.update) for p in places)
    assert (places[-1].epoch, places[-1].update) == (epochs, 0)


def test_the_last_part_of_a_run_that_diverged_says_so() -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    parts: list[History] = []
    optimizer = GradientDescent(model.parameters(), lr=50.0)
    history = train(model, X, Y, optimizer, 1000, on_progress=lambda part, place: parts.append(part))
    assert history.status == "diverged"
    assert (parts[-1].status, parts[-1].reason) == (history.status, history.reason)
    same(History.join(parts), history)


@pytest.mark.parametrize(("tick", "least", "most"), [(1e-2, 7, 35), (1e-4, 2, 3), (1e-6, 2, 2)])
def test_progress_comes_a_few_times_a_second(
    tick: float, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of its own, on which an update takes a tick: 700 updates in 7 s, in 70 ms, in 0.7 ms."""
    now = iter(i * tick for i in range(1_000_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    model, optimizer = make("sequential", 1)
    times = 0

    def on_progress(part: History, place: Place) -> None:
        nonlocal times
        times += 1

    train(model, X, Y, optimizer, 100, on_progress=on_progress)
    assert least <= times <= most


def test_an_exception_leaves_the_state_of_its_place(often: Callable[[], None]) -> None:
    """The weight when on_progress is called is the one after the last update of the part."""
    model, optimizer = make("shuffled", 3)

    def on_progress(part: History, place: Place) -> None:
        assert model.weight.item() == part.update_weight[-1].item()
        assert part.update[-1].item() == place.epoch * 3 + place.update
        if place.update == 2:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        train(model, X, Y, optimizer, 5, on_progress=on_progress)


# How much is recorded


@pytest.mark.parametrize("max_points", [1, 2, 9, 10, 11, 34, 35, 36, 10_000])
def test_at_most_so_many_updates_evenly_spaced(max_points: int) -> None:
    model, optimizer = make("sequential", 1)
    history = train(model, X, Y, optimizer, 5, max_points=max_points)
    assert 0 < len(history.update) <= max_points
    steps = set(torch.diff(history.update, prepend=torch.tensor([0])).tolist())
    assert len(steps) == 1
    model, optimizer = make("sequential", 1)
    every = train(model, X, Y, optimizer, 5)
    rows = history.update - 1
    for name in ("update_weight", "gradient", "loss_before", "loss_after", "samples_seen"):
        assert torch.equal(getattr(history, name), getattr(every, name)[rows])
    assert torch.equal(history.weight, every.weight)


def test_the_cost_is_over_all_data() -> None:
    model, optimizer = make("shuffled", 3)
    history = train(model, X, Y, optimizer, 5)
    for w, cost in zip(history.weight, history.cost, strict=True):
        assert cost.item() == mse_loss(w * X, Y).item()
