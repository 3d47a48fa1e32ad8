"""The checkpoints of a run while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from torchgd.history import History
from torchgd.runs import checkpoint
from torchgd.runs.checkpoint import Checkpoint
from torchgd.training import Place

SECONDS_BETWEEN = 2.0  # at least, between two checkpoints
SHARE_OF_TIME = 0.05  # at most, for the checkpoints of a long history


class Keeper:
    """Writes a run's checkpoint: every few seconds, on any exception, and at the end.

    Args:
        path: of the checkpoint.
        model, optimizer: those that train.
        settings: the run's.
        past: the checkpoint from which the run is resumed.
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
        self._save()  # with the new settings
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            with suppress(OSError):  # there is an exception already, and the last checkpoint is whole
                self._save()

    def note(self, part: History, place: Place) -> None:
        """Keep what is new; to be called by ``on_progress``."""
        if part.status == "diverged":  # its place has no finite weight
            return
        self._parts.append(part)
        self._state = checkpoint.take(self._model, self._optimizer, part, place, settings=self._settings)
        if time.monotonic() >= self._next:
            self._save()

    def end(self, history: History) -> None:
        """Save the run as ended, with its outcome."""
        place = self._state.place if self._state else Place()
        self._parts = [history]
        self._state = checkpoint.take(
            self._model, self._optimizer, history, place, settings=self._settings, ended=True
        )
        self._save()

    def _save(self) -> None:
        """Write the state of the last :meth:`note`, with the history so far."""
        if self._state is None:
            return
        begun = time.monotonic()
        self._parts = [History.join(self._parts)]
        checkpoint.save(self._path, replace(self._state, history=self._parts[0]))
        now = time.monotonic()
        self._next = now + max(SECONDS_BETWEEN, (now - begun) / SHARE_OF_TIME)
