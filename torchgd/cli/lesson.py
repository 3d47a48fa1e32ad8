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
    lr: opt.LrOption = "",
    epochs: opt.EpochsOption = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a mini-batch.")] = 2,
    order: opt.OrderOption = opt.Order.sequential,
    seed: opt.SeedOption = 0,
    weight: opt.WeightOption = 1.0,
    device: opt.DeviceOption = "auto",
    dtype: opt.DtypeOption = opt.Dtype.float64,
    logdir: opt.LogdirOption = Path("runs"),
    predict: opt.PredictOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Lecture 3, end to end: three methods, their runs, and the checks that they are right.

    The learning rate is 0.01 on the course's data and auto on other data, unless told.
    """
    rate = opt.learning_rate(lr or ("0.01" if data == "course" and not x else "auto"))
    opt.check_start(weight)
    dataset = opt.read_data(data, x, y, dtype, device)

    from torchgd.convergence.certificate import auto_lr, stability
    from torchgd.figures import METHOD_NAMES
    from torchgd.lessons.lesson import witness
    from torchgd.runs.run import Config, experiment_name, run, with_engine

    samples, targets = dataset
    at = 4.0 if predict is None else predict
    answer: dict[str, Any] = {"data": dataset.name, "samples": len(samples), "methods": {}}
    forecast = [f"{len(samples)} samples: {dataset.x_label} → {dataset.y_label}"]

    def announce() -> None:
        while forecast:
            terminal.say(forecast.pop(0), to_stderr=as_json)

    for method in opt.Method:
        size = min(batch_size, len(samples)) if method is opt.Method.minibatch else None
        chosen = opt.sampling(method, size, order)
        label = METHOD_NAMES[method.value]
        method_lr = rate
        if method_lr is None:
            method_lr, why = auto_lr(samples, targets, epochs=epochs, **chosen)
            forecast.append(f"{label}: {why}")
        config = Config(
            data=data,
            x=x,
            y=y,
            lr=method_lr,
            epochs=epochs,
            seed=seed,
            weight=weight,
            gradient="hand",
            device=str(dataset.inputs.device),
            dtype=dtype.value,
            engine="auto",
            **chosen,
        )
        config = with_engine(config, dataset)
        with terminal.progress(epochs, label) as on_epoch:
            done = run(
                config,
                dataset,
                logdir=logdir,
                experiment=experiment_name(dataset),
                on_start=announce,
                on_epoch=on_epoch,
            )
        seen = witness(config, samples, targets)
        certificate = stability(samples, targets, method_lr, **chosen)
        answer["methods"][method.value] = {
            "lr": method_lr,
            "limit": certificate.limit,
            "converges": certificate.converges,
            "updates": int(done.history.end_update[-1]),
            "first_weight": done.history.weight[min(1, len(done.history.weight) - 1)].item(),
            "weight": done.model.weight.item(),
            "cost": done.history.cost[-1].item(),
            "prediction": done.model(at).item(),
            "status": done.history.status,
            "updates_watched": seen.updates,
            "gradient_difference": seen.gradient,
            "updates_equal_to_sgd": seen.equal_updates,
            "ok": seen.ok and certificate.converges and done.history.status != "diverged",
            "run_dir": str(done.folder),
        }
    if as_json:
        terminal.print_json(answer)
    else:
        _print(answer["methods"], epochs, at, logdir)
    if not all(result["ok"] for result in answer["methods"].values()):
        raise typer.Exit(1)


def _print(methods: dict[str, dict[str, Any]], epochs: int, at: float, logdir: Path) -> None:
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
        terminal.say(r["run_dir"])
    terminal.say()
    terminal.where_the_curves_are(logdir)
