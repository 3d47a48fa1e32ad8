"""A mutant: the right backward pass with one edit, and what it is called."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from torch import Tensor

from torchgd.check.edits import EDITS
from torchgd.check.explain import Factor, simplest
from torchgd.check.graph import Site
from torchgd.check.mistakes import Cause
from torchgd.check.report import Diagnosis
from torchgd.check.steps import VIEWS, Value, View, describe, word_of

_SUMS = {"sum", "mean", "norm", "linalg_vector_norm", "dot"}
_LOGARITHMS = {
    1 / math.log(2): "1/ln 2",
    math.log(2): "ln 2",
    1 / math.log(10): "1/ln 10",
    math.log(10): "ln 10",
}
Key = tuple[Site, int, str]  # the place, the row of the table, which of its values


@dataclass(frozen=True)
class Mutant:
    """An edit that gives what the person gave for the parameters ``explained``."""

    keys: list[Key]  # of one place, or of all alike
    view: View
    value: Value
    factor: Factor
    explained: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """More parameters first, then no number beside it, then the order of the table, nearest the loss."""
        (index, _), row, _ = self.keys[0]
        k = abs(self.factor.k)
        simple = k == 0 or any(value <= 4096 and value % 1 == 0 for value in (k, simplest(1 / k, 1e-6)))
        cost = (0 if simple else 3) if row == 0 else 0 if self.factor == Factor(1.0) else 1 + 3 * (not simple)
        if EDITS[row].cause is Cause.saturated:
            cost = 5
        if self.value.start is not None or (row == 0 and self.factor.k == 0):
            cost = 1
        return (
            -len(self.explained),
            -1 if row == 0 and _in_penalty(self.view) else cost,
            row,
            index if row == 1 else -index,
        )


def values_of(row: int, view: View) -> dict[str, Value]:
    """What a row of the table puts there, in the shape that is due."""
    result: dict[str, Value] = {}
    with suppress(RuntimeError, IndexError, KeyError, AttributeError, TypeError):  # it cannot stand there
        found = EDITS[row].edit(view) if EDITS[row].fits(view) else None
        listed = [found] if isinstance(found, (Tensor, Value)) else found or ()
        for k, item in enumerate(listed):
            item = item if isinstance(item, Value) else Value(item)
            with suppress(RuntimeError):  # of another shape
                value = item.value.to(view.right.dtype).expand_as(view.right)
                result[item.label or str(k)] = replace(item, value=value)
    return result


def _in_penalty(view: View) -> bool:
    """Whether the step belongs to a term of the loss that sees the parameters only, as a sum of squares."""
    nodes, reached = view.graph.nodes, {view.node.index}
    if view.node.op is None or view.node.data or view.node.name in VIEWS:
        return False
    for node in nodes[view.node.index :]:
        if not node.data and any(source.index in reached for source in node.sources.values()):
            reached.add(node.index)
    return any(nodes[i].name in _SUMS and nodes[i].value.dim() == 0 for i in reached)


def sentence(mutant: Mutant, name_factor: Callable[[Factor], Diagnosis]) -> Diagnosis:
    """What one edit is called."""
    (_, row, _), view, value, factor = mutant.keys[0], mutant.view, mutant.value, mutant.factor
    edit, times = EDITS[row], f"taken {factor.name} times"
    message = (
        (value.message or edit.message).replace("{op}", word_of(view.node)).replace("{word}", value.word)
    )
    message = message.replace("{times}", factor.name if factor.power else f"{factor.k:.6g}")
    if row and value.start is None and factor != Factor(1.0):
        message += f" Besides, it is {times}."
    if _in_penalty(view):
        how = {Factor(0.0): "missing", Factor(-1.0): "there with the wrong sign"}.get(factor, times)
        return Diagnosis(
            Cause.other_loss, f"The weight penalty is {how}." if row == 0 else f"In the penalty: {message}"
        )
    if row == 0 and factor.k == 0:
        message = f"The path through {describe(view.source)} is left out: its derivative must be added."
        return Diagnosis(Cause.missing_path, message)
    if row == 0:
        diagnosis = name_factor(factor)
        if factor == Factor(-1.0):
            message = "Its sign is turned: look for target − prediction, a leading minus, or a sum by -=."
            return replace(diagnosis, message=message)
        logarithm = next((name for k, name in _LOGARITHMS.items() if abs(factor.k / k - 1) < 1e-6), "")
        note = f" That is {logarithm}: a logarithm of another base." if logarithm else ""
        return replace(diagnosis, message=diagnosis.message + note)
    return Diagnosis(value.cause or edit.cause, message[:1].upper() + message[1:])
