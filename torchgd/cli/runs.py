"""``torchgd runs``: the list of all runs, and how to remove some."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt


@app.command(epilog="Example: torchgd runs --remove 'course/gd-*'")
def runs(
    logdir: opt.LogdirOption = Path("runs"),
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Remove the runs of this name, * for any part; may be repeated."),
    ] = None,
    as_json: opt.JsonOption = False,
) -> None:
    """List all runs: their data, method, learning rate, last cost and time; or remove some."""
    from torchgd.runs.folders import remove as remove_runs
    from torchgd.runs.folders import runs_in

    removed = [name for pattern in remove or () for name in remove_runs(logdir, pattern)]
    found = runs_in(logdir) if logdir.is_dir() else []
    rows = [
        {
            "run": entry.name,
            **{name: entry.settings.get(name) for name in ("data", "method", "lr")},
            "cost": entry.cost,
            "when": datetime.fromtimestamp(entry.when).isoformat(" ", "minutes"),
        }
        for entry in found
    ]
    if as_json:
        terminal.print_json({"removed": removed, "runs": rows})
    elif removed:
        terminal.say("removed: " + ", ".join(removed))
    elif rows:
        terminal.table(list(rows[0]), [list(map(_cell, row.values())) for row in rows])
    else:
        terminal.say(f"{logdir}: there are no runs; torchgd lesson makes some")


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
