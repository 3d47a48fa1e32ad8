"""The folders of runs: their names, and the list of the existing ones."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchgd.errors import InputError

CONFIG = "config.json"
_FORBIDDEN = '<>:"/\\|?*'  # in the names of files on Windows
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}

_TAIL = 1 << 16  # bytes at the end of history.csv that contain its last cost


@dataclass(frozen=True)
class Entry:
    """A run in the list.

    Attributes:
        name: ``experiment/run``, its folder below the folder of all runs.
        settings: what its config.json says.
        cost: the last one in its history.csv, or None.
        when: its start, in seconds since 1970.
    """

    name: str
    settings: dict[str, Any]
    cost: float | None
    when: float


def new_folder(logdir: Path, experiment: str, name: str, *, overwrite: bool = False) -> Path:
    """Make the folder of a new run: ``name``, or the next free of ``name-2``, ``name-3``, …

    With ``overwrite`` the run of this name, if there is one, is removed first.

    Raises:
        InputError: some system does not allow this name, or the folder cannot be written.
    """
    for part in (experiment, name):
        check_name(part)
    if overwrite and (logdir / experiment / name).exists():
        remove(logdir, f"{experiment}/{name}")
    number = 1
    while True:
        folder = logdir / experiment / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not (logdir / experiment).is_dir():
                raise InputError(
                    f"{logdir / experiment}: a file is in the way; give another --logdir"
                ) from None
            number += 1
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); give another --logdir") from None
        else:
            return folder


def check_name(name: str) -> None:
    """Refuse a run's name that is not a folder name on Windows, or that leaves its parent folder."""
    bad = [c for c in name if c in _FORBIDDEN or ord(c) < 32 or 127 <= ord(c) < 160]
    if bad:
        raise InputError(f"the name {name!r} holds {bad[0]!r}; use letters, digits, '-', '_' and '.'")
    reserved = name.split(".")[0].lower() in _RESERVED
    if not name or reserved or name != name.strip(" .") or len(name) > 100:
        raise InputError(f"the name {name!r} is not a folder name on every system; use e.g. 'sgd-1'")


def runs_in(logdir: Path) -> list[Entry]:
    """All runs below this folder, the oldest first."""
    found = []
    for path in logdir.rglob(CONFIG):
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            settings = None
        if isinstance(settings, dict):
            name = path.parent.relative_to(logdir).as_posix()
            cost = _last_cost(path.parent / "history.csv")
            found.append(Entry(name, settings, cost, path.stat().st_mtime))
    return sorted(found, key=lambda entry: entry.when)


def remove(logdir: Path, pattern: str) -> list[str]:
    """Remove the runs whose name, ``experiment/run``, fits the pattern (``course/gd-*``); returns the names.

    Raises:
        InputError: no run has such a name, or the folder is not one of a run.
    """
    folders = [
        folder
        for folder in sorted(logdir.glob(pattern.strip("/")))
        if ".." not in Path(pattern).parts
        if folder.is_dir() and not folder.is_symlink() and (folder / CONFIG).is_file()
    ]
    if not folders:
        raise InputError(f"{logdir / pattern}: no run has this name; torchgd runs lists all names")
    for folder in folders:
        shutil.rmtree(folder)
    return [folder.relative_to(logdir).as_posix() for folder in folders]


def _last_cost(path: Path) -> float | None:
    """The last cost in a history.csv; only the beginning and the end of the file are read."""
    try:
        with path.open("rb") as file:
            header = file.readline().decode().strip().split(",")
            start = file.tell()
            file.seek(max(start, path.stat().st_size - _TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    return next((float(row["cost"]) for row in _backwards(header, lines) if row.get("cost")), None)


def _backwards(header: list[str], lines: list[str]) -> Iterator[dict[str, str]]:
    for cells in csv.reader(reversed(lines)):
        if len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
