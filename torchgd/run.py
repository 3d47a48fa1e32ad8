"""One run from its configuration: the model, the optimizer, the training, the log."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from torchgd.data import Dataset
from torchgd.errors import InputError
from torchgd.figures import METHOD_NAMES, cost_curve, parabola, to_png
from torchgd.history import History
from torchgd.mapped import MappedVector
from torchgd.model import LinearModel
from torchgd.moments import Moments
from torchgd.optim import GradientDescent, MiniBatchGradientDescent, StochasticGradientDescent
from torchgd.runlog import RunLog, new_folder, write_config
from torchgd.scan import scan
from torchgd.training import MOST_UPDATES_RECORDED, Place, train

MOST_CERTIFIED = 1_000_000  # samples; above it the certificate takes longer than the run


@dataclass(frozen=True)
class Config:
    """All that decides the numbers of a run, as config.json holds it."""

    data: str
    x: str | None
    y: str | None
    method: str
    lr: float
    epochs: int
    batch_size: int | None
    order: str
    seed: int
    weight: float
    gradient: str
    device: str
    dtype: str
    engine: str


@dataclass(frozen=True)
class Run:
    """A run that has ended: its history, its model and its folder."""

    history: History
    model: LinearModel
    folder: Path


def make_optimizer(config: Config, model: LinearModel) -> GradientDescent:
    """The optimizer of the configuration's method; its order is seeded by the configuration's seed."""
    if config.method == "gd":
        return GradientDescent(model.parameters(), lr=config.lr)
    generator = torch.Generator().manual_seed(config.seed)
    if config.method == "sgd":
        return StochasticGradientDescent(
            model.parameters(), lr=config.lr, order=config.order, generator=generator
        )
    return MiniBatchGradientDescent(
        model.parameters(),
        lr=config.lr,
        batch_size=config.batch_size or 1,
        order=config.order,
        generator=generator,
    )


def run(
    config: Config,
    data: Dataset,
    *,
    logdir: Path,
    experiment: str,
    name: str | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> Run:
    """Train as configured and log it to ``logdir/experiment/name``.

    Args:
        config: what to train.
        data: the data it names, on its device, in its dtype.
        logdir, experiment, name: where to; the name is the method's if not given.
        on_epoch: called now and then with the number of epochs done, for a progress bar.
    """
    model = LinearModel(config.weight, device=data.inputs.device, dtype=data.inputs.dtype)
    optimizer = make_optimizer(config, model)
    batches = optimizer.batches(len(data))
    folder = new_folder(logdir, experiment, name or config.method)
    write_config(folder, {"torchgd": version("torchgd"), "torch": torch.__version__, **asdict(config)})
    hyperparameters: dict[str, float | str] = {
        "method": config.method,
        "lr": config.lr,
        "batch_size": batches.batch_size,
    }
    with RunLog(folder, hyperparameters, epochs=config.epochs, updates=len(batches) * config.epochs) as log:

        def on_progress(part: History, place: Place) -> None:
            log.write(part)
            if on_epoch is not None:
                on_epoch(place.epoch)

        if config.engine == "scan":
            history = scan(model, data, optimizer, config.epochs, on_progress=on_progress)
        else:
            history = train(
                model,
                data.x,
                data.y,
                optimizer,
                config.epochs,
                gradient=config.gradient,
                on_progress=on_progress,
            )
        title = f"{METHOD_NAMES[config.method]}, lr = {config.lr:.6g}"
        for tag, figure in (
            ("parabola", parabola({config.method: history}, Moments.of(data.blocks()), title=title)),
            ("cost", cost_curve({config.method: history}, title=title)),
        ):
            log.picture(tag, *to_png(figure))
        log.finish(history)
    return Run(history, model, folder)


def with_engine(config: Config, data: Dataset) -> Config:
    """The configuration with "auto" decided: the scan where the loop would not record every update, or where
    the data stay in files.

    Raises:
        InputError: the scan is asked for by name where it cannot serve.
    """
    if config.engine == "scan" and config.gradient != "hand":
        raise InputError("--engine scan composes the gradient by hand, not autograd's; give --engine loop")
    size = {"gd": len(data), "sgd": 1}.get(config.method, config.batch_size or 1)
    updates = config.epochs * math.ceil(len(data) / size)
    long = updates > MOST_UPDATES_RECORDED or isinstance(data.inputs, MappedVector)
    engine = "scan" if long and config.gradient == "hand" else "loop"
    return replace(config, engine=engine) if config.engine == "auto" else config


def experiment_name(data: Dataset) -> str:
    """The name of the experiment of these data: theirs, with what is no part of a file name left out."""
    name = re.sub(r"[^\w.-]+", "-", Path(data.name).stem).strip("-. ")[:60]
    return name or "data"
