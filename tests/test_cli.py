"""The command line's start, and `torchgd train`: numbers, statuses, what is printed where."""

import io
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from course_run import COURSE_WEIGHT, answer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torchgd.cli import COMMANDS, main, terminal

pytestmark = pytest.mark.usefixtures("folder")


# Start


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from torchgd.cli import main; status = main(['--help']); "
        "loaded = {'torch', 'numpy', 'tensorboard', 'matplotlib'} & set(sys.modules); "
        "print(sorted(loaded), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == "[]\n"
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", done.stdout)


def test_what_is_wrong_with_the_input_is_said_without_waiting_for_torch() -> None:
    Path("a.csv").write_text("x,y\n1,2\n")
    wrong = [
        "no.csv",
        "a.csv --x z",
        "coarse",
        "--lr fast",
        "--epochs none",
        "--metod gd",
        "--method sdg",
        "--lr -1",
    ]
    code = (
        "import sys; from torchgd.cli import main; "
        f"print([main(['train', *line.split()]) for line in {wrong}], "
        "{'torch', 'numpy', 'tensorboard', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{[2] * len(wrong)} set()\n"


def test_python_dash_m_torchgd() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torchgd", "train", "--epochs", "2", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["weight"] == 1.1779555555555554
    done = subprocess.run(
        [sys.executable, "-m", "torchgd", "train", "--lr", "0"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "torchgd: --lr: 0 is not a finite number above 0; give e.g. 0.01, or auto\n"


@pytest.mark.parametrize("command", [[], ["train"], ["lesson"]])
def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    for option in ("--help", "-h"):
        assert main([*command, option]) == 0
        printed = capsys.readouterr()
        assert "Usage: torchgd" in printed.out
        assert printed.err == ""


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"torchgd {version('torchgd')}\n"


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert "Usage: torchgd" in printed.out
    assert printed.err == ""


# Train


def test_train_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "train", "--predict", "4")
    assert found == {
        "schema": 1,
        "weight": COURSE_WEIGHT,
        "cost": pytest.approx(1.4405775547e-08, rel=1e-9),
        "status": "finished",
        "reason": found["reason"],
        "epochs": 100,
        "updates": 100,
        "method": "gd",
        "lr": 0.01,
        "run_dir": str(Path("runs/course/gd")),
        "prediction": 7.999777758621207,
    }


TRAINED = [
    ("--method sgd", 1.9999999999999236),
    ("--method sgd --gradient autograd", 1.9999999999999236),
    ("--method sgd --engine scan", 1.9999999999999236),
    ("--method minibatch --batch-size 3", COURSE_WEIGHT),
    ("--method minibatch --batch-size 1", 1.9999999999999236),
    ("--gradient autograd", COURSE_WEIGHT),
    ("--method gd --order shuffled", COURSE_WEIGHT),
    ("--lr auto", 2.0),
    ("--lr 1e-1 --epochs 400", 2.0),
    ("--weight 2", 2.0),
    ("--device cpu", COURSE_WEIGHT),
]


@pytest.mark.parametrize(("arguments", "weight"), TRAINED)
def test_train_has_these_options(capsys: pytest.CaptureFixture[str], arguments: str, weight: float) -> None:
    found = answer(capsys, "train", *arguments.split())
    assert found["weight"] == pytest.approx(weight, rel=1e-14)


def test_train_in_single_precision(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "train", "--dtype", "float32")
    assert found["weight"] == pytest.approx(COURSE_WEIGHT, rel=1e-6)
    assert found["weight"] == torch.tensor(found["weight"]).item()


def test_the_seed_decides_the_order(capsys: pytest.CaptureFixture[str]) -> None:
    Path("noisy.csv").write_text("x,y\n1,2\n2,5\n3,6\n")
    arguments = ["train", "noisy.csv", "--method", "sgd", "--order", "shuffled", "--epochs", "7", "--seed"]
    weights = [answer(capsys, *arguments, seed)["weight"] for seed in ("1", "1", "2")]
    assert weights[0] == weights[1] != weights[2]


def test_a_run_that_diverges_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "train", "--lr", "0.5", status=1)
    assert found["status"] == "diverged"
    assert found["reason"]
    found = answer(capsys, "train", "--lr", "50", "--epochs", "2000", status=1)
    assert found["status"] == "diverged"
    assert found["epochs"] < 2000


def test_a_new_run_takes_a_new_folder(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [answer(capsys, "train", "--epochs", "2")["run_dir"] for _ in range(3)]
    assert [Path(name).name for name in folders] == ["gd", "gd-2", "gd-3"]
    named = answer(capsys, "train", "--epochs", "2", "--name", "first try", "--logdir", "logs/deep")
    assert named["run_dir"] == str(Path("logs/deep/course/first try"))


def test_the_folder_holds_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(
        capsys, "train", "--method", "minibatch", "--batch-size", "2", "--seed", "9", "--lr", "0.02"
    )
    run = Path(found["run_dir"])
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    expected = {
        "data": "course",
        "method": "minibatch",
        "batch_size": 2,
        "lr": 0.02,
        "epochs": 100,
        "seed": 9,
        "order": "sequential",
        "weight": 1.0,
        "gradient": "hand",
        "device": "cpu",
        "dtype": "float64",
        "torch": str(torch.__version__),
        "torchgd": version("torchgd"),
    }
    assert {key: config[key] for key in expected} == expected
    log = EventAccumulator(str(run), size_guidance={"scalars": 0})
    log.Reload()
    assert len(log.Tags()["images"]) == 2
    assert log.Scalars("epoch/weight")[-1].value == pytest.approx(found["weight"], rel=1e-7)
    last = (run / "history.csv").read_text(encoding="utf-8").splitlines()[-1].split(",")
    assert float(last[3]) == found["weight"]
    assert len([path for path in run.iterdir() if path.name.startswith("events")]) == 1


def test_train_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--predict", "4"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "\x1b" not in printed.out
    assert re.search(r"^weight +1\.99994444$", printed.out, flags=re.MULTILINE)
    assert re.search(r"^prediction +7\.999777759$", printed.out, flags=re.MULTILINE)
    assert printed.out.startswith("It converges in 142 epochs")
    assert printed.out.endswith("To see the curves:  torchgd board\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_progress_bar_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    with terminal.progress(10, "sgd") as on_epoch:
        on_epoch(5)  # standard error is no terminal here: nothing is drawn
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.progress(10, "sgd") as on_epoch:
        for count in range(11):
            on_epoch(count)
            counts.append(count)
    assert "sgd" in screen.getvalue()
    assert "10/10" in screen.getvalue()


def test_json_has_no_nan() -> None:
    assert json.loads(json.dumps(terminal._finite({"a": [float("nan"), 1.5], "b": (float("inf"),)}))) == {
        "a": [None, 1.5],
        "b": [None],
    }
