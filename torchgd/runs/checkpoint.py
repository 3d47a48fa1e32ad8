"""Checkpoints: all that a run needs to be resumed with the same bits, in a file that executes nothing.

It holds tensors, numbers and words only, the version of its format, and a checksum, and is read with
``torch.load(weights_only=True)``. It has the state of the generator of the samples' order only: if a module
draws random numbers too, for example by dropout, keep ``torch.get_rng_state()`` beside the checkpoint.

    >>> import tempfile
    >>> from torchgd import StochasticGradientDescent, course, train
    >>> file = Path(tempfile.mkdtemp()) / "checkpoint.pt"
    >>> def begin():
    ...     model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    ...     torch.nn.init.ones_(model.weight)
    ...     return model, StochasticGradientDescent(model.parameters())
    >>> x, y = (data.reshape(-1, 1) for data in course())

A run of 5 epochs, saved and resumed to 10, has the same bits as a run of 10:

    >>> model, optimizer = begin()
    >>> history = train(model, x, y, optimizer, epochs=5)
    >>> save(file, take(model, optimizer, history, Place(epoch=5)))

    >>> model, optimizer = begin()
    >>> history = train(model, x, y, optimizer, epochs=10, resume=load(file).restore(model, optimizer))
    >>> other, optimizer = begin()
    >>> bool((history.weight == train(other, x, y, optimizer, epochs=10).weight).all())
    True
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchgd.errors import InputError
from torchgd.history import History
from torchgd.runs.atomic import write_whole
from torchgd.runs.validation import fault, option_fault
from torchgd.training import Place

FORMAT = "torchgd checkpoint"
VERSION = 2  # 2: the data's checksum is of every sample
_PLAIN = {bool, int, float, complex, str, bytes}  # not their subclasses, which weights_only would refuse


@dataclass(frozen=True)
class Checkpoint:
    """A run at one place.

    Attributes:
        model, optimizer, scheduler: what their ``state_dict()`` gave; no scheduler is None.
        history: the run so far.
        place: where it continues.
        settings: what was configured, in numbers and words.
        ended: whether the run has ended.
    """

    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: History
    place: Place
    scheduler: dict[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ended: bool = False

    def has_ended(self, epochs: int) -> bool:
        """Whether nothing is left to do in a run of this many epochs."""
        return self.ended and (self.history.status == "diverged" or self.place.epoch >= epochs)

    def restore(self, model: nn.Module, optimizer: Optimizer, scheduler: Any = None) -> tuple[History, Place]:
        """Give the model, optimizer and scheduler the kept state; returns what ``train(resume=…)`` takes.

        Raises:
            InputError: they are not of the same kind as those of the run.
        """
        if (scheduler is None) != (self.scheduler is None):
            raise InputError(
                "the checkpoint is of a run with a scheduler, or this run has one; give both the same"
            )
        if wrong := option_fault(self.optimizer, optimizer.state_dict()["param_groups"]):
            raise InputError(f"the checkpoint is of another model or optimizer (its {wrong})")
        try:
            model.load_state_dict(self.model)
            optimizer.load_state_dict(self.optimizer)
        except Exception as error:  # what a forged state makes of the two has no common class
            reason = "".join(c if c.isprintable() else " " for c in " ".join(str(error).split()))
            raise InputError(f"the checkpoint is of another model or optimizer ({reason})") from None
        if scheduler is not None:
            scheduler.load_state_dict(self.scheduler)
        return self.history, self.place


def take(
    model: nn.Module,
    optimizer: Optimizer,
    history: History,
    place: Place,
    *,
    scheduler: Any = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
    ended: bool = False,
) -> Checkpoint:
    """A checkpoint of the present state, as copies, so that training may continue.

    Args:
        model, optimizer, scheduler: as they are at ``place``.
        history: the run so far, all of it.
        place: where the run stands, as ``on_progress`` of :func:`torchgd.train` was told.
        settings, ended: see :class:`Checkpoint`.
    """
    return Checkpoint(
        model=copy.deepcopy(model.state_dict()),
        optimizer=copy.deepcopy(optimizer.state_dict()),
        scheduler=None if scheduler is None else copy.deepcopy(scheduler.state_dict()),
        history=history,
        place=place,
        settings=settings,
        ended=ended,
    )


def save(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; an old file is replaced in one step, or stays whole.

    Raises:
        OSError: the disk is full, or the folder can't be written.
    """
    content = {
        "model": dict(checkpoint.model),
        "optimizer": checkpoint.optimizer,
        "scheduler": checkpoint.scheduler,
        "history": {column.name: getattr(checkpoint.history, column.name) for column in fields(History)},
        "place": asdict(checkpoint.place),
        "settings": dict(checkpoint.settings),
        "ended": checkpoint.ended,
    }
    whole = {"format": FORMAT, "version": VERSION, "checksum": _checksum(content), "content": content}
    buffer = io.BytesIO()  # torch.save reports a full disk as a RuntimeError; writing bytes does not
    torch.save(whole, buffer)
    write_whole(Path(path), buffer.getvalue())


def load(path: Path | str) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        InputError: there is none, it is not torchgd's, or its content has changed since it was written.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    begin_anew = "delete the file to start over"
    try:
        whole = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        found = (whole["format"], whole["version"])
        content = whole["content"]
        intact = whole["checksum"] == _checksum(content)
    except Exception:  # torch.load raises many types for damaged bytes
        raise InputError(f"{path}: not a checkpoint of torchgd, or a broken one; {begin_anew}") from None
    if found != (FORMAT, VERSION):
        raise InputError(f"{path}: a checkpoint of format {found}, not {(FORMAT, VERSION)}; {begin_anew}")
    if not intact:
        raise InputError(f"{path}: its content does not match its checksum; {begin_anew}")
    if wrong := fault(content):
        raise InputError(f"{path}: an incomplete or changed checkpoint (its {wrong}); {begin_anew}")
    history, place = History(**content.pop("history")), Place(**content.pop("place"))
    try:
        return Checkpoint(history=history, place=place, **content)
    except TypeError:
        raise InputError(f"{path}: an incomplete or changed checkpoint (its content); {begin_anew}") from None


def _checksum(content: object) -> str:
    """SHA-256 of the content; it does not depend on the layout of the file."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            for key in value:
                add(key)
                add(value[key])
            digest.update(b"}")
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
            digest.update(b"]")
        elif value is None or type(value) in _PLAIN:
            digest.update(f"{type(value).__name__} {value!r} ".encode())
        else:
            raise InputError(f"a checkpoint cannot hold {value!r:.60}; give tensors, numbers and words")

    add(content)
    return digest.hexdigest()
