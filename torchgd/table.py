"""Columns of numbers that two kinds of rows share, as one table, as CSV and for pandas."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints, overload

import torch
from torch import Tensor

BLOCK = 1 << 16  # rows of the CSV made at once


@dataclass(frozen=True)
class Column:
    """A column of History.

    Attributes:
        axis: what a row is: "epoch" or "update".
        csv: its column in history.csv, where both axes may share one.
        tag: its curve in TensorBoard; none if empty.
        whole: whether its numbers are whole ones, int64.
    """

    axis: str
    csv: str
    tag: str = ""
    whole: bool = False


def columns_of(kind: type) -> dict[str, Column]:
    """The columns by their attributes, which a class annotates as ``Annotated[Tensor, Column(…)]``."""
    hints = get_type_hints(kind, include_extras=True)
    found = {name: getattr(hints[name], "__metadata__", None) for name in kind.__annotations__}
    return {name: metadata[0] for name, metadata in found.items() if metadata}


class Table:
    """A record with the columns of :func:`columns_of`; its rows are ordered by update."""

    end_update: Tensor
    update: Tensor

    def table(self, start: int = 0, stop: int | None = None) -> dict[str, list[Any]]:
        """The columns of history.csv: a row for the start, each recorded update and each end of an epoch.

        Args:
            start, stop: which rows; all if not given.

        Returns:
            epoch (at the start and the ends of epochs), update, samples_seen, weight (weight_0, weight_1, …
            of several), cost (where epoch stands), loss_before, loss_after and gradient (at recorded
            updates); None where a row has no number.
        """
        numbers = torch.cat([self.end_update, self.update]).unique()[start:stop]
        table: dict[str, list[Any]] = {}
        for attribute, column in columns_of(type(self)).items():
            at = self.end_update if column.axis == "epoch" else self.update
            inside = (at >= numbers[0]) & (at <= numbers[-1]) if len(numbers) else at > at
            rows = torch.searchsorted(numbers, at[inside]).tolist()
            for name, values in _curves(column.csv, getattr(self, attribute)[inside]).items():
                cells = table.setdefault(name, [None] * len(numbers))
                for row, value in zip(rows, values.tolist(), strict=True):
                    cells[row] = value
        return table

    @overload
    def to_csv(self) -> str: ...
    @overload
    def to_csv(self, path: Path | str) -> None: ...
    def to_csv(self, path: Path | str | None = None) -> str | None:
        """The :meth:`table` as CSV, where None is an empty cell; returned, or written to a file."""
        text = io.StringIO()
        rows = len(torch.cat([self.end_update, self.update]).unique())
        for start in range(0, max(rows, 1), BLOCK):
            table = self.table(start, start + BLOCK)
            if start == 0:
                text.write(",".join(table) + "\n")
            for row in zip(*table.values(), strict=True):
                text.write(",".join(["" if cell is None else repr(cell) for cell in row]) + "\n")
        if path is None:
            return text.getvalue()
        Path(path).write_text(text.getvalue(), encoding="utf-8")
        return None

    def to_pandas(self) -> Any:
        """The :meth:`table` as a pandas DataFrame; pandas must be installed."""
        import pandas  # type: ignore[import-untyped,unused-ignore]

        return pandas.DataFrame(self.table()).convert_dtypes()


def _curves(name: str, values: Tensor) -> dict[str, Tensor]:
    """One curve, or for rows of numbers one curve for each: ``weight_0``, ``weight_1``, …"""
    if values.dim() == 1:
        return {name: values}
    return {f"{name}_{i}": column for i, column in enumerate(values.unbind(1))}
