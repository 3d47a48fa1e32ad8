"""Anyone's code, run so that nothing of it stays behind and that it cannot run for ever."""

from __future__ import annotations

import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer


class OutOfTimeError(BaseException):
    """The time limit was reached; not an Exception, so that anyone's code does not catch it."""


@contextmanager
def alone() -> Iterator[None]:
    """Put back random numbers, grad mode, default dtype, warnings, and optimizer classes if patched."""
    before = {cls: dict(vars(cls)) for cls in _optimizer_classes(Optimizer)}
    dtype, dice, numpy = torch.get_default_dtype(), random.getstate(), sys.modules.get("numpy")
    numpy_dice = numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(dtype)
        random.setstate(dice)
        if numpy:
            numpy.random.set_state(numpy_dice)
        for cls, attributes in before.items():
            for name in set(vars(cls)) - set(attributes):
                delattr(cls, name)
            for name, value in attributes.items():
                if vars(cls).get(name) is not value:
                    setattr(cls, name, value)


def seed_everything(seed: int = 0) -> None:
    """Give torch, Python and numpy the same dice for every run."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError after these seconds, where the system has an alarm that nobody else has set."""
    alarm = getattr(signal, "setitimer", None)
    main = threading.current_thread() is threading.main_thread()
    if alarm is None or not main or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def ring(*_: Any) -> None:
        raise OutOfTimeError

    handler = signal.signal(signal.SIGALRM, ring)
    alarm(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        alarm(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _optimizer_classes(cls: type) -> set[type]:
    found = {cls}
    below: list[type] = cls.__subclasses__()
    for sub in below:
        found |= _optimizer_classes(sub)
    return found
