"""Lecture 3 from beginning to end: three methods, their runs, and witnesses that each is right."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchgd import gradient as by_hand
from torchgd.animation import animate, check_ending
from torchgd.convergence.certificate import Certificate, stability
from torchgd.convergence.rate import with_lr
from torchgd.data.dataset import Dataset, course
from torchgd.figures import cost_curve, parabola
from torchgd.model import LinearModel
from torchgd.moments import Moments, float64
from torchgd.optim import Eager
from torchgd.picture import to_png
from torchgd.plan import METHODS
from torchgd.runs.atomic import write_whole
from torchgd.runs.folders import new_folder
from torchgd.runs.forecast import missing_intercept
from torchgd.runs.run import Config, Run, experiment_name, run, with_engine
from torchgd.runs.runlog import write_config
from torchgd.training import train

MOST_UPDATES = 2000  # the witnesses watch the first updates of a run, at most this many
COURSE_LR = 0.01  # lecture 3's

Progress = AbstractContextManager[Callable[[int], None]]


class _PyTorchs(Eager, torch.optim.SGD):
    """torch.optim.SGD, with its own step, but without the import of torch._dynamo."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return inspect.unwrap(torch.optim.SGD.step)(self, closure)


@dataclass(frozen=True)
class Witness:
    """What the witnesses saw during a run.

    Attributes:
        updates: how many updates were watched.
        gradient: the largest difference between the gradient by hand and autograd's, relative to the
            largest gradient of the run.
        equal_updates: after how many of them the weight had the same bits as that of torch.optim.SGD.
    """

    updates: int
    gradient: float
    equal_updates: int

    @property
    def ok(self) -> bool:
        """Whether the gradients differ only by rounding, and the weights not at all."""
        return self.gradient < 1e-12 and self.equal_updates == self.updates


@dataclass(frozen=True)
class Part:
    """One method in the lesson.

    Attributes:
        config: of the run; its lr is the one that was used.
        run: the run: history, model and folder.
        certificate: what the theory predicts of it.
        witness: the comparison with autograd and torch.optim.SGD.
    """

    config: Config
    run: Run
    certificate: Certificate
    witness: Witness

    @property
    def ok(self) -> bool:
        """Whether the gradient and the steps are right, and the run converges."""
        return self.witness.ok and self.certificate.converges and self.run.history.status != "diverged"

    def as_dict(self, predict: float) -> dict[str, Any]:
        """The numbers for JSON, with the prediction at this x."""
        history = self.run.history
        return {
            "lr": self.config.lr,
            "limit": self.certificate.limit,
            "converges": self.certificate.converges,
            "updates": int(history.end_update[-1]),
            "first_weight": history.weight[min(1, len(history.weight) - 1)].item(),
            "weight": self.run.model.weight.item(),
            "cost": history.cost[-1].item(),
            "prediction": self.run.model(predict).item(),
            "status": history.status,
            "updates_watched": self.witness.updates,
            "gradient_difference": self.witness.gradient,
            "updates_equal_to_sgd": self.witness.equal_updates,
            "ok": self.ok,
            "run_dir": str(self.run.folder),
        }


@dataclass(frozen=True)
class Lesson:
    """The three methods on one set of data.

    Attributes:
        parts: the method's name → its part.
        folder: has the two pictures that compare them, parabola.png and cost.png.
    """

    parts: dict[str, Part]
    folder: Path

    @property
    def ok(self) -> bool:
        """Whether every part is ok."""
        return all(part.ok for part in self.parts.values())


def lesson(
    data: Dataset | None = None,
    *,
    lr: float | str = COURSE_LR,
    epochs: int = 100,
    batch_size: int = 2,
    order: str = "sequential",
    seed: int = 0,
    weight: float = 1.0,
    logdir: Path | str = "runs",
    overwrite: bool = False,
    film: Path | None = None,
    source: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, str], Progress] = lambda total, label: nullcontext(lambda done: None),
) -> Lesson:
    """Lecture 3 from beginning to end: y = w·x by each method, logged, certified, checked by two witnesses.

        w ← w − lr · dC_B/dw,    B all samples, one, or a mini-batch

    Args:
        data: the samples; the course's if not given.
        lr: the learning rate of all methods, in units of 1/x²; "auto" chooses one for each.
        epochs: passes over the data.
        batch_size: samples in a mini-batch; all samples if there are fewer.
        order, seed: of the samples, see :class:`torchgd.Plan`.
        weight: w before training.
        logdir: the folder of all runs.
        overwrite: replace the runs of these names; else the new ones get the next free numbers.
        film: a .gif or .html file to write the descent to, see :func:`torchgd.animation.animate`.
        source: the words that name the data, for config.json.
        say: called with each sentence that is known before the runs.
        progress: makes a progress bar from a total and a label.

    Raises:
        InputError: an argument is out of its range, or the data are not fit for it.

    Example:
        >>> import tempfile
        >>> from torchgd import lesson
        >>> done = lesson(epochs=1, logdir=tempfile.mkdtemp())
        >>> {method: round(part.run.model.weight.item(), 6) for method, part in done.parts.items()}
        {'gd': 1.093333, 'sgd': 1.260688, 'minibatch': 1.221}
        >>> done.ok
        True

    Source: 《PyTorch深度学习实践》, lecture 3 (2020).
    """
    check_ending(film)
    data = course() if data is None else data
    asked = Config(
        lr=None if isinstance(lr, str) else lr,
        order=order,
        seed=seed,
        method="sgd",
        epochs=epochs,
        weight=weight,
        device=str(data.inputs.device),
        dtype=str(data.inputs.dtype).removeprefix("torch."),
        **(source or {"data": data.name}),
    )
    heard = [f"{len(data)} samples: {data.x_label} → {data.y_label}"]
    configs = list(_each_method(asked, data, batch_size, heard))
    heard += missing_intercept(data)

    def announce() -> None:
        while heard:
            say(heard.pop(0))

    parts, experiment = dict[str, Part](), experiment_name(data)
    for config in configs:
        with progress(epochs, METHODS[config.method].label) as on_epoch:
            more: dict[str, Any] = {"overwrite": overwrite, "on_start": announce, "on_epoch": on_epoch}
            done = run(config, data, logdir=Path(logdir), experiment=experiment, **more)
        certificate = stability(data.x, data.y, config.rate, **config.sampling)
        parts[config.method] = Part(config, done, certificate, witness(config, data.x, data.y))
    folder = new_folder(Path(logdir), experiment, "lesson", overwrite=overwrite)
    write_config(folder, {**asked.settings, "method": "lesson", "batch_size": batch_size})
    return Lesson(parts, _pictures(parts, data, folder, film))


def _each_method(asked: Config, data: Dataset, batch_size: int, heard: list[str]) -> Iterator[Config]:
    """The configuration of each method, with its rate and engine; the reason of the rate joins ``heard``."""
    for method, kind in METHODS.items():
        size = min(batch_size, len(data)) if kind.samples == "some" else None
        config, why = with_lr(replace(asked, method=method, batch_size=size), data.x, data.y, asked.epochs)
        heard += [f"{kind.label}: {why}"] if why else []
        yield with_engine(config, data)


def _pictures(parts: Mapping[str, Part], data: Dataset, folder: Path, film: Path | None) -> Path:
    """Draw the pictures that compare the methods, and the film; returns the folder."""
    histories = {method: part.run.history for method, part in parts.items()}
    rates = {method: part.config.rate for method, part in parts.items()}
    title = f"{data.name}, {next(iter(parts.values())).config.epochs} epochs"
    moments = Moments.of(data.blocks())
    for name, figure in (
        ("parabola", parabola(histories, moments, title=title, rates=rates)),
        ("cost", cost_curve(histories, title=title, rates=rates)),
    ):
        write_whole(folder / f"{name}.png", to_png(figure)[0])
    if film is not None:
        animate(film, histories, moments, title=data.name)
    return folder


def witness(config: Config, x: Tensor, y: Tensor) -> Witness:
    """Run the first updates of a configuration three ways at once, in float64.

    First by hand with torchgd's optimizer, second with autograd's gradient at the same weights, third with
    torch.optim.SGD on the same batches.
    """
    x, y = float64(x), float64(y)
    if METHODS[config.method].samples != "all":
        most = MOST_UPDATES * config.batch_size_of(len(x))
        x, y = x[:most], y[:most]
    model = LinearModel(config.weight, device=x.device, dtype=x.dtype)
    optimizer = config.optimizer(model.parameters())
    per_epoch = len(optimizer.batches(len(x)))
    epochs = min(config.epochs, max(1, MOST_UPDATES // per_epoch))
    largest = difference = torch.zeros((), dtype=x.dtype, device=x.device)

    def watched(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        nonlocal largest, difference
        hand = by_hand.gradient(w, x, y)
        leaf = w.clone().requires_grad_()
        (auto,) = torch.autograd.grad(torch.nn.functional.mse_loss(leaf * x, y), leaf)
        largest = torch.maximum(largest, auto.abs())
        difference = torch.maximum(difference, (hand - auto).abs())
        return hand

    ours = train(model, x, y, optimizer, epochs, gradient=watched, check=False)
    peer = LinearModel(config.weight, device=x.device, dtype=x.dtype)
    sgd = _PyTorchs(peer.parameters(), lr=config.rate)
    batches = config.batches(len(x))  # its generator starts from the seed again
    theirs = train(peer, x, y, sgd, epochs, gradient="hand", batches=batches)
    updates = len(ours.update_weight)
    equal = int((ours.update_weight == theirs.update_weight[:updates]).sum())
    return Witness(updates, (difference / largest.clamp_min(torch.finfo(x.dtype).tiny)).item(), equal)
