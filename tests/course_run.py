"""A run on the course's data: its configuration, where it ends, and what a command answers."""

import json
from typing import Any

import pytest

from torchgd.cli import main
from torchgd.runs.run import Config

CONFIG = Config(
    data="course",
    x=None,
    y=None,
    method="sgd",
    lr=0.01,
    epochs=100,
    batch_size=None,
    order="sequential",
    seed=0,
    weight=1.0,
    gradient="hand",
    device="cpu",
    dtype="float64",
    engine="loop",
)
COURSE_WEIGHT = 1.9999444396553017  # full batch, 100 epochs


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    """The one JSON object on standard output."""
    assert main([*arguments, "--json"]) == status
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return found
