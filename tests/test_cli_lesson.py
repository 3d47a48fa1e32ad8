"""`torchgd lesson`: lecture 3 end to end, its numbers, its checks and what is printed where."""

import io
import re
import sys
from pathlib import Path

import pytest
from course_run import COURSE_WEIGHT, answer

from torchgd.cli import main
from torchgd.cli.terminal import table

pytestmark = pytest.mark.usefixtures("folder")


def test_the_lesson_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    methods = answer(capsys, "lesson")["methods"]
    assert list(methods) == ["gd", "sgd", "minibatch"]
    gd, sgd, mini = methods.values()
    assert [of["updates"] for of in methods.values()] == [100, 300, 200]
    assert (gd["first_weight"], gd["weight"]) == (1.0933333333333333, COURSE_WEIGHT)
    assert gd["prediction"] == 7.999777758621207
    assert (sgd["first_weight"], sgd["weight"]) == (1.260688, 1.9999999999999236)
    assert sgd["prediction"] == 7.9999999999996945
    w = 1.0  # mini-batches of 2 and 1, in plain Python
    w -= 0.01 * ((2 * 1 * (w - 2)) + 2 * 2 * (2 * w - 4)) / 2
    w -= 0.01 * 2 * 3 * (3 * w - 6)
    assert mini["first_weight"] == pytest.approx(w, rel=1e-15)
    assert [of["limit"] for of in methods.values()] == pytest.approx(
        [3 / 14, 0.20401794, 0.25555556], rel=1e-7
    )
    for method, of in methods.items():
        assert of["ok"]
        assert of["updates_equal_to_sgd"] == of["updates_watched"] == of["updates"]
        assert of["gradient_difference"] < 1e-12
        assert of["run_dir"] == str(Path("runs/course") / method)
        files = {path.name.split(".")[0] for path in Path(of["run_dir"]).iterdir()}
        assert {"events", "config", "history", "parabola", "cost"} <= files


def test_the_lesson_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lesson"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "\x1b" not in printed.out
    assert "3 samples: x (hours of study) → y (points in the exam)" in printed.out
    for row in (
        r"full batch +100 +1\.0933333 +1\.9999444 +1\.441e-08 +7\.9997778",
        r"per sample +300 +1\.260688 +2 +2\.723e-26 +8",
        r"steps equal to torch\.optim\.SGD +100/100 +300/300 +200/200",
        r"its limit +0\.214286 +0\.204018 +0\.255556",
        r"verdict +right +right +right",
    ):
        assert re.search(row, printed.out), row
    assert printed.out.rstrip().endswith("torchgd board")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "arguments",
    [["lesson"], ["lesson", "hubble", "--epochs", "20"], ["lesson", "--lr", "0.5"], ["train", "--lr", "0.5"]],
    ids=" ".join,
)
def test_on_a_terminal_of_80_columns_no_line_is_longer(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    screen, errors = Terminal(), Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(arguments) in (0, 1)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert max(map(len, plain.splitlines())) <= 80
    assert "torchgd board" in plain


def test_in_a_wide_table_the_headings_break_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "46")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    table(["a run", "y = 2x: w after epoch 1", "w"], [["SGD in order", "1.0933333", "0.12345678901"]])
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["y", "=", "2x:", "w"],
        ["after"],
        ["a", "run", "epoch", "1", "w"],
    ]
    assert lines[-2].split() == ["SGD", "in", "order", "1.0933333", "0.12345678901"]


def test_the_lesson_on_hubbles_nebulae(capsys: pytest.CaptureFixture[str]) -> None:
    """Full batch lands on least squares in one step; the lr of each method is chosen by itself."""
    found = answer(capsys, "lesson", "hubble")
    assert (found["data"], found["samples"]) == ("hubble", 24)
    gd = found["methods"]["gd"]
    assert gd["limit"] == pytest.approx(0.8130688623591296, rel=1e-12)
    assert gd["lr"] == pytest.approx(0.8130688623591296 / 2, rel=1e-12)
    assert gd["weight"] == pytest.approx(423.9373232316303, rel=1e-12)
    assert gd["cost"] == pytest.approx(50266.77658179018, rel=1e-12)
    assert all(of["ok"] for of in found["methods"].values())


def test_a_lesson_that_diverges_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    methods = answer(capsys, "lesson", "--lr", "0.5", status=1)["methods"]
    assert {method: of["ok"] for method, of in methods.items()} == {
        "gd": False,
        "sgd": True,
        "minibatch": False,
    }
    assert methods["gd"]["status"] == "diverged"
    assert main(["lesson", "--lr", "0.5"]) == 1
    assert re.search(r"verdict +diverged +right +diverged", capsys.readouterr().out)


def test_a_lesson_on_ones_own_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("kitchen.csv").write_text("flour,bread\n1,1.6\n2,3.1\n4,6.6\n")
    found = answer(capsys, "lesson", "kitchen.csv", "--x", "flour", "--y", "bread", "--predict", "3")
    best = (1.6 + 2 * 3.1 + 4 * 6.6) / 21
    assert found["methods"]["gd"]["weight"] == pytest.approx(best, rel=1e-12)
    assert found["methods"]["gd"]["prediction"] == pytest.approx(3 * best, rel=1e-12)
    assert Path("runs/kitchen/gd").is_dir()


def test_a_second_lesson_says_its_numbers_or_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["lesson", "--epochs", "1"]
    assert main(short) == main(short) == main([*short, "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("sgd exists: this run is sgd-2 (--overwrite replaces the old one)") == 1
    names = sorted(path.name for path in Path("runs/course").iterdir())
    assert names == ["gd", "gd-2", "lesson", "lesson-2", "minibatch", "minibatch-2", "sgd", "sgd-2"]
    assert {path.suffix for path in Path("runs/course/lesson").iterdir()} == {".json", ".png"}
    assert main(["runs"]) == 0
    assert re.search(r"course/sgd-2 +course +sgd +0\.01 ", capsys.readouterr().out)
    assert answer(capsys, "runs", "--remove", "course/*-2")["removed"][0] == "course/gd-2"
    assert sorted(path.name for path in Path("runs/course").iterdir()) == ["gd", "lesson", "minibatch", "sgd"]


def test_a_lesson_without_a_log_writes_its_film_alone(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "lesson", "--epochs", "1", "--no-log", "--animate", "film.gif")
    assert {of["run_dir"] for of in found["methods"].values()} == {None}
    assert [path.name for path in Path().iterdir()] == ["film.gif"]
