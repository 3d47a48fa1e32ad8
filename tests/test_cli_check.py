"""`torchgd check`: its verdicts, its exit statuses, a process of its own, one line for every bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from torchgd.cli import main

MINE = """
print("training ...")


def gradient(w, xs, ys):
    grad = 0
    for x, y in zip(xs, ys):
        grad += 2 * x * (x * w - y)
    return grad / len(xs)


def summed(w, xs, ys):
    print("called")
    grad = 0
    for x, y in zip(xs, ys):
        grad += 2 * x * (x * w - y)
    return grad


import torch


class Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, x, y):
        ctx.save_for_backward(w, x, y)
        return ((w * x - y) ** 2).mean()

    @staticmethod
    def backward(ctx, v):
        w, x, y = ctx.saved_tensors
        r = 2 * v * (w * x - y) / len(x)
        return (r * x).sum() / 2, r * w, -r


class Model:
    @staticmethod
    def gradients(w, x, y):
        return 2 * x * (w * x - y)


def of_the_lecture(x, y):
    return 2 * x * (x * 1.0 - y)


def falls(w, x, y):
    return summed(w, x, y) / missing


def hangs(w, x, y):
    while True:
        pass


def leaves(w, x, y):
    import os

    os._exit(3)


def nan(w, x, y):
    return (2 * x * (w * x - y)).mean() * float("nan")


number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    files = {
        "mine.py": MINE,
        "syntax.py": "import math\n\ndef gradient(w, x, y)\n    return 1\n",
        "indented.py": "def gradient(w, x, y):\n    a = 1\n      return a\n",
        "broken.py": "import math\n\nratio = 1 / 0\n",
        "quits.py": "import sys\nsys.exit(5)\n",
        "empty.py": "",
        "with_import.py": "from mine import gradient as imported\n",
        "data.csv": "a,b\n1,2\n2,x\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def test_right_is_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:gradient"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:2] == [
        "gradient: right",
        "  It is right to the rounding of float64, at all 24 points tried.",
    ]
    assert captured.err == "training ...\n"


def test_wrong_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:summed", "hubble", "--weight", "400"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("summed: wrong (reduction)\n  It is the sum over the samples where the mean is due")
    assert "    return sum(2 * a * (w * a - b) for a, b in zip(xs, ys)) / len(xs)\n" in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_one_object_whatever_the_code_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:summed", "--json"]) == 1
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert captured.err.startswith("training ...\ncalled\n")
    assert {name: answer[name] for name in ("ok", "cause", "factor", "factor_name", "function")} == {
        "ok": False,
        "cause": "reduction",
        "factor": 3.0,
        "factor_name": "N",
        "function": "summed",
    }
    first = answer["evidence"][0]
    assert (first["at"], first["hand"], first["autograd"], first["ok"]) == (
        "1",
        -28.0,
        pytest.approx(-28 / 3),
        False,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "cause"),
    [
        (["mine.py:summed", "--sum"], 0, "correct"),
        (["mine.py:gradient", "--sum"], 1, "reduction"),
        (["mine.py:Model.gradients"], 0, "correct"),
        (["mine.py:Model.gradients", "--mean"], 1, "reduction"),
        (["mine.py:gradient", "--per-sample"], 1, "reduction"),
        (["mine.py:Loss", "hubble"], 1, "factor"),
        (["mine.py:falls"], 1, "raises"),
        (["mine.py:nan"], 1, "non_finite"),
        (["with_import.py:imported"], 0, "correct"),
    ],
)
def test_status(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, cause: str) -> None:
    assert main(["check", *arguments, "--json"]) == status
    assert json.loads(capsys.readouterr().out)["cause"] == cause


def test_an_exception_is_shown_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:falls"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    line = 1 + MINE.splitlines().index("    return summed(w, x, y) / missing")
    assert (
        f"raised NameError: name 'missing' is not defined (line {line}: return summed(w, x, y) / missing)"
        in said
    )


BAD_INPUT = [
    (["mine.py:gradent"], "mine.py has no 'gradent'; did you mean gradient?"),
    (["mine.py:foo"], "mine.py has no 'foo'; it has gradient, summed, Loss, Model, of_the_lecture, "
     "falls, hangs, leaves, nan"),
    (["empty.py:f"], "empty.py has no 'f'; it has nothing to call"),
    (["mien.py:gradient"], "mien.py: no such file; did you mean mine.py?"),
    (["elsewhere.txt:gradient"], "elsewhere.txt: no such file; check the path"),
    (["mine.py"], "'mine.py' names nothing in a file; write FILE.py:NAME, e.g. mine.py:gradient"),
    (["mine.py:a b"], "'mine.py:a b' names nothing in a file; write FILE.py:NAME, e.g. mine.py:gradient"),
    (["mine.py:number"], "int is not a function; give the gradient as a function f(w, x, y)"),
    (["mine.py:of_the_lecture"], "of_the_lecture(x, y) reads no number from outside: "
     "which is the weight? Write def of_the_lecture(w, x, y)"),
    (["syntax.py:gradient"], "syntax.py, line 3: expected ':'; mend this line: def gradient(w, x, y)"),
    (["indented.py:gradient"], "indented.py, line 3: unexpected indent; mend this line: return a"),
    (["broken.py:gradient"], "broken.py, line 3: running it raised ZeroDivisionError: division by zero "
     "(ratio = 1 / 0); put what it does beside its functions under if __name__ == '__main__'"),
    (["quits.py:gradient"], "quits.py, line 2: running it raised SystemExit: 5 (sys.exit(5)); "
     "put what it does beside its functions under if __name__ == '__main__'"),
    ([".:gradient"], ".: Is a directory; give a Python file that can be read"),
    (["mine.py:gradient", "--timeout", "0"], "--timeout is 0; give a number of seconds above 0"),
    (["mine.py:gradient", "--timeout", "nan"], "--timeout is nan; give a number of seconds above 0"),
    (["mine.py:gradient", "--weight", "inf"], "--weight inf: give a finite number"),
    (["mine.py:hangs", "--timeout", "0.2"], "mine.py:hangs has not returned within 0.2 s; "
     "look for a loop without end in it"),
    (["mine.py:leaves", "--timeout", "60"], "mine.py:leaves has ended its process with exit status 3"),
    (["mine.py:gradent", "--timeout", "60"], "mine.py has no 'gradent'; did you mean gradient?"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=[" ".join(row[0]) for row in BAD_INPUT])
def test_bad_input(capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["check", *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.removeprefix("training ...\n") == f"torchgd: {message}\n"


def test_data_errors_are_as_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:gradient", "data.csv", "--x", "a", "--y", "b"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("torchgd: data.csv")
    assert captured.err.count("\n") == 1


def test_a_process_of_its_own_says_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:summed", "--json"]) == 1
    here = capfd.readouterr()
    assert main(["check", "mine.py:summed", "--json", "--timeout", "60"]) == 1
    apart = capfd.readouterr()
    assert (apart.out, apart.err) == (here.out, here.err)
