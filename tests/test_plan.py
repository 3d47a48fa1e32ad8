"""The plan: one method, one rate, wherever it is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from course_run import answer

from torchgd.cli import main
from torchgd.errors import InputError
from torchgd.model import LinearModel
from torchgd.plan import METHODS, Plan

pytestmark = pytest.mark.usefixtures("folder")


def test_auto_is_the_same_rate_in_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--batch-size", "2", "--order", "shuffled", "--lr", "auto", "--seed", "5"]
    mini = ["hubble", "--method", "minibatch", *asked, "--epochs", "10"]
    rate = answer(capsys, "stability", *mini)["lr"]
    assert answer(capsys, "train", *mini)["lr"] == rate
    assert answer(capsys, "compare", *mini)["lr"] == rate
    assert answer(capsys, "lesson", "hubble", *asked, "--epochs", "10")["methods"]["minibatch"]["lr"] == rate
    course = ["--method", "minibatch", *asked]
    assert answer(capsys, "bridge", *course)["lr"] == answer(capsys, "stability", "course", *course)["lr"]


@pytest.mark.parametrize(
    ("asked", "batches", "label"),
    [
        ({"method": "gd", "order": "shuffled"}, [[0, 1, 2]], "full batch"),
        ({"method": "sgd"}, [[0], [1], [2]], "per sample"),
        ({"method": "minibatch", "batch_size": 2}, [[0, 1], [2]], "mini-batch of 2"),
    ],
)
def test_each_method_has_its_batches_its_optimizer_and_its_name(
    asked: dict[str, Any], batches: list[list[int]], label: str
) -> None:
    plan = Plan(**asked, lr=0.25)
    optimizer = plan.optimizer(LinearModel(1.0).parameters())
    assert list(plan.batches(3)) == list(optimizer.batches(3)) == batches
    assert (plan.label, optimizer.param_groups[0]["lr"]) == (label, 0.25)
    assert plan.batch_size_of(3) == len(batches[0])


def test_the_seed_gives_the_order_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    plan = Plan(method="sgd", order="shuffled", seed=3, lr=0.1)
    optimizer = plan.optimizer(LinearModel(1.0).parameters())
    once = list(plan.batches(9))
    assert once == list(plan.batches(9)) == list(optimizer.batches(9))
    assert once != list(Plan(method="sgd", order="shuffled", seed=4).batches(9))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "sdg"}, f"method is 'sdg'; give one of {', '.join(METHODS)}"),
        ({"method": "minibatch"}, "minibatch needs a batch size; give e.g. batch_size=2 (--batch-size 2)"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 to 9223372036854775807"),
        ({"lr": math.nan}, "lr is nan; give a finite number above 0"),
        ({"lr": 0.0}, "lr is 0.0; give a finite number above 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Plan(**asked)
    assert str(error.value) == message


def test_a_plan_without_a_rate_makes_no_optimizer() -> None:
    with pytest.raises(InputError, match="the plan has no learning rate yet"):
        Plan().optimizer(LinearModel(1.0).parameters())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(50, 300), (60, 310), (80, 350), (100, 370)], True),
        ([(1, 2), (2, 4), (3, 6), (4, 8)], False),
        ([(0, 1), (1, 2), (2, 3)], False),
    ],
)
def test_a_missing_intercept_is_said(
    rows: list[tuple[int, int]], said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("f.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows), encoding="utf-8")
    assert main(["train", "f.csv", "--lr", "auto", "--epochs", "2", "--no-log"]) == 0
    printed = capsys.readouterr().out
    assert ("An intercept is missing: y = 1.475·x + 225.6 has the cost" in printed) == said
    assert list(Path().iterdir()) == [Path("f.csv")]
