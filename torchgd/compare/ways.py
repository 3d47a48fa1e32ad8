"""The trial before the contract: the first way of stepping in which an optimizer moves, and more options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from torchgd.compare.isolation import alone
from torchgd.compare.scenario import Factory, gain
from torchgd.compare.subject import Subject

_OPTIONS = ("weight_decay", 0.1), ("momentum", 0.9), ("nesterov", True), ("amsgrad", True)


def first_way(factory: Factory, deadline: float, **options: Any) -> Subject:
    """The optimizer with the first way of stepping in which it moves."""
    told: Exception | None = None
    stood_still = False
    for gradients in ("dense", "graph", "sparse"):
        for closure in (False, True):
            for dtype in (torch.float64, torch.float32, torch.bfloat16):
                tried = Subject(factory, deadline, options, dtype, gradients, closure)
                try:
                    with alone():
                        start = tried.first_move()
                except Exception as error:  # anyone's code
                    # the first one tells, unless it is about a missing closure
                    told = error if told is None or "closure" in str(told) else told
                    continue
                if start:
                    return replace(tried, start=start)
                stood_still = stood_still or gradients == "dense"
    return Subject(factory, deadline, options, error=None if stood_still else told)


def with_options(plain: Subject) -> Subject | None:
    """The same with weight decay, momentum and their like, as many as it takes and still goes down."""
    options: dict[str, Any] = {}
    for name, value in _OPTIONS:
        if not plain.takes(name) or name in plain.options:
            continue
        tried = replace(plain, options={**options, name: value})
        try:
            with alone():
                start = tried.first_move()
                p = tried.parameter()
                tried.descend(tried.make([p]), [p], steps=start)
        except Exception:  # anyone's code: not this option, or not beside the others
            continue
        if start == plain.start and gain(p, tried.parameter()) < 0:
            options[name] = value
    return replace(plain, options=options) if options else None
