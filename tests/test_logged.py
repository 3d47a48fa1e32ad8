"""train() with a log of its run and a progress bar."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn

from torchgd import GradientDescent, InputError, LinearModel, course, train
from torchgd.runs.checkpoint import load

X = torch.linspace(0, 1, 60).reshape(20, 3)
Y = X.sum(1, keepdim=True)


def begin() -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def test_a_log_holds_the_run_whatever_the_optimizer(tmp_path: Path) -> None:
    model, optimizer = begin()
    parts = []
    history = train(
        model,
        X,
        Y,
        optimizer,
        4,
        batches=8,
        log=tmp_path / "mine" / "first",
        on_progress=lambda part, place: parts.append(part),
    )
    folder = tmp_path / "mine" / "first"
    assert (folder / "history.csv").read_text() == history.to_csv()
    (events,) = folder.glob("events*")
    tags = {value.tag for event in EventFileLoader(str(events)).Load() for value in event.summary.value}
    assert {"epoch/cost", "update/loss", "picture/cost"} <= tags
    config = json.loads((folder / "config.json").read_text())
    named = [config[name] for name in ("model", "method", "lr", "batch_size", "epochs")]
    assert named == ["Linear", "Adam", 0.1, 8, 4]
    assert parts
    assert history.end_update.tolist() == [0, 3, 6, 9, 12]


def test_a_logged_run_is_the_same_run_and_can_continue(tmp_path: Path) -> None:
    model, optimizer = begin()
    whole = train(model, X, Y, optimizer, 6, batches=8)
    model, optimizer = begin()
    train(model, X, Y, optimizer, 3, batches=8, log=tmp_path / "a" / "b")
    model, optimizer = begin()
    past = load(tmp_path / "a" / "b" / "checkpoint.pt").restore(model, optimizer)
    continued = train(model, X, Y, optimizer, 6, batches=8, resume=past, log=tmp_path / "a" / "b")
    assert torch.equal(continued.weight, whole.weight)
    assert (tmp_path / "a" / "b-2" / "history.csv").read_text() == whole.to_csv()


def test_what_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    model, optimizer = begin()
    with pytest.raises(InputError, match="give one y for each x"):
        train(model, X, Y[:3], optimizer, log=tmp_path / "a" / "b")
    with pytest.raises(InputError, match="batch_size is 50, but there are 20 samples"):
        train(model, X, Y, optimizer, batches=50, log=tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_bar_of_epochs_stands_on_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    x, y = course()
    history = train(model, x, y, GradientDescent(model.parameters()), 5, progress=True)
    assert len(history.epoch) == 6
    assert capsys.readouterr().out == ""
