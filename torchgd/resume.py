"""Going on with a run: which one it is, whether it is the same one, and its checkpoints while it goes."""

from __future__ import annotations

import json
import math
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchgd import checkpoint
from torchgd.checkpoint import Checkpoint
from torchgd.data import Dataset
from torchgd.errors import InputError
from torchgd.history import History
from torchgd.runlog import check_name
from torchgd.training import Place

SECONDS_BETWEEN = 2.0  # checkpoints, at least
SHARE_OF_TIME = 0.05  # that they may take, however long the history is
STRETCHES, STRETCH = 64, 2**18  # of samples that count for the checksum: up to 16.7 million it is all of them

CHECKPOINT = "checkpoint.pt"
OVERRIDABLE = ("lr", "epochs", "data", "gradient", "device")  # what leaves the place within an epoch as it is
_NOT_COMPARED = {"torchgd", "torch", "data", "x", "y"}  # versions and names; the data count by content


def fingerprint(data: Dataset) -> dict[str, int | str]:
    """The data by content: the number of samples and a checksum of x and of y."""
    x = y = 0
    for start in range(0, len(data), max(STRETCH, math.ceil(len(data) / STRETCHES))):
        for xs, ys in data.blocks(start=start, stop=start + STRETCH):
            x, y = zlib.crc32(_bytes(xs), x), zlib.crc32(_bytes(ys), y)
    return {"samples": len(data), "checksum": f"{x:08x}{y:08x}"}


def _bytes(values: Tensor) -> Any:
    return values.cpu().contiguous().view(torch.uint8).numpy()


def find_run(logdir: Path, experiment: str, method: str, name: str | None) -> Path:
    """The folder of the run of this name, or else of the method's last run: of sgd, sgd-2, sgd-3 the third.

    Raises:
        InputError: there is none, with the names of those that there are.
    """
    check_name(name or method)
    folder = logdir / experiment
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    numbered = re.compile(rf"{re.escape(method)}(?:-(\d+))?")
    numbers = {int(match[1] or 1): run for run in found if (match := numbered.fullmatch(run))}
    run = numbers[max(numbers)] if name is None and numbers else name
    if run not in found:
        there = f"there are {', '.join(found)}; give --name" if found else "leave out --resume to begin one"
        raise InputError(f"{folder / (name or method)}: no such run to go on with; {there}")
    return folder / run


def past_of(folder: Path, settings: Mapping[str, Any], override: Sequence[str]) -> Checkpoint | None:
    """The checkpoint to go on from, or None where the run was killed before its first.

    Args:
        folder: the run's.
        settings: those of now; all but versions and names must be the run's.
        override: the names of those that may differ.

    Raises:
        InputError: the folder holds something else or something broken, or the settings differ.
    """
    for name in override:
        if name not in OVERRIDABLE:
            raise InputError(f"--override {name}: a run can go on with another {', '.join(OVERRIDABLE)} only")
    was, kept = _read(folder)
    if was is None:
        return None
    if "data" in override and was.get("samples") != settings["samples"]:
        override = [name for name in override if name != "data"]  # the place would be another
    differing = {key for key in settings.keys() - _NOT_COMPARED if was.get(key) != settings[key]}
    if "dtype" in differing:
        differing.discard("checksum")  # other bytes of the same numbers
    names = {"data" if key in {"samples", "checksum"} else key for key in differing} - set(override)
    if names:
        listed = ", ".join(
            f"{name} {_worded(was, name)} (now {_worded(settings, name)})" for name in sorted(names)
        )
        able = names <= set(OVERRIDABLE) and was.get("samples") == settings["samples"]
        mend = (
            f"add {' '.join(f'--override {name}' for name in sorted(names))}"
            if able
            else "leave out --resume"
        )
        raise InputError(f"{folder}: the run has {listed}; give the same, or {mend}")
    if kept and kept.place.epoch > settings["epochs"]:
        raise InputError(f"{folder}: {kept.place.epoch} epochs are done; give --epochs of that or more")
    if kept and kept.ended and kept.history.status == "diverged" and override:
        raise InputError(f"{folder}: the run has diverged and cannot go on; leave out --resume to begin anew")
    return kept


def _read(folder: Path) -> tuple[Mapping[str, Any] | None, Checkpoint | None]:
    """The run's settings and its last checkpoint, each as far as it got before it was killed."""
    if (folder / CHECKPOINT).exists():
        kept = checkpoint.load(folder / CHECKPOINT)
        if kept.settings is None:
            raise InputError(
                f"{folder / CHECKPOINT}: holds no settings; it can be gone on with in Python only"
            )
        return kept.settings, kept
    path = folder / "config.json"
    if not path.exists():
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if others:
            raise InputError(
                f"{folder}: is no run, as it holds {others[0]!r} but no config.json; check --name"
            )
        return None, None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); leave out --resume to begin anew") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: holds no JSON object; leave out --resume to begin anew")
    return settings, None


def _worded(settings: Mapping[str, Any], name: str) -> str:
    if name == "data":
        return (
            f"{settings.get('data')} ({settings.get('samples')} samples, checksum {settings.get('checksum')})"
        )
    return str(settings.get(name))


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Refuse a folder that a living process writes; where the system has no such locks, trust the caller."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)  # the lock ends with the process, however that ends
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is at work on this run; wait for its end") from None
        yield
    finally:
        os.close(handle)


class Keeper:
    """Keeps a run's checkpoint while it goes: every few seconds, on any exception, and at the end.

    Args:
        path: of the checkpoint.
        model, optimizer: those that train.
        settings: the run's.
        past: the checkpoint that the run goes on from.
    """

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        optimizer: Optimizer,
        settings: Mapping[str, Any],
        past: Checkpoint | None,
    ) -> None:
        self._path, self._model, self._optimizer, self._settings = path, model, optimizer, settings
        self._parts = [past.history] if past else []
        self._state = replace(past, settings=settings, ended=False) if past else None
        self._next = time.monotonic() + SECONDS_BETWEEN

    def __enter__(self) -> Keeper:
        self._save()  # with the settings of now
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            with suppress(OSError):  # there is an exception already, and the last checkpoint is whole
                self._save()

    def note(self, part: History, place: Place) -> None:
        """Take down what is new; to be called by ``on_progress``."""
        if part.status == "diverged":  # the place is beyond the last finite weight: not one to go on from
            return
        self._parts.append(part)
        self._state = checkpoint.take(self._model, self._optimizer, part, place, settings=self._settings)
        if time.monotonic() >= self._next:
            self._save()

    def end(self, history: History) -> None:
        """Keep the run as one that has ended, with its outcome."""
        place = self._state.place if self._state else Place()
        self._parts = [history]
        self._state = checkpoint.take(
            self._model, self._optimizer, history, place, settings=self._settings, ended=True
        )
        self._save()

    def _save(self) -> None:
        """Write the state of the last note, with the history so far."""
        if self._state is None:
            return
        begun = time.monotonic()
        self._parts = [History.join(self._parts)]
        checkpoint.save(self._path, replace(self._state, history=self._parts[0]))
        now = time.monotonic()
        self._next = now + max(SECONDS_BETWEEN, (now - begun) / SHARE_OF_TIME)
