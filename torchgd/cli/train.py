"""``torchgd train``: one method on one set of data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt
from torchgd.errors import InputError

if TYPE_CHECKING:
    from torchgd.data.dataset import Dataset
    from torchgd.epoch.distributed import Group
    from torchgd.runs.run import Config, Run


ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue the run of this name, with the options it had.")
]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option(metavar="OPTION", help="Resume although this option differs, e.g. lr; may be repeated."),
]
PatienceOption = Annotated[
    float,
    typer.Option(parser=opt.real(0), metavar="SECONDS", help="Under torchrun: how long to wait for others."),
]


@app.command(epilog="Example: torchgd train hubble --method sgd --lr auto --predict 2")
def train(
    data: opt.DataArgument = "course",
    x: opt.XOption = None,
    y: opt.YOption = None,
    bias: opt.BiasOption = False,
    standardize: opt.StandardizeOption = False,
    encoding: opt.EncodingOption = None,
    drop_missing: opt.DropMissingOption = False,
    method: opt.MethodOption = "gd",
    lr: opt.LrOption = "0.01",
    epochs: opt.EpochsOption = 100,
    batch_size: opt.BatchSizeOption = None,
    order: opt.OrderOption = "sequential",
    seed: opt.SeedOption = 0,
    weight: opt.WeightOption = 1.0,
    gradient: opt.GradientOption = "hand",
    engine: opt.EngineOption = "auto",
    device: opt.DeviceOption = "auto",
    dtype: opt.DtypeOption = "float64",
    logdir: opt.LogdirOption = Path("runs"),
    name: opt.NameOption = None,
    resume: ResumeOption = False,
    override: OverrideOption = None,
    overwrite: opt.OverwriteOption = False,
    no_log: opt.NoLogOption = False,
    patience: PatienceOption = 1800.0,
    predict: opt.PredictOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Train y = w·x by one method, or with several columns y = w·x + b; log it to TensorBoard."""
    plan = opt.plan(method, batch_size, order, seed, lr)
    if override and not resume:
        raise InputError("--override is for --resume; give both, or leave it out")
    if resume and (overwrite or no_log):
        raise InputError("--resume continues a run; leave out --overwrite and --no-log")

    opt.check_file(data, x, y, encoding)

    from torchgd.epoch.distributed import process_group
    from torchgd.runs.forecast import prepare, reason
    from torchgd.runs.run import Config, experiment_name

    with process_group(patience) as group, terminal.silent(group.rank > 0), opt.folder(logdir, no_log) as at:
        dataset = opt.read_data(data, x, y, dtype, device, encoding, drop_missing, several=True)
        config = Config(
            **asdict(plan),
            data=data,
            x=x,
            y=y,
            encoding=encoding,
            drop_missing=drop_missing,
            epochs=epochs,
            weight=weight,
            gradient=gradient,
            device=str(dataset.inputs.device),
            dtype=dtype,
            engine=engine,
            bias=bias,
            standardize=standardize,
        )
        if predict is not None and config.features(dataset) is not None:
            raise InputError("--predict is for y = w·x; leave it out, and put your x into the weights shown")
        config, certificate, forecast = prepare(config, dataset, group)
        where = {"logdir": at, "experiment": experiment_name(dataset), "name": name, "overwrite": overwrite}
        how = {**where, "resume": resume, "override": override or ()}
        done = _run(config, dataset, group, forecast, how, as_json=as_json)
    if done is None:  # of another rank than 0
        return
    if not resume:
        terminal.new_name(name or method, done.folder, to_stderr=as_json)
    why = reason(config, done.history, dataset, certificate)
    answer = _answer(done, config, dataset, why, None if no_log else done.folder)
    if predict is not None:
        answer["prediction"] = done.model(predict).item()
    _print(done, answer, None if no_log else logdir, as_json=as_json)
    if done.history.status == "diverged":
        raise typer.Exit(1)


def _run(
    config: Config, data: Dataset, group: Group, forecast: list[str], how: dict[str, Any], *, as_json: bool
) -> Run | None:
    """The run, with its forecast before it and a progress bar; of several processes rank 0 alone runs it."""
    from torchgd.runs.forecast import MOST_CERTIFIED
    from torchgd.runs.run import read_in_order, run

    with terminal.progress(config.epochs, config.method) as on_epoch:
        read = read_in_order(config, data, on_epoch, group)
        if group.rank:
            return None
        if read and len(data) > MOST_CERTIFIED:
            forecast.append(read.whole.verdict)
        return run(
            config,
            data,
            on_start=lambda: terminal.say_each(forecast, to_stderr=as_json),
            on_epoch=on_epoch,
            read=read,
            **how,
        )


def _print(done: Run, answer: dict[str, Any], logdir: Path | None, *, as_json: bool) -> None:
    if done.had_ended:
        terminal.say(f"{done.folder} has ended; there is nothing left to do", to_stderr=as_json)
        if done.history.status != "diverged":  # which cannot go on
            terminal.say("(more epochs: --epochs N --override epochs)", to_stderr=as_json)
    if as_json:
        terminal.print_json(answer)
        return
    weight = answer.pop("weight")
    named = (
        {f"weight {of}": w for of, w in weight.items()} if isinstance(weight, dict) else {"weight": weight}
    )
    terminal.facts({**named, **{name: value for name, value in answer.items() if value is not None}})
    if logdir:
        terminal.where_the_curves_are(logdir)


def _answer(done: Run, config: Config, data: Dataset, reason: str, folder: Path | None) -> dict[str, Any]:
    history, features = done.history, config.features(data)
    return {
        "weight": features.weights(done.model) if features else done.model.weight.item(),
        "cost": history.cost[-1].item(),
        "status": history.status,
        "reason": reason,
        "epochs": int(history.epoch[-1]),
        "updates": int(history.end_update[-1]),
        "method": config.method,
        "lr": config.lr,
        "run_dir": folder and str(folder),
    }
