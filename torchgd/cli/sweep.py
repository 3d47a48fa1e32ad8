"""``torchgd sweep``: all learning rates at once."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt

if TYPE_CHECKING:
    from torchgd.convergence.sweep import Sweep


@app.command(epilog="Example: torchgd sweep hubble --method sgd --lr-min 0.001 --lr-max 1 --points 1000")
def sweep(
    data: opt.DataArgument = "course",
    x: opt.XOption = None,
    y: opt.YOption = None,
    encoding: opt.EncodingOption = None,
    drop_missing: opt.DropMissingOption = False,
    lr_min: Annotated[
        float | None,
        typer.Option(
            parser=opt.real(0), metavar="FLOAT", help="The smallest lr.", show_default="1 % of the limit"
        ),
    ] = None,
    lr_max: Annotated[
        float | None,
        typer.Option(
            parser=opt.real(0), metavar="FLOAT", help="The largest lr.", show_default="150 % of the limit"
        ),
    ] = None,
    points: Annotated[
        int, typer.Option(parser=opt.whole(2), metavar="N", help="How many learning rates.")
    ] = 100,
    linear: Annotated[bool, typer.Option("--linear", help="Evenly spaced; else by equal ratios.")] = False,
    method: opt.MethodOption = "gd",
    epochs: opt.EpochsOption = 100,
    batch_size: opt.BatchSizeOption = None,
    order: opt.OrderOption = "sequential",
    loss: opt.LossOption = "mean",
    tolerance: opt.ToleranceOption = 1e-6,
    seed: opt.SeedOption = 0,
    weight: opt.WeightOption = 1.0,
    logdir: opt.LogdirOption = Path("runs"),
    name: opt.NameOption = None,
    overwrite: opt.OverwriteOption = False,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Log each lr as a run: curves, and a row in the HPARAMS tab."),
    ] = False,
    as_json: opt.JsonOption = False,
) -> None:
    """Train at many learning rates at once; how many epochs does each take?"""
    plan = opt.plan(method, batch_size, order, seed, loss=loss)
    dataset = opt.read_data(data, x, y, "float64", "cpu", encoding, drop_missing)

    from torchgd.convergence.figures import sweep_figure
    from torchgd.convergence.sweep import sweep_lr
    from torchgd.picture import to_png
    from torchgd.runs.folders import new_folder
    from torchgd.runs.run import experiment_name
    from torchgd.runs.runlog import write_config, write_text

    samples, targets = dataset
    settings: dict[str, Any] = {"points": points, "linear": linear, "epochs": epochs, **plan.sampling}
    settings |= {"w0": weight, "tolerance": tolerance}
    with terminal.progress(epochs, "sweep") as on_epoch:
        swept = sweep_lr(samples, targets, lr_min, lr_max, **settings, on_epoch=on_epoch)
    title = f"{dataset.name}, {plan.label}: {points} learning rates"
    picture, *_ = to_png(sweep_figure(swept, method, linear=linear, title=title))
    folder = new_folder(logdir, experiment_name(dataset), name or f"sweep-{method}", overwrite=overwrite)
    (folder / "sweep.png").write_bytes(picture)
    write_config(folder, {"data": data, "x": x, "y": y, "lr_min": lr_min, "lr_max": lr_max, **settings})
    columns = _columns(swept)
    write_text(folder / "sweep.csv", _csv(columns))
    if tensorboard:
        _log_each(swept, folder, method)
    best, reached = columns["lr"][swept.best], columns["epochs"][swept.best]
    converges = math.isfinite(swept.predicted(best))
    answer: dict[str, Any] = {
        "best_lr": best if converges else None,
        "best_epochs": reached,
        "limit": swept.epoch.intervals[0][1],
        "certificate_best_lr": swept.best_lr,
        "intervals": swept.epoch.intervals,
        "tolerance": tolerance,
        "run_dir": str(folder),
    }
    if as_json:
        terminal.print_json({**answer, **columns})
    else:
        _print(answer, points, epochs)


def _columns(swept: Sweep) -> dict[str, list[float]]:
    """A row for each learning rate, as sweep.csv has it."""
    return {
        "lr": swept.lr.tolist(),
        "epochs": swept.epochs.tolist(),
        "predicted": [swept.predicted(rate) for rate in swept.lr.tolist()],
        "weight": swept.weight[-1].tolist(),
        "cost": swept.cost[-1].tolist(),
    }


def _print(answer: dict[str, Any], points: int, epochs: int) -> None:
    reached, tolerance = answer["best_epochs"], answer["tolerance"]
    when = (
        f"{tolerance:g} left after {reached:g}" if math.isfinite(reached) else f"more than {tolerance:g} left"
    )
    found = "none converges" if answer["best_lr"] is None else f"{answer['best_lr']:.6g} ({when})"
    rows = [
        [f"best of {points} learning rates for {epochs} epochs", found],
        ["limit", f"{answer['limit']:.10g}"],
        ["best of all", f"{answer['certificate_best_lr']:.10g}"],
        ["picture", str(Path(answer["run_dir"]) / "sweep.png")],
        ["numbers", str(Path(answer["run_dir"]) / "sweep.csv")],
    ]
    terminal.table(["", "value"], rows)


def _log_each(swept: Sweep, folder: Path, method: str) -> None:
    """Every learning rate as a run of its own, in the sweep's folder."""
    from torchgd.runs.folders import new_folder
    from torchgd.runs.runlog import RunLog

    for index, rate in enumerate(swept.lr.tolist()):
        history = swept.history(index)
        own = new_folder(folder.parent, folder.name, f"lr-{rate:.6g}")
        epochs, updates = len(swept.weight) - 1, int(history.end_update[-1]) or 1
        row = {"method": method, "lr": rate, "batch_size": swept.epoch.updates.batch_size}
        row |= {"epochs": epochs, "data": folder.parent.name}
        with RunLog(own, row, epochs=epochs, updates=updates) as log:
            log.write(history)
            log.finish(history)


def _csv(columns: dict[str, list[float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
