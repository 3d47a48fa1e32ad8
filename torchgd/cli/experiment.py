"""``torchgd experiment NAME``: a table, a picture and a sentence that its numbers prove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt

EXPERIMENTS = {
    "randomness": "where chance is in SGD: the order of the samples, without noise and with it",
    "tradeoff": "is SGD faster? Per update, per sample and per second",
    "smoothing": "the lecture's smoothed cost beside TensorBoard's slider",
    "saddle": "where SGD leaves a saddle, and where it is stuck",
    "zero-grad": "forgetting zero_grad is momentum 1, bit for bit",
}


_HELP = "Run a short experiment: a table, a picture, and a sentence that its numbers prove."
_HELP += "".join(f"\n\n{name}: {what}." for name, what in EXPERIMENTS.items())


@app.command(help=_HELP, epilog="Example: torchgd experiment randomness")
def experiment(
    name: Annotated[str, typer.Argument(parser=opt.one_of(EXPERIMENTS), metavar="NAME", help="Which one.")],
    seed: opt.SeedOption = 0,
    logdir: opt.LogdirOption = Path("runs"),
    overwrite: opt.OverwriteOption = False,
    as_json: opt.JsonOption = False,
) -> None:
    from torchgd.experiments import EXPERIMENTS as RUN
    from torchgd.picture import to_png
    from torchgd.runs.runlog import write_runs

    outcome = RUN[name](seed)
    picture = to_png(outcome.picture)
    config = {"experiment": name, "seed": seed}
    folders = write_runs(logdir, name, outcome.histories, config, picture, overwrite=overwrite)
    picture_path = next(iter(folders.values())) / f"{name}.png"
    if as_json:
        terminal.print_json(
            {
                **config,
                "rows": list(outcome.rows),
                "sentence": outcome.sentence,
                "proved": outcome.proved,
                "picture": str(picture_path),
                "run_dirs": [str(folder) for folder in folders.values()],
            }
        )
    else:
        cells = [[_cell(value) for value in row.values()] for row in outcome.rows]
        terminal.table(list(outcome.rows[0]), cells)
        terminal.say(outcome.sentence)
        terminal.say(f"\nThe picture: {picture_path}")
        terminal.where_the_curves_are(logdir / name)
    if not outcome.proved:
        raise typer.Exit(1)


def _cell(value: str | int | float) -> str:
    return f"{value:.8g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
