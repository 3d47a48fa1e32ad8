"""The lectures' scripts print what the lectures' programs print, and draw what they say."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lecture_programs import autograd, gradient_descent, mini_batch, stochastic

from torchgd import InputError

SCRIPTS = Path(__file__).parents[1] / "scripts"
LECTURES = sorted(script.stem for script in SCRIPTS.glob("lecture*.py"))
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
X, Y = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scripts run."""
    return tmp_path_factory.mktemp("lectures")


@pytest.fixture(scope="module")
def printed(folder: Path) -> Callable[[str], list[str]]:
    """Runs a script as a program, once, and gives the lines that it prints."""
    lines = dict[str, list[str]]()

    def run(name: str) -> list[str]:
        if name not in lines:
            output = io.StringIO()
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
                patch.chdir(folder)
                patch.setattr(sys, "argv", [name])
                runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
            lines[name] = output.getvalue().splitlines()
        return lines[name]

    return run


def names_of(script: str) -> dict[str, Any]:
    """The names that a script defines, without its main()."""
    return runpy.run_path(str(SCRIPTS / f"{script}.py"))


def assert_same_lines(lines: list[str], program: list[str]) -> None:
    """The same words, and numbers that differ by rounding alone.

    PyTorch may round w − lr·g once where Python rounds twice. Near w = 2 that is at most 2⁻⁵² an update; at
    most three updates make an epoch, which leaves at most 0.91 of it, so the weights are at most
    3 · 2⁻⁵² / 0.09 = 8e-15 apart, a gradient at most 2 · 3² times as far, the root of a loss at most 3 times.
    """
    assert [NUMBER.sub("#", line) for line in lines] == [NUMBER.sub("#", line) for line in program]
    for line, expected in zip(lines, program, strict=True):
        *values, last = map(float, NUMBER.findall(line))
        *expected_values, expected_last = map(float, NUMBER.findall(expected))
        if "loss=" in line:
            last, expected_last = math.sqrt(last), math.sqrt(expected_last)
        assert [*values, last] == pytest.approx([*expected_values, expected_last], rel=1e-12, abs=18 * 8e-15)


@pytest.mark.parametrize("name", [name for name in LECTURES if name != "lecture8_dataloader"])  # see below
def test_every_script_writes_pictures_into_runs_and_nothing_else(
    name: str, folder: Path, printed: Callable[[str], list[str]]
) -> None:
    before = set(folder.rglob("*.*"))
    assert printed(name)
    written = [path.relative_to(folder) for path in set(folder.rglob("*.*")) - before]
    assert all(path.parts[0] == "runs" and path.suffix == ".png" for path in written)
    assert bool(written) == (name != "lecture4_exercises")


@pytest.mark.parametrize("name", LECTURES)
def test_to_import_a_script_prints_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(names_of(name)["main"])
    assert capsys.readouterr().out == ""


def test_lecture_2_prints_the_loss_of_every_sample_at_every_weight(
    printed: Callable[[str], list[str]],
) -> None:
    program = list[str]()
    for step in range(41):
        w = step * 0.1
        losses = [(x * w - y) ** 2 for x, y in zip(X, Y, strict=True)]
        program.append(f"w= {w}")
        program += [f"\t {x} {y} {x * w} {loss}" for x, y, loss in zip(X, Y, losses, strict=True)]
        program.append(f"MSE= {sum(losses) / 3}")
    lines = printed("lecture2_exhaustive_search")
    assert_same_lines(lines, program)
    costs = dict(zip(lines[::5], lines[4::5], strict=True))
    assert [costs[f"w= {w}.0"] for w in range(5)] == [
        "MSE= 18.666666666666668",
        "MSE= 4.666666666666667",
        "MSE= 0.0",
        "MSE= 4.666666666666667",
        "MSE= 18.666666666666668",
    ]


def test_lecture_2_draws_the_parabola_over_the_weight() -> None:
    weights = torch.linspace(0, 4, 5)
    (axes,) = names_of("lecture2_exhaustive_search")["draw_parabola"](weights, weights**2).axes
    assert axes.get_xlabel() == "weight w"
    assert axes.get_ylabel().startswith("cost")
    assert axes.lines[0].get_xydata().tolist() == [[0, 0], [1, 1], [2, 4], [3, 9], [4, 16]]


def test_lecture_2_homework_has_the_weight_to_the_right_and_the_bias_upwards() -> None:
    x = torch.tensor(X).double()
    weights, biases = (
        torch.arange(0, 41).double() / 10,
        torch.arange(-20, 6).double() / 10,
    )  # 41 and 26 of them
    draw_surface = names_of("lecture2_exhaustive_search")["draw_surface"]
    axes = draw_surface(x, 3 * x - 1, weights, biases).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("weight w", "bias b")
    assert axes.lines[0].get_xydata().tolist() == [[3, -1]]  # the star
    lowest = axes.collections[0].get_paths()[0]  # the region of the least cost, in the picture's coordinates
    assert lowest.contains_point((3, -1))
    assert not lowest.contains_point((1, -1))
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 4), (-2, 0.5))


@pytest.mark.parametrize(
    ("script", "program", "facts"),
    [
        (
            "lecture3_gradient_descent",
            gradient_descent,
            [
                "Predict (before training) 4 4.0",
                "Epoch: 0 w= 1.0933333333333333 loss= 4.666666666666667",
                "Epoch: 1 w= 1.1779555555555554 loss= 3.8362074074074086",
                "Epoch: 2 w= 1.2546797037037036 loss= 3.1535329869958857",
                "Epoch: 98 w= 1.9999387202080534 loss= 2.131797981222471e-08",
                "Epoch: 99 w= 1.9999444396553017 loss= 1.752432687141379e-08",
                "Predict (after training) 4 7.999777758621207",
            ],
        ),
        (
            "lecture3_stochastic",
            stochastic,
            [
                "Predict (before training) 4 4.0",
                "\tgrad: 1.0 2.0 -2.0",
                "\tgrad: 2.0 4.0 -7.84",
                "\tgrad: 3.0 6.0 -16.2288",
                "progress: 0 w= 1.260688 loss= 4.919240100095999",
                "progress: 1 w= 1.453417766656 loss= 2.688769240265834",
                "Predict (after training) 4 7.9999999999996945",
            ],
        ),
        ("lecture3_mini_batch", mini_batch, ["progress: 0 w= 1.221 loss= 5.461568999999999"]),
    ],
)
def test_lecture_3_line_for_line(
    script: str, program: Callable[[], list[str]], facts: list[str], printed: Callable[[str], list[str]]
) -> None:
    lines = printed(script)
    assert_same_lines(lines, program())
    assert [line for line in facts if line not in lines] == []


def test_the_notebook_of_lecture_3_is_its_scripts(printed: Callable[[str], list[str]]) -> None:
    script = names_of("make_notebook")
    notebook = script["NOTEBOOK"].read_text(encoding="utf-8")
    assert notebook == script["notebook"](), "run python scripts/make_notebook.py"
    output, space = io.StringIO(), dict[str, Any]()
    pictures = list[bytes]()
    with contextlib.redirect_stdout(output):
        for cell in json.loads(notebook)["cells"]:
            code = "".join(cell["source"])
            if cell["cell_type"] == "code":
                exec(compile(code, cell["id"], "exec"), space)
                pictures += [space["figure"]._repr_png_()] if code.endswith("\nfigure") else []
    assert output.getvalue().splitlines() == [line for name in script["SCRIPTS"] for line in printed(name)]
    assert [picture[:4] for picture in pictures] == [b"\x89PNG"] * 3


def test_lecture_4_line_for_line_in_float32(printed: Callable[[str], list[str]]) -> None:
    program = autograd()
    lines = printed("lecture4_autograd")
    assert lines[4] == "progress: 0 7.315943717956543"
    # 0.01·g is rounded to float32 in the lecture's program and not in w.add_(g, alpha): 2⁻²³ near w = 2
    for line, expected in zip(lines[: len(program)], program, strict=True):
        *_, value = map(float, NUMBER.findall(line))
        *_, expected_value = map(float, NUMBER.findall(expected))
        assert NUMBER.sub("#", line) == NUMBER.sub("#", expected)
        assert value == pytest.approx(expected_value, rel=1e-5, abs=18 * 3 * 2**-23 / (1 - 0.74))


def test_lecture_4_tells_the_loss_before_from_the_loss_after(printed: Callable[[str], list[str]]) -> None:
    difference, *losses = printed("lecture4_autograd")[-4:]
    assert difference.startswith("largest difference of the weights:")
    assert float(NUMBER.findall(difference)[-1]) <= 3 * 2**-52 / (1 - 0.74)  # as in lecture 3
    values = [float(NUMBER.findall(line)[-1]) for line in losses]
    assert values == pytest.approx([7.315943039999998, 4.919240100095999, 2.5507170889386663], rel=1e-14)
    assert [word in line for word, line in zip(("before", "after", "cost"), losses, strict=True)] == [
        True
    ] * 3


def test_lecture_4_exercises(printed: Callable[[str], list[str]]) -> None:
    gradients = [
        (line.split(":")[0].strip(), *(float(part) for part in re.findall(r"by \w+ (\S+)", line)))
        for line in printed("lecture4_exercises")
        if line.startswith("\t")
    ]
    assert gradients[:3] == [("dw", -8.0, -8.0), ("dw", 2.0, 2.0), ("db", 2.0, 2.0)]
    expected = list[tuple[str, float]]()
    for x, y in zip(X, Y, strict=True):
        residual = 0.3 * x**2 - 0.7 * x + 0.2 - y
        expected += [("dw1", 2 * residual * x**2), ("dw2", 2 * residual * x), ("db", 2 * residual)]
    for (name, by_hand, by_autograd), (wanted, value) in zip(gradients[3:], expected, strict=True):
        assert name == wanted
        assert by_hand == pytest.approx(value, rel=1e-14)
        assert by_autograd == pytest.approx(value, rel=1e-14)


def test_lecture_5_ends_at_the_numbers_of_the_lecture(printed: Callable[[str], list[str]]) -> None:
    lines = printed("lecture5_linear_regression")
    iterations = [line.split() for line in lines[:1000]]
    assert [int(number) for number, _ in iterations] == list(range(1000))
    assert all(float(b[1]) < float(a[1]) for a, b in pairwise(iterations[:900]))
    w, b = (float(line.split()[-1]) for line in lines[1000:1002])
    assert (f"{w:.5f}", f"{b:.5f}") == ("1.99964", "0.00083")
    assert lines[1002] == "y_pred =  tensor([[7.9994]])"
    assert lines[1003:1006] == [
        "eigenvalues 0.7212 and 33.279, condition number 46.1, lr limit 0.0601",
        "after 100 iterations 0.48 of the slow error is left",
        "after 1000 iterations 0.00072 of the slow error is left",
    ]
    # What is left lies on the slow eigenvector of the Hessian [[28, 12], [12, 6]]: (λ − 6, 12), λ = 0.7212.
    assert (w - 2) / b == pytest.approx(
        (0.7212 - 6) / 12, rel=1e-3
    )  # float32 has 1e-7 of 2, so 3e-4 of 0.0004
    # The mean at 3·lr and the sum at lr round differently, 2⁻⁵² an iteration at most.
    assert float(lines[1006].split()[-1]) <= 1000 * 2**-52


def test_the_sum_at_lr_is_the_mean_at_n_lr_in_exact_arithmetic() -> None:
    weights = list[tuple[Fraction, Fraction]]()
    for lr, count in ((Fraction(1, 100), 1), (Fraction(3, 100), 3)):  # the sum, the mean of three
        w, b = Fraction(3, 7), Fraction(-5, 11)
        for _ in range(10):
            residuals = [(int(x), w * int(x) + b - int(y)) for x, y in zip(X, Y, strict=True)]
            w -= lr * sum((2 * r * x for x, r in residuals), Fraction()) / count
            b -= lr * sum((2 * r for _, r in residuals), Fraction()) / count
        weights.append((w, b))
    assert weights[0] == weights[1]


def test_lecture_5_homework_gives_each_optimizer_as_many_gradients() -> None:
    script = names_of("lecture5_optimizers")
    names = {"Adagrad", "Adam", "Adamax", "ASGD", "LBFGS", "RMSprop", "Rprop", "SGD"}
    assert set(script["OPTIMIZERS"]) == names | {"GradientDescent"}
    for count in (1, 7, 60):
        losses = {name: script["fit"](optimizer, count) for name, optimizer in script["OPTIMIZERS"].items()}
        assert {len(of_optimizer) for of_optimizer in losses.values()} == {count}
    assert len({of_optimizer[0] for of_optimizer in losses.values()}) == 1  # the same start
    assert losses["SGD"] == losses["GradientDescent"]
    assert losses["LBFGS"][-1] < 1e-9 < losses["SGD"][-1] < losses["Adagrad"][-1]


def test_lecture_5_homework_shows_every_optimizer(printed: Callable[[str], list[str]]) -> None:
    lines = printed("lecture5_optimizers")
    assert len(lines) == 9
    assert all(" 1000 evaluations, loss " in line for line in lines)


def test_lecture_6_is_the_plain_loop(printed: Callable[[str], list[str]]) -> None:
    lines = printed("lecture6_logistic_regression")
    losses = [float(line.split()[1]) for line in lines[:1000]]
    numbers = [float(NUMBER.findall(line)[-1]) for line in lines[1000:1003]]
    even = float(lines[1003].split()[-2])
    differences = [float(line.split()[-1]) for line in lines[1004:1007]]
    w, b = (p.item() for p in names_of("lecture6_logistic_regression")["start"]().parameters())
    for loss in losses:
        chances = [1 / (1 + math.exp(-(w * x + b))) for x in X]
        expected = -math.log(1 - chances[0]) - math.log(1 - chances[1]) - math.log(chances[2])
        assert loss == pytest.approx(expected, rel=1e-12)
        residuals = [chance - passed for chance, passed in zip(chances, (0, 0, 1), strict=True)]
        w -= 0.01 * sum(r * x for r, x in zip(residuals, X, strict=True))
        b -= 0.01 * sum(residuals)
    rounding = 1000 * 2**-50  # of an update: a few times 2⁻⁵² of the weights, which are below 3
    assert numbers == pytest.approx([w, b, 1 / (1 + math.exp(-4 * w - b))], abs=rounding)
    assert even == pytest.approx(-b / w, abs=rounding)
    assert max(differences) <= rounding
    limit = 8 / ((17 + math.sqrt(17**2 - 4 * 6)) / 2)  # [[14, 6], [6, 3]] has trace 17 and determinant 6
    assert lines[1007:] == [
        f"the loss falls at every lr below {limit:.4f}",
        f"loss {losses[-1]:.4f} here, 0.0001 at w = 20, b = -50: there is no best w",
    ]


def test_lecture_7_keeps_the_certificates_promise(printed: Callable[[str], list[str]]) -> None:
    raw, standardised, *lines = printed("lecture7_several_features")
    assert "the condition number is 5.168e+06" in raw
    assert f"converges in {len(lines) - 6} epochs to 1e-06" in standardised
    start, left = map(float, NUMBER.findall(lines[-6])[-2:])
    assert left <= 1e-6 * start
    of_gradient, of_weight = (float(line.split()[-1]) for line in lines[-5:-3])
    assert of_gradient <= 1000 * 2**-50  # a gradient is below 2·√61917 = 500
    assert of_weight <= 1e-14
    # least squares of Grunfeld's table, by numpy's lstsq
    weights = dict(line.split(": ") for line in lines[-3:])
    expected = {"value": 0.114534363, "capital": 0.227514126, "bias": -38.41005399}
    assert {name: float(weight) for name, weight in weights.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "columns", "error"),
    [
        ("a,b,y\n1,2,5\n2,1,4\n3,5,13\n4,1,6\n", ("y",), ""),
        ("a,b,y\n1,2,1\n2,1,2\n3,5,3\n", ("b", "a"), ""),
        ("a,b,y\n1,2,1\n2,2,2\n3,2,3\n", ("y",), "column b is the same in every row"),
        ("a,b,y\n1,2,1\n2,2,2\n3,2,3\n", ("y", "a,rooms"), "no column 'rooms'"),
    ],
)
def test_lecture_7_reads_any_table(
    text: str,
    columns: tuple[str, ...],
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.csv").write_text(text)
    main = names_of("lecture7_several_features")["main"]
    if error:
        with pytest.raises(InputError, match=error):
            main("own.csv", *columns)
    else:
        main("own.csv", *columns)
        (distance,) = re.findall("best weights: (.*) at the start, (.*) now", capsys.readouterr().out)
        start, left = map(float, distance)
        assert left <= 1e-6 * start


@pytest.mark.parametrize("installed", [True, False])
def test_lecture_9_learns_ten_classes(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if installed:
        pytest.importorskip("sklearn.datasets")
    else:
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    script = names_of("lecture9_softmax")
    name, x, y = script["table"]()
    assert name.endswith("digits of scikit-learn") == installed
    assert x.shape[1] == 64
    assert set(y.tolist()) == set(range(10))
    lr = script["safe_rate"](x)
    model, losses = script["by_pytorch"](x, y, lr)
    assert losses[0] == pytest.approx(math.log(10), rel=1e-14)  # of equal chances
    assert all(after < before for before, after in pairwise(losses))
    assert (model(x).argmax(1) == y).double().mean() > 0.9
    weight, apart = script["by_hand"](x, y, lr)
    assert apart <= 1e-14  # a gradient is below 1, and is a mean of n such numbers
    assert (weight - model.weight).abs().max() <= 1e-13  # 100 updates of it


def test_lecture_9_says_its_table_and_prints_every_loss(printed: Callable[[str], list[str]]) -> None:
    table, rate, *lines = printed("lecture9_softmax")
    assert table.startswith("table: ")
    assert rate.startswith("the loss falls at every lr below ")
    assert [int(line.split()[0]) for line in lines[:-3]] == list(range(100))
    assert float(lines[-3].split()[-2]) > 85


def test_lecture_8_is_the_same_run_as_without_its_dataloader(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "lecture8_dataloader.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    *lines, by_loader, by_slices = done.stdout.splitlines()
    assert by_loader.split()[-1] == by_slices.split()[-1]
    epochs = [line.split() for line in lines]
    assert [(int(epoch), int(i)) for epoch, i, _ in epochs] == [(e, i) for e in range(100) for i in range(2)]
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()
    w, losses = 1.0, list[float]()  # the first epoch by hand: the losses are those before the updates
    for batch in (order[:2], order[2:]):
        losses.append(sum((w * X[i] - Y[i]) ** 2 for i in batch) / len(batch))
        w -= 0.01 * sum(2 * X[i] * (w * X[i] - Y[i]) for i in batch) / len(batch)
    assert [float(loss) for *_, loss in epochs[:2]] == pytest.approx(losses, rel=1e-14)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["runs/lecture8/cost.png"]
