"""Several features and a bias on the command line, and in tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from course_run import answer

from torchgd import InputError, grunfeld, load
from torchgd.cli import main
from torchgd.data.dataset import Dataset
from torchgd.runs.features import FeatureRun

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def houses(folder: Path) -> Path:
    """A table of houses with raw columns, one of words; price = 5 + 2 rooms + 0.5 area − 0.1 age."""
    generator = torch.Generator().manual_seed(3)
    file = Path("houses.csv")
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["rooms", "area", "town", "price", "age"])
        for _ in range(40):
            rooms, area, age = (torch.rand(3, generator=generator) * torch.tensor([5.0, 90.0, 60.0])).tolist()
            noise = 0.3 * torch.randn((), generator=generator).item()
            table.writerow([rooms, area, "Ulm", 5 + 2 * rooms + 0.5 * area - 0.1 * age + noise, age])
    return file


COLUMNS = ["--x", "rooms,area,age", "--y", "price"]


def test_columns_are_read_by_name_in_the_order_asked_for(houses: Path) -> None:
    data = load(houses, x="age,rooms", y="price")
    assert data.features == ("age", "rooms")
    assert data.x.shape == (40, 2)
    torch.testing.assert_close(data.x[:, 1], load(houses, x="rooms", y="price").x, rtol=0, atol=0)
    houses.write_text("a,b,y\n1,2,3\n4,5,6\n")
    assert load(houses, x="all").x.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    named = Path("named.csv")
    named.write_text('"a,b",y\n1,2\n')
    assert load(named, x="a,b").x.tolist() == [1.0]


@pytest.mark.parametrize(
    ("header", "message"),
    [("a,b,y", "no column 'price'; there is 'a', 'b', 'y'"), ("price", "no column but 'price', which is y")],
)
def test_all_columns_but_y_need_a_y_and_one_more(header: str, message: str, folder: Path) -> None:
    Path("own.csv").write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    with pytest.raises(InputError, match=message):
        load("own.csv", x="all", y="price")


def test_a_standardised_run_gives_the_least_squares_in_the_data_s_own_units(
    houses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(houses), *COLUMNS, "--bias", "--standardize", "--lr", "auto", "--epochs", "120"]
    found = answer(capsys, "train", *asked)
    data = load(houses, x="rooms,area,age", y="price")
    rows = torch.cat([data.x, torch.ones(40, 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(rows, data.y[:, None]).solution[:, 0]
    assert list(found["weight"]) == ["rooms", "area", "age", "bias"]
    assert list(found["weight"].values()) == pytest.approx(best.tolist(), rel=1e-6)
    assert found["status"] == "converged"
    assert json.loads((Path(found["run_dir"]) / "config.json").read_text())["standardize"] is True


def test_raw_columns_diverge_and_the_reason_names_the_column(
    houses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(houses), *COLUMNS, "--bias", "--lr", "0.01", "--no-log"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "area sets the limit" in printed or "area +" in printed
    assert "Standardised (--standardize): limit" in printed
    assert "An epoch multiplied the steps by" in printed


@pytest.mark.parametrize("gradient", ["hand", "autograd"])
def test_a_resumed_run_has_the_same_bits(
    houses: Path, capsys: pytest.CaptureFixture[str], gradient: str
) -> None:
    asked = ["train", str(houses), *COLUMNS, "--bias", "--standardize", "--method", "sgd", "--lr", "0.01"]
    asked += ["--order", "shuffled", "--gradient", gradient]
    whole = answer(capsys, *asked, "--epochs", "9", "--name", "whole")
    answer(capsys, *asked, "--epochs", "4", "--name", "part")
    part = answer(capsys, *asked, "--epochs", "9", "--name", "part", "--resume", "--override", "epochs")
    assert part["weight"] == whole["weight"]


def test_stability_says_what_standardising_does(houses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "stability", str(houses), *COLUMNS, "--bias")
    assert found["names"] == ["rooms", "area", "age", "bias"]
    assert found["standardized"]["best_epochs"] < found["best_epochs"]
    assert main(["stability", str(houses), *COLUMNS, "--bias", "--lr", "1"]) == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--x", "rooms,rooms", "--y", "price"], "x names the column 'rooms' twice"),
        (["--x", "rooms,price", "--y", "price"], "the column 'price' is y; leave it out of x"),
        (["--x", "rooms,aera", "--y", "price"], "no column 'aera'"),
        (["--x", "rooms,town", "--y", "price"], "line 2, column 'town': 'Ulm' is not a number"),
        ([*COLUMNS, "--predict", "3"], "--predict is for y = w·x"),
        ([*COLUMNS, "--engine", "scan"], "the scan is for one weight"),
    ],
)
def test_bad_input_is_one_line(
    houses: Path, capsys: pytest.CaptureFixture[str], asked: list[str], message: str
) -> None:
    assert main(["train", str(houses), *asked]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["sweep", "compare", "lesson"])
def test_commands_for_one_x_say_so(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "grunfeld"]) == 2
    assert "grunfeld has several x (value, capital), and this command is for one" in capsys.readouterr().err


def test_a_column_that_does_not_vary_cannot_be_standardised(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("flat.csv").write_text("a,b,y\n1,2,3\n4,2,6\n")
    assert main(["train", "flat.csv", "--x", "a,b", "--bias", "--standardize"]) == 2
    assert "b is the same in every row" in capsys.readouterr().err


def test_one_feature_without_a_bias_descends_as_the_one_weight_does() -> None:
    x, y = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 4.0, 6.0]).double()
    features = FeatureRun(Dataset(x, y), bias=False, standardize=False)
    assert features.weights(features.model(1.5)) == {"x": 1.5}
    assert features.certificate(None, {}, 100).best_lr == pytest.approx(3 / 28, rel=1e-12)


def test_the_table_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    """Raw columns: standardised, a run of the promised epochs lands at least squares."""
    promised = answer(capsys, "stability", "grunfeld", "--bias")["standardized"]["best_epochs"]
    asked = ["--bias", "--standardize", "--lr", "auto", "--epochs", str(promised)]
    found = answer(capsys, "train", "grunfeld", *asked)
    data = grunfeld()
    rows = torch.cat([data.x, torch.ones(220, 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(rows, data.y[:, None]).solution[:, 0]
    assert list(found["weight"].values()) == pytest.approx(best.tolist(), rel=1e-4)
    assert answer(capsys, "train", "grunfeld", "--x", "value", "--lr", "auto")["status"] == "converged"
