"""``torchgd board``: the curves and pictures of all runs, in a browser."""

from __future__ import annotations

import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from torchgd.cli import app, streams, terminal
from torchgd.cli import options as opt
from torchgd.errors import InputError


@app.command(epilog="Example: torchgd board --logdir runs")
def board(
    logdir: opt.LogdirOption = Path("runs"),
    port: Annotated[
        int | None,
        typer.Option(
            parser=opt.whole(0, 65535),
            metavar="N",
            help="The port; 0 is any free one.",
            show_default="6006, or the next free one",
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Start TensorBoard on the runs, for this machine only, until Ctrl-C."""
    if not logdir.is_dir():
        raise InputError(f"{logdir}: no such folder; begin with torchgd lesson, or give another --logdir")

    from tensorboard import program

    server = program.TensorBoard()
    options = ["--logdir", str(logdir), "--host", "127.0.0.1", "--load_fast", "false"]  # the fast one prints
    server.configure(argv=["tensorboard", *options, *([] if port is None else ["--port", str(port)])])
    try:
        address = server.launch()
    except program.TensorBoardServerException as error:
        mend = "give another --port, or 0 for any free one"
        raise InputError(f"port {port or 6006}: TensorBoard cannot start ({error}); {mend}") from None
    page = f"{address}?smoothing=0#timeseries"  # smoothed curves are not the run's
    terminal.say(f"{page}  (Ctrl-C ends it)")
    if open_:
        webbrowser.open(page)
    streams.rest()
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
