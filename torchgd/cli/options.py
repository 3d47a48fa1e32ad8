"""The options that several commands share, and how their words become objects."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from torchgd.errors import InputError

if TYPE_CHECKING:
    import torch

    from torchgd.data.dataset import Dataset


class Method(str, Enum):
    gd = "gd"
    sgd = "sgd"
    minibatch = "minibatch"


class Order(str, Enum):
    sequential = "sequential"
    shuffled = "shuffled"
    replacement = "replacement"


class Sampling(TypedDict):
    """Which samples one update sees, as the certificate and the configuration take it."""

    method: str
    batch_size: int | None
    order: str


class Gradient(str, Enum):
    hand = "hand"
    autograd = "autograd"


class Engine(str, Enum):
    auto = "auto"
    loop = "loop"
    scan = "scan"


class Dtype(str, Enum):
    float32 = "float32"
    float64 = "float64"


DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="[DATA]",
        help="course, hubble, a CSV file, or an .npz file; or none, with --x and --y naming .npy files.",
        show_default=False,
    ),
]
XOption = Annotated[
    str | None, typer.Option("--x", help="The column of x in the file (x unless told), or an .npy file.")
]
YOption = Annotated[
    str | None, typer.Option("--y", help="The column of y in the file (y unless told), or an .npy file.")
]
MethodOption = Annotated[Method, typer.Option(help="Which samples one update sees: all, one, or a batch.")]
LrOption = Annotated[str, typer.Option("--lr", metavar="FLOAT|auto", help="The learning rate.")]
EpochsOption = Annotated[
    int, typer.Option(min=1, max=10**12, metavar="N", help="How many passes over the data.")
]
BatchSizeOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Samples in a mini-batch.")]
OrderOption = Annotated[
    Order, typer.Option(metavar="ORDER", help="How the samples come: sequential, shuffled or replacement.")
]
SeedOption = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, metavar="N", help="Seeds the order of the samples.")
]
WeightOption = Annotated[float, typer.Option(help="The weight before training, w0.")]
GradientOption = Annotated[Gradient, typer.Option(help="Written by hand, or by autograd.")]
EngineOption = Annotated[
    Engine,
    typer.Option(help="loop: one update after another. scan: an epoch as one affine map, for large data."),
]
DeviceOption = Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")]
DtypeOption = Annotated[Dtype, typer.Option(help="The floating-point type of the computation.")]
LogdirOption = Annotated[Path, typer.Option(help="The folder of all runs.")]
NameOption = Annotated[str | None, typer.Option(help="The run's name; the method's unless told.")]
PredictOption = Annotated[float | None, typer.Option(metavar="X", help="Predict y for this x as well.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


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


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """The PyTorch dtype of the option's word."""
    import torch

    return torch.float32 if dtype is Dtype.float32 else torch.float64


def torch_device(name: str, dtype: Dtype) -> torch.device:
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
        if dtype is Dtype.float64:
            raise InputError("--device mps: it has no float64; give --dtype float32 too")
    return torch.device(name)


def read_data(data: str, x: str | None, y: str | None, dtype: Dtype, device: str) -> Dataset:
    """The data that the words name, on the device, in the dtype."""
    from torchgd.data.dataset import open_data

    return open_data(data, x=x, y=y, dtype=torch_dtype(dtype), device=torch_device(device, dtype))


def sampling(method: Method, batch_size: int | None, order: Order) -> Sampling:
    """The method with its batch size and order, refused where they do not go together."""
    if method is Method.minibatch and batch_size is None:
        raise InputError("--method minibatch needs a batch size; give e.g. --batch-size 2")
    if method is not Method.minibatch and batch_size is not None:
        raise InputError(f"--batch-size is for --method minibatch, not {method.value}; leave one of them out")
    order = Order.sequential if method is Method.gd else order  # one batch of all samples has no order
    return {"method": method.value, "batch_size": batch_size, "order": order.value}


def check_start(weight: float) -> None:
    """Refuse a start that no run can leave."""
    if not math.isfinite(weight):
        raise InputError(f"--weight {weight}: give a finite number")
