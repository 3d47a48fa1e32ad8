"""Standard output and standard error that never end a command: what cannot be written is told at its end."""

from __future__ import annotations

import codecs
import io
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TextIO, cast

SILENCE = 2.0  # seconds
PLAIN = "torchgd.plain"  # the name of the error handler below
_PLAIN = {
    **dict(zip("·×−–—─│“”‘’✗✓′", "*x----|\"\"''xv'", strict=True)),
    "²": "^2",
    "³": "^3",
    "→": "->",
    "←": "<-",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "±": "+-",
    "√": "sqrt ",
    "Σ": "sum ",
    "β": "beta",
    "μ": "mu",
    "λ": "lambda",
    "ε": "eps",
}


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Plain characters for those that the encoding lacks: x^2 for x², -> for →."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = ""
    for character in error.object[error.start : error.end]:
        if character in _PLAIN:
            text += _PLAIN[character]
        elif "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
            text += f"\\x{ord(character) - 0xDC00:02x}"
        else:
            text += unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
    return text, error.end


codecs.register_error(PLAIN, _plain)


class Waiting:
    """Says on a terminal that a silent command is at work: after two seconds, how many it has been silent.

    It is one line that the next output takes away, without control sequences, as notebooks know none.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._terminal, self._lock = terminal, threading.RLock()
        self._heard, self._shown, self.resting = time.monotonic(), False, False
        self._ended = threading.Event()

    def heard(self) -> AbstractContextManager[Any]:
        """Something is written: take the line away; the lock is held while it is."""
        self._heard = time.monotonic()
        with self._lock:
            if self._shown:
                self._terminal.write(f"\r{'':20}\r")
            self._shown = False
        return self._lock

    def end(self) -> None:
        """Nothing more is shown."""
        with suppress(OSError), self.heard():
            self._ended.set()

    def run(self) -> None:
        """Look twice a second."""
        while not self._ended.wait(0.5):
            silent = time.monotonic() - self._heard
            with suppress(OSError, ValueError), self._lock:
                if silent > SILENCE and not (self.resting or self._ended.is_set()):
                    self._terminal.write(f"\rworking, {silent:.0f} s ")
                    self._terminal.flush()
                    self._shown = True


class _Stream:
    """A stream whose failures are remembered, and end nothing."""

    def __init__(self, stream: TextIO, waiting: Waiting) -> None:
        self._stream, self.waiting = stream, waiting
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write, if it can be."""
        with self._remembering(), self.waiting.heard():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if it can be."""
        with self._remembering():
            self._stream.flush()

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[_Stream]:
    """Guard both streams meanwhile; yields standard output, whose ``failure`` says what went wrong."""
    _take_closed()
    before = sys.stdout, sys.stderr
    waiting = Waiting(before[1])
    guards = [_Stream(stream, waiting) for stream in before]
    for stream in before:
        with suppress(AttributeError, ValueError):  # of a test, or of a notebook
            cast("Any", stream).reconfigure(errors=PLAIN)
    sys.stdout, sys.stderr = cast("list[TextIO]", guards)
    if before[1].isatty():
        threading.Thread(target=waiting.run, daemon=True).start()
    try:
        yield guards[0]
    finally:
        waiting.end()
        sys.stdout, sys.stderr = before
        for guard in guards:
            guard.flush()
            if guard.failure is not None:  # the interpreter flushes once more at its end, and must not fail
                with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
                    os.dup2(nowhere.fileno(), guard.fileno())


def rest() -> None:
    """Waiting is what this command does: say nothing of it."""
    if isinstance(sys.stderr, _Stream):
        sys.stderr.waiting.resting = True


def _take_closed() -> None:
    """Open the null device in the place of closed streams: the next file would become standard error."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())
