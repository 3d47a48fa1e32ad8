"""Bad input on the command line: status 2, one line that says what, where and how to mend it, no file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from torchgd.cli import main

FILES = {
    "ok.csv": "x,y\n1,2\n2,4\n3,6\n",
    "empty.csv": "",
    "header.csv": "x,y\n",
    "one.csv": "x\n1\n2\n",
    "names.csv": "hours,points\n1,2\n2,4\n",
    "text.csv": "x,y\n1,2\ntwo,4\n",
    "blank.csv": "x,y\n1,2\n,4\n",
    "nan.csv": "x,y\n1,2\n2,nan\n",
    "inf.csv": "x,y\ninf,2\n2,4\n",
    "ragged.csv": "x,y\n1,2\n2\n",
    "semicolons.csv": "x;y\n1;2\n",
    "thousands.csv": 'x,y\n"1,000",2\n2,4\n',
    "zero.csv": "x,y\n0,1\n0,2\n",
    "huge.csv": "x,y\n1e200,1\n2,2\n",
}
ARRAYS = {
    "no_x.npz": {"a": np.ones(3), "y": np.ones(3)},
    "no_y.npz": {"x": np.ones(3)},
    "lengths.npz": {"x": np.ones(3), "y": np.ones(4)},
    "complex.npz": {"x": np.ones(3, dtype=complex), "y": np.ones(3)},
    "objects.npz": {"x": np.array([1, "a", None], dtype=object), "y": np.ones(3)},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text, encoding="utf-8", newline="")
    for name, arrays in ARRAYS.items():
        np.savez(name, **arrays)  # type: ignore[arg-type]
    np.save("three.npy", np.ones(3))
    np.save("four.npy", np.ones(4))
    Path("folder").mkdir()
    Path("file").write_text("", encoding="utf-8")
    return tmp_path


DATA_ERRORS = [
    ("no.csv", "no.csv: no such file; check the path"),
    ("folder", "folder: is a folder; give a file"),
    ("empty.csv", "empty.csv: the file is empty; give one that holds data"),
    ("header.csv", "header.csv: has a header but no samples; add a line for each sample"),
    (
        "one.csv",
        "one.csv, line 1: no column 'y'; there is 'x'; choose the columns by name with x and y (--x, --y)",
    ),
    (
        "names.csv",
        "names.csv, line 1: no column 'x'; there is 'hours', 'points'; "
        "choose the columns by name with x and y (--x, --y)",
    ),
    ("ok.csv --x X", "ok.csv, line 1: no column 'X'; there is 'x', 'y'; did you mean 'x'?"),
    ("text.csv", "text.csv, line 3, column 'x': 'two' is not a number; write one, such as 1.5"),
    (
        "blank.csv",
        "blank.csv, line 3, column 'x': is blank; "
        "write a number, or leave such lines out with drop_missing (--drop-missing)",
    ),
    ("nan.csv", "nan.csv, line 3, column 'y': 'nan' is not finite; correct it, or leave the sample out"),
    ("inf.csv", "inf.csv, line 2, column 'x': 'inf' is not finite; correct it, or leave the sample out"),
    (
        "ragged.csv",
        "ragged.csv, line 3: has 1 cells, but the header has 2; "
        "give each column one value, without thousands separators",
    ),
    (
        "semicolons.csv --x z",
        "semicolons.csv, line 1: no column 'z'; there is 'x', 'y'; "
        "choose the columns by name with x and y (--x, --y)",
    ),
    ("ok.csv --x x --x=y", "--x is given 2 times; give it once"),
    ("--encoding gbk", "--encoding is for a table in a file; leave it out, or name the file"),
    (
        "thousands.csv",
        "thousands.csv, line 2, column 'x': '1,000' has thousands separators; write it without commas",
    ),
    ("zero.csv", "zero.csv: x is 0 in every sample, so there is nothing to learn; give other data"),
    ("huge.csv", "the largest |x| is 1e+200, its square is out of range; use another unit"),
    (
        "no_x.npz",
        "no_x.npz: no array 'x'; there is 'a', 'y'; choose the arrays by name with x and y (--x, --y)",
    ),
    ("no_y.npz", "no_y.npz: no array 'y'; there is 'x'; choose the arrays by name with x and y (--x, --y)"),
    ("lengths.npz", "lengths.npz: 'x' has 3 samples, 'y' 4; give one y for each x"),
    ("complex.npz", "complex.npz, array 'x': holds 'complex128', not real numbers; save it as float64"),
    (
        "objects.npz",
        "objects.npz, array 'x': holds pickled objects, which are never loaded; save it as float64",
    ),
    ("--x three.npy --y four.npy", "three.npy: has 3 samples, four.npy 4; give one y for each x"),
    ("--x three.npy", "--y is missing; give both --x and --y as .npy files"),
    ("three.npy", "'three.npy' holds one vector; give x and y each as an .npy file (--x, --y)"),
    ("hubble --x a", "hubble has its own x and y; leave out --x and --y"),
]

NOT_ABOVE_0 = "is not a finite number above 0; give e.g. 0.01, or auto"
OPTION_ERRORS = [
    ("--lr 0", f"--lr: 0 {NOT_ABOVE_0}"),
    ("--lr -0.0", f"--lr: -0.0 {NOT_ABOVE_0}"),
    ("--lr -1", f"--lr: -1 {NOT_ABOVE_0}"),
    ("--lr nan", f"--lr: nan {NOT_ABOVE_0}"),
    ("--lr inf", f"--lr: inf {NOT_ABOVE_0}"),
    ("--lr 1e-400", f"--lr: 1e-400 {NOT_ABOVE_0}"),
    ("--lr fast", "--lr: 'fast' is not a number; give one above 0, or auto"),
    ("--weight nan", "--weight nan: give a finite number"),
    ("--weight inf", "--weight inf: give a finite number"),
    ("--weight 1e200", "the cost before the first update is not finite; check the data and the weight"),
    (
        "--weight 1e30 --dtype float32",
        "the cost before the first update is not finite; check the data and the weight",
    ),
    ("--device tpu", "--device: unknown device 'tpu'; give auto, cpu, cuda, cuda:N or mps"),
    ("--device cuda:x", "--device: unknown device 'cuda:x'; give auto, cpu, cuda, cuda:N or mps"),
    ("--logdir file", "file/course/gd: cannot be made (Not a directory); give another --logdir"),
]

TRAIN_ERRORS = [
    ("--name a:b", "the name 'a:b' holds ':'; use letters, digits, '-', '_' and '.'"),
    ("--name a/b", "the name 'a/b' holds '/'; use letters, digits, '-', '_' and '.'"),
    ("--name con", "the name 'con' is not a folder name on every system; use e.g. 'sgd-1'"),
    (
        "--batch-size 2",
        "gd takes no batch size; leave out batch_size (--batch-size), or take the method minibatch",
    ),
    ("--method minibatch", "minibatch needs a batch size; give e.g. batch_size=2 (--batch-size 2)"),
    ("--method minibatch --batch-size 4", "batch_size is 4, but there are 3 samples; give 1 to 3"),
    (
        "--engine scan --gradient autograd",
        "--engine scan composes the gradient by hand, not autograd's; give --engine loop",
    ),
    ("--resume", "runs/course/gd: no such run to resume; leave out --resume to begin one"),
]

USAGE_ERRORS = [
    ("train --epochs 0", "--epochs 0: give a whole number, 1 to 1000000000000"),
    ("train --epochs -3", "--epochs -3: give a whole number, 1 to 1000000000000"),
    ("train --epochs 2.5", "--epochs 2.5: give a whole number, 1 to 1000000000000"),
    ("train --epochs 1" + 20 * "0", f"--epochs 1{20 * '0'}: give a whole number, 1 to 1000000000000"),
    ("train --method minibatch --batch-size 0", "--batch-size 0: give a whole number, 1 or more"),
    ("train --method sdg", "--method sdg: give one of gd, sgd, minibatch; did you mean sgd?"),
    ("train --dtype float16", "--dtype float16: give one of float32, float64; did you mean float"),
    ("train --order shuffle", "give one of sequential, shuffled, replacement; did you mean shuffled?"),
    ("train --gradient numeric", "--gradient numeric: give one of hand, autograd"),
    ("train --engine fast", "--engine fast: give one of auto, loop, scan"),
    ("train --seed -1", "--seed -1: give a whole number, 0 to 9223372036854775807"),
    ("train --seed 99999999999999999999999", "--seed 99999999999999999999999: give a whole number, 0 to"),
    ("train --predict x", "--predict x: give a finite number"),
    ("train --wieght 2", "--wieght"),
    ("train a b", "unexpected extra argument"),
    ("trian", "No such command 'trian'. Did you mean 'train'?"),
    ("lesson --batch-size 0", "--batch-size 0: give a whole number, 1 or more"),
    ("experiment luck", "NAME luck: give one of randomness, tradeoff, smoothing, saddle, zero-grad"),
    ("compare --steps x", "--steps x: give a whole number, 1 or more"),
    ("sweep --tolerance 2", "--tolerance 2: give a finite number above 0 and below 1"),
]


def complaint(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line on standard error; status 2, nothing on standard output, nothing new in the folder."""
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("torchgd: ")
    assert printed.err.count("\n") == 1
    assert printed.err.endswith("\n")
    assert sorted(Path().rglob("*")) == before
    return printed.err.removeprefix("torchgd: ").rstrip("\n")


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["", "json"])
@pytest.mark.parametrize(("arguments", "message"), DATA_ERRORS + OPTION_ERRORS + TRAIN_ERRORS)
def test_train(capfd: pytest.CaptureFixture[str], arguments: str, message: str, as_json: list[str]) -> None:
    assert complaint(capfd, ["train", *arguments.split(), *as_json]) == message


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["", "json"])
@pytest.mark.parametrize(("arguments", "message"), DATA_ERRORS + OPTION_ERRORS)
def test_lesson(capfd: pytest.CaptureFixture[str], arguments: str, message: str, as_json: list[str]) -> None:
    assert complaint(capfd, ["lesson", *arguments.split(), *as_json]) == message


@pytest.mark.parametrize(("arguments", "message"), USAGE_ERRORS)
def test_usage(capfd: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    assert message in complaint(capfd, arguments.split())


def test_an_override_without_resume(capfd: pytest.CaptureFixture[str]) -> None:
    message = complaint(capfd, ["train", "--override", "lr"])
    assert message == "--override is for --resume; give both, or leave it out"


def test_an_empty_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert complaint(capfd, ["train", "--name", ""]) == (
        "the name '' is not a folder name on every system; use e.g. 'sgd-1'"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    message = complaint(capfd, ["train", "--device", "cuda"])
    assert message == "--device cuda: this machine has no CUDA device; give --device cpu"
    message = complaint(capfd, ["lesson", "--device", "cuda:1"])
    assert message == "--device cuda:1: this machine has no CUDA device; give --device cpu"


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an mps device")
def test_mps_where_there_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        complaint(capfd, ["train", "--device", "mps"])
        == "--device mps: this machine has none; give --device cpu"
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_log_folder_without_the_right_to_write(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    folder.chmod(0o555)
    assert complaint(capfd, ["train"]) == (
        "runs/course/gd: cannot be made (Permission denied); give another --logdir"
    )


FINE = {
    "bom.csv": "\ufeffx,y\n1,2\n2,4\n3,6\n",
    "windows.csv": "x,y\r\n1,2\r\n2,4\r\n3,6\r\n",
    "quoted.csv": '"x","y"\n"1","2"\n"2","4"\n"3","6"\n',
    "blank lines.csv": "\nx,y\n1,2\n\n2,4\n3,6\n\n",
    "spaces.csv": "x, y\n1, 2\n2, 4\n3, 6\n",
    "integers.npz": "",
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_fine(capsys: pytest.CaptureFixture[str], name: str) -> None:
    if name.endswith(".npz"):
        np.savez(name, x=np.array([1, 2, 3]), y=np.array([2, 4, 6]))
    else:
        Path(name).write_text(FINE[name], encoding="utf-8", newline="")
    assert main(["train", name, "--epochs", "2"]) == 0
    assert "weight   1.177955556" in capsys.readouterr().out
