"""``torchgd bridge``: from lecture 3 to lecture 8, one part at a time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt

EPOCHS = (1, 10, 100)


@app.command(epilog="Example: torchgd bridge --method minibatch --batch-size 2 --order shuffled")
def bridge(
    method: opt.MethodOption = "sgd",
    lr: opt.LrOption = "0.01",
    batch_size: opt.BatchSizeOption = None,
    order: opt.OrderOption = "sequential",
    seed: opt.SeedOption = 0,
    weight: opt.WeightOption = 1.0,
    device: opt.DeviceOption = "auto",
    dtype: opt.DtypeOption = "float64",
    logdir: opt.LogdirOption = Path("runs"),
    overwrite: opt.OverwriteOption = False,
    as_json: opt.JsonOption = False,
) -> None:
    """From lecture 3 to lecture 8: the same run, one part after the other replaced by PyTorch's."""
    plan = opt.plan(method, batch_size, order, seed, lr)
    dataset = opt.read_data("course", None, None, dtype, device)

    from torchgd.lessons.bridge import climb
    from torchgd.runs.forecast import prepare
    from torchgd.runs.run import Config
    from torchgd.runs.runlog import write_runs

    x, y = dataset
    place: dict[str, Any] = {"data": "course", "device": str(x.device), "dtype": dtype, "engine": "loop"}
    config = Config(**asdict(plan), **place, epochs=EPOCHS[-1], weight=weight)
    config, certificate, forecast = prepare(config, dataset)
    terminal.say_each(forecast, to_stderr=as_json)
    rungs = climb(config, x, y)
    folders = write_runs(
        logdir, "bridge", {rung.name: rung.history for rung in rungs}, config.settings, overwrite=overwrite
    )
    rows: list[dict[str, Any]] = [
        {
            "lecture": rung.lecture,
            "replaced": rung.replaced,
            "code": rung.code,
            **{f"w, epoch {epoch}": rung.history.weight[epoch].item() for epoch in EPOCHS},
            "difference": rung.difference,
            "rounding": rung.rounding,
            "run_dir": str(folders[rung.name]),
        }
        for rung in rungs
    ]
    if as_json:
        terminal.print_json({"method": method, "lr": config.lr, "rungs": rows})
    else:
        _print(rows, logdir)
    if not (certificate and certificate.converges and all(rung.rounding for rung in rungs)):
        raise typer.Exit(1)


def _print(rows: list[dict[str, Any]], logdir: Path) -> None:
    weights = [f"w, epoch {epoch}" for epoch in EPOCHS]
    said = ["", *(_said(row["difference"], row["rounding"]) for row in rows[1:])]
    terminal.table(
        ["lecture", *weights, "difference"],
        [
            [
                f"{row['lecture']}  {row['replaced']}",
                *(f"{row[weight]:.10g}" for weight in weights),
                difference,
            ]
            for row, difference in zip(rows, said, strict=True)
        ],
    )
    terminal.say("The line of code that is new on each rung:")
    for row in rows:
        terminal.say(f"  lecture {row['lecture']}:  {row['code']}")
    terminal.say(
        "\nLecture 5 is here without its bias, which makes another model, and takes the mean, not the sum."
    )
    terminal.where_the_curves_are(logdir / "bridge")


def _said(difference: float, rounding: bool) -> str:
    if difference == 0:
        return "equal bits"
    return f"{difference:.1e}" + ("" if rounding else ", another rule")
