"""``torchgd train``: one method on one set of data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt
from torchgd.errors import InputError


@app.command(epilog="Example: torchgd train hubble --method sgd --lr auto --predict 2")
def train(
    data: opt.DataArgument = "course",
    x: opt.XOption = None,
    y: opt.YOption = None,
    method: opt.MethodOption = opt.Method.gd,
    lr: opt.LrOption = "0.01",
    epochs: opt.EpochsOption = 100,
    batch_size: opt.BatchSizeOption = None,
    order: opt.OrderOption = opt.Order.sequential,
    seed: opt.SeedOption = 0,
    weight: opt.WeightOption = 1.0,
    gradient: opt.GradientOption = opt.Gradient.hand,
    engine: opt.EngineOption = opt.Engine.auto,
    device: opt.DeviceOption = "auto",
    dtype: opt.DtypeOption = opt.Dtype.float64,
    logdir: opt.LogdirOption = Path("runs"),
    name: opt.NameOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run of this name, as the same command began it.")
    ] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="Resume although this option differs, e.g. lr; may be repeated."),
    ] = None,
    predict: opt.PredictOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Train y = w·x by one method; log it to TensorBoard."""
    rate = opt.learning_rate(lr)
    chosen = opt.sampling(method, batch_size, order)
    opt.check_start(weight)
    if override and not resume:
        raise InputError("--override is for --resume; give both, or leave it out")

    from torchgd.convergence.certificate import auto_lr, stability
    from torchgd.convergence.divergence import explain_divergence
    from torchgd.epoch.distributed import process_group
    from torchgd.runs.run import (
        MOST_CERTIFIED,
        Config,
        experiment_name,
        read_in_order,
        run,
        with_engine,
    )

    with process_group() as group, terminal.silent(group.rank > 0):
        dataset = opt.read_data(data, x, y, dtype, device)
        forecast: list[str] = []
        if rate is None:
            rate, why = auto_lr(dataset.x, dataset.y, epochs=epochs, **chosen)
            forecast.append(why)
        if len(dataset) <= MOST_CERTIFIED:
            forecast.append(stability(dataset.x, dataset.y, rate, **chosen).verdict)

        def announce() -> None:
            for line in forecast:
                terminal.say(line, to_stderr=as_json)

        config = Config(
            data=data,
            x=x,
            y=y,
            lr=rate,
            epochs=epochs,
            seed=seed,
            weight=weight,
            gradient=gradient.value,
            device=str(dataset.inputs.device),
            dtype=dtype.value,
            engine=engine.value,
            **chosen,
        )
        config = with_engine(config, dataset, group)
        with terminal.progress(epochs, method.value) as on_epoch:
            read = read_in_order(config, dataset, on_epoch, group)
            if group.rank:
                return
            if read and len(dataset) > MOST_CERTIFIED:
                forecast.append(read.whole.verdict)
            done = run(
                config,
                dataset,
                logdir=logdir,
                experiment=experiment_name(dataset),
                name=name,
                resume=resume,
                override=override or (),
                on_start=announce,
                on_epoch=on_epoch,
                read=read,
            )
        if done.had_ended:
            terminal.say(f"{done.folder} has ended; there is nothing left to do", to_stderr=as_json)
            if done.history.status != "diverged":  # which cannot go on
                terminal.say("(more epochs: --epochs N --override epochs)", to_stderr=as_json)
        history = done.history
        reason = history.reason
        if history.status == "diverged" and len(dataset) <= MOST_CERTIFIED:
            explained = explain_divergence(history.weight, dataset.x, dataset.y, rate, **chosen)
            reason = f"{reason}. {explained}"
        elif history.status == "diverged":
            reason = f"{reason}; give a smaller --lr, or --lr auto"
        answer: dict[str, Any] = {
            "weight": done.model.weight.item(),
            "cost": history.cost[-1].item(),
            "status": history.status,
            "reason": reason,
            "epochs": int(history.epoch[-1]),
            "updates": int(history.end_update[-1]),
            "method": method.value,
            "lr": rate,
            "run_dir": str(done.folder),
        }
        if predict is not None:
            answer["prediction"] = done.model(predict).item()
        if as_json:
            terminal.print_json(answer)
        else:
            terminal.facts(answer)
            terminal.where_the_curves_are(logdir)
        if history.status == "diverged":
            raise typer.Exit(1)
