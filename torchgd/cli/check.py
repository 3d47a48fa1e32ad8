"""``torchgd check``: is my gradient right, and if not, which mistake is it?"""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt
from torchgd.cli.apart import run_apart
from torchgd.errors import InputError

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py:FUNCTION",
        help="A gradient f(w, x, y) of the mean squared error of y = w·x, or f(x, y) with a global w: its "
        "mean, each sample's, or one's. Or a torch.autograd.Function; or, with --model, f(parameters, x, y).",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="End your code, and all that it started, after this long."),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option("--x", help="The column of x, or several: a,b,c; or an .npy file.", show_default="x"),
]


@app.command(epilog="Example: torchgd check mine.py:gradient hubble --timeout 10")
def check(
    target: TargetArgument,
    data: opt.DataArgument = "course",
    x: ColumnsOption = None,
    y: opt.YOption = None,
    encoding: opt.EncodingOption = None,
    drop_missing: opt.DropMissingOption = False,
    weight: opt.WeightOption = 1.0,
    per_sample: Annotated[
        bool | None,
        typer.Option(
            "--per-sample/--mean",
            help="What is due: each sample's gradient, or their mean; without this, as it answers.",
        ),
    ] = None,
    total: Annotated[
        bool, typer.Option("--sum", help="The cost is the sum over the samples, not the mean.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:MODEL", help="A module, its class, or a function that makes one."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.py:LOSS", help="The loss of the model: one of torch.nn.functional, or yours."
        ),
    ] = None,
    expect: Annotated[
        str, typer.Option(metavar="CAUSE", help="The cause for which the exit status is 0, e.g. surrogate.")
    ] = "correct",
    second: Annotated[
        bool, typer.Option("--second", help="Of a Function, check the second derivatives as well.")
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

    Exit status 0: right; 1: wrong, or right only roughly; 2: it could not be checked.
    """
    from torchgd.check.mistakes import Cause

    if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
        raise InputError(f"--timeout is {timeout:g}; give a number of seconds above 0")
    if expect not in list(Cause):
        raise InputError(f"--expect is {expect!r}; give one of {', '.join(Cause)}")
    if loss and not model:
        raise InputError("--loss is that of a model; give --model FILE.py:MODEL as well")
    columns = x.split(",") if x and not x.endswith(".npy") else [x]
    if drop_missing and len(columns) > 1:
        raise InputError("--drop-missing is for one column of x; take the incomplete lines out of the file")
    read = [opt.read_data(data, column, y, "float64", "cpu", encoding, drop_missing) for column in columns]
    inputs, targets = [dataset.x.numpy() for dataset in read], read[0].y.numpy()
    options = {"per_sample": per_sample, "reduction": "sum" if total else "mean", "seed": seed}
    text, answer = run_apart(
        _examine, target, inputs, targets, weight, model, loss, second, options, name=target, seconds=timeout
    )
    if as_json:
        terminal.print_json(answer)
    else:
        terminal.say(text)
    if answer["cause"] != expect:
        raise typer.Exit(1)


def _examine(
    target: str,
    columns: list[Any],
    y: Any,
    w: float,
    model: str | None,
    loss: str | None,
    second: bool,
    options: dict[str, Any],
) -> tuple[str, dict[str, Any]]:
    """The report as text and as data."""
    import torch

    from torchgd.check.function import check_function, inputs_of
    from torchgd.check.gradient import check_gradient
    from torchgd.cli.source import load_loss, load_model, load_object

    f = load_object(target)
    x = torch.from_numpy(columns[0])
    targets: Any = torch.from_numpy(y)
    if isinstance(f, type) and issubclass(f, torch.autograd.Function):
        inputs = inputs_of(f, torch.tensor(w), x, targets)
        report = check_function(f, *inputs, second=second, seed=options["seed"])
        return str(report), report.as_dict()
    if len(columns) > 1 or model:
        x = torch.stack([torch.from_numpy(column) for column in columns], dim=1)
    if model:
        module = load_model(model, options["seed"])
        loss_fn = load_loss(loss) if loss else None
        targets = _targets(targets, module, x, loss)
        report = check_gradient(f, x, targets, model=module, loss_fn=loss_fn, **options)
    else:
        report = check_gradient(f, x, targets, w, **options)
    return str(report), report.as_dict()


def _targets(y: Any, module: Any, x: Any, loss: str | None) -> Any:
    """The targets as the loss takes them: whole numbers for classes, else of the shape of the prediction."""
    if loss in ("cross_entropy", "nll_loss", "multi_margin_loss"):
        return y.long()
    try:
        shape = module.double()(x).shape
    except Exception as error:
        raise InputError(
            f"the model raised {type(error).__name__}: {error}; try model(x) with x of shape {tuple(x.shape)}"
        ) from None
    return y.reshape(shape) if shape.numel() == y.numel() else y
