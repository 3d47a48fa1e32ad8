"""``torchgd lesson``: lecture 3, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt


@app.command(epilog="Example: torchgd lesson hubble")
def lesson(
    data: opt.DataArgument = "course",
    x: opt.XOption = None,
    y: opt.YOption = None,
    encoding: opt.EncodingOption = None,
    drop_missing: opt.DropMissingOption = False,
    lr: Annotated[
        str,
        typer.Option(
            metavar="FLOAT|auto",
            help="The learning rate.",
            show_default="0.01 on the course's data, auto on other data",
        ),
    ] = "",
    epochs: opt.EpochsOption = 100,
    batch_size: Annotated[
        int, typer.Option(parser=opt.whole(1), metavar="N", help="Samples in a mini-batch.")
    ] = 2,
    order: opt.OrderOption = "sequential",
    seed: opt.SeedOption = 0,
    weight: opt.WeightOption = 1.0,
    device: opt.DeviceOption = "auto",
    dtype: opt.DtypeOption = "float64",
    logdir: opt.LogdirOption = Path("runs"),
    overwrite: opt.OverwriteOption = False,
    no_log: opt.NoLogOption = False,
    animate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the descent as a film, .gif or .html.")
    ] = None,
    predict: opt.PredictOption = 4.0,
    as_json: opt.JsonOption = False,
) -> None:
    """Lecture 3, end to end: three methods, their runs, and the checks that they are right."""
    rate = opt.learning_rate(lr or ("0.01" if data == "course" and not x else "auto"))
    dataset = opt.read_data(data, x, y, dtype, device, encoding, drop_missing)

    from torchgd.lessons.lesson import lesson

    with opt.folder(logdir, no_log) as place:
        done = lesson(
            dataset,
            lr="auto" if rate is None else rate,
            epochs=epochs,
            batch_size=batch_size,
            order=order,
            seed=seed,
            weight=weight,
            logdir=place,
            overwrite=overwrite,
            film=animate,
            source={"data": data, "x": x, "y": y},
            say=lambda sentence: terminal.say(sentence, to_stderr=as_json),
            progress=terminal.progress,
        )
    at = 4.0 if predict is None else predict
    answer = {method: part.as_dict(at) for method, part in done.parts.items()}
    if no_log:
        answer = {method: {**part, "run_dir": None} for method, part in answer.items()}
    if as_json:
        pictures = None if no_log else str(done.folder)
        parts = {"data": dataset.name, "samples": len(dataset), "methods": answer, "pictures": pictures}
        terminal.print_json(parts)
    else:
        _print(answer, epochs, at)
        for method, part in done.parts.items():
            terminal.new_name(method, part.run.folder, to_stderr=False)
        if animate:
            terminal.say(f"animation: {animate}")
        if not no_log:
            terminal.say(f"pictures: {done.folder / 'parabola.png'}, {done.folder / 'cost.png'}\n")
            terminal.where_the_curves_are(logdir)
    if not done.ok:
        raise typer.Exit(1)


def _print(methods: dict[str, dict[str, Any]], epochs: int, at: float) -> None:
    from torchgd.figures import METHOD_NAMES

    terminal.table(
        ["method", "updates", "w, epoch 1", f"w, epoch {epochs}", "cost", f"y({at:g})"],
        [
            [
                METHOD_NAMES[method],
                f"{r['updates']:,}",
                f"{r['first_weight']:.8g}",
                f"{r['weight']:.8g}",
                f"{r['cost']:.4g}",
                f"{r['prediction']:.8g}",
            ]
            for method, r in methods.items()
        ],
    )
    terminal.table(
        ["checks", *(METHOD_NAMES[method] for method in methods)],
        [
            [
                "hand gradient against autograd",
                *(f"{r['gradient_difference']:.1e}" for r in methods.values()),
            ],
            [
                "steps equal to torch.optim.SGD",
                *(f"{r['updates_equal_to_sgd']:,}/{r['updates_watched']:,}" for r in methods.values()),
            ],
            ["learning rate", *(f"{r['lr']:.6g}" for r in methods.values())],
            ["its limit", *(f"{r['limit']:.6g}" for r in methods.values())],
            ["verdict", *("right" if r["ok"] else r["status"] for r in methods.values())],
        ],
    )
    for r in methods.values():
        if r["run_dir"]:
            terminal.say(r["run_dir"])
