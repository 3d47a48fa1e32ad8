"""What an experiment found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from torchgd.history import History


@dataclass(frozen=True)
class Outcome:
    """A table, a picture and a sentence.

    Attributes:
        rows: the rows of the table, column → value.
        sentence: what was found, with its numbers in it.
        proved: whether the numbers prove the sentence.
        picture: drawn from the same numbers.
        histories: the runs behind it, name → history.
    """

    rows: Sequence[Mapping[str, str | int | float]]
    sentence: str
    proved: bool
    picture: Figure
    histories: Mapping[str, History]
