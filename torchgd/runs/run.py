"""One run from its configuration: the model, the optimizer, the training, the log."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from torchgd.data.checksum import Checksum, measured
from torchgd.data.dataset import Dataset
from torchgd.data.mapped import MappedVector
from torchgd.epoch.distributed import ALONE, Group
from torchgd.epoch.scan import Epoch, epoch_in_order, scan
from torchgd.errors import InputError
from torchgd.figures import cost_curve, parabola
from torchgd.history import History
from torchgd.interruption import stoppable
from torchgd.model import LinearModel
from torchgd.moments import Moments
from torchgd.optim import GradientDescent
from torchgd.picture import to_png
from torchgd.plan import Plan
from torchgd.runs.checkpoint import Checkpoint
from torchgd.runs.features import FeatureRun
from torchgd.runs.folders import new_folder
from torchgd.runs.keeper import Keeper
from torchgd.runs.resume import CHECKPOINT, GO_ON, counted_on, find_run, past_of, writing
from torchgd.runs.runlog import RunLog, versions, write_config
from torchgd.training import MOST_UPDATES_RECORDED, Place, train

PICTURES = ("parabola", "cost")  # by their tags


@dataclass(frozen=True, kw_only=True)
class Config(Plan):
    """A plan, and everything else that decides the numbers of a run; the content of config.json."""

    data: str
    x: str | None = None
    y: str | None = None
    encoding: str | None = None
    drop_missing: bool = False
    epochs: int = 100
    weight: float = 1.0
    gradient: str = "hand"
    device: str = "cpu"
    dtype: str = "float64"
    engine: str = "auto"
    bias: bool = False
    standardize: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The values by name, without options that are not used, and without the loss (always the mean)."""
        unasked = {"loss", *(name for name in ("bias", "standardize") if not getattr(self, name))}
        return {name: value for name, value in asdict(self).items() if name not in unasked}

    def features(self, data: Dataset) -> FeatureRun | None:
        """What a run with several features or a bias trains on; None for y = w·x."""
        if not (data.features or self.bias or self.standardize):
            return None
        return FeatureRun(data, bias=self.bias, standardize=self.standardize)


@dataclass(frozen=True)
class Run:
    """A run that has ended: its history, its model, its folder, and whether it had ended before."""

    history: History
    model: LinearModel | nn.Linear
    folder: Path
    had_ended: bool = False


def run(
    config: Config,
    data: Dataset,
    *,
    logdir: Path,
    experiment: str,
    name: str | None = None,
    resume: bool = False,
    override: Sequence[str] = (),
    overwrite: bool = False,
    on_start: Callable[[], None] = lambda: None,
    on_epoch: Callable[[int], None] = lambda epochs: None,
    read: Epoch | None = None,
) -> Run:
    """Train as configured and log it to ``logdir/experiment/name``.

    Args:
        config: what to train.
        data: the data it names, on its device, in its dtype.
        logdir, experiment, name: where to; the name is the method's if not given.
        resume: continue the run of this name from its last checkpoint; a run that has ended is only read.
        override: the settings in which a resumed run may differ from what it was.
        overwrite: remove the run of this name first; else the new one gets the next free number.
        on_start: called once, after all checks of the input.
        on_epoch: called from time to time with the number of epochs done, for a progress bar.
        read: what :func:`read_in_order` gave, if it was called before.

    Raises:
        InputError: the run's folder can't be written, there is no such run to resume, a sample or the
            cost at the start is not finite; nothing is written then.
        Stopped: SIGINT or SIGTERM came; the run can be resumed.
    """
    features = config.features(data)
    model: LinearModel | nn.Linear
    if features is None:
        model = LinearModel(config.weight, device=data.inputs.device, dtype=data.inputs.dtype)
    else:
        model = features.model(config.weight)
    optimizer = config.optimizer(model.parameters())
    batches = optimizer.batches(len(data))
    read = read or read_in_order(config, data, on_epoch)
    moments, checksum = (read.moments, read.checksum) if read else _measured(data, features=bool(features))
    settings = {**versions(), **config.settings, "samples": len(data), "checksum": checksum}
    if moments and not moments.cost(config.weight) * moments.n <= torch.finfo(data.inputs.dtype).max:
        raise InputError("the cost before the first update is not finite; check the data and the weight")
    if resume:
        folder = find_run(logdir, experiment, config.method, name)
    else:
        folder = new_folder(logdir, experiment, config.method if name is None else name, overwrite=overwrite)
    with writing(folder):
        past = past_of(folder, settings, override) if resume else None
        if past is not None:
            if past.place.update >= len(batches):
                file = folder / CHECKPOINT
                raise InputError(f"{file}: its place is not in an epoch; delete the file to start over")
            past.restore(model, optimizer)
            optimizer.param_groups[0]["lr"] = config.lr  # lr may be overridden
            settings = dict(past.settings)
        ended = past.history if past is not None and past.has_ended(config.epochs) else None
        if ended is not None and RunLog.is_whole(folder, ended, PICTURES[bool(features) :]):
            return Run(ended, model, folder, had_ended=True)
        write_config(folder, settings)
        done = past.place.epoch if past else 0
        before = past.history if past else None
        updates = (int(before.end_update[-1]) if before else 0) + len(batches) * (config.epochs - done)
        words: dict[str, float | str] = {"method": config.method, "lr": config.rate, "order": config.order}
        words |= {"batch_size": batches.batch_size, "epochs": config.epochs, "data": ascii(data.name)[1:-1]}
        with (
            RunLog(folder, words, epochs=config.epochs, updates=updates, past=before) as log,
            Keeper(folder / CHECKPOINT, model, optimizer, settings, past) as keeper,
            stoppable(lambda: f"stopped after {done} epochs; {GO_ON}") as check,
        ):

            def on_progress(part: History, place: Place) -> None:
                nonlocal done
                done = place.epoch
                part = counted_on(before, part, batches)
                log.write(part)
                keeper.note(part, place)
                on_epoch(done)
                check()

            on_start()
            rows = features.rows if features else data
            # of a run that has ended, files were lost or cut: they are made again
            outcome = ended
            if outcome is None:
                outcome = _train(config, rows, model, optimizer, past, on_progress, read)
            history = replace(log.history, status=outcome.status, reason=outcome.reason)
            for tag, figure in _pictures(config, history, moments).items():
                log.picture(tag, *to_png(figure))
            log.finish(history)
            keeper.end(history)
    return Run(history, model, folder, had_ended=ended is not None)


def _measured(data: Dataset, *, features: bool) -> tuple[Moments | None, str]:
    """The moments, of one feature, and the checksum, by one reading."""
    if features:
        return None, measured(data)
    checksum = Checksum(data)
    moments = Moments.of(checksum.reading())
    return moments, checksum.hexdigest()


def _pictures(config: Config, history: History, moments: Moments | None) -> dict[str, Figure]:
    """The run's pictures by their tags: the parabola of one weight, and the cost."""
    title, histories = f"{config.label}, lr = {config.rate:.6g}", {config.method: history}
    pictures = {"cost": cost_curve(histories, title=title)}
    return {"parabola": parabola(histories, moments, title=title), **pictures} if moments else pictures


def read_in_order(
    config: Config,
    data: Dataset,
    on_epoch: Callable[[int], None] = lambda epochs: None,
    group: Group = ALONE,
) -> Epoch | None:
    """Read the data once, for a run by the scan in a fixed order; None for other runs.

    Arguments and errors as for :func:`run`. A group of processes shares the reading; only rank 0 continues.
    """
    if config.engine != "scan" or config.order != "sequential":
        return None
    optimizer = config.optimizer(LinearModel(config.weight).parameters())
    return epoch_in_order(
        data,
        optimizer,
        config.epochs,
        group=group,
        on_samples=lambda samples: on_epoch(config.epochs * samples // len(data)),
    )


def _train(
    config: Config,
    data: Dataset,
    model: LinearModel | nn.Linear,
    optimizer: GradientDescent,
    past: Checkpoint | None,
    on_progress: Callable[[History, Place], None],
    read: Epoch | None,
) -> History:
    """Train with the configuration's engine."""
    resume = (past.history, past.place) if past else None
    if config.engine == "scan" and isinstance(model, LinearModel):
        return scan(
            model,
            data,
            optimizer,
            config.epochs,
            on_progress=on_progress,
            resume=resume,
            read=read,
        )
    return train(
        model,
        data.x,
        data.y,
        optimizer,
        config.epochs,
        gradient=config.gradient,
        on_progress=on_progress,
        resume=resume,
    )


def with_engine(config: Config, data: Dataset, group: Group = ALONE) -> Config:
    """The configuration with "auto" replaced by an engine: the scan if the loop would not record every
    update, or if the data are in files.

    Raises:
        InputError: the scan is asked for, but cannot do this run.
    """
    if config.engine == "scan" and config.gradient != "hand":
        raise InputError("--engine scan composes the gradient by hand, not autograd's; give --engine loop")
    if group.size > 1 and (config.engine == "loop" or config.gradient != "hand"):
        raise InputError("under torchrun the samples are shared by --engine scan, with --gradient hand")
    if group.size > 1 and config.order != "sequential":
        raise InputError(f"the {config.order} order needs all samples in one process; take sequential")
    if config.features(data) is not None:
        if config.engine == "scan" or group.size > 1:
            raise InputError("the scan is for one weight, y = w·x; give --engine loop, in one process")
        return replace(config, engine="loop")
    updates = config.epochs * math.ceil(len(data) / config.batch_size_of(len(data)))
    long = updates > MOST_UPDATES_RECORDED or isinstance(data.inputs, MappedVector)
    engine = "scan" if (long or group.size > 1) and config.gradient == "hand" else "loop"
    return replace(config, engine=engine) if config.engine == "auto" else config


def experiment_name(data: Dataset) -> str:
    """The name of the experiment: that of the data, without what a file name may not contain."""
    name = re.sub(r"[^\w.-]+", "-", Path(data.name).stem).strip("-. ")[:60]
    return name or "data"
