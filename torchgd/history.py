"""What a run did: per epoch and per update, as tensors, with its outcome and the reason."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from torchgd.batches import Batches
from torchgd.table import Column, Table, columns_of

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # "converged": the distance over the weight
MOST_ROWS = 10_000  # of epochs; beyond it every second row is dropped
HIGHEST = 1e150  # matplotlib's logarithmic axes overflow near the end of float64

Row = Mapping[str, "Tensor | float"]


@dataclass(frozen=True)
class History(Table):
    """The record of a run. E epochs were done and U updates recorded; all tensors are on the CPU.

    After more than 10,000 epochs only every 2nd (4th, 8th, …) row and the last one are kept, so that there
    are at most 10,000 rows; below, E + 1 is the number of rows.

    Per epoch; row 0 is the start, so that row e is *before* epoch e and row e + 1 *after* it:

    Attributes:
        epoch: 0 … E, shape (E+1,).
        end_update, end_samples: updates done and samples seen by then, shape (E+1,).
        weight: the weight, shape (E+1,); for a module of 2 to 64 parameters all of them, flattened,
            shape (E+1, P); for a larger one shape (E+1, 0).
        cost: the loss over *all* data, shape (E+1,).

    Per recorded update; its loss and gradient are those of the update's own batch:

    Attributes:
        update: its number, from 1, shape (U,).
        samples_seen: samples that the run had seen after it, shape (U,).
        update_weight: the weight after it; as ``weight``, shape (U,) or (U, P).
        loss_before: the batch's loss before it, which lecture 4 prints; shape (U,).
        loss_after: the batch's loss after it, which lecture 3 prints; shape (U,); NaN for a module
            other than LinearModel, whose forward may have side effects.
        gradient: the gradient that it used; for several parameters its norm; shape (U,).
        status: "finished", "converged" or "diverged".
        reason: why the status is so, in one sentence.

    Example:
        >>> from torchgd import LinearModel, StochasticGradientDescent, course, train
        >>> model = LinearModel(1.0, dtype=torch.float64)
        >>> history = train(
        ...     model, *course(), StochasticGradientDescent(model.parameters(), lr=0.01), epochs=1
        ... )
        >>> history.loss_before[2].item(), history.loss_after[2].item(), history.cost[1].item()
        (7.315943039999998, 4.919240100095999, 2.5507170889386663)
    """

    epoch: Annotated[Tensor, Column("epoch", "epoch", whole=True)]
    end_update: Annotated[Tensor, Column("epoch", "update", whole=True)]
    end_samples: Annotated[Tensor, Column("epoch", "samples_seen", whole=True)]
    weight: Annotated[Tensor, Column("epoch", "weight", "epoch/weight")]
    cost: Annotated[Tensor, Column("epoch", "cost", "epoch/cost")]
    update: Annotated[Tensor, Column("update", "update", whole=True)]
    samples_seen: Annotated[Tensor, Column("update", "samples_seen", whole=True)]
    update_weight: Annotated[Tensor, Column("update", "weight", "update/weight")]
    loss_before: Annotated[Tensor, Column("update", "loss_before", "update/loss")]
    loss_after: Annotated[Tensor, Column("update", "loss_after")]
    gradient: Annotated[Tensor, Column("update", "gradient", "update/gradient")]
    status: str = "finished"
    reason: str = ""

    @staticmethod
    def of(
        batches: Batches,
        weight: Tensor,
        ends: Sequence[Row] = (),
        points: Sequence[Row] = (),
        status: str = "finished",
        reason: str = "",
    ) -> History:
        """Make a history from rows; each row maps the names of columns to numbers.

        Args:
            batches: of an epoch; they give the updates and the samples seen at the end of each epoch.
            weight: any weight of the run; only its shape and dtype are used.
            ends: one row for each end of an epoch: epoch, weight and cost.
            points: a row for each recorded update: update, update_weight, loss_before, loss_after, gradient.

        Example:
            >>> start = {"epoch": 0, "weight": 1.0, "cost": 4.5}
            >>> History.of(Batches(3, 1), torch.tensor(1.0), [start, start | {"epoch": 1}]).end_samples
            tensor([0, 3])
        """
        per_epoch = [
            {**row, "end_update": row["epoch"] * len(batches), "end_samples": row["epoch"] * batches.n}
            for row in ends
        ]
        per_update = [{**row, "samples_seen": batches.samples_after(int(row["update"]))} for row in points]
        tensors = {}
        for name, column in COLUMNS.items():
            values = [row[name] for row in (per_epoch if column.axis == "epoch" else per_update)]
            shape = weight.shape if column.csv == "weight" else ()
            tensors[name] = _stacked(values, torch.int64 if column.whole else weight.dtype, shape)
        return History(**tensors, status=status, reason=reason)

    @staticmethod
    def join(parts: Sequence[History]) -> History:
        """One history of consecutive parts; the outcome is the last one's."""
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in COLUMNS}
        epoch = joined["epoch"]
        if len(epoch) and (step := spacing(int(epoch[-1]))) > 1:
            kept = epoch % step == 0
            kept[-1] = True
            joined |= {name: joined[name][kept] for name, column in COLUMNS.items() if column.axis == "epoch"}
        return History(**joined, status=parts[-1].status, reason=parts[-1].reason)

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status

    def __repr__(self) -> str:
        """One line, because the tensors would fill the screen."""
        updates = int(self.end_update[-1]) if len(self.end_update) else 0
        return f"<History: {updates} updates, {len(self.update)} recorded; {self}>"

    def _repr_html_(self) -> str:
        """The outcome and up to 11 epochs, evenly spaced, for a notebook."""
        shown = torch.linspace(0, len(self.epoch) - 1, min(len(self.epoch), 11)).round().long()
        rows = {"epoch": shown, "update": shown[:0]}
        part = replace(self, **{name: getattr(self, name)[rows[c.axis]] for name, c in COLUMNS.items()})
        table = {
            name: cells for name, cells in part.table().items() if any(cell is not None for cell in cells)
        }
        head = "".join(f"<th>{name}</th>" for name in table)
        lines = (
            "".join(f"<td>{cell:.10g}</td>" for cell in row) for row in zip(*table.values(), strict=True)
        )
        body = "".join(f"<tr>{row}</tr>" for row in lines)
        return f"<p>{html.escape(str(self))}</p><table><tr>{head}</tr>{body}</table>"

    def plot(self, axes: Any = None, **style: Any) -> Any:
        """Draw the cost against the epoch on a logarithmic axis.

        Args:
            axes: the axes of matplotlib to draw into; new ones if not given.
            style: of the line, as for ``axes.plot``.

        Returns:
            The axes; ``axes.figure`` is the picture, which a notebook shows.
        """
        if axes is None:
            from torchgd.picture import Picture

            axes = Picture(layout="constrained").add_subplot()
        cost = self.cost.double()
        axes.plot(self.epoch, cost.masked_fill(cost > HIGHEST, math.nan), **style)
        if (cost > 0).any():
            axes.set_yscale("log", nonpositive="clip")
        axes.set_xlabel("epoch")
        axes.set_ylabel("cost after the epoch")
        return axes


COLUMNS = columns_of(History)


def spacing(epochs: int) -> int:
    """The step between the epochs that a history of this many epochs keeps: 1, 2, 4, 8, …

    Example:
        >>> spacing(9999), spacing(10_000), spacing(10**6)
        (1, 2, 128)
    """
    step = 1
    while -(-epochs // step) >= MOST_ROWS:
        step *= 2
    return step


def _stacked(values: list[Any], dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """The numbers of several rows on the CPU, those of a device in one transfer."""
    if values and isinstance(values[0], Tensor):
        return torch.stack(values).cpu()
    return torch.tensor(values, dtype=dtype, device="cpu").reshape(len(values), *shape)


@dataclass(frozen=True)
class Settling:
    """What the data tell of a run before it ends.

    Attributes:
        at: the weights at which it settles, as a row of History; None if there are none or they are unknown.
        growth: by how much an epoch multiplies the distance from there, in the long run; None if unknown.
        affine: whether an epoch is an affine map of the weights.
    """

    at: Tensor | None = None
    growth: float | None = None
    affine: bool = True


def judge(
    history: History, *, random_order: bool, affine: bool = True, settling: Settling | None = None
) -> tuple[str, str]:
    """The status of a run that stayed finite, and why, from its weights at the ends of the epochs.

    "converged" and "diverged" are said only where they are proved; elsewhere the reason says what was seen.
    If the weight at which the run settles is known, the distance to it decides. One weight in a fixed order
    needs no such knowledge, because an epoch is then an affine map: the steps from epoch to epoch have one
    ratio r, what is left is at most |step| · r / (1 − r), and r > 1 is divergence.

    Args:
        history: of the run.
        random_order: whether every epoch has a new order of the samples.
        affine: whether an epoch is an affine map of the weight; with momentum, for example, it is not.
        settling: what is known from the data.
    """
    known = settling or Settling(affine=affine)
    rows = history.weight.reshape(len(history.weight), -1).double()
    numbers = history.epoch if len(history.epoch) == len(rows) else torch.arange(len(rows), device="cpu")
    epochs = int(numbers[-1]) if len(rows) else 0
    if len(rows) < 3 or rows.shape[1] == 0:
        return "finished", f"{epochs} epoch{'s' * (epochs != 1)} done"
    steps, gaps = (rows[1:] - rows[:-1]).norm(dim=1), numbers.diff()
    size = torch.maximum(rows[-1].norm(), (rows[-1] - rows[0]).norm()).item()
    rounding = (64 * torch.finfo(history.weight.dtype).eps * rows.norm(dim=1).max()).item()
    if not steps.any() and len(history.gradient) and not history.gradient.any():
        return "converged", "the gradient is 0"
    # After more than 10,000 epochs the last row may be nearer to the one before it than other rows are.
    alike = steps[gaps == gaps[0]]
    one_ratio = known.affine and rows.shape[1] == 1 and not random_order
    if random_order and known.affine and (sentence := _runs_away(history, rows, known.growth)):
        return "diverged", sentence
    if (one_ratio or (known.growth or 0) > 1) and not (random_order or (known.growth or 2) <= 1):
        ratios = alike[1:][-5:] / alike[:-1][-5:]
        if (ratios > 1 + rounding / alike[1:][-5:]).all():
            growth = ratios.log().mean().div(gaps[0]).exp().item()
            return "diverged", f"the weight's steps grow {growth:.6g} times an epoch"
    left = math.inf
    if known.at is not None:
        left = (rows[-1] - known.at.to(rows)).norm().item()
    elif one_ratio and known.growth is None:
        left = _left(alike, rounding)
    tolerance = TOLERANCE.get(history.weight.dtype, 1e-2)
    if left <= tolerance * size:
        return "converged", f"the weight is within {tolerance:g} of where it settles"
    if steps.max() <= rounding:
        return "finished", f"the steps are too small to move the weight in {history.weight.dtype}"
    last = "the last of which" if gaps[-1] == 1 else f"the last {gaps[-1]} of which"
    return "finished", f"{epochs} epochs done, {last} moved the weight by {steps[-1].item():.3g}"


def _left(steps: Tensor, rounding: float) -> float:
    """The largest distance left after steps of one ratio, each of them known to ``rounding``."""
    clear = (steps > 1000 * rounding).nonzero().reshape(-1)[-50:]
    if len(clear) < 2:
        return math.inf
    first, last = int(clear[0]), int(clear[-1])
    ratio: float = ((steps[last] + rounding) / (steps[first] - rounding)).item() ** (1 / (last - first))
    if not ratio < 1:
        return math.inf
    step: float = steps[last].item() * ratio ** (len(steps) - 1 - last) + rounding
    return step * ratio / (1 - ratio)


def _runs_away(history: History, rows: Tensor, growth: float | None) -> str | None:
    """Why a run in a random order has diverged, or None; single steps prove nothing, they vary by chance."""
    first, last = history.cost[0].item(), history.cost[-1].item()
    if growth is not None:
        grows = growth > 1 and last > first
        return f"the distance from where it settles grows {growth:.6g} times an epoch" if grows else None
    away = (rows[-1] - rows[0]).norm() > rows[0].norm()
    return (
        f"the cost is {last / first:.3g} times that at the start" if away and last > 1e6 * first > 0 else None
    )
