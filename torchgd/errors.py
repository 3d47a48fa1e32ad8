"""The one exception that a person's input can raise."""

from __future__ import annotations


class InputError(ValueError):
    """The input is at fault, not the program.

    The message is one line: what is wrong, where, and how to mend it. It is a
    :class:`ValueError`, so ``except ValueError`` catches it; the command line prints
    it and exits with status 2.

    Example:
        >>> from torchgd import load
        >>> load("no/such/file.csv")
        Traceback (most recent call last):
        ...
        torchgd.errors.InputError: no/such/file.csv: no such file; check the path
    """
