"""The one exception that a person's input can raise."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType


class InputError(ValueError):
    """The input is wrong, not the program.

    The message is one line: what is wrong, where, and how to correct it. It is a
    :class:`ValueError`, so ``except ValueError`` catches it; the command line prints
    it and exits with status 2.

    Example:
        >>> from torchgd import load
        >>> load("no/such/file.csv")
        Traceback (most recent call last):
        ...
        torchgd.errors.InputError: no/such/file.csv: no such file; check the path
    """


def users_frame() -> tuple[FrameType, int]:
    """The innermost frame outside torchgd and torch, and its ``stacklevel`` for a warning of our caller."""
    frame, level = sys._getframe(1), 1
    ours = tuple(f"{Path(sys.modules[name].__file__ or '').parent}{os.sep}" for name in ("torchgd", "torch"))
    while frame.f_code.co_filename.startswith(ours) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return frame, level
