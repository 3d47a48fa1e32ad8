"""The scan engine beside the loop: the same run, from maps of whole epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchgd import (
    Dataset,
    GradientDescent,
    History,
    InputError,
    LinearModel,
    MiniBatchGradientDescent,
    Plan,
    StochasticGradientDescent,
    course,
    epoch_map,
    hubble,
    load,
    train,
)
from torchgd.cli import main
from torchgd.data.arrays import BLOCK
from torchgd.data.mapped import MappedVector
from torchgd.epoch.scan import MOST_POINTS, scan
from torchgd.moments import Moments
from torchgd.training import Place

KINDS: list[tuple[type[GradientDescent], dict[str, Any]]] = [
    (GradientDescent, {}),
    (StochasticGradientDescent, {}),
    (MiniBatchGradientDescent, {"batch_size": 5}),
    (StochasticGradientDescent, {"order": "shuffled"}),
    (MiniBatchGradientDescent, {"batch_size": 2, "order": "replacement"}),
]


def samples(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    return x, 3 * x + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)


def optimizer_of(kind: type[GradientDescent], options: dict[str, Any], lr: float = 0.05) -> Any:
    if "order" in options:
        options = {**options, "generator": torch.Generator().manual_seed(1)}
    return kind([torch.nn.Parameter(torch.tensor(0.0))], lr=lr, **options)


def scanned(data: Dataset, optimizer: Any, epochs: int, **options: Any) -> tuple[History, float]:
    model = LinearModel(1.0, dtype=torch.float64)
    history = scan(model, data, optimizer, epochs, **options)
    return history, model.weight.item()


def looped(data: Dataset, kind: type[GradientDescent], options: dict[str, Any], epochs: int) -> History:
    model = LinearModel(1.0, dtype=torch.float64)
    if "order" in options:
        options = {**options, "generator": torch.Generator().manual_seed(1)}
    optimizer = kind(model.parameters(), lr=0.05, **options)
    return train(model, data.x, data.y, optimizer, epochs, gradient="hand")


@pytest.mark.parametrize("n", [1, 7, 24, 400])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_history_is_the_loops(kind: type[GradientDescent], options: dict[str, Any], n: int) -> None:
    if options.get("batch_size", 1) > n:
        options = {**options, "batch_size": n}
    data = Dataset(*samples(n))
    loop = looped(data, kind, options, epochs=12)
    history, weight = scanned(data, optimizer_of(kind, options), 12)
    torch.testing.assert_close(history.weight, loop.weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(history.cost, loop.cost, rtol=1e-12, atol=1e-25)
    assert weight == history.weight[-1].item()
    assert (history.status, history.epoch.tolist()) == (loop.status, loop.epoch.tolist())
    assert history.end_samples.tolist() == loop.end_samples.tolist()
    assert 0 < len(history.update) <= MOST_POINTS
    shared = torch.isin(loop.update, history.update)
    assert loop.update[shared].tolist() == history.update.tolist()
    assert loop.samples_seen[shared].tolist() == history.samples_seen.tolist()
    torch.testing.assert_close(history.update_weight, loop.update_weight[shared], rtol=1e-12, atol=0)
    # a residual w x − y keeps the weight's rounding of 1e-16 · |y|, however small it is itself
    for name in ("gradient", "loss_before", "loss_after"):
        torch.testing.assert_close(getattr(history, name), getattr(loop, name)[shared], rtol=1e-9, atol=1e-13)


def test_a_resumed_run_ends_with_the_same_bits() -> None:
    data = Dataset(*samples(50))
    for kind, options in KINDS:
        whole, _ = scanned(data, optimizer_of(kind, options), 9)
        seen: list[tuple[History, Place, float]] = []

        def stop_after_the_first(part: History, place: Place) -> None:
            seen.append((part, place, model.weight.item()))  # noqa: B023 - called before the next round
            raise KeyboardInterrupt

        model = LinearModel(1.0, dtype=torch.float64)
        optimizer = optimizer_of(kind, options)
        with pytest.raises(KeyboardInterrupt):
            scan(model, data, optimizer, 9, on_progress=stop_after_the_first)
        part, place, weight = seen[0]
        assert 0 < place.epoch < 9
        again = LinearModel(weight, dtype=torch.float64)
        resumed = scan(again, data, optimizer_of(kind, options), 9, resume=(part, place))
        assert torch.equal(resumed.weight, whole.weight)
        assert torch.equal(resumed.loss_before, whole.loss_before)


def test_data_in_shards_give_the_bits_of_data_in_memory(tmp_path: Path) -> None:
    x, y = samples(300)
    names: dict[str, list[Path]] = {"x": [], "y": []}
    for number, (start, stop) in enumerate([(0, 120), (120, 121), (121, 300)]):
        for name, values in (("x", x), ("y", y)):
            names[name].append(tmp_path / f"{name}{number}.npy")
            np.save(names[name][-1], values[start:stop].numpy())
    mapped = load(x=names["x"], y=names["y"])
    for kind, options in KINDS:
        in_files, _ = scanned(mapped, optimizer_of(kind, options), 4)
        in_memory, _ = scanned(Dataset(x, y), optimizer_of(kind, options), 4)
        torch.testing.assert_close(in_files.weight, in_memory.weight, rtol=1e-13, atol=0)
        torch.testing.assert_close(in_files.cost, in_memory.cost, rtol=1e-12, atol=0)


def test_a_run_from_files_reads_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides the 10³ samples that are recorded one by one."""
    n = 600_000
    for name, values in zip("xy", samples(n), strict=True):
        np.save(tmp_path / f"{name}.npy", values.numpy())
    read = 0
    part = MappedVector._part

    def counted(self: MappedVector, shard: Any, start: int, stop: int) -> Tensor:
        nonlocal read
        read += stop - start
        return part(self, shard, start, stop)

    monkeypatch.setattr(MappedVector, "_part", counted)
    files = [f"--{name}={tmp_path / name}.npy" for name in "xy"]
    monkeypatch.setattr("torchgd.runs.forecast.MOST_CERTIFIED", 0)
    assert main(["train", *files, "--method=sgd", f"--logdir={tmp_path / 'runs'}"]) == 0
    assert 2 * n <= read <= 2 * n + 2 * BLOCK + 2 * MOST_POINTS  # and for the first x other than 0


@pytest.mark.parametrize(("lr", "verdict"), [("0.01", "It converges: "), ("9", "It diverges: ")])
def test_too_many_samples_for_the_certificate_ask_the_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lr: str, verdict: str
) -> None:
    monkeypatch.setattr("torchgd.runs.forecast.MOST_CERTIFIED", 0)
    main(["train", "--method=sgd", "--engine=scan", f"--lr={lr}", f"--logdir={tmp_path}"])
    assert capsys.readouterr().out.startswith(f"{verdict}an epoch multiplies the error by ")


def test_a_divergence_is_an_outcome() -> None:
    optimizer = StochasticGradientDescent([torch.nn.Parameter(torch.tensor(0.0))], lr=30.0)
    history, weight = scanned(course(), optimizer, 100)
    assert history.status == "diverged"
    assert math.isfinite(weight)
    assert weight == history.weight[-1].item()
    for values in (history.weight, history.cost, history.update_weight, history.loss_after):
        assert values.isfinite().all()
    # (1 − 60)(1 − 240)(1 − 540) an epoch: the square of the error passes 1.8e308 in epoch 23
    assert history.reason == "the weight or its cost is not finite after epoch 23"


def test_a_long_run_keeps_a_bounded_record_and_the_loops_weight() -> None:
    x, y = samples(20_000)
    history, weight = scanned(Dataset(x, y), optimizer_of(StochasticGradientDescent, {}, lr=1e-3), epochs=50)
    assert len(history.update) == MOST_POINTS
    w = 1.0
    xs, ys = x.tolist(), y.tolist()
    for _ in range(2):
        for xi, yi in zip(xs, ys, strict=True):
            w -= 1e-3 * 2 * xi * (w * xi - yi)
    assert history.weight[2].item() == pytest.approx(w, rel=1e-12)
    assert history.status == "converged"
    assert weight == history.weight[-1].item()


@pytest.mark.parametrize(("lr", "epochs"), [(1e-9, 10**9), (1e-3, 10**9), (1e-3, 10_001)])
def test_a_billion_epochs_are_ten_thousand_rows(lr: float, epochs: int) -> None:
    """They are evenly spaced, and each is a power of the epoch's map."""
    data = Dataset(*samples(24))
    optimizer = optimizer_of(StochasticGradientDescent, {}, lr=lr)
    history, weight = scanned(data, optimizer, epochs)
    rows = history.epoch.tolist()
    assert (rows[0], rows[-1]) == (0, epochs)
    assert 5000 <= len(rows) <= 10_000
    assert len(set(np.diff(rows[:-1]).tolist())) == 1
    whole = epoch_map(data.x, data.y, lr)
    for row in (1, len(rows) // 2, -1):
        assert history.weight[row].item() == pytest.approx(whole.after(rows[row])(1.0), rel=1e-11)
    assert weight == history.weight[-1].item()


def test_a_jump_that_diverges_names_its_epoch() -> None:
    data, lr = Dataset(*samples(24)), 2.5
    whole = epoch_map(data.x, data.y, lr, 24)
    assert -2 < whole.scale < -1
    history, _ = scanned(data, optimizer_of(GradientDescent, {}, lr=lr), 10**6)
    w, moments, epoch = 1.0, Moments.of(data.blocks()), 0
    while abs(moments.cost(w)) < math.inf:
        w, epoch = whole(w), epoch + 1
    assert history.status == "diverged"
    assert history.reason.startswith(f"the weight or its cost is not finite after epoch {epoch}")


def test_the_recorded_batches_are_read_once_however_many_epochs() -> None:
    class Counted(Dataset):
        read = 0

        def blocks(self, *arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            for x, y in super().blocks(*arguments, **options):
                Counted.read += len(x)
                yield x, y

    scanned(Counted(*samples(1000)), optimizer_of(MiniBatchGradientDescent, {"batch_size": 500}), 400)
    assert Counted.read == 2 * 1000  # for the maps, and for the losses of each batch


def test_in_float32_a_number_beyond_it_ends_the_run() -> None:
    model = LinearModel(1.0, dtype=torch.float32)
    x, y = course()
    data = Dataset(x.float(), y.float())
    history = scan(model, data, StochasticGradientDescent(model.parameters(), lr=0.4), 50)
    assert history.status == "diverged"
    # an epoch multiplies the error by 0.2 · 2.2 · 6.2; its square times Σx² passes 3.4e38 in epoch 44
    factor, largest = 0.2 * 2.2 * 6.2, torch.finfo(torch.float32).max
    last = max(k for k in range(50) if factor ** (2 * k) * 28 / 6 < largest)
    assert history.reason == f"the weight or its cost is not finite after epoch {last + 1}"
    for column in (
        history.weight,
        history.cost,
        history.update_weight,
        history.loss_before,
        history.loss_after,
    ):
        assert column.isfinite().all()


class Momentum(GradientDescent):
    """A step that is not an affine map of the weight alone."""

    def step(self, closure: Any = None) -> Any:
        raise NotImplementedError


ERRORS = [
    (Momentum, {"lr": 0.1}, "the scan engine needs a torchgd optimizer"),
    (torch.optim.SGD, {"lr": 0.1}, "the scan engine needs a torchgd optimizer"),
    (GradientDescent, {"lr": 0.1, "maximize": True}, "the scan engine needs a torchgd optimizer"),
]


@pytest.mark.parametrize(("kind", "options", "message"), ERRORS)
def test_what_is_no_affine_map_is_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scanned(course(), kind([torch.nn.Parameter(torch.tensor(0.0))], **options), 1)


def test_a_run_that_settles_far_from_least_squares_says_so() -> None:
    """At lr 0.125 only the last row of Hubble's table counts; shuffled it swings by more than the noise."""
    x, y = hubble()
    cases = [
        ("sequential", 0.125, "converged", "but it settles 121 from least squares 423.937, and the noise"),
        ("sequential", 0.01, "converged", None),
        ("shuffled", 0.4, "finished", "explains 42.2: lr is too large for steps of 1 sample"),
        ("shuffled", 0.002, "finished", None),
    ]
    for order, lr, status, says in cases:
        plan = Plan(method="sgd", order=order, lr=lr)
        models = [LinearModel(0.0, dtype=torch.float64) for _ in range(2)]
        trained = train(models[0], x, y, plan.optimizer(models[0].parameters()), 120, gradient="hand")
        scanned = scan(models[1], Dataset(x, y), plan.optimizer(models[1].parameters()), 120)
        for found in (trained, scanned):
            assert found.status == status, (order, lr, found.reason)
            assert (says in found.reason) if says else ("settles at" not in found.reason), found.reason
            assert says or "too large" not in found.reason
