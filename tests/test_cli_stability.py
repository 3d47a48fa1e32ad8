"""`torchgd stability` and `torchgd sweep`: numbers, files, pictures, exit statuses, bad input."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.lines import Line2D
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torchgd import hubble, sweep_lr
from torchgd.cli import main
from torchgd.convergence.certificate import stability
from torchgd.convergence.figures import factor_figure, sweep_figure
from torchgd.convergence.methods import epoch_of
from torchgd.figures import METHOD_COLOURS

pytestmark = pytest.mark.usefixtures("folder")

DATA = (hubble().x, hubble().y)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main([*arguments, "--json"])
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    return status, json.loads(output)


def test_stability_says_it_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = answer(capsys, "stability", "hubble", "--method", "sgd", "--lr", "0.5", "--logdir", "runs")
    certificate = stability(*DATA, lr=0.5, method="sgd")
    assert status == 0
    assert said["limit"] == certificate.limit
    assert said["verdict"] == certificate.verdict
    assert said["intervals"] == [list(interval) for interval in certificate.intervals]
    assert {method: of["limit"] for method, of in said["methods"].items()} == {
        "gd": 0.8130688623591296,
        "sgd": certificate.limit,
        "minibatch": stability(*DATA, method="minibatch", batch_size=2).limit,
    }
    kept = json.loads((Path(said["run_dir"]) / "config.json").read_text(encoding="utf-8"))
    assert kept["limit"] == certificate.limit
    assert imread(Path(said["run_dir"]) / "factor.png").shape[:2] == (500, 800)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--lr", "0.2142"], 0, "It converges in "),
        (["--lr", "0.2144"], 1, "It diverges: an epoch multiplies the error by -1.00107"),
        (["--lr", "0.5", "--method", "sgd"], 0, "on the island 0.476538 … 0.519014"),
        (["--lr", "0.3", "--method", "sgd"], 1, "converging beyond the limit: 0.4765376172 … 0.519014465"),
        (["--lr", "0.0714", "--loss", "sum"], 0, "lr 0.0714 is 0.9996 times the limit 0.0714286"),
        (["--method", "sgd", "--order", "replacement", "--lr", "0.15"], 1, "It diverges in the mean square"),
        (["--method", "minibatch", "--batch-size", "2", "--order", "shuffled"], 0, "mini-batch of 2"),
        ([], 0, "lr 0.107143 = 1/(2 mean x²): full batch lands on least squares in one step"),
        (["--lr", "0.01", "--loss", "sum", "--bias"], 0, "the condition number is 46.14"),
        (
            ["--lr", "0.06", "--loss", "sum", "--bias"],
            0,
            "y = w·x + b, full batch: it converges. lr must",
        ),
        (
            ["--lr", "0.0602", "--loss", "sum", "--bias"],
            1,
            "y = w·x + b, full batch: it diverges. lr must",
        ),
    ],
)
def test_stability_says_it_in_words(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, says: str
) -> None:
    assert main(["stability", *arguments]) == status
    assert says in capsys.readouterr().out


def test_a_second_certificate_takes_a_new_folder(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [answer(capsys, "stability", "--logdir", "runs")[1]["run_dir"] for _ in range(2)]
    assert [Path(folder).name for folder in folders] == ["stability", "stability-2"]


def test_a_certificate_writes_what_it_is_asked_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "stability")[1]["run_dir"] is None
    assert list(Path().iterdir()) == []
    assert main(["stability", "--picture", "factor.png"]) == 0
    assert "picture: factor.png" in capsys.readouterr().out
    assert imread("factor.png").shape[:2] == (500, 800)


def test_sweep_finds_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = answer(
        capsys, "sweep", "hubble", "--points", "50", "--epochs", "60", "--tolerance", "1e-4"
    )
    expected = sweep_lr(*DATA, points=50, epochs=60, tolerance=1e-4)
    assert status == 0
    assert said["lr"] == expected.lr.tolist()
    assert said["epochs"] == [None if math.isinf(epochs) else epochs for epochs in expected.epochs.tolist()]
    assert said["best_lr"] == expected.lr[expected.best].item()
    assert said["limit"] == 0.8130688623591296
    run = Path(said["run_dir"])
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "sweep.csv", "sweep.png"]
    assert imread(run / "sweep.png").shape[:2] == (500, 800)
    with (run / "sweep.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["weight"]) for row in rows] == expected.weight[-1].tolist()
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["points"] == 50


def test_sweep_without_a_winner(capsys: pytest.CaptureFixture[str]) -> None:
    _, said = answer(capsys, "sweep", "--lr-min", "1", "--lr-max", "2", "--points", "3")
    assert (said["best_lr"], said["best_epochs"], said["epochs"]) == (None, None, [None] * 3)
    assert main(["sweep", "--lr-min", "1", "--lr-max", "2", "--linear"]) == 0
    assert "none converges" in capsys.readouterr().out


def test_sweep_writes_a_run_for_each_lr_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Each has its curves and its hyperparameters in one event file; a divergence ends its curve."""
    _, said = answer(
        capsys,
        "sweep",
        "--lr-min",
        "0.01",
        "--lr-max",
        "1e6",
        "--points",
        "2",
        "--epochs",
        "50",
        "--tensorboard",
    )
    run = Path(said["run_dir"])
    names = sorted(path.name for path in run.iterdir() if path.is_dir())
    assert names == ["lr-0.01", "lr-1e+06"]
    lengths = []
    for name in names:
        events = EventAccumulator(str(run / name)).Reload()
        assert events.Tags()["scalars"] == ["epoch/cost", "epoch/weight", "epoch/log10_cost"]
        assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
        lengths.append(len(events.Scalars("epoch/cost")))
    assert lengths[0] == 51 > lengths[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["sweep", "--lr-min", "0.5", "--lr-max", "0.1"],
            "lr_min is 0.5 and lr_max is 0.1; give finite numbers, 0 < lr_min < lr_max",
        ),
        (["sweep", "--points", "1"], "--points 1: give a whole number, 2 or more"),
        (["sweep", "--tolerance", "0"], "--tolerance 0: give a finite number above 0 and below 1"),
        (["sweep", "--method", "minibatch"], "minibatch needs a batch size"),
        (["sweep", "--weight", "nan"], "--weight nan: give a finite number"),
        (["sweep", "--name", "a:b"], "the name 'a:b' holds ':'"),
        (["stability", "--lr", "0"], "--lr: 0 is not a finite number above 0"),
        (["stability", "--tolerance", "2"], "--tolerance 2: give a finite number above 0"),
        (["stability", "--loss", "l1"], "--loss l1: give one of mean, sum, half"),
        (["stability", "zeros.csv"], "zeros.csv: x is 0 in every sample"),
        (
            ["stability", "--method", "minibatch", "--batch-size", "4"],
            "batch_size is 4, but there are 3 samples",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], says: str
) -> None:
    (folder / "zeros.csv").write_text("x,y\n0,1\n0,2\n", encoding="utf-8")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("torchgd: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert not (folder / "runs").exists()


def points(line: Line2D) -> tuple[list[float], list[float]]:
    return np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist()


def test_the_picture_of_the_factor() -> None:
    x, y = DATA
    sizes = {"gd": None, "sgd": None, "minibatch": 4}
    epochs = {method: epoch_of(x, y, method=method, batch_size=size) for method, size in sizes.items()}
    (axes,) = factor_figure(epochs, 0.3, title="hubble").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate lr", "|factor| of the error in an epoch")
    legend = axes.get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    assert words == [
        "full batch: limit 0.813069",
        "per sample: limit 0.861617",
        f"mini-batch of 4: limit {epochs['minibatch'].intervals[0][1]:.6g}",
        "diverges",
        "lr = 0.3",
    ]
    curves = {to_hex(line.get_color()): line for line in axes.lines if len(points(line)[0]) > 100}
    assert set(curves) == {colour.lower() for colour in METHOD_COLOURS.values()}
    rates, factors = points(curves[METHOD_COLOURS["gd"].lower()])
    assert factors[400] == pytest.approx(abs(stability(x, y, rates[400]).factor))


def test_the_picture_of_the_sweep() -> None:
    sweep = sweep_lr(*DATA, points=30)
    (axes,) = sweep_figure(sweep, "gd", title="hubble").axes
    certificate, trained = axes.lines[:2]
    assert points(trained)[1] == sweep.epochs[sweep.epochs.isfinite()].tolist()
    assert to_hex(trained.get_color()) == METHOD_COLOURS["gd"].lower()
    rates, predicted = points(certificate)
    assert predicted[200] == pytest.approx(max(1.0, sweep.predicted(rates[200])))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert sweep_figure(sweep, "gd", linear=True).axes[0].get_xscale() == "linear"
    legend = axes.get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    best = f"best lr for 100 epochs: {sweep.best_lr:.6g}"
    assert words == ["certificate", "full batch, trained", "limit 0.813069", best]
