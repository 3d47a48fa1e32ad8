"""Ctrl-C and SIGTERM as a request to stop at the next place from which the run can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """A signal has ended the run, which is saved. It is not an error: ``except Exception`` does not catch it.

    Attributes:
        status: the exit status that a shell expects, 128 + the signal's number.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


@contextmanager
def stoppable(describe: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Hold SIGINT and SIGTERM back; yields a function that raises :class:`Stopped` if one has come.

    A second signal has its usual effect. At the end the old handlers are restored, and a signal that no call
    has reported raises too. Outside the main thread no signal is held back.

    Args:
        describe: returns the message: how far the run has come.

    Example:
        >>> with stoppable(lambda: "epoch 7 is done") as check:
        ...     check()
        ...     signal.raise_signal(signal.SIGINT)
        ...     check()
        Traceback (most recent call last):
        ...
        torchgd.interruption.Stopped: epoch 7 is done
    """
    arrived: list[int] = []
    before: dict[int, signal._HANDLER] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        restore()

    def check() -> None:
        if arrived:
            raise Stopped(describe(), arrived[0])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (None, signal.SIG_IGN):  # nohup and the like ignore it on purpose
                before[number] = handler
                signal.signal(number, note)
    try:
        yield check
        check()
    finally:
        restore()
