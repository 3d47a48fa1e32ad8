"""`torchgd compare`: its numbers, its exit statuses, and one line for every bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from torchgd.cli import main

MINE = '''
import torch


class MySGD(torch.optim.Optimizer):
    """w <- lr (w/lr - g): gradient descent, rounded otherwise."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(group["lr"] * (p / group["lr"] - p.grad))


class TwiceTooFar(MySGD):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(2 * group["lr"] * p.grad)


class Falls(MySGD):
    def step(self, closure=None):
        raise ZeroDivisionError("nothing left")


number = 3
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(sys, "path", sys.path.copy())  # a file that is run puts its folder on it
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["compare", *arguments, "--json"])
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    return status, json.loads(captured.out)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["hubble", "--method", "sgd", "--against", "torch.optim.SGD", "--epochs", "2"],
        ["--method", "minibatch", "--batch-size", "2", "--order", "shuffled", "--dtype", "float32"],
        ["--against", "torch.optim:SGD", "--with", "foreach=True", "--steps", "20"],
        ["--lr", "auto", "--steps", "3"],
    ],
)
def test_ours_and_torchs_sgd_are_equal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, found = answer(capsys, *arguments)
    assert status == 0
    assert (found["verdict"], found["first"], found["largest_ulps"]) == ("equal", None, 0)
    assert found["sentence"].endswith(f"{found['against']}: equal bit for bit over {found['steps']} steps")


def test_epochs_count_the_updates_of_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    for method, steps in (("gd", 5), ("sgd", 15)):
        assert answer(capsys, "--method", method, "--epochs", "5")[1]["steps"] == steps


def test_another_rule_is_status_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "--method", "sgd", "--with", "momentum=0.9", "--steps", "4")
    assert status == 1
    assert found["verdict"] == "different"
    # Steps of lecture 3: 1.02, then 1.0984 with the gradient −7.84; momentum adds 0.9 of the first step.
    assert (found["first"]["step"], found["first"]["parameter"]) == (2, "weight")
    assert found["first"]["a"] == pytest.approx(1.0984, rel=1e-14)
    assert found["first"]["b"] == pytest.approx(1.0984 + 0.9 * 0.02, rel=1e-14)


@pytest.mark.parametrize("name", ["mine:MySGD", "mine.MySGD", "mine.py:MySGD"])
def test_another_rounding_is_told_apart(capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, found = answer(capsys, "--against", name)
    assert status == 0
    assert found["verdict"] == "rounding"
    assert found["first"]["ulps"] == 1
    assert found["with"] == {"lr": "0.01"}


def test_a_file_may_have_any_name_and_print(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    loud = MINE.replace("class MySGD", "print('imported')\n\n\nclass MySGD")
    loud = loud.replace("        for group", "        print('a step')\n        for group", 1)
    (folder / "random.py").write_text(loud, encoding="utf-8")  # the name of a module of Python's own
    for options in ([], ["--contract"]):  # answer() finds one line, the JSON, on standard output
        assert answer(capsys, "--against", "random.py:MySGD", *options)[0] == bool(options)
    assert main(["compare", "--against", "random.py:MySGD"]) == 0
    assert "a step" in capsys.readouterr().err


def test_lr_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "--against", "mine:TwiceTooFar", "--with", "lr=0.005", "--lr", "0.01")
    assert status == 0
    assert found["verdict"] in {
        "equal",
        "rounding",
    }  # fused multiply-add or not
    assert answer(capsys, "--against", "mine:TwiceTooFar")[0] == 1


def test_the_table_and_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--against", "mine:TwiceTooFar", "--steps", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines]
    assert ["GradientDescent", "1.0933333333333333"] in cells
    assert ["mine:TwiceTooFar", "1.1866666666666665"] in cells
    assert ["first", "difference", "step", "1,", "weight"] in cells
    told = "GradientDescent and mine:TwiceTooFar: different: from the same parameters"
    assert any(line.startswith(told) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "status", "failed"),
    [
        (["--method", "minibatch", "--batch-size", "2"], 0, []),
        (["--against", "torch.optim.Adam", "--with", "amsgrad=True"], 1, ["shared state", "lr refused"]),
        (["--against", "mine:MySGD"], 1, ["lr 0", "closure gradient", "None gradients", "lr refused"]),
    ],
)
def test_the_contract(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, failed: list[str]
) -> None:
    found_status, found = answer(capsys, *arguments, "--contract")
    assert found_status == status
    assert [finding["name"] for finding in found["findings"] if finding["outcome"] == "failed"] == failed
    assert main(["compare", *arguments, "--contract"]) == status
    lines = capsys.readouterr().out.splitlines()
    headings = {f["severity"] for f in found["findings"] if f["outcome"] == "failed"}
    assert len(lines) == len(found["findings"]) + 1 + len(headings)
    assert lines[-1] == found["sentence"]
    assert f" {len(failed)} failed," in lines[-1]


BAD = {
    "unknown module": (
        ["--against", "nosuch.Thing"],
        "--against nosuch.Thing: No module named 'nosuch'; check the name, and the folder it is in",
    ),
    "unknown file": (
        ["--against", "nofile.py:Thing"],
        "nofile.py: no such file; did you mean mine.py?",
    ),
    "unknown class": (
        ["--against", "torch.optim.SDG"],
        "--against torch.optim.SDG: torch.optim has no SDG; did you mean SGD?",
    ),
    "nothing like it": (["--against", "mine:Qqq"], "--against mine:Qqq: mine has no Qqq; check its name"),
    "no module": (
        ["--against", "SGD"],
        "--against SGD: give a module and a class, e.g. torch.optim.SGD",
    ),
    "no optimizer": (
        ["--against", "torch.nn.Linear"],
        "--against torch.nn.Linear: Linear is not a subclass of torch.optim.Optimizer; give one",
    ),
    "no class": (
        ["--against", "mine:number"],
        "--against mine:number: number is not a subclass of torch.optim.Optimizer; give one",
    ),
    "broken module": (
        ["--against", "broken:Thing"],
        "--against broken:Thing: its import raised ZeroDivisionError: division by zero",
    ),
    "unknown argument": (
        ["--against", "mine:MySGD", "--with", "momentum=0.9"],
        "--with momentum=0.9: mine:MySGD takes no argument momentum; it takes lr",
    ),
    "params": (
        ["--against", "mine:MySGD", "--with", "params=3"],
        "--with params=3: mine:MySGD takes no argument params; it takes lr",
    ),
    "no value": (["--with", "lr"], "--with lr: give a name and a value, e.g. --with momentum=0.9"),
    "bad value": (
        ["--with", "lr=-1"],
        "--against torch.optim.SGD: ValueError: Invalid learning rate: -1 (given lr=-1)",
    ),
    "a word for a number": (
        ["--with", "lr=abc"],
        "--against torch.optim.SGD: TypeError: '<' not supported between instances of 'str' and 'float' "
        "(given lr='abc')",
    ),
    "a step that raises": (
        ["--against", "mine:Falls"],
        "--against mine:Falls: a step raised ZeroDivisionError: nothing left",
    ),
    "with and no class": (
        ["--contract", "--with", "lr=1"],
        "--with is for the class of --against; give one, e.g. --against torch.optim.SGD",
    ),
    "steps and epochs": (
        ["--steps", "3", "--epochs", "3"],
        "--steps and --epochs both say how long; leave one of them out",
    ),
    "our lr": (["--lr", "0"], "--lr: 0 is not a finite number above 0; give e.g. 0.01, or auto"),
    "start": (["--weight", "nan"], "--weight nan: give a finite number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_status_two(capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments, message = BAD[name]
    assert main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"torchgd: {message}\n"


def test_nothing_is_written(folder: Path) -> None:
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    main(["compare", "--steps", "2"])
    assert {path for path in folder.rglob("*") if "__pycache__" not in path.parts} == before


def test_the_picture_of_both_curves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "two.png"
    adam = ["compare", "--against", "torch.optim.Adam", "--steps", "20", "--picture", str(picture)]
    assert main(adam) == 1
    assert f"picture: {picture}" in capsys.readouterr().out.replace("\n", " ")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
