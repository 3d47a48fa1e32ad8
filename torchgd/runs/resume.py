"""Resuming a run: finds it, and checks that its settings are the same."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torchgd.batches import Batches
from torchgd.errors import InputError
from torchgd.history import COLUMNS, History
from torchgd.runs import checkpoint
from torchgd.runs.checkpoint import Checkpoint
from torchgd.runs.folders import check_name
from torchgd.training import Place

CHECKPOINT = "checkpoint.pt"
GO_ON = "torchgd train --resume with the same options continues"
_KEEP_PLACE = {"lr", "epochs", "gradient", "device"}  # after changes of others a new epoch begins
OVERRIDABLE = [
    "lr",
    "epochs",
    "data",
    "method",
    "batch_size",
    "order",
    "seed",
    "gradient",
    "device",
    "engine",
]
# Versions and names; data are compared by their content.
_NOT_COMPARED = {"torchgd", "torch", "data", "x", "y", "encoding", "drop_missing"}


def find_run(logdir: Path, experiment: str, method: str, name: str | None) -> Path:
    """The folder of the run of this name, or of the method's last run (of sgd, sgd-2, sgd-3 the third).

    Raises:
        InputError: there is none; the message lists the existing ones.
    """
    wanted = method if name is None else name
    check_name(wanted)
    folder = logdir / experiment
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    numbered = re.compile(rf"{re.escape(method)}(?:-(\d+))?")
    numbers = {int(match[1] or 1): run for run in found if (match := numbered.fullmatch(run))}
    run = numbers[max(numbers)] if name is None and numbers else name
    if run not in found:
        there = f"there are {', '.join(found)}; give --name" if found else "leave out --resume to begin one"
        raise InputError(f"{folder / wanted}: no such run to resume; {there}")
    return folder / run


def past_of(folder: Path, settings: Mapping[str, Any], override: Sequence[str]) -> Checkpoint | None:
    """The checkpoint to resume from, or None if the run was killed before its first one.

    Args:
        folder: the run's.
        settings: the present ones; all but versions and names must be the run's.
        override: the names of those that may differ. For most of them the run resumes from the end of the
            last whole epoch.

    Raises:
        InputError: the folder holds something else or something broken, or the settings differ.
    """
    override = [name.replace("-", "_") for name in override]
    for name in override:
        if name not in OVERRIDABLE:
            raise InputError(f"--override {name}: not one of {', '.join(OVERRIDABLE)}")
    was, kept = _read(folder)
    if was is None:
        return None
    differing = {key for key in settings.keys() - _NOT_COMPARED if was.get(key) != settings[key]}
    if "dtype" in differing:
        differing.discard("checksum")  # the same numbers with other bytes
    names = {"data" if key in {"samples", "checksum"} else key for key in differing}
    refused = sorted(names - set(override))
    if refused:
        listed = ", ".join(f"{name} {_worded(was, name)} (now {_worded(settings, name)})" for name in refused)
        able = set(refused) <= set(OVERRIDABLE)
        mend = f"add {' '.join(f'--override {name}' for name in refused)}" if able else "leave out --resume"
        raise InputError(f"{folder}: the run has {listed}; give the same, or {mend}")
    if kept is None:
        return None
    if kept.place.epoch > settings["epochs"]:
        raise InputError(f"{folder}: {kept.place.epoch} epochs are done; give --epochs of that or more")
    if names and kept.history.status == "diverged":
        raise InputError(f"{folder}: the run has diverged and is over; leave out --resume to start over")
    if not names <= _KEEP_PLACE:
        kept = _at_epoch_end(kept)
    changes = list(was.get("overridden", []))
    if names:
        changes.append({"epoch": kept.place.epoch, **{name: was.get(name) for name in sorted(names)}})
    return replace(kept, settings={**settings, "overridden": changes} if changes else settings)


def counted_on(past: History | None, part: History, batches: Batches) -> History:
    """The new part of a run, counted on from the updates and samples of earlier, other batches."""
    if past is None:
        return part
    updates = int(past.end_update[-1]) - int(past.epoch[-1]) * len(batches)
    samples = int(past.end_samples[-1]) - int(past.epoch[-1]) * batches.n
    return replace(
        part,
        end_update=part.end_update + updates,
        update=part.update + updates,
        end_samples=part.end_samples + samples,
        samples_seen=part.samples_seen + samples,
    )


def _at_epoch_end(kept: Checkpoint) -> Checkpoint:
    """The checkpoint as it was at the end of the last whole epoch; the generator of the order starts over."""
    history = kept.history
    whole = history.update <= history.end_update[-1]
    return replace(
        kept,
        model={"weight": history.weight[-1]},
        history=replace(
            history,
            **{name: getattr(history, name)[whole] for name, c in COLUMNS.items() if c.axis == "update"},
        ),
        place=Place(int(history.epoch[-1])),
    )


def _read(folder: Path) -> tuple[Mapping[str, Any] | None, Checkpoint | None]:
    """The run's settings and its last checkpoint, as far as they were written."""
    if (folder / CHECKPOINT).exists():
        kept = checkpoint.load(folder / CHECKPOINT)
        if not kept.settings:
            raise InputError(f"{folder / CHECKPOINT}: holds no settings; it can be resumed in Python only")
        return kept.settings, kept
    path = folder / "config.json"
    if not path.exists():
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if others:
            raise InputError(
                f"{folder}: is not a run, because it holds {others[0]!r} but no config.json; check --name"
            )
        return None, None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); leave out --resume to start over") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: is not a JSON object; leave out --resume to start over")
    return settings, None


def _worded(settings: Mapping[str, Any], name: str) -> str:
    if name == "data":
        return (
            f"{settings.get('data')} ({settings.get('samples')} samples, checksum {settings.get('checksum')})"
        )
    text = str(settings.get(name))
    return text if text.isprintable() else ascii(text)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Lock a run's folder for writing; another writer, or a failure to write, becomes an InputError.

    Raises:
        InputError: another process writes there (not noticed on systems without locks), the disk is full,
            or the folder cannot be written.
    """
    try:
        with ExitStack() as stack:
            if importlib.util.find_spec("fcntl"):  # not on Windows
                fcntl: Any = importlib.import_module("fcntl")
                handle = os.open(folder, os.O_RDONLY)  # the lock ends with the process, however that ends
                stack.callback(os.close, handle)
                _lock(fcntl, handle, folder)
            yield
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); check the disk and the folder; {GO_ON}"
        ) from None


def _lock(fcntl: Any, handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{folder}: another process is at work on this run; wait for its end") from None
    except OSError:  # a file system without locks
        return
