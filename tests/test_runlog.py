"""A run's folder, read back with TensorBoard's own reader."""

import csv
import itertools
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from torch import Tensor, nn

from torchgd import (
    GradientDescent,
    History,
    LinearModel,
    MiniBatchGradientDescent,
    StochasticGradientDescent,
    train,
)
from torchgd.runs.folders import new_folder
from torchgd.runs.runlog import MOST_POINTS, RunLog


def trained(
    epochs: int, data: tuple[Tensor, Tensor], folder: Path, batch_size: int = 1, lr: float = 0.01
) -> History:
    """A run that writes its log to the folder as it goes."""
    model = LinearModel(1.0, dtype=torch.float64)
    optimizer = MiniBatchGradientDescent(model.parameters(), lr=lr, batch_size=batch_size)
    updates = len(optimizer.batches(len(data[0]))) * epochs
    with RunLog(folder, {"method": "minibatch", "lr": lr}, epochs=epochs, updates=updates) as log:
        history = train(
            model, *data, optimizer, epochs, gradient="hand", on_progress=lambda part, place: log.write(part)
        )
        log.finish(history)
    return history


def events(folder: Path) -> EventAccumulator:
    keep_all = dict.fromkeys(("scalars", "images", "tensors", "compressedHistograms"), 0)
    accumulator = EventAccumulator(str(folder), size_guidance=keep_all)
    accumulator.Reload()
    return accumulator


def float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]  # type: ignore[no-any-return]


CURVES = {
    "epoch/cost": ("epoch", "cost"),
    "epoch/weight": ("epoch", "weight"),
    "update/loss": ("samples_seen", "loss_before"),
    "update/gradient": ("samples_seen", "gradient"),
    "update/weight": ("samples_seen", "update_weight"),
}


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_point_of_a_short_run(
    batch_size: int, course_data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    history = trained(30, course_data, tmp_path, batch_size)
    log = events(tmp_path)
    assert set(log.Tags()["scalars"]) == {*CURVES, "epoch/log10_cost"}
    logarithms = [event.value for event in log.Scalars("epoch/log10_cost")]
    assert logarithms == pytest.approx(history.cost.log10().tolist(), rel=1e-6)  # it is a float32
    for tag, (axis, name) in CURVES.items():
        assert [event.step for event in log.Scalars(tag)] == getattr(history, axis).tolist()
        values = getattr(history, name).tolist()
        assert [event.value for event in log.Scalars(tag)] == [float32(value) for value in values]


def test_curves_of_two_methods_share_an_axis(course_data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """Samples seen: an update of full batch stands where an epoch of per sample ends."""
    steps = []
    for batch_size in (1, 3):
        folder = new_folder(tmp_path, "course", f"b{batch_size}")
        trained(20, course_data, folder, batch_size)
        steps.append([event.step for event in events(folder).Scalars("update/loss")])
    assert steps[0] == list(range(1, 61))
    assert steps[1] == list(range(3, 61, 3))


@pytest.mark.parametrize("epochs", [1, 999, 1000, 1001, 1002, 3333])
def test_at_most_about_a_thousand_points_a_curve(
    epochs: int, course_data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    history = trained(epochs, course_data, tmp_path)
    log = events(tmp_path)
    for tag, (axis, name) in CURVES.items():
        points = [(event.step, event.value) for event in log.Scalars(tag)]
        of_step = dict(zip(getattr(history, axis).tolist(), getattr(history, name).tolist(), strict=True))
        assert all(value == float32(of_step[step]) for step, value in points)
        assert min(len(of_step), MOST_POINTS) * 0.9 <= len(points) <= MOST_POINTS + 1
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps))
        assert steps[0] == min(of_step)
        assert steps[-1] == max(of_step)  # the end is never left out
        gaps = [b - a for a, b in itertools.pairwise(steps)]
        assert max(gaps, default=0) <= 2 * max(of_step) / MOST_POINTS + 3  # evenly


def test_however_it_is_cut_into_parts_the_points_are_the_same(
    course_data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    history = train(model, *course_data, StochasticGradientDescent(model.parameters()), 2000)
    points = []
    for size in (1, 7, 5000):
        folder = new_folder(tmp_path, "cut", f"by-{size}")
        with RunLog(folder, {}, epochs=2000, updates=6000) as log:
            for i in range(0, 2001, size):
                rows = slice(i, i + size)
                updates = slice(max(3 * i - 2, 0), 3 * (i + size) - 2)
                part = {
                    n: getattr(history, n)[rows]
                    for n in ("epoch", "end_update", "end_samples", "weight", "cost")
                }
                part |= {
                    n: getattr(history, n)[updates]
                    for n in (
                        "update",
                        "samples_seen",
                        "update_weight",
                        "gradient",
                        "loss_before",
                        "loss_after",
                    )
                }
                log.write(replace(history, **part))
        read = events(folder)
        points.append([[(e.step, e.value) for e in read.Scalars(tag)] for tag in CURVES])
    assert points[0] == points[1] == points[2]


def test_a_module_has_a_curve_for_each_weight(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    x = torch.randn(6, 2)
    history = train(model, x, x.sum(1, keepdim=True), GradientDescent(model.parameters()), 5)
    with RunLog(tmp_path, {}, epochs=5, updates=5) as log:
        log.write(history)
        log.finish(history)
    read = events(tmp_path)
    for i in range(3):
        assert [e.value for e in read.Scalars(f"epoch/weight/{i}")] == history.weight[:, i].tolist()
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header == (
        "epoch,update,samples_seen,weight_0,weight_1,weight_2,cost,loss_before,loss_after,gradient"
    )


def test_one_event_file_with_the_hyperparameters(course_data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    trained(5, course_data, tmp_path, batch_size=2, lr=0.02)
    assert sorted(path.name.split(".")[0] for path in tmp_path.iterdir()) == ["events", "history"]
    log = events(tmp_path)
    contents = log.summary_metadata
    assert {metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG} <= set(
        contents
    )
    start = metadata.parse_session_start_info_plugin_data(
        contents[metadata.SESSION_START_INFO_TAG].plugin_data.content
    )
    assert start.hparams["lr"].number_value == 0.02
    assert start.hparams["method"].string_value == "minibatch"
    end = metadata.parse_session_end_info_plugin_data(
        contents[metadata.SESSION_END_INFO_TAG].plugin_data.content
    )
    assert end.status == 1  # STATUS_SUCCESS
    experiment = metadata.parse_experiment_plugin_data(contents[metadata.EXPERIMENT_TAG].plugin_data.content)
    assert [info.name.tag for info in experiment.metric_infos] == ["epoch/cost"]


def test_an_exception_leaves_what_was_written(course_data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    history = train(model, *course_data, GradientDescent(model.parameters()), 20)

    def fail() -> None:
        with RunLog(tmp_path, {"lr": 0.01}, epochs=100, updates=100) as log:
            log.write(history)
            raise RuntimeError("the machine burns")

    with pytest.raises(RuntimeError, match="burns"):
        fail()
    log = events(tmp_path)
    assert len(log.Scalars("epoch/cost")) == 21
    assert metadata.SESSION_END_INFO_TAG not in log.summary_metadata  # it has not ended
    assert (tmp_path / "history.csv").read_text() == history.to_csv()


def test_a_reader_sees_each_part_at_once(course_data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    history = train(model, *course_data, GradientDescent(model.parameters()), 20)
    with RunLog(tmp_path, {}, epochs=20, updates=20) as log:
        log.write(history)
        assert len(events(tmp_path).Scalars("epoch/cost")) == 21


def test_the_pictures(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n and so on"
    with RunLog(tmp_path, {}, epochs=1, updates=1) as log:
        log.picture("parabola", png, 800, 500)
    (image,) = events(tmp_path).Images("picture/parabola")
    assert (image.encoded_image_string, image.width, image.height) == (png, 800, 500)
    assert (tmp_path / "parabola.png").read_bytes() == png


# history.csv


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("max_points", [10_000, 7])
def test_history_csv_is_the_history(
    batch_size: int, max_points: int, noisy_data: tuple[Tensor, Tensor]
) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    optimizer = MiniBatchGradientDescent(model.parameters(), batch_size=batch_size)
    history = train(model, *noisy_data, optimizer, 5, max_points=max_points)
    rows = list(csv.DictReader(history.to_csv().splitlines()))
    assert [int(row["update"]) for row in rows] == sorted(
        {*history.update.tolist(), *history.end_update.tolist()}
    )
    at_ends = [row for row in rows if row["epoch"]]
    assert [int(row["epoch"]) for row in at_ends] == history.epoch.tolist()
    assert [int(row["samples_seen"]) for row in at_ends] == history.end_samples.tolist()
    assert [float(row["weight"]) for row in at_ends] == history.weight.tolist()
    assert [float(row["cost"]) for row in at_ends] == history.cost.tolist()
    recorded = [row for row in rows if row["gradient"]]
    assert [int(row["update"]) for row in recorded] == history.update.tolist()
    assert [int(row["samples_seen"]) for row in recorded] == history.samples_seen.tolist()
    assert [float(row["weight"]) for row in recorded] == history.update_weight.tolist()
    for name in ("gradient", "loss_before", "loss_after"):
        assert [float(row[name]) for row in recorded] == getattr(history, name).tolist()
    for row in rows:
        assert bool(row["cost"]) == bool(row["epoch"])
