"""Resume: whatever ends a run, the same command with --resume ends it with the bits of a run left alone."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_checkpoint import assert_same, small_disk

from torchgd import InputError
from torchgd.cli import FAULT, main, terminal
from torchgd.runs.checkpoint import load, save
from torchgd.runs.resume import find_run, writing

SGD = ["hubble", "--method", "sgd", "--order", "shuffled", "--epochs", "12", "--engine", "loop"]


@pytest.fixture(autouse=True)
def in_a_folder_with_reports_after_every_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torchgd.training.UPDATES_A_LOOK", 1)
    monkeypatch.setattr("torchgd.training.SECONDS_A_REPORT", -1.0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of SGD that nothing disturbs."""
    logdir = tmp_path_factory.mktemp("alone")
    assert train(*SGD, logdir=str(logdir)) == 0
    return logdir / "hubble" / "sgd"


@contextmanager
def at_report(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Do something at a run's number-th report, in its midst."""
    reports = 0

    def on_epoch(_: int) -> None:
        nonlocal reports
        reports += 1
        if reports == number:
            action()

    @contextmanager
    def progress(total: int, label: str) -> Iterator[Callable[[int], None]]:
        yield on_epoch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "progress", progress)
        yield


def train(*arguments: str, logdir: str = "runs") -> int:
    return main(["train", "--json", "--logdir", logdir, *arguments])


def stopped(*arguments: str, report: int, logdir: str = "runs", number: int = signal.SIGTERM) -> None:
    """Train until a signal at a report."""
    with at_report(report, lambda: signal.raise_signal(number)):
        assert train(*arguments, logdir=logdir) == 128 + number


def assert_same_run(one: Path, other: Path) -> None:
    """History, weight, optimizer and generator to the bit; every point of every curve; the same files."""
    kept, expected = load(one / "checkpoint.pt"), load(other / "checkpoint.pt")
    assert_same(kept.history, expected.history)
    assert (kept.model, kept.optimizer, kept.ended) == (expected.model, expected.optimizer, expected.ended)
    for name in ("history.csv", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    if expected.place.generator is not None:
        assert kept.place.generator is not None
        assert torch.equal(kept.place.generator, expected.place.generator)
    assert curves(one) == curves(other)
    for folder in (one, other):
        assert sum(path.stat().st_size > 0 for path in folder.glob("*tfevents*")) == 1
        assert not list(folder.glob(".*"))


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return points(EventAccumulator(str(folder), size_guidance={"scalars": 0}))


def points(events: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks")
def test_a_run_that_is_killed_resumes_to_the_same_bits() -> None:
    script = Path(__file__).parent.parent / "scripts" / "kill_and_resume.py"
    command = [sys.executable, str(script), "--kills", "5", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    rows = done.stdout.splitlines()[1:]
    assert sum(int(row[36:43]) for row in rows) == 5


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_keeps_the_run(
    number: int, status: int, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with at_report(100, lambda: signal.raise_signal(number)):
        assert train(*SGD) == status
    assert signal.getsignal(number) is before
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last == "torchgd: stopped after 4 epochs; torchgd train --resume with the same options continues"
    folder = Path("runs/hubble/sgd")
    kept = load(folder / "checkpoint.pt")
    assert (kept.place.epoch, kept.place.update, kept.ended) == (4, 4, False)  # 100 = 4 · 24 + 4
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + 101  # the start and each update
    assert [step for step, _ in curves(folder)["update/loss"]] == list(range(1, 101))

    assert train(*SGD, "--resume") == 0
    assert_same_run(folder, alone)


def test_a_second_signal_ends_it_at_once() -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise KeyboardInterrupt

    with at_report(30, twice):
        assert train(*SGD) == 130
    assert load(Path("runs/hubble/sgd/checkpoint.pt")).place.update == 6  # 30 = 24 + 6


def test_an_exception_keeps_the_run(alone: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with at_report(77, fail):
        assert train(*SGD) == FAULT
    assert train(*SGD, "--resume") == 0
    assert_same_run(Path("runs/hubble/sgd"), alone)


@pytest.mark.parametrize(
    "left", [[], ["config.json"], ["config.json", ".events.part", ".checkpoint.pt.part"]]
)
def test_a_run_killed_before_its_first_checkpoint_begins_anew(left: list[str], alone: Path) -> None:
    folder = Path("runs/hubble/sgd")
    folder.mkdir(parents=True)
    for name in left:
        source = alone / name
        (folder / name).write_bytes(source.read_bytes() if source.exists() else b"half of someth")
    assert train(*SGD, "--resume") == 0
    assert_same_run(folder, alone)


def test_a_run_that_has_ended_is_only_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*SGD, "--predict", "2") == 0
    before, folder = capsys.readouterr().out, Path("runs/hubble/sgd")
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert train(*SGD, "--predict", "2", "--resume") == 0
    after = capsys.readouterr()
    assert after.out == before
    assert "runs/hubble/sgd has ended; there is nothing left to do" in after.err
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == files


def test_a_diverged_run_stays_so_and_does_not_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    diverging = ["--lr", "50", "--method", "sgd", "--engine", "loop"]

    def fail() -> None:
        raise ZeroDivisionError

    assert train(*diverging, logdir="alone") == 1
    whole = load(Path("alone/course/sgd/checkpoint.pt")).history
    assert whole.status == "diverged"
    for report in (1, 40, int(whole.update[-1]) + 1):  # the last is the one that sees it
        with at_report(report, fail):
            assert train(*diverging, "--name", f"at-{report}") == FAULT
        assert train(*diverging, "--name", f"at-{report}", "--resume") == 1
        assert_same_run(Path(f"runs/course/at-{report}"), Path("alone/course/sgd"))
    capsys.readouterr()
    assert train(*diverging, logdir="alone") == 1  # sgd-2
    began = json.loads(capsys.readouterr().out)
    assert train(*diverging, "--resume", logdir="alone") == 1
    assert json.loads(capsys.readouterr().out) == began
    assert train("--lr", "0.01", *diverging[2:], "--resume", "--override", "lr", logdir="alone") == 2
    assert "has diverged and is over" in capsys.readouterr().err


def test_a_tensorboard_that_looks_on_sees_one_unbroken_curve(alone: Path) -> None:
    stopped(*SGD, report=50)
    folder = Path("runs/hubble/sgd")
    looking = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    assert len(points(looking)["update/weight"]) == 50
    for report in (40, 30):
        stopped(*SGD, "--resume", report=report)
        points(looking)
    assert len(points(looking)["update/weight"]) == 120
    assert train(*SGD, "--resume") == 0
    assert points(looking) == curves(alone)


def test_a_process_killed_between_the_two_event_files_leaves_one_curve(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(*SGD, report=50)
    with monkeypatch.context() as patch:
        patch.setattr(os, "truncate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train(*SGD, "--resume") == 130
    folder = Path("runs/hubble/sgd")
    assert [step for step, _ in curves(folder)["update/weight"]] == list(range(1, 51))
    assert train(*SGD, "--resume") == 0
    assert_same_run(folder, alone)


DIFFERENT: list[tuple[list[str], str]] = [
    (["--lr", "0.02"], r"the run has lr 0\.01 \(now 0\.02\); give the same, or add --override lr"),
    (
        ["--lr", "0.02", "--seed", "4"],
        r"the run has lr .*, seed 0 \(now 4\); .*--override lr --override seed",
    ),
    (["--epochs", "11"], r"the run has epochs 12 \(now 11\)"),
    (["--order", "sequential"], r"the run has order shuffled \(now sequential\)"),
    (["--method", "gd"], r"the run has method sgd \(now gd\), order"),
    (["--gradient", "autograd"], r"the run has gradient hand \(now autograd\)"),
    (["--engine", "scan"], r"the run has engine loop \(now scan\); give the same, or add --override engine"),
    (["--weight", "2"], r"the run has weight 1\.0 \(now 2\.0\); give the same, or leave out --resume"),
    (["--dtype", "float32"], r"the run has dtype float64 \(now float32\); give the same, or leave out"),
    (["--lr", "0.02", "--override", "seed"], r"the run has lr 0\.01 \(now 0\.02\)"),
    (["--override", "batch-size", "--lr", "1"], r"the run has lr 0\.01 \(now 1\.0\)"),
    (["--override", "weight"], "--override weight: not one of lr, epochs, data, method"),
    (["--epochs", "3", "--override", "epochs"], "4 epochs are done; give --epochs of that or more"),
]


@pytest.mark.parametrize(("arguments", "message"), DIFFERENT, ids=[" ".join(row[0]) for row in DIFFERENT])
def test_other_settings_are_refused_by_name(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(*SGD, report=100)
    folder = Path("runs/hubble/sgd")
    files = {path: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert train(*SGD, "--name", "sgd", "--resume", *arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("torchgd: ")
    with pytest.raises(InputError, match=message):
        raise InputError(last)
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_other_data_are_refused_by_content(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_text("x,y\n1,2\n2,4\n3,6\n")
    stopped("a.csv", "--method", "sgd", "--engine", "loop", report=30)
    Path("copy").mkdir()
    Path("copy/a.csv").write_text("y,x\n2,1\n4,2\n6,3.0\n")
    Path("a.csv").write_text("x,y\n1,2\n2,4\n3,6.5\n")
    capsys.readouterr()
    assert train("a.csv", "--method", "sgd", "--engine", "loop", "--resume") == 2
    message = capsys.readouterr().err
    assert "the run has data a.csv (3 samples, checksum " in message
    assert "--override data" in message
    assert train("copy/a.csv", "--method", "sgd", "--engine", "loop", "--resume") == 0  # the same, elsewhere


def python_sgd(w: float, x: list[float], y: list[float], lr: float, epochs: int) -> float:
    """Lecture 3, in plain Python."""
    for _ in range(epochs):
        for a, b in zip(x, y, strict=True):
            w -= lr * 2 * a * (w * a - b)
    return w


def test_another_lr_by_name_goes_on_from_where_it_was() -> None:
    x, y = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]
    stopped("--method", "sgd", "--epochs", "10", report=12)  # 4 epochs
    assert train("--method", "sgd", "--epochs", "10", "--lr", "0.02", "--override", "lr", "--resume") == 0
    weight = load(Path("runs/course/sgd/checkpoint.pt")).model["weight"].item()
    expected = python_sgd(python_sgd(1.0, x, y, 0.01, 4), x, y, 0.02, 6)
    assert weight == pytest.approx(expected, rel=1e-14)
    config = json.loads(Path("runs/course/sgd/config.json").read_text())
    assert config["lr"] == 0.02
    assert config["overridden"] == [{"epoch": 4, "lr": 0.01}]


def test_more_epochs_by_name_go_on_with_a_run_that_has_ended() -> None:
    assert train(*SGD) == 0
    more = [*SGD[:-3], "20", "--engine", "loop"]
    assert train(*more, "--resume", "--override", "epochs") == 0
    assert train(*more, logdir="alone") == 0
    one, other = (load(Path(logdir) / "hubble/sgd/checkpoint.pt") for logdir in ("runs", "alone"))
    assert_same(one.history, other.history)
    assert one.model == other.model


def test_another_method_by_name_begins_after_the_last_whole_epoch() -> None:
    x, y = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]
    stopped("--method", "sgd", "--name", "both", "--epochs", "10", report=14)  # 4 epochs and 2 updates
    assert train("--name", "both", "--epochs", "10", "--override", "method", "--resume") == 0
    history = load(Path("runs/course/both/checkpoint.pt")).history
    w = python_sgd(1.0, x, y, 0.01, 4)
    for _ in range(6):
        w -= 0.01 * 2 * sum(a * (w * a - b) for a, b in zip(x, y, strict=True)) / 3
    assert history.weight[-1].item() == pytest.approx(w, rel=1e-14)
    assert history.update.tolist() == list(range(1, 19))  # 4 · 3 of one sample, 6 of all
    assert history.samples_seen.tolist() == [*range(1, 13), *range(15, 31, 3)]
    assert history.end_update.tolist() == [0, 3, 6, 9, 12, 13, 14, 15, 16, 17, 18]
    assert history.end_samples.tolist() == list(range(0, 31, 3))
    steps = [step for step, _ in curves(Path("runs/course/both"))["update/weight"]]
    assert steps == history.samples_seen.tolist()
    assert train("--name", "both", "--epochs", "10", "--resume") == 0  # it is a run of this method now


def test_the_engine_may_change_by_name() -> None:
    stopped(*SGD, report=100)  # 4 epochs and 4 updates, which the scan cannot begin from
    scan = [*SGD[:-1], "scan"]
    assert train(*scan, "--override", "engine", "--resume") == 0
    history = load(Path("runs/hubble/sgd/checkpoint.pt")).history
    assert history.epoch.tolist() == list(range(13))
    assert torch.equal(history.update, torch.arange(1, 12 * 24 + 1))


def test_which_run_goes_on(tmp_path: Path) -> None:
    for name in ("sgd", "sgd-2", "sgd-9", "sgd-10", "sgd-x", "gd-3", "mine"):
        (tmp_path / "course" / name).mkdir(parents=True)
    assert find_run(tmp_path, "course", "sgd", None).name == "sgd-10"
    assert find_run(tmp_path, "course", "gd", None).name == "gd-3"
    assert find_run(tmp_path, "course", "gd", "sgd").name == "sgd"
    with pytest.raises(InputError, match=r"minibatch: no such run to resume; there are gd-3, mine, sgd, "):
        find_run(tmp_path, "course", "minibatch", None)
    with pytest.raises(InputError, match="leave out --resume to begin one"):
        find_run(tmp_path, "hubble", "sgd", None)
    with pytest.raises(InputError, match=r"the name '\.\./course' holds '/'"):
        find_run(tmp_path, "course", "sgd", "../course")


def spoil_config(folder: Path) -> None:
    (folder / "checkpoint.pt").unlink()
    (folder / "config.json").write_text("{")


def foreign(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "thesis.txt").write_text("mine")


def list_config(folder: Path) -> None:
    (folder / "checkpoint.pt").unlink()
    (folder / "config.json").write_text("[1]")


def without_settings(folder: Path) -> None:
    save(folder / "checkpoint.pt", replace(load(folder / "checkpoint.pt"), settings={}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: os.truncate(folder / "checkpoint.pt", 999),
            "not a checkpoint of torchgd, or a broken one",
        ),
        (without_settings, "checkpoint.pt: holds no settings"),
        (spoil_config, "config.json: cannot be read"),
        (list_config, "config.json: is not a JSON object"),
        (foreign, "is not a run, because it holds 'thesis.txt' but no config.json"),
    ],
)
def test_a_broken_run_is_refused_and_left_as_it_is(
    spoil: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(*SGD, report=30)
    folder = Path("runs/hubble/sgd")
    spoil(folder)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert train(*SGD, "--resume") == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_a_run_at_which_a_process_works_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fcntl", reason="the system has no such locks")
    stopped(*SGD, report=30)
    with writing(Path("runs/hubble/sgd")):
        assert train(*SGD, "--resume") == 2
    assert "another process is at work on this run" in capsys.readouterr().err
    assert train(*SGD, "--resume") == 0


@pytest.mark.parametrize("failing", [1, 4, 9])
def test_a_failure_to_write_is_one_line_and_can_be_gone_on_from(
    failing: int, alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsync, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr("torchgd.runs.keeper.SECONDS_BETWEEN", 0.0)
        patch.setattr("torchgd.runs.keeper.SHARE_OF_TIME", 1e9)
        patch.setattr(os, "fsync", full)
        assert train(*SGD) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == (
        f"torchgd: {Path('runs/hubble/sgd')}: cannot be written (No space left on device); "
        "check the disk and the folder; torchgd train --resume with the same options continues"
    )
    assert "Traceback" not in lines[0]
    assert train(*SGD, "--resume") == 0
    assert_same_run(Path("runs/hubble/sgd"), alone)


def test_a_disk_that_fills_up_and_one_that_cannot_be_written(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", "96k") as remount:
        capsys.readouterr()
        assert train(*SGD, logdir="disk") == 2
        lines = capsys.readouterr().err.splitlines()
        assert "cannot be written (No space left on device)" in lines[-1]
        assert sum(line.startswith("torchgd: ") for line in lines) == 1
        folder = tmp_path / "disk" / "hubble" / "sgd"
        remount("size=4m,ro")
        files = {path: path.read_bytes() for path in folder.iterdir()}
        assert train(*SGD, "--resume", logdir="disk") == 2
        assert "cannot be written (Read-only file system)" in capsys.readouterr().err.splitlines()[-1]
        assert train(*SGD, logdir="disk") == 2
        assert "cannot be made (Read-only file system)" in capsys.readouterr().err.splitlines()[-1]
        assert {path: path.read_bytes() for path in folder.iterdir()} == files
        remount("size=4m,rw")
        assert train(*SGD, "--resume", logdir="disk") == 0
        assert_same_run(folder, alone)


def test_a_file_system_without_locks_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl", reason="the system has no such locks")

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert train("--epochs", "2") == 0


@pytest.mark.parametrize(
    "lose",
    [
        lambda folder: os.truncate(next(folder.glob("events*")), 100),
        lambda folder: next(folder.glob("events*")).unlink(),
        lambda folder: (folder / "history.csv").unlink(),
        lambda folder: os.truncate(folder / "cost.png", 500),
        lambda folder: (folder / "config.json").unlink(),
    ],
    ids=["events cut", "events lost", "history lost", "picture cut", "config lost"],
)
def test_what_is_lost_of_an_ended_run_is_made_again(lose: Callable[[Path], object], alone: Path) -> None:
    assert train(*SGD) == 0
    folder = Path("runs/hubble/sgd")
    lose(folder)
    assert train(*SGD, "--resume") == 0
    assert_same_run(folder, alone)
    assert sorted(path.name for path in folder.glob("*.png")) == ["cost.png", "parabola.png"]
