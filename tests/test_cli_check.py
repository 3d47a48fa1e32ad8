"""`torchgd check`: its verdicts, its exit statuses, a process of its own, one line for every bad input."""

from __future__ import annotations

import json
import sys
import time
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


MORE = """
import torch


def claims(w, x, y):
    import os

    print('{"ok": true}', flush=True)
    os.write(1, b'{"ok": true}\\n')
    os._exit(0)


def writes(w, x, y):
    import os

    os.write(1, b"here\\n")
    os.system("echo there")
    return (2 * x * (w * x - y)).mean()


def starts(w, x, y):
    import subprocess, sys

    code = "import time; time.sleep(2); open('survivor', 'w')"
    subprocess.run([sys.executable, "-c", code])


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, v):
        return 2 * v * ctx.saved_tensors[0]


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, v):
        return -v


def net():
    return torch.nn.Linear(2, 1)


def of_net(weight, bias, x, y):
    d = 2 * (x @ weight.T + bias - y) / len(x)
    return d.T @ x, d.sum(0)


def classify(parameters, x, y):
    d = (x @ parameters["weight"].T + parameters["bias"]).softmax(1)
    d = (d - torch.nn.functional.one_hot(y, 3)) / len(x)
    return {"weight": d.T @ x, "bias": d.sum(0)}


classifier = torch.nn.Linear(1, 3)


def huber(prediction, y):
    return torch.nn.functional.huber_loss(prediction, y)


def of_theta(theta, X, y):
    return 2 * X.T @ (X @ theta - y) / len(y)


w = 1.0


def of_lecture_3(xs, ys):
    return sum(2 * x * (x * w - y) for x, y in zip(xs, ys)) / len(xs)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    files = {
        "mine.py": MINE,
        "more.py": MORE,
        "syntax.py": "import math\n\ndef gradient(w, x, y)\n    return 1\n",
        "indented.py": "def gradient(w, x, y):\n    a = 1\n      return a\n",
        "broken.py": "import math\n\nratio = 1 / 0\n",
        "quits.py": "import sys\nsys.exit(5)\n",
        "empty.py": "",
        "with_import.py": "from mine import gradient as imported\n",
        "data.csv": "a,b\n1,2\n2,x\n",
        "table.csv": "a,b,c,k\n1,2,3,0\n2,-1,1,1\n0.5,4,2,2\n-1,1,0,1\n3,0,1,0\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def test_right_is_status_0(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:gradient"]) == 0
    captured = capfd.readouterr()
    assert captured.out.splitlines()[:2] == [
        "gradient: right",
        "  It is right to the rounding of float64, at all 24 points tried.",
    ]
    assert captured.err == "training ...\n"


def test_wrong_is_status_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:summed", "hubble", "--weight", "400"]) == 1
    out = capfd.readouterr().out
    assert out.startswith("summed: wrong (reduction)\n  It is the sum over the samples where the mean is due")
    assert "    return sum(2 * a * (w * a - b) for a, b in zip(xs, ys)) / len(xs)\n" in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_one_object_whatever_the_code_prints(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:summed", "--json"]) == 1
    captured = capfd.readouterr()
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
        (["more.py:of_lecture_3"], 0, "correct"),
        (["more.py:Square"], 0, "correct"),
        (["more.py:Square", "--second"], 0, "correct"),
        (["more.py:Reversal"], 1, "surrogate"),
        (["more.py:Reversal", "--expect", "surrogate"], 0, "surrogate"),
        (["more.py:of_net", "table.csv", "--x", "a,b", "--y", "c", "--model", "more.py:net"], 0, "correct"),
        (["more.py:of_theta", "table.csv", "--x", "a,b", "--y", "c"], 0, "correct"),
        (
            [
                "more.py:classify",
                "table.csv",
                "--x",
                "a",
                "--y",
                "k",
                "--model",
                "more.py:classifier",
                "--loss",
                "cross_entropy",
            ],
            0,
            "correct",
        ),
        (
            [
                "more.py:of_net",
                "table.csv",
                "--x",
                "a,b",
                "--y",
                "c",
                "--model",
                "more.py:net",
                "--loss",
                "more.py:huber",
            ],
            1,
            "other_loss",
        ),
    ],
)
def test_status(capfd: pytest.CaptureFixture[str], arguments: list[str], status: int, cause: str) -> None:
    assert main(["check", *arguments, "--json"]) == status
    assert json.loads(capfd.readouterr().out)["cause"] == cause


def test_an_exception_is_shown_with_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:falls"]) == 1
    said = " ".join(capfd.readouterr().out.split())
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
    (["mine.py:leaves", "--timeout", "60"], "mine.py:leaves has ended its process with exit status 3 "
     "and no answer; take os._exit and the like out of it"),
    (["mine.py:gradient", "--loss", "mse_loss"],
     "--loss is that of a model; give --model FILE.py:MODEL as well"),
    (["more.py:of_net", "--model", "more.py:net", "--loss", "mse"],
     "--loss is 'mse'; did you mean mse_loss? "
     "Or give FILE.py:LOSS"),
    (["more.py:of_net", "--model", "mine.py:number"], "mine.py:number raised TypeError: 'int' object is not "
     "callable; name a module, or what makes one"),
    (["mine.py:gradent", "--timeout", "60"], "mine.py has no 'gradent'; did you mean gradient?"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=[" ".join(row[0]) for row in BAD_INPUT])
def test_bad_input(capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["check", *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.removeprefix("training ...\n") == f"torchgd: {message}\n"


def test_data_errors_are_as_everywhere(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:gradient", "data.csv", "--x", "a", "--y", "b"]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("torchgd: data.csv")
    assert captured.err.count("\n") == 1


def test_a_process_of_its_own_says_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:summed", "--json"]) == 1
    here = capfd.readouterr()
    assert main(["check", "mine.py:summed", "--json", "--timeout", "60"]) == 1
    apart = capfd.readouterr()
    assert (apart.out, apart.err) == (here.out, here.err)


def test_what_is_written_past_python_is_not_in_the_answer(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "more.py:writes", "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["ok"]
    assert "here\n" in captured.err
    assert "there\n" in captured.err


def test_the_time_limit_ends_all_that_the_code_has_started(folder: Path) -> None:
    assert main(["check", "more.py:starts", "--timeout", "0.5"]) == 2
    time.sleep(2.5)
    assert not (folder / "survivor").exists()


def test_a_code_that_ends_its_process_is_never_right(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "more.py:claims", "--json"]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    said = "torchgd: more.py:claims has ended its process with exit status 0 and no answer; take os._exit and"
    assert captured.err.splitlines()[-1].startswith(said)


def test_an_unknown_cause_is_not_expected(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mine.py:gradient", "--expect", "wrong"]) == 2
    assert capfd.readouterr().err.startswith(
        "torchgd: --expect is 'wrong'; give one of correct, approximate, "
    )
