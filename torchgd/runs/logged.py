"""``torchgd.train``: the loop, and if asked a log and a progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

from torchgd import training
from torchgd.batches import Batches
from torchgd.history import History
from torchgd.samples import Numbers, rows
from torchgd.training import MOST_UPDATES_RECORDED, Place
from torchgd.update import GradientFunction, LossFunction

if TYPE_CHECKING:
    from torchgd.runs.keeper import Keeper
    from torchgd.runs.runlog import RunLog

Report = Callable[[History, Place], None]


def train(
    model: nn.Module,
    x: Numbers,
    y: Numbers,
    optimizer: Optimizer,
    epochs: int = 100,
    *,
    gradient: str | GradientFunction = "autograd",
    loss_fn: LossFunction = mse_loss,
    batches: Batches | int | None = None,
    scheduler: Any = None,
    check: bool = True,
    log: Path | str | None = None,
    progress: bool = False,
    max_points: int = MOST_UPDATES_RECORDED,
    on_progress: Callable[[History, Place], None] | None = None,
    resume: tuple[History, Place] | None = None,
) -> History:
    """Descend the loss: for each epoch, for each batch B of it, one optimizer step along dC_B/dw.

    The data move to the model's device and dtype once, and the host looks at the device's numbers once
    in 100 updates. A number that is not finite ends the run as diverged, and the model keeps its last
    finite weight (a module other than LinearModel: the weights of the last look).

    Args:
        model: a LinearModel, or with ``gradient="autograd"`` any module.
        x: inputs, shape (n, …).
        y: targets, shape (n, …).
        optimizer: any :class:`torch.optim.Optimizer` of the model's parameters.
        epochs: passes over the data, 1 or more.
        gradient: "autograd"; "hand" for :func:`torchgd.gradient.gradient`; or your own f(w, x, y), which
            takes w of shape () and a batch x, y of shape (b,), and returns dC/dw, a number or of shape ().
        loss_fn: loss of (prediction, target), shape ().
        batches: the batches of an epoch, or the batch size; those of the optimizer if not given, or all data
            at once if it has none.
        scheduler: its ``step()`` is called after every epoch, that of ReduceLROnPlateau with the cost.
        check: test your f with :func:`torchgd.check_gradient` first, and name the mistake in a warning.
        log: a folder for the run, such as ``runs/mine/first``, for its TensorBoard event file, config.json,
            history.csv, checkpoint and a picture of the cost. If it exists, the next free number is added.
        progress: show a bar of the epochs, on standard error or in a notebook.
        max_points: at most this many updates are recorded, evenly spaced.
        on_progress: called a few times a second, and at the end, with what is new in the history and the
            place, between two updates; after an exception from it the run can be resumed.
        resume: continue from this history and place, with the model and optimizer of that moment.

    Returns:
        The :class:`~torchgd.history.History` of the whole run.

    Raises:
        InputError: sizes, shapes or arguments that do not fit.

    Example:
        >>> import torch
        >>> from torchgd import GradientDescent, LinearModel, course, train
        >>> model = LinearModel(1.0, dtype=torch.float64)
        >>> history = train(model, *course(), GradientDescent(model.parameters(), lr=0.01), gradient="hand")
        >>> history.weight[1].item(), model(4.0).item()
        (1.0933333333333333, 7.999777758621207)

    Source: 《PyTorch深度学习实践》, lectures 3 and 4 (2020).
    """
    options: dict[str, Any] = {
        "gradient": gradient,
        "loss_fn": loss_fn,
        "batches": batches,
        "scheduler": scheduler,
        "check": check,
        "max_points": max_points,
        "resume": resume,
    }
    reports = [on_progress] if on_progress else []
    with ExitStack() as stack:
        if progress:
            reports.append(_bar(stack, epochs))
        kept = None
        if log is not None:
            walk = training.batches_of(optimizer, len(rows(x, y)[0]), batches)
            kept = _Log(Path(log), stack, model, optimizer, walk, epochs, resume[0] if resume else None)
            reports.append(kept.note)
        report = partial(_each, reports) if reports else None
        history = training.train(model, x, y, optimizer, epochs, on_progress=report, **options)
        if kept is not None:
            kept.end(history)
    return history


def _each(reports: list[Report], part: History, place: Place) -> None:
    for report in reports:
        report(part, place)


def _bar(stack: ExitStack, epochs: int) -> Report:
    """A bar of epochs, which is removed when the stack closes."""
    from rich.console import Console
    from rich.progress import Progress

    bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    task = bar.add_task("train", total=epochs)
    return lambda part, place: bar.update(task, completed=place.epoch)


class _Log:
    """The folder of a run, made at its first report, so that an InputError before it writes nothing."""

    def __init__(
        self,
        path: Path,
        stack: ExitStack,
        model: nn.Module,
        optimizer: Optimizer,
        batches: Batches,
        epochs: int,
        past: History | None,
    ) -> None:
        self._path, self._stack, self._model, self._optimizer = path.absolute(), stack, model, optimizer
        self._batches, self._epochs, self._past = batches, epochs, past
        self._open: tuple[RunLog, Keeper] | None = None

    def note(self, part: History, place: Place) -> None:
        """Write what is new."""
        if self._open is None:
            self._open = self._opened()
        log, keeper = self._open
        log.write(part)
        keeper.note(part, place)

    def _opened(self) -> tuple[RunLog, Keeper]:
        # Imported here, because a run without a log does not need TensorBoard.
        from torchgd.runs.folders import new_folder
        from torchgd.runs.keeper import Keeper
        from torchgd.runs.resume import CHECKPOINT
        from torchgd.runs.runlog import RunLog, versions, write_config

        folder = new_folder(self._path.parents[1], self._path.parent.name, self._path.name)
        parameters: dict[str, float | str] = {
            "method": type(self._optimizer).__name__,
            "lr": float(self._optimizer.param_groups[0].get("lr", math.nan)),
            "batch_size": self._batches.batch_size,
            "order": self._batches.order,
            "epochs": self._epochs,
            "data": f"{self._batches.n} samples",
            "run": folder.name,
        }
        settings = {"model": type(self._model).__name__, **parameters, **versions()}
        write_config(folder, settings)
        updates, state = self._epochs * len(self._batches), (self._model, self._optimizer, settings)
        log = RunLog(folder, parameters, epochs=self._epochs, updates=updates, past=self._past)
        keeper = Keeper(folder / CHECKPOINT, *state, None)
        return self._stack.enter_context(log), self._stack.enter_context(keeper)

    def end(self, history: History) -> None:
        """Write the outcome and the picture."""
        from torchgd.figures import cost_curve
        from torchgd.picture import to_png

        if self._open is not None:
            log, keeper = self._open
            log.picture("cost", *to_png(cost_curve({self._path.name: history})))
            log.finish(history)
            keeper.end(history)
