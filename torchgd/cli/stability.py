"""``torchgd stability``: will it converge, before the first step."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt


class Loss(str, Enum):
    mean = "mean"
    sum = "sum"
    half = "half"


LossOption = Annotated[
    Loss, typer.Option(help="What is descended: the mean of the squares, their sum, or half the mean.")
]
ToleranceOption = Annotated[float, typer.Option(help="The part of the starting error that may be left.")]


@app.command(epilog="Example: torchgd stability hubble --method sgd --order shuffled --lr 0.5")
def stability(
    data: opt.DataArgument = "course",
    x: opt.XOption = None,
    y: opt.YOption = None,
    method: opt.MethodOption = opt.Method.gd,
    lr: opt.LrOption = "auto",
    batch_size: opt.BatchSizeOption = None,
    order: opt.OrderOption = opt.Order.sequential,
    loss: LossOption = Loss.mean,
    tolerance: ToleranceOption = 1e-6,
    epochs: opt.EpochsOption = 100,
    bias: Annotated[bool, typer.Option("--bias", help="Certify y = w·x + b, full batch, as well.")] = False,
    seed: opt.SeedOption = 0,
    logdir: opt.LogdirOption = Path("runs"),
    name: opt.NameOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Say whether y = w·x (and y = w·x + b) will converge, before the first step; exit status 1 if not."""
    rate = opt.learning_rate(lr)
    asked = opt.sampling(method, batch_size, order)
    dataset = opt.read_data(data, x, y, opt.Dtype.float64, "cpu")

    from torchgd.convergence.certificate import auto_lr, certify
    from torchgd.convergence.curvature import line_stability
    from torchgd.convergence.figures import factor_figure
    from torchgd.convergence.methods import epoch_of
    from torchgd.figures import METHOD_NAMES, to_png
    from torchgd.runs.run import experiment_name
    from torchgd.runs.runlog import new_folder, write_config

    samples, targets = dataset
    more: dict[str, Any] = {"loss": loss.value, "seed": seed}
    if rate is None:
        rate, why = auto_lr(samples, targets, epochs=epochs, **asked, **more)
        terminal.say(why, to_stderr=as_json)
    sizes = {"gd": None, "sgd": None, "minibatch": batch_size or min(2, len(samples))}
    epoch, certificates = {}, {}
    for each, size in sizes.items():
        epoch[each] = epoch_of(samples, targets, method=each, batch_size=size, order=order.value, **more)
        certificates[each] = certify(epoch[each], rate, method=each, order=order.value, tolerance=tolerance)
    certificate = certificates[method.value]
    line = line_stability(samples, loss.value) if bias else None
    line_converges = line is None or rate < line.limit
    figure, *_ = to_png(
        factor_figure(epoch, rate, title=f"{dataset.name}: what an epoch leaves of the error")
    )
    folder = new_folder(logdir, experiment_name(dataset), name or "stability")
    (folder / "factor.png").write_bytes(figure)

    answer = {**certificate.to_dict(), "methods": {each: of.to_dict() for each, of in certificates.items()}}
    if line is not None:
        answer["bias_line"] = {**asdict(line), "converges": line_converges}
    write_config(folder, answer)
    if as_json:
        terminal.print_json({**answer, "run_dir": str(folder)})
    else:
        terminal.say(certificate.verdict)
        if line is not None:
            does = "converges" if line_converges else "diverges"
            terminal.say(f"y = w·x + b, full batch: it {does}. {line.verdict}")
        columns = ["", "limit", "best lr", f"factor at {rate:.6g}", "epochs", "settles at", "spread"]
        rows = [
            [
                METHOD_NAMES[each] + (f" of {of.batch_size}" if each == "minibatch" else ""),
                f"{of.limit:.7g}",
                f"{of.best_lr:.7g}",
                f"{of.factor:.6g}",
                str(of.epochs or "never"),
                f"{of.fixed_point:.7g}" if of.converges else "",
                f"{of.spread:.3g}" if of.converges and of.spread is not None else "",
            ]
            for each, of in certificates.items()
        ]
        terminal.table(columns, rows)
        islands = [f"{low:.10g} … {high:.10g}" for low, high in certificate.intervals[1:]]
        if islands:
            terminal.say(f"converging beyond the limit: {', '.join(islands)}")
        terminal.say(f"picture: {folder / 'factor.png'}")
    if not (certificate.converges and line_converges):
        raise typer.Exit(1)
