"""``torchgd stability``: will it converge, before the first step."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt
from torchgd.errors import InputError
from torchgd.plan import Plan

if TYPE_CHECKING:
    from torchgd.data.dataset import Dataset

if TYPE_CHECKING:
    from torchgd.convergence.certificate import Certificate
    from torchgd.convergence.methods import Epoch
    from torchgd.plan import Plan


@app.command(epilog="Example: torchgd stability hubble --method sgd --order shuffled --lr 0.5")
def stability(
    data: opt.DataArgument = "course",
    x: opt.XOption = None,
    y: opt.YOption = None,
    encoding: opt.EncodingOption = None,
    drop_missing: opt.DropMissingOption = False,
    method: opt.MethodOption = "gd",
    lr: opt.LrOption = "auto",
    batch_size: opt.BatchSizeOption = None,
    order: opt.OrderOption = "sequential",
    loss: opt.LossOption = "mean",
    tolerance: opt.ToleranceOption = 1e-6,
    epochs: opt.EpochsOption = 100,
    bias: Annotated[bool, typer.Option("--bias", help="Certify y = w·x + b, full batch, as well.")] = False,
    seed: opt.SeedOption = 0,
    picture: opt.PictureOption = None,
    logdir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep picture and numbers in a folder here."),
    ] = None,
    name: Annotated[str, typer.Option(help="The run's name in that folder.")] = "stability",
    as_json: opt.JsonOption = False,
) -> None:
    """Say whether y = w·x (and y = w·x + b) will converge, before the first step; exit status 1 if not."""
    plan = opt.plan(method, batch_size, order, seed, lr, loss)
    dataset = opt.read_data(data, x, y, "float64", "cpu", encoding, drop_missing, several=True)
    if dataset.features:
        if picture or logdir:
            raise InputError("the picture is of one x; leave out --picture and --logdir")
        _of_features(dataset, plan, bias, tolerance, epochs, as_json)
        return

    from torchgd.convergence.curvature import line_stability
    from torchgd.convergence.figures import factor_figure
    from torchgd.convergence.rate import with_lr
    from torchgd.convergence.survey import survey
    from torchgd.picture import to_png
    from torchgd.runs.atomic import write_whole
    from torchgd.runs.folders import new_folder
    from torchgd.runs.run import experiment_name
    from torchgd.runs.runlog import write_config

    samples, targets = dataset
    plan, why = with_lr(plan, samples, targets, epochs)
    if why:
        terminal.say(why, to_stderr=as_json)
    surveyed = survey(replace(plan, order=order), samples, targets, tolerance, epochs)
    certificates = {each: certificate for each, (_, _, certificate) in surveyed.items()}
    certificate, rate = certificates[method], certificates[method].lr
    line = line_stability(samples, loss) if bias else None
    line_converges = line is None or rate < line.limit
    epoch_of = {each: epoch for each, (_, epoch, _) in surveyed.items()}
    title = f"{dataset.name}: what an epoch leaves of the error"
    folder = None if logdir is None else new_folder(logdir, experiment_name(dataset), name)
    pictures = [*([picture] if picture else []), *([folder / "factor.png"] if folder else [])]
    if pictures:
        drawn, *_ = to_png(factor_figure(epoch_of, rate, title=title))
        for path in pictures:
            write_whole(path, drawn)

    answer = {**certificate.to_dict(), "methods": {each: of.to_dict() for each, of in certificates.items()}}
    if line is not None:
        answer["bias_line"] = {**asdict(line), "converges": line_converges}
    if folder:
        write_config(folder, answer)
    if as_json:
        terminal.print_json({**answer, "run_dir": folder and str(folder)})
    else:
        terminal.say(certificate.verdict)
        if line is not None:
            does = "converges" if line_converges else "diverges"
            terminal.say(f"y = w·x + b, full batch: it {does}. {line.verdict}")
        _print(surveyed, rate)
        islands = [f"{low:.10g} … {high:.10g}" for low, high in certificate.intervals[1:]]
        if islands:
            terminal.say(f"converging beyond the limit: {', '.join(islands)}")
        for path in pictures:
            terminal.say(f"picture: {path}")
    if not (certificate.converges and line_converges):
        raise typer.Exit(1)


def _print(surveyed: dict[str, tuple[Plan, Epoch, Certificate]], rate: float) -> None:
    columns = ["", "limit", "best lr", f"factor at {rate:.6g}", "epochs", "settles at", "spread"]
    rows = [
        [
            own.label,
            f"{of.limit:.7g}",
            f"{of.best_lr:.7g}",
            f"{of.factor:.6g}",
            str(of.epochs or "never"),
            f"{of.fixed_point:.7g}" if of.converges else "",
            f"{of.spread:.3g}" if of.converges and of.spread is not None else "",
        ]
        for own, _, of in surveyed.values()
    ]
    terminal.table(columns, rows)


def _of_features(
    dataset: Dataset, plan: Plan, bias: bool, tolerance: float, epochs: int, as_json: bool
) -> None:
    """The answer for several features; exit status 1 if it diverges, or nothing is known."""
    from torchgd.convergence.linear_certificate import linear_stability

    sampling = {name: value for name, value in plan.sampling.items() if name != "seed"}
    certificate = linear_stability(
        dataset.x,
        dataset.y,
        plan.lr,
        bias=bias,
        names=dataset.features,
        tolerance=tolerance,
        epochs=epochs,
        **sampling,
    )
    if as_json:
        terminal.print_json(certificate.to_dict())
    else:
        terminal.say(certificate.verdict)
        rows = [
            [name, f"{size:.6g}", f"{slow:.3f}", f"{best:.6g}"]
            for name, size, slow, best in zip(
                certificate.names,
                [*certificate.scale, *([1.0] if bias else [])],
                certificate.slow,
                certificate.least_squares,
                strict=True,
            )
        ]
        terminal.table(["", "size", "slow direction", "best weight"], rows)
    if not certificate.converges:
        raise typer.Exit(1)
