"""What must be true of a checkpoint's content, whoever wrote it, before anything of it is restored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchgd.history import COLUMNS

_STATUS = {"finished", "converged", "diverged"}
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f]")
_LARGEST = 2**62


def fault(content: Any) -> str:
    """The name of the first part that is not of its type, shape or range; empty where all are."""
    if not (isinstance(content, dict) and content.keys() >= {"model", "optimizer", "history", "place"}):
        return "content"
    kinds: dict[str, type] = dict.fromkeys(("model", "optimizer", "settings", "history", "place"), dict)
    kinds["ended"] = bool
    for name, kind in kinds.items():
        if not isinstance(content.get(name, kind()), kind):
            return name
    if not isinstance(content.get("scheduler"), dict | None):
        return "scheduler"
    if any(not isinstance(name, str) for part in ("model", "settings") for name in content.get(part, {})):
        return "names"
    if not isinstance(content.get("settings", {}).get("overridden", []), list):
        return "settings"
    return _history_fault(content["history"]) or _place_fault(content["place"])


def _history_fault(history: Mapping[str, Any]) -> str:
    if history.keys() != {*COLUMNS, "status", "reason"}:
        return "history"
    rows = dict[str, int]()
    for name, column in COLUMNS.items():
        values = history[name]
        dims = {1, 2} if column.csv == "weight" else {1}
        if not (isinstance(values, Tensor) and values.dim() in dims):
            return name
        real = values.is_floating_point() or values.is_complex()
        if not (values.dtype == torch.int64 if column.whole else real):
            return name
        if rows.setdefault(column.axis, len(values)) != len(values):
            return name
        if column.whole and len(values):
            rising = bool((values.diff() > 0).all())
            if not (rising and int(values[0]) >= 0 and int(values[-1]) < _LARGEST):
                return name
    if not rows["epoch"] or history["weight"].shape[1:] != history["update_weight"].shape[1:]:
        return "weight"
    reason, status = history["reason"], history["status"]
    if not isinstance(reason, str) or _CONTROL.search(reason):
        return "reason"
    return "" if isinstance(status, str) and status in _STATUS else "status"


def _place_fault(place: Mapping[str, Any]) -> str:
    if place.keys() != {"epoch", "update", "generator"}:
        return "place"
    for name in ("epoch", "update"):
        if type(place[name]) is not int or not 0 <= place[name] < _LARGEST:
            return f"place.{name}"
    generator = place["generator"]
    if generator is None:
        return ""
    try:
        # a GPU's generator has a state of 16 bytes
        if not (isinstance(generator, Tensor) and generator.dtype == torch.uint8 and len(generator) == 16):
            torch.Generator().set_state(generator)
    except (RuntimeError, TypeError):
        return "place.generator"
    return ""


def option_fault(kept: Any, own: list[dict[str, Any]]) -> str:
    """The name of the first option in the kept groups that is not of the kind of the optimizer's own."""
    groups = kept.get("param_groups") if isinstance(kept, dict) else None
    if not (isinstance(groups, list) and len(groups) == len(own) and isinstance(kept.get("state"), dict)):
        return "param_groups"
    for group, now in zip(groups, own, strict=True):
        if not isinstance(group, dict) or not isinstance(group.get("params"), list):
            return "param_groups"
        for name, value in group.items():
            is_number = type(now.get(name)) in (int, float)
            if is_number and not (type(value) in (int, float) and math.isfinite(value)):
                return str(name)
            if type(now.get(name)) is bool and type(value) is not bool:
                return str(name)
    return ""
