"""The options that several commands share, and how their words become objects."""

from __future__ import annotations

import difflib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchgd.errors import InputError
from torchgd.plan import LOSSES, METHODS, MOST_SEED, Plan

if TYPE_CHECKING:
    import torch

    from torchgd.data.dataset import Dataset

MOST_EPOCHS = 10**12
ORDERS = ("sequential", "shuffled", "replacement")


def one_of(words: Iterable[str]) -> Callable[[str], str]:
    """Reads one of these words."""
    allowed = list(words)

    def read(text: str) -> str:
        if text in allowed:
            return text
        near = difflib.get_close_matches(text, allowed, n=1, cutoff=0.5)
        mend = f"; did you mean {near[0]}?" if near else ""
        raise typer.BadParameter(f"{text}: give one of {', '.join(allowed)}{mend}")

    return read


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Reads a whole number in this range."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low or (high is not None and number > high):
            wanted = f"{low} or more" if high is None else f"{low} to {high}"
            raise typer.BadParameter(f"{text}: give a whole number, {wanted}")
        return number

    return read


def real(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """Reads a finite number between these."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and low < number < high):
            ends = f" above {low:g}" if low > -math.inf else ""
            ends += f" and below {high:g}" if high < math.inf else ""
            raise typer.BadParameter(f"{text}: give a finite number{ends}")
        return number

    return read


def _words(words: Iterable[str], help: str) -> typer.models.OptionInfo:
    listed = list(words)
    found: typer.models.OptionInfo = typer.Option(parser=one_of(listed), metavar="|".join(listed), help=help)
    return found


DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="[DATA]",
        help="course, hubble, grunfeld, a CSV, Parquet or .npz file; none where --x and --y are .npy files.",
        show_default="course",
    ),
]
XOption = Annotated[
    str | None, typer.Option("--x", help="The column of x in the file, or an .npy file.", show_default="x")
]
YOption = Annotated[
    str | None, typer.Option("--y", help="The column of y in the file, or an .npy file.", show_default="y")
]
EncodingOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The encoding of a CSV file, e.g. gbk.", show_default="utf-8"),
]
DropMissingOption = Annotated[
    bool, typer.Option("--drop-missing", help="Leave out the rows in which x or y is missing; says how many.")
]
BiasOption = Annotated[bool, typer.Option("--bias", help="Train y = w·x + b.")]
StandardizeOption = Annotated[
    bool,
    typer.Option("--standardize", help="Give every x the same size first; the weights keep their own units."),
]
MethodOption = Annotated[str, _words(METHODS, "Which samples one update sees: all, one, or a batch.")]
LrOption = Annotated[str, typer.Option("--lr", metavar="FLOAT|auto", help="The learning rate.")]
EpochsOption = Annotated[
    int, typer.Option(parser=whole(1, MOST_EPOCHS), metavar="N", help="How many passes over the data.")
]
BatchSizeOption = Annotated[
    int | None, typer.Option(parser=whole(1), metavar="N", help="Samples in a mini-batch.")
]
OrderOption = Annotated[str, _words(ORDERS, "How the samples come.")]
SeedOption = Annotated[
    int, typer.Option(parser=whole(0, MOST_SEED), metavar="N", help="Seeds the order of the samples.")
]
WeightOption = Annotated[
    float, typer.Option(parser=real(), metavar="FLOAT", help="The weight before training, w0.")
]
GradientOption = Annotated[str, _words(("hand", "autograd"), "Written by hand, or by autograd.")]
EngineOption = Annotated[
    str,
    _words(
        ("auto", "loop", "scan"),
        "loop: one update after another. scan: an epoch as one affine map, for large data.",
    ),
]
DeviceOption = Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")]
DtypeOption = Annotated[str, _words(("float32", "float64"), "The floating-point type of the computation.")]
LossOption = Annotated[
    str, _words(LOSSES, "What is descended: the mean of the squares, their sum, or half the mean.")
]
ToleranceOption = Annotated[
    float,
    typer.Option(parser=real(0, 1), metavar="FLOAT", help="The part of the error that may be left."),
]
LogdirOption = Annotated[Path, typer.Option(metavar="FOLDER", help="The folder of all runs.")]
PictureOption = Annotated[
    Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw the picture into this file.")
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the run of this name; else the new run takes the next number."),
]
NoLogOption = Annotated[bool, typer.Option("--no-log", help="Write nothing: no run, no picture.")]
NameOption = Annotated[str | None, typer.Option(help="The run's name.", show_default="the method's")]
PredictOption = Annotated[
    float | None, typer.Option(parser=real(), metavar="X", help="Predict y for this x as well.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def plan(
    method: str, batch_size: int | None, order: str, seed: int, lr: str = "auto", loss: str = "mean"
) -> Plan:
    """The plan that the words make."""
    return Plan(method=method, batch_size=batch_size, order=order, seed=seed, lr=learning_rate(lr), loss=loss)


@contextmanager
def folder(logdir: Path, no_log: bool) -> Iterator[Path]:
    """The folder to write to: one that is removed again where nothing is to be kept."""
    if not no_log:
        yield logdir
        return
    with tempfile.TemporaryDirectory(prefix="torchgd-") as nowhere:
        yield Path(nowhere)


def learning_rate(text: str) -> float | None:
    """The learning rate as a number above 0, or None for `auto`."""
    if text == "auto":
        return None
    try:
        lr = float(text)
    except ValueError:
        raise InputError(f"--lr: {text!r} is not a number; give one above 0, or auto") from None
    if not (math.isfinite(lr) and lr > 0):
        raise InputError(f"--lr: {text} is not a finite number above 0; give e.g. 0.01, or auto")
    return lr


def torch_device(name: str, dtype: str) -> torch.device:
    """The device of the option's word; `auto` is CUDA where there is one, else the CPU."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (index and not (kind == "cuda" and index.isdecimal())):
        raise InputError(f"--device: unknown device {name!r}; give auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= int(index or 0):
            have = "no CUDA device" if count == 0 else f"CUDA devices 0 to {count - 1} only"
            raise InputError(f"--device {name}: this machine has {have}; give --device cpu")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("--device mps: this machine has none; give --device cpu")
        if dtype == "float64":
            raise InputError("--device mps: it has no float64; give --dtype float32 too")
    return torch.device(name)


def check_file(data: str, x: str | None, y: str | None, encoding: str | None) -> None:
    """Refuse a file that is not there, or has not these columns, before the import of torch."""
    from torchgd.data.files import WORDS, Wanted, check_word
    from torchgd.data.table import read_layout

    path = Path(data)
    # under torchrun the other processes would say the same
    if data in {"", *WORDS} or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    check_word(data)
    if path.suffix.casefold() not in {".npz", ".npy", ".parquet"}:
        read_layout(path, Wanted("x" if x is None else x, "y" if y is None else y), encoding)


def read_data(
    data: str,
    x: str | None,
    y: str | None,
    dtype: str,
    device: str,
    encoding: str | None = None,
    drop_missing: bool = False,
    *,
    several: bool = False,
) -> Dataset:
    """The data that the words name, on the device, in the dtype; of one x, if not of several."""
    check_file(data, x, y, encoding)
    import torch

    from torchgd.data.loading import open_data

    kind = torch.float32 if dtype == "float32" else torch.float64
    place = torch_device(device, dtype)
    read = open_data(data, x=x, y=y, dtype=kind, device=place, encoding=encoding, drop_missing=drop_missing)
    if read.features and not several:
        what = f"{data} has several x ({', '.join(read.features[:4])}), and this command is for one"
        raise InputError(f"{what}; give one, e.g. --x {read.features[0]}")
    if drop_missing:
        rows = f"{read.dropped} of {len(read) + read.dropped} rows"
        typer.echo(f"{rows} left out, in which x or y is missing", err=True)
    return read
