"""The experiments: their numbers beside oracles of their own, their sentences, pictures and runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from torchgd.cli import main
from torchgd.cli.experiment import EXPERIMENTS as DESCRIBED
from torchgd.experiments import EXPERIMENTS, Outcome, randomness, saddle, smoothing, tradeoff, zero_grad


@pytest.fixture(scope="module")
def outcomes() -> Callable[[str], Outcome]:
    """Runs an experiment once, the long ones with fewer repeats and samples."""
    found = dict[str, Outcome]()

    def outcome(name: str) -> Outcome:
        if name not in found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(saddle, "SEEDS", 20)
                patch.setattr(tradeoff, "SAMPLES", 2048)
                patch.setattr(tradeoff, "SIZES", (1, 16, 2048))
                patch.setattr(tradeoff, "_seconds_an_update", lambda law, size: (1e-5 + 1e-7 * size, 1e-4))
                found[name] = EXPERIMENTS[name](0)
        return found[name]

    return outcome


# Where is the randomness?


def settled(y: list[float], order: list[int]) -> float:
    """The weight after 300 epochs of the plain loop."""
    w = 1.0
    for _ in range(300):
        for i in order:
            w -= 0.01 * 2 * (i + 1) * ((i + 1) * w - y[i])
    return w


def test_the_order_is_invisible_on_clean_data_and_visible_with_noise(
    outcomes: Callable[[str], Outcome],
) -> None:
    outcome = outcomes("randomness")
    runs = outcome.histories
    for name in ("sgd-123", "sgd-321", "sgd-shuffled"):
        assert runs[f"clean-{name}"].weight[1].item() == pytest.approx(1.260688, abs=randomness.ROUNDING)
    assert runs["clean-gd"].weight[1].item() == pytest.approx(1.0933333333333333, rel=1e-15)
    for name, order, fact in (("sgd-123", [0, 1, 2], 2.1258209), ("sgd-321", [2, 1, 0], 2.1503713)):
        end = runs[f"noisy-{name}"].weight[-1].item()
        assert end == pytest.approx(settled([2.0, 5.0, 6.0], order), abs=randomness.ROUNDING)
        assert end == pytest.approx(fact, abs=1e-7)
        assert f"{fact}" in outcome.sentence
    assert "2.1428571" in outcome.sentence
    # shuffled: between the two orders, and never at rest
    shuffled = runs["noisy-sgd-shuffled"].weight[randomness.SETTLED :]
    assert shuffled.std() > 1e-3
    assert (shuffled.min() > 2.12) & (shuffled.max() < 2.16)


def test_each_run_says_which_sgd_it_is(outcomes: Callable[[str], Outcome]) -> None:
    labels = [row["run"] for row in outcomes("randomness").rows]
    assert len(set(labels)) == 5
    for word in ("not SGD", "1, 2, 3: lecture 3", "3, 2, 1", "shuffled every epoch", "with replacement"):
        assert sum(word in str(label) for label in labels) == 1


def test_another_seed_changes_the_random_orders_alone(outcomes: Callable[[str], Outcome]) -> None:
    one, other = outcomes("randomness").histories, randomness.run(1).histories
    differing = {name for name in one if not torch.equal(one[name].weight, other[name].weight)}
    assert differing >= {"clean-sgd-replacement", "noisy-sgd-shuffled", "noisy-sgd-replacement"}
    assert not differing & {
        f"{data}-{name}" for data in ("clean", "noisy") for name in ("gd", "sgd-123", "sgd-321")
    }


# Forgetting zero_grad


def test_a_forgotten_zero_grad_is_momentum_1_and_swings_for_ever(outcomes: Callable[[str], Outcome]) -> None:
    runs = outcomes("zero-grad").histories
    forgotten = runs["zero_grad-forgotten"].weight
    assert torch.equal(forgotten, runs["momentum-1"].weight)
    # e_{k+1} = (2 − a) e_k − e_{k−1} with a = lr · 2 mean x² has the solution A cos(θ k + φ), 2 cos θ = 2 − a
    a = 0.01 * 28 / 3
    theta = math.acos(1 - a / 2)
    start, first = -1.0, -1.0 + a
    sine = (start * math.cos(theta) - first) / math.sin(theta)  # A sin φ
    k = torch.arange(1001).double()
    error = start * torch.cos(theta * k) - sine * torch.sin(theta * k)
    # nothing damps the rounding of 2⁻⁵² an update, which grows with k²: 1000² · 2⁻⁵² = 2e-10
    torch.testing.assert_close(forgotten, 2 + error, rtol=0, atol=1000**2 * 2**-52)
    assert forgotten[:201].min().item() == pytest.approx(0.98813, abs=1e-5)
    assert forgotten[:201].max().item() == pytest.approx(3.01122, abs=1e-5)
    assert forgotten.max().item() == pytest.approx(2 + math.hypot(start, sine), abs=1e-5)
    assert runs["zero_grad-called"].weight[-1].item() == pytest.approx(2, abs=1e-14)


def test_the_sentence_quotes_the_warning(outcomes: Callable[[str], Outcome]) -> None:
    assert "this is momentum 1; call optimizer.zero_grad()" in outcomes("zero-grad").sentence


# Smoothing


def test_the_smoothed_runs_carry_the_means_as_their_loss(outcomes: Callable[[str], Outcome]) -> None:
    runs = outcomes("smoothing").histories
    assert list(runs) == ["raw", "lecture-beta-0.1", "slider-0.9"]
    losses = runs["raw"].loss_before
    assert torch.equal(runs["lecture-beta-0.1"].loss_before, smoothing.lecture_mean(losses, 0.1))
    assert torch.equal(runs["slider-0.9"].loss_before, smoothing.slider_mean(losses, 0.9))


def test_the_legend_has_the_formulas(outcomes: Callable[[str], Outcome]) -> None:
    legend = outcomes("smoothing").picture.axes[1].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[1:] == [
        "lecture: c′ ← β·c + (1 − β)·c′ from c₀, β = 0.1",
        "slider: a ← (1 − s)·c + s·a, a/(1 − sᵗ) at update t, s = 0.9",
    ]


# Saddles


@pytest.mark.parametrize("problem", saddle.problems(), ids=lambda problem: problem.name)
def test_the_start_is_a_saddle_of_the_cost(problem: saddle.Problem) -> None:
    def cost(w: Tensor) -> Tensor:
        return problem.cost(problem.function(w, problem.x), problem.y)

    zero = torch.zeros(2, dtype=torch.float64)
    (gradient,) = torch.autograd.functional.vjp(cost, zero)[1:]
    assert gradient.tolist() == [0, 0]
    hessian = torch.autograd.functional.hessian(cost, zero)
    assert torch.linalg.eigvalsh(hessian).sign().tolist() == [-1, 1]
    of_samples = torch.autograd.functional.jacobian(
        lambda w: problem.loss(problem.function(w, problem.x), problem.y), zero
    )
    assert of_samples.any().item() == (problem.name == "pulls")


def test_sgd_leaves_only_where_the_gradients_cancel_in_the_mean(outcomes: Callable[[str], Outcome]) -> None:
    outcome = outcomes("saddle")
    assert [(row["runs"], row["left it"]) for row in outcome.rows] == [(1, 0), (20, 0), (1, 0), (20, 20)]
    for name in ("product-gd", "product-sgd", "pulls-gd"):
        assert not outcome.histories[name].update_weight.any()
    w1, w2 = outcome.histories["pulls-sgd"].weight[-1].tolist()
    assert (abs(w1), abs(w2)) == (
        pytest.approx(0, abs=0.5),
        pytest.approx(1, abs=0.5),
    )  # near a minimum, (0, ±1)
    # 20 of 20 by Wilson: 1 / (1 + z²/n) and above
    assert f"95 % interval {1 / (1 + 1.96**2 / 20):.3f} … 1.000" in outcome.sentence


# The trade-off


def test_faster_needs_its_unit(outcomes: Callable[[str], Outcome]) -> None:
    outcome = outcomes("tradeoff")
    rows = {(row[""], str(row["lr"]).split(",")[0]): row for row in outcome.rows}
    assert len(rows) == 6
    for row in rows.values():
        size = {"per sample": 1, "batch of 16": 16, "full batch": 2048}[str(row[""])]
        assert int(row["updates"]) > 0
        assert row["samples"] == int(row["updates"]) * size
        shortest, longest = map(float, str(row["ms"]).split(" … "))
        assert shortest == pytest.approx(int(row["updates"]) * (1e-2 + 1e-4 * size), rel=0.05)  # two digits
        assert longest == pytest.approx(int(row["updates"]) * 0.1, rel=0.05)
    best = [rows[name, "best"] for name in ("per sample", "batch of 16", "full batch")]
    assert best[2]["updates"] == 1  # on least squares in one step
    assert min(int(row["samples"]) for row in best) < int(best[2]["samples"]) / 10
    assert "fewest updates by full batch (1)" in outcome.sentence
    same = [int(rows[name, "same"]["updates"]) for name in ("per sample", "batch of 16", "full batch")]
    assert max(same) < 2 * min(same)
    assert f"{min(same)} to {max(same)} updates" in outcome.sentence
    assert len({str(row["lr"]) for row in outcome.rows if str(row["lr"]).startswith("same")}) == 1


def test_the_runs_of_the_trade_off_start_alike_and_log_the_cost_of_all_samples(
    outcomes: Callable[[str], Outcome],
) -> None:
    runs = outcomes("tradeoff").histories
    assert set(runs) == {f"{lr}-lr-batch-{size}" for lr in ("same", "best") for size in (1, 16, 2048)}
    assert {run.weight[0].item() for run in runs.values()} == {0.0}
    starts = torch.stack([run.cost[0] for run in runs.values()])
    torch.testing.assert_close(starts, starts[:1].expand(6), rtol=1e-12, atol=0)


# All of them


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_ends_in_a_table_a_picture_a_sentence_and_runs(
    name: str,
    outcomes: Callable[[str], Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = outcomes(name)
    monkeypatch.setitem(EXPERIMENTS, name, lambda seed: outcome)
    assert main(["experiment", name, "--json", "--logdir", str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["experiment"], answer["seed"], answer["proved"]) == (name, 0, True)
    assert answer["rows"] == [dict(row) for row in outcome.rows]
    assert answer["sentence"] == outcome.sentence
    assert Path(answer["picture"]).read_bytes().startswith(b"\x89PNG")
    assert [Path(folder).name for folder in answer["run_dirs"]] == list(outcome.histories)
    for number, folder in enumerate(answer["run_dirs"]):
        tags = EventAccumulator(folder).Reload().Tags()
        assert {"epoch/cost", "update/loss"} <= set(tags["scalars"])
        assert tags["images"] == ([f"picture/{name}"] if number == 0 else [])
        assert {"config.json", "history.csv"} <= {path.name for path in Path(folder).iterdir()}
    for axes in outcome.picture.axes:
        assert all([axes.get_title(), axes.get_xlabel(), axes.get_ylabel()])

    assert main(["experiment", name, "--logdir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert outcome.sentence in text
    assert f"{tmp_path / name}" in text
    assert all(str(next(iter(row.values()))).split(",")[0] in text for row in outcome.rows)


def test_what_the_numbers_do_not_prove_ends_in_1(
    outcomes: Callable[[str], Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unproved = replace(outcomes("zero-grad"), proved=False)
    monkeypatch.setitem(EXPERIMENTS, "zero-grad", lambda seed: unproved)
    assert main(["experiment", "zero-grad", "--logdir", str(tmp_path)]) == 1


def test_the_command_line_knows_every_experiment() -> None:
    assert list(DESCRIBED) == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sadle"], r"torchgd: NAME sadle: give one of .*; did you mean saddle\?\n"),
        (["zero_grad"], r"torchgd: NAME zero_grad: give one of .*; did you mean zero-grad\?\n"),
        ([], r"torchgd: Missing argument 'NAME'.*\n"),
    ],
)
def test_an_unknown_experiment_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", *arguments, "--logdir", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(message, captured.err)
    assert not list(tmp_path.iterdir())


def test_an_unproved_claim_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer that clears its gradient is no momentum 1; no rounding at all is too much to claim."""
    monkeypatch.delattr(zero_grad.Forgetful, "zero_grad")
    assert not zero_grad.run(0).proved
    monkeypatch.setattr(randomness, "ROUNDING", 0.0)
    assert not randomness.run(0).proved
