"""One run's folder: its TensorBoard event file, config.json, history.csv and pictures.

``runs/<experiment>/<run>/``. This is the only module that writes TensorBoard events. Tags:
``epoch/cost``, ``epoch/log10_cost`` (where the cost is above 0) and ``epoch/weight`` over epochs;
``update/loss`` (before the update), ``update/gradient`` and ``update/weight`` over samples seen, so that
the curves of different methods share an axis;
``picture/parabola`` and ``picture/cost``, which TensorBoard lists after the curves over epochs. The
hyperparameters are in the same event file, so that a run is one row in the HPARAMS tab and one run.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from torchgd.history import COLUMNS, History
from torchgd.runs.atomic import write_whole
from torchgd.runs.eventfile import EventFile
from torchgd.runs.folders import CONFIG, new_folder

SCHEMA = 1  # version of config.json; within a version a field keeps its name and meaning
MOST_POINTS = 1000  # TensorBoard shows no more points of a curve
# of every run: TensorBoard takes the columns of its table from the first run that it finds
HYPERPARAMETERS = ("method", "lr", "batch_size", "order", "epochs", "data", "run")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; a file name that is not UTF-8 becomes an escape, as JSON reads it."""
    write_whole(path, text.encode("utf-8", "backslashreplace"))


class RunLog:
    """Writes one run while it runs; a context manager, so that history.csv is written after an exception too.

    Args:
        folder: the run's folder, which exists.
        hyperparameters: numbers and words for the HPARAMS tab.
        epochs: epochs of the whole run.
        updates: updates of the whole run.
        past: the history so far; the new event file begins with it, and replaces the older one.

    Example:
        >>> import tempfile
        >>> from torchgd import GradientDescent, LinearModel, course, train
        >>> folder = new_folder(Path(tempfile.mkdtemp()), "course", "gd")
        >>> model = LinearModel(1.0, dtype=torch.float64)
        >>> optimizer = GradientDescent(model.parameters())
        >>> with RunLog(folder, {"lr": 0.01}, epochs=100, updates=100) as log:
        ...     history = train(model, *course(), optimizer, on_progress=lambda part, place: log.write(part))
        ...     log.finish(history)
        >>> sorted(file.suffix for file in folder.iterdir())[0]
        '.csv'
    """

    def __init__(
        self,
        folder: Path,
        hyperparameters: Mapping[str, float | str],
        *,
        epochs: int,
        updates: int,
        past: History | None = None,
    ) -> None:
        self.folder = folder
        self._totals = {"epoch": epochs, "update": updates}
        # The last of MOST_POINTS buckets in which a point was written.
        self._buckets = {"epoch": -1, "update": -1}
        self._parts: list[History] = []
        self._events = EventFile(folder)
        row = {**dict.fromkeys(HYPERPARAMETERS, ""), "run": folder.name, **hyperparameters}
        experiment, start, self._end = hparams(row, {"epoch/cost": 0.0})
        try:
            for summary in (experiment, start):
                self._events.add(0, summary)
            if past is not None:
                self.write(past)
            self._events.publish()
        except BaseException:
            with suppress(OSError):
                self._events.close()
            raise

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            self._events.close()
            return
        with suppress(OSError):  # the disk may be the reason of the exception
            self._events.close()
            if self._parts:
                self._write_history(self.history)

    def write(self, part: History) -> None:
        """Write what is new in the history, and flush it."""
        self._parts.append(part)
        for axis, numbers, steps in (
            ("epoch", part.epoch, part.epoch),
            ("update", part.update, part.samples_seen),
        ):
            curves = {c.tag: getattr(part, name) for name, c in COLUMNS.items() if c.axis == axis and c.tag}
            for i in self._thinned(axis, numbers):
                values = [_named(tag, column[i]) for tag, column in curves.items()]
                if axis == "epoch" and part.cost[i] > 0:  # keeps the others visible beside a diverged run
                    values.insert(0, {"epoch/log10_cost": part.cost[i].double().log10()})
                self._events.add(int(steps[i]), _scalars(dict(ChainMap(*values))))
        self._events.flush()

    @property
    def history(self) -> History:
        """The whole history so far."""
        self._parts = [History.join(self._parts)]
        return self._parts[0]

    def picture(self, tag: str, png: bytes, width: int, height: int) -> None:
        """Write a picture to the IMAGES tab, as ``picture/<tag>``, and to the folder, as ``<tag>.png``."""
        image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=4)
        self._events.add(0, Summary(value=[Summary.Value(tag=f"picture/{tag}", image=image)]))
        write_whole(self.folder / f"{tag}.png", png)

    def finish(self, history: History) -> None:
        """Write history.csv, and the end of the run in the event file."""
        self._write_history(history)
        self._events.add(0, self._end)
        self._events.sync()

    @staticmethod
    def is_whole(folder: Path, history: History, pictures: Sequence[str]) -> bool:
        """Whether the folder of a run that has ended has all its files, and each to its end."""
        try:
            ends = [(folder / f"{tag}.png").read_bytes().endswith(b"IEND\xaeB`\x82") for tag in pictures]
            table = (folder / "history.csv").read_text(encoding="utf-8") == history_csv(history)
            return (
                all(ends)
                and table
                and (folder / CONFIG).exists()
                and EventFile.is_whole(folder, b"session_end_info")
            )
        except (OSError, UnicodeError):
            return False

    def _thinned(self, axis: str, numbers: Tensor) -> Iterator[int]:
        """The rows to write: the first in each of MOST_POINTS equal stretches of the whole run."""
        buckets = numbers * MOST_POINTS // self._totals[axis]
        fresh = torch.diff(buckets, prepend=torch.tensor([self._buckets[axis]])) > 0
        if len(buckets):
            self._buckets[axis] = int(buckets[-1])
        yield from fresh.nonzero().reshape(-1).tolist()

    def _write_history(self, history: History) -> None:
        write_text(self.folder / "history.csv", history_csv(history))


def write_runs(
    logdir: Path,
    experiment: str,
    histories: Mapping[str, History],
    config: Mapping[str, Any],
    picture: tuple[bytes, int, int] | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write the folders of runs that have ended as one experiment, with a picture in the first of them.

    Args:
        logdir, experiment: where to.
        histories: the run's name → its history.
        config: what they have in common; config.json adds the run's name.
        picture: a PNG, its width and its height.
        overwrite: as for :func:`.folders.new_folder`.

    Returns:
        The run's name → its folder.
    """
    folders = dict[str, Path]()
    for name, history in histories.items():
        folders[name] = new_folder(logdir, experiment, name, overwrite=overwrite)
        write_config(folders[name], {**config, "run": name})
        epochs, updates = int(history.epoch[-1]), int(history.update[-1])
        row = {key: config[key] for key in HYPERPARAMETERS if isinstance(config.get(key), int | float | str)}
        with RunLog(folders[name], {**row, "run": name}, epochs=epochs, updates=updates) as log:
            log.write(history)
            if picture is not None and len(folders) == 1:
                log.picture(experiment, *picture)
            log.finish(history)
    return folders


def versions() -> dict[str, str]:
    """The versions of the packages that decide a run's numbers, for its config.json."""
    return {"torchgd": version("torchgd"), "torch": str(torch.__version__)}


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json: all that is needed to repeat the run."""
    write_text(
        folder / "config.json", json.dumps({"schema": SCHEMA, **config}, indent=2, ensure_ascii=False) + "\n"
    )


def history_csv(history: History) -> str:
    """The history as CSV, see :meth:`History.table`."""
    return history.to_csv()


def _scalars(values: Mapping[str, Tensor]) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()])


def _named(tag: str, weight: Tensor) -> dict[str, Tensor]:
    """One curve for one weight, one each for several: ``epoch/weight/0``, ``epoch/weight/1``, …"""
    if weight.dim() == 0:
        return {tag: weight}
    return {f"{tag}/{i}": value for i, value in enumerate(weight)}
