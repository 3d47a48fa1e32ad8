"""From lecture 3 to lecture 8: the same weights on every rung, and a broken rung is found by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from course_run import CONFIG
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torchgd.cli import main
from torchgd.data.dataset import course
from torchgd.lessons import bridge
from torchgd.lessons.bridge import climb

NAMES = ["lecture3-by-hand", "lecture4-gradient", "lecture5-optimizer", "lecture5-model", "lecture8-loader"]


def plain_python(batches: list[list[int]]) -> list[float]:
    """The weight at the ends of 100 epochs, by the loop of lecture 3."""
    w, weights = 1.0, [1.0]
    for _ in range(100):
        for batch in batches:
            w -= 0.01 * sum(2 * (i + 1) * ((i + 1) * w - 2 * (i + 1)) for i in batch) / len(batch)
        weights.append(w)
    return weights


@pytest.mark.parametrize(
    ("method", "batch_size", "batches"),
    [("gd", None, [[0, 1, 2]]), ("sgd", None, [[0], [1], [2]]), ("minibatch", 2, [[0, 1], [2]])],
)
def test_every_rung_has_the_weights_of_the_plain_loop(
    method: str, batch_size: int | None, batches: list[list[int]]
) -> None:
    rungs = climb(replace(CONFIG, method=method, batch_size=batch_size), *course())
    assert [rung.name for rung in rungs] == NAMES == sorted(NAMES, key=lambda name: name[:8])
    for rung in rungs:
        # w is near 2, an update rounds it by 2⁻⁵² or less, and an epoch leaves at most 0.91 of that
        assert rung.history.weight.tolist() == pytest.approx(plain_python(batches), abs=3 * 2**-52 / 0.09)
        assert rung.rounding
        assert rung.difference <= 2 * 3 * 2**-52 / 0.09


def test_the_rungs_of_lecture_3_have_its_numbers() -> None:
    by_hand, by_autograd = climb(CONFIG, *course())[:2]
    assert by_hand.history.weight[[1, 2]].tolist() == [1.260688, 1.453417766656]
    assert by_hand.history.gradient[:3].tolist() == [-2.0, -7.84, -16.2288]
    assert by_autograd.history.loss_before[2].item() == pytest.approx(7.315943039999998, rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_rungs_go_through_the_same_shuffled_batches(dtype: torch.dtype) -> None:
    config = replace(CONFIG, method="minibatch", batch_size=2, order="shuffled", seed=3, lr=0.03, weight=0.3)
    rungs = climb(config, *course(dtype=dtype))
    assert all(rung.rounding for rung in rungs)
    for rung in rungs[1:]:
        below = rungs[0].history
        for name in ("weight", "update_weight", "gradient", "loss_before", "cost", "samples_seen"):
            ours, theirs = getattr(rung.history, name), getattr(below, name)
            assert ours.shape == theirs.shape
            # Two updates an epoch each move a weight near 2 by at most 8 ε of it (see Rung.rounding), and an
            # epoch leaves at most 0.57 of that in any order; a gradient is 18 and a loss 36 times as far.
            atol = 36 * 2 * 2 * 8 * torch.finfo(dtype).eps / (1 - 0.57)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)
    assert not torch.equal(
        rungs[0].history.weight, climb(replace(config, seed=4), *course(dtype=dtype))[0].history.weight
    )


def doubled(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return (4 * x * (w * x - y)).mean()


class Faster(torch.optim.SGD):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr * 1.000001)


class Biased(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-6


def reversed_loader(data: Any, batch_sampler: Any) -> DataLoader[Any]:
    return DataLoader(data, batch_sampler=list(batch_sampler)[::-1])


@pytest.mark.parametrize(
    ("place", "name", "broken", "rung"),
    [
        (bridge, "gradient", doubled, "lecture4-gradient"),
        (bridge, "SGD", Faster, "lecture5-optimizer"),
        (nn, "Linear", Biased, "lecture5-model"),
        (bridge, "DataLoader", reversed_loader, "lecture8-loader"),
    ],
)
def test_a_part_that_is_not_the_same_is_found_on_its_rung(
    place: Any, name: str, broken: Callable[..., Any], rung: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).double()
    monkeypatch.setattr(place, name, broken)
    rungs = climb(replace(CONFIG, epochs=3), x, torch.tensor([2.0, 5.0, 6.0]).double())
    assert [found.name for found in rungs if not found.rounding] == [rung]


def test_the_command_prints_every_rung_and_logs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bridge", "--logdir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line[:2].strip().isdigit()]
    assert [row[0] for row in rows] == ["3", "4", "5", "5", "8"]
    weights = plain_python([[0], [1], [2]])
    assert all(f"{weights[epoch]:.10g}" in row for row in rows for epoch in (1, 10, 100))
    assert sum("equal bits" in line or "e-16" in line for line in lines) == 4
    curves = []
    for name in NAMES:
        events = EventAccumulator(str(tmp_path / "bridge" / name)).Reload()
        assert set(events.Tags()["scalars"]) == {
            "epoch/cost",
            "epoch/log10_cost",
            "epoch/weight",
            "update/loss",
            "update/gradient",
            "update/weight",
        }
        curves.append(
            {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        )
        assert json.loads((tmp_path / "bridge" / name / "config.json").read_text("utf-8"))["run"] == name
    assert [len(curves[0][tag]) for tag in ("epoch/cost", "update/weight")] == [101, 300]
    for other in curves[1:]:
        for tag, points in curves[0].items():
            assert [step for step, _ in other[tag]] == [step for step, _ in points]
            # of equal doubles, or of such as round to neighbouring float32
            assert [value for _, value in other[tag]] == pytest.approx(
                [v for _, v in points], rel=2**-23, abs=1e-13
            )


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bridge", "--method", "gd", "--lr", "auto", "--json", "--logdir", str(tmp_path)]
    assert main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["lr"] == pytest.approx(3 / 28, rel=1e-15)
    assert [rung["lecture"] for rung in answer["rungs"]] == [3, 4, 5, 5, 8]
    assert all(rung["w, epoch 1"] == pytest.approx(2, abs=1e-15) for rung in answer["rungs"])
    assert [Path(rung["run_dir"]).name for rung in answer["rungs"]] == NAMES


def test_a_run_that_diverges_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bridge", "--lr", "100", "--json", "--logdir", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("It diverges")
    assert [rung["w, epoch 100"] for rung in json.loads(captured.out)["rungs"]] == [None] * 5
    assert all(
        rung["rounding"] for rung in json.loads(captured.out)["rungs"]
    )  # equal for as long as they last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0"], "torchgd: --lr: 0 is not a finite number above 0; give e.g. 0.01, or auto"),
        (
            ["--method", "minibatch"],
            "torchgd: minibatch needs a batch size; give e.g. batch_size=2 (--batch-size 2)",
        ),
        (
            ["--method", "minibatch", "--batch-size", "4"],
            "torchgd: batch_size is 4, but there are 3 samples; give 1 to 3",
        ),
        (["--weight", "nan"], "torchgd: --weight nan: give a finite number"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bridge", *arguments, "--logdir", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message + "\n")
    assert not list(tmp_path.iterdir())
