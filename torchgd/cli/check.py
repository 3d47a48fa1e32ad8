"""``torchgd check``: is my gradient right, and if not, which mistake is it?"""

from __future__ import annotations

import math
import multiprocessing
import sys
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from typing import Annotated, Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt
from torchgd.cli.source import load_object
from torchgd.errors import InputError

_SAMPLES_OF_A_FUNCTION = 20  # each is moved once, for the differences

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py:FUNCTION",
        help="A gradient f(w, x, y) of the mean squared error of y = w·x: its mean, each sample's, or one's.",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Run your code in a process of its own, and end it after this long."
    ),
]


@app.command(epilog="Example: torchgd check mine.py:gradient hubble --timeout 10")
def check(
    target: TargetArgument,
    data: opt.DataArgument = "course",
    x: opt.XOption = None,
    y: opt.YOption = None,
    encoding: opt.EncodingOption = None,
    drop_missing: opt.DropMissingOption = False,
    weight: opt.WeightOption = 1.0,
    per_sample: Annotated[
        bool | None,
        typer.Option(
            "--per-sample/--mean",
            help="What is due: each sample's gradient, or their mean; as it answers, unless told.",
        ),
    ] = None,
    total: Annotated[
        bool, typer.Option("--sum", help="The cost is the sum over the samples, not the mean.")
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            parser=opt.whole(0, opt.MOST_SEED), metavar="N", help="Seeds the points that are tried."
        ),
    ] = 0,
    timeout: TimeoutOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Check a gradient that you wrote by hand, and name the mistake in it. This runs the code in FILE.py.

    A torch.autograd.Function of (w, x, y) has its backward checked.

    Exit status 0: right; 1: wrong, or right only roughly; 2: it could not be checked.
    """
    if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
        raise InputError(f"--timeout is {timeout:g}; give a number of seconds above 0")
    dataset = opt.read_data(data, x, y, "float64", "cpu", encoding, drop_missing)
    options = {"per_sample": per_sample, "reduction": "sum" if total else "mean", "seed": seed}
    arguments = (target, dataset.x.numpy(), dataset.y.numpy(), weight, options)
    text, answer = _examine(*arguments) if timeout is None else _examine_apart(timeout, *arguments)
    if as_json:
        terminal.print_json(answer)
    else:
        terminal.say(text)
    if not answer["ok"]:
        raise typer.Exit(1)


def _examine(target: str, x: Any, y: Any, w: float, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The report as text and as data; what the user's code prints goes to standard error."""
    import torch

    from torchgd.check.function import check_function
    from torchgd.check.gradient import check_gradient

    with redirect_stdout(sys.stderr):
        f = load_object(target)
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
        if isinstance(f, type) and issubclass(f, torch.autograd.Function):
            some = slice(_SAMPLES_OF_A_FUNCTION)
            report = check_function(f, torch.tensor(w), inputs[some], targets[some], seed=options["seed"])
        else:
            report = check_gradient(f, inputs, targets, w, **options)
    return str(report), report.as_dict()


def _examine_apart(seconds: float, target: str, *arguments: Any) -> tuple[str, dict[str, Any]]:
    """The same in a process of its own; its time begins when torch is imported there."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, target, *arguments))
    process.start()
    sender.close()
    try:
        receiver.recv()
        if not receiver.poll(seconds):
            raise InputError(
                f"{target} has not returned within {seconds:g} s; look for a loop without end in it"
            )
        error, *result = receiver.recv()
    except EOFError:
        process.join()
        raise InputError(f"{target} has ended its process with exit status {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if error:
        raise InputError(error)
    return result[0], result[1]


def _work(sender: Connection, *arguments: Any) -> None:
    import torch  # noqa: F401

    import torchgd.check.gradient  # noqa: F401

    sender.send("ready")
    try:
        sender.send(("", *_examine(*arguments)))
    except InputError as error:
        sender.send((str(error),))
