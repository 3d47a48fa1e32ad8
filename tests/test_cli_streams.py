"""Standard output and error that are narrow, full, closed or gone; and an error of torchgd itself."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

import torchgd.data.loading
from torchgd.cli import FAULT, main, streams
from torchgd.errors import InputError

pytestmark = pytest.mark.usefixtures("folder")


class Full(io.StringIO):
    """A device without room."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def written(monkeypatch: pytest.MonkeyPatch, encoding: str, arguments: list[str]) -> str:
    """What a command writes to a standard output of this encoding."""
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding=encoding, errors="strict"))
    assert main(arguments) in (0, 1)
    return file.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk"])
def test_what_an_encoding_lacks_is_written_plainly(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text("def f(w, x, y):\n    return (x * (w * x - y)).mean()\n", encoding="utf-8")
    wrong = written(monkeypatch, encoding, ["check", "mine.py:f"])
    assert "2 * x" in wrong
    assert "  x\n" in wrong.replace("\r", "")  # the mark of a wrong row, which none of them has
    lines = written(monkeypatch, encoding, ["train", "--lr", "auto", "--epochs", "2"])
    assert "1/(2 mean x^2)" in lines.replace("²", "^2")
    name = "数据-é.csv"
    Path(name).write_text("x,y\n1,2\n2,4\n", encoding="utf-8")
    answer = json.loads(written(monkeypatch, encoding, ["lesson", name, "--epochs", "1", "--json"]))
    assert answer["data"] == "数据-é", "JSON is exact in every encoding"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_a_file_name_that_is_not_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"\xca\xfd\xbe\xdd.csv")
    Path(name).write_text("x,y\n1,2\n2,4\n3,6\n", encoding="utf-8")
    for more in ([], ["--resume"]):
        assert main(["train", name, "--epochs", "2", *more]) == 0
    assert json.loads(Path("runs/data/gd/config.json").read_text("utf-8"))["data"] == name
    assert main(["stability", name, "--json"]) == 0
    assert main(["train", name + "x"]) == 2
    assert "no such file" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_standard_output_is_named_and_the_run_is_whole(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["train", "--epochs", "2", *more]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("torchgd: standard output cannot be written (No space left on device)")
    assert Path("runs/course/gd/history.csv").is_file()


def test_a_reader_that_leaves_changes_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(["train", "--epochs", "2"]) == 0
    assert main(["stability", "--lr", "0.25"]) == 1


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_is_the_null_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, name, None)
    assert main(["train", "--epochs", "2"]) == 0
    assert main(["train", "--lr", "0"]) == 2


def test_an_error_of_torchgd_has_a_status_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("a wheel")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torchgd.data.loading, "open_data", broken)
    assert main(["train"]) == FAULT == 70
    (report,) = tmp_path.glob("torchgd-*.txt")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "an error in torchgd itself (KeyError: 'a wheel')" in captured.err
    assert str(report) in captured.err
    assert "Traceback" in report.read_text("utf-8")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(5, "Input/output error", "f.csv"), "f.csv: Input/output error; check the disk and"),
        (MemoryError(), "there is not enough memory; give fewer samples or epochs"),
    ],
)
def test_what_the_machine_refuses_is_status_2(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torchgd.data.loading, "open_data", refused)
    assert main(["train"]) == 2
    assert line in capsys.readouterr().err


def test_a_silent_command_says_that_it_is_at_work_and_takes_it_away_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    def slow(*arguments: object, **options: object) -> None:
        limit = time.monotonic() + 30
        while "working, " not in screen.getvalue() and time.monotonic() < limit:
            time.sleep(0.01)
        raise InputError("here it ends")

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(streams, "SILENCE", 0.0)
    monkeypatch.setattr(torchgd.data.loading, "open_data", slow)
    assert main(["train"]) == 2
    shown, _, said = screen.getvalue().rpartition("\r")
    assert "\rworking, 0 s" in shown or "\rworking, 1 s" in shown
    assert said == "torchgd: here it ends\n"
