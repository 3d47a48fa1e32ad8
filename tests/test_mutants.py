"""Mistakes in backward passes, as learners make them: each has its name, and no right gradient has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import learner_gradients
import pytest
import torch
from learner_gradients import PROGRAMS, RIGHT, WRONG, Program
from torch import Tensor, nn
from torch.nn import functional

from torchgd import check_gradient
from torchgd.check.mistakes import Cause
from torchgd.check.report import GradientReport


def report_of(program: Program, f: Callable[..., Any], seed: int = 0) -> GradientReport:
    """The report on a gradient of the program."""
    torch.manual_seed(seed)
    model, x, y = program.model().double(), program.x(12), program.y(12)
    x, y = (t.double() if t.is_floating_point() else t for t in (x, y))
    return check_gradient(f, x, y, model=model, loss_fn=program.loss_fn, seed=seed)


@pytest.mark.parametrize("row", WRONG[::5], ids=lambda row: f"{row[0]}: {row[2][:30]}")
def test_a_mistake_is_named(row: tuple[str, str, str, str, str]) -> None:
    program, due, wrong, cause, word = row
    report = report_of(PROGRAMS[program], PROGRAMS[program].function(due, wrong))
    assert report.cause.value == cause, report
    assert word.lower() in report.message.lower()


@pytest.mark.parametrize("row", RIGHT, ids=lambda row: f"{row[0]}: {row[2][:30]}")
def test_a_right_gradient_is_right_in_every_spelling(row: tuple[str, str, str]) -> None:
    program, due, spelling = row
    for seed in range(2):
        report = report_of(PROGRAMS[program], PROGRAMS[program].function(due, spelling), seed)
        assert report.ok, report


def two_layers(hidden: str = "dz", upper: str = "d") -> Callable[..., Any]:
    source = f"""
        z = x @ p["0.weight"].T + p["0.bias"]
        h = torch.tanh(z)
        d = 2 * (h @ p["2.weight"].T + p["2.bias"] - y) / y.numel()
        dh = d @ p["2.weight"]
        dz = dh * (1 - h**2)
        return {{"0.weight": ({hidden}).T @ x, "0.bias": dz.sum(0),
                "2.weight": ({upper}).T @ h, "2.bias": d.sum(0)}}
        """
    return Program(nn.Identity, functional.mse_loss, torch.randn, torch.randn, source).function()


NETWORK = Program(
    lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
    functional.mse_loss,
    lambda n: torch.randn(n, 3),
    lambda n: torch.randn(n, 2),
    "",
)


def test_two_mistakes_are_both_named_from_the_loss_backwards() -> None:
    report = report_of(NETWORK, two_layers(hidden="dh", upper="2 * d"))
    assert report.cause is Cause.factor
    assert report.message.startswith("2.weight: It is 2 times the right gradient")
    assert "0.weight: The derivative of tanh (1) is missing" in report.message
    assert report.message.endswith("Right: 2.bias, 0.bias.")


def test_an_unknown_mistake_has_its_place_and_what_is_right_there() -> None:
    report = report_of(NETWORK, two_layers(hidden="dz * dz.exp()"))
    assert report.cause is Cause.unknown
    assert report.message.startswith(
        "0.weight is the first, from the loss backwards, that is wrong: 0.weight["
    )
    assert "is right, and no known mistake explains it. Right: 2.weight, 2.bias, 0.bias." in report.message


class Branching(nn.Module):
    """Another graph at each size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w if len(x) % 2 else (x * self.w).sum(1)


def test_a_model_that_cannot_be_traced_says_so() -> None:
    program = Program(Branching, functional.mse_loss, lambda n: 0.1 * torch.randn(n, 2), torch.randn, "")

    def double(p: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"w": 4 * x.T @ (x @ p["w"] - y) / len(x)}

    report = report_of(program, double)
    assert (report.cause, report.factor) == (Cause.factor, 2.0)
    assert report.message.endswith(
        "The model cannot be traced, so that each parameter is compared on its own."
    )


def test_the_table_is_as_large_as_it_says() -> None:
    assert len(WRONG) >= 120
    assert len(RIGHT) >= 40
    assert len({row[0] for row in WRONG}) >= 10
    assert learner_gradients.__doc__
