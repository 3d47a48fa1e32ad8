"""Our optimizers by their methods; update rules in one line each, and pairs of them: one rule, or two."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from torchgd import GradientDescent, MiniBatchGradientDescent, StochasticGradientDescent

Factory = Callable[[list[nn.Parameter]], Optimizer]
Update = Callable[[Tensor, Tensor, dict[str, Any]], object]


METHODS: dict[str, Callable[..., GradientDescent]] = {
    "full batch": GradientDescent,
    "per sample": StochasticGradientDescent,
    "mini-batch": lambda params, lr=0.01, **options: MiniBatchGradientDescent(
        params, lr, batch_size=2, **options
    ),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


class Rule(Optimizer):
    """An optimizer from one line: what to do with p, its gradient g and its state."""

    def __init__(self, params: list[nn.Parameter], update: Update) -> None:
        super().__init__(params, {})
        self.update = update

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.update(p, p.grad, self.state[p])


def rule(update: Update) -> Factory:
    return lambda params: Rule(params, update)


def heavy_ball(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
    """The momentum of SGD with lr moved into the buffer: the same rule in another order of operations."""
    state["v"] = 0.9 * state.get("v", 0.0) - 0.05 * g
    p.add_(state["v"])


def ten_tenths(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
    for _ in range(10):
        p.sub_(0.01 * g)


def schedule_free(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
    """Schedule-free SGD (Defazio and others, 2024): its state adds up positions, roundings and all."""
    z, x = state.get("z", p.clone()), state.get("x", p.clone())
    state["step"] = state.get("step", 0) + 1
    z = z - 1e-6 * g
    x = (1 - 1 / state["step"]) * x + z / state["step"]
    state["z"], state["x"] = z, x
    p.copy_(0.1 * z + 0.9 * x)


def schedule_free_in_place(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
    z, x = state.setdefault("z", p.clone()), state.setdefault("x", p.clone())
    state["step"] = state.get("step", 0) + 1
    z.add_(g, alpha=-1e-6)
    x.lerp_(z, 1 / state["step"])
    p.copy_(z.lerp(x, 0.9))


def centred(factored: bool) -> Update:
    """A gradient over its standard deviation: v − m² cancels where the gradient hardly changes."""

    def update(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        state["v"] = 0.8 * state.get("v", 0.0) + 0.2 * g * g
        state["m"] = 0.8 * state.get("m", 0.0) + 0.2 * g
        root = state["v"].sqrt()
        variance = (root - state["m"]) * (root + state["m"]) if factored else state["v"] - state["m"] ** 2
        p.sub_(1e-7 * g / (variance.clamp(min=0).sqrt() + 1e-9))

    return update


def changes_its_mind(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
    state["step"] = state.get("step", 0) + 1
    p.sub_((0.1 if state["step"] < 30 else 0.1 + 1e-7) * g)


def textbook_adam(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
    """Adam as Kingma and Ba write it, with the bias corrections as running products."""
    state["b1"], state["b2"] = state.get("b1", 1.0) * 0.9, state.get("b2", 1.0) * 0.999
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + (1 - 0.999) * g * g
    p.sub_(0.01 * (state["m"] / (1 - state["b1"])) / ((state["v"] / (1 - state["b2"])) ** 0.5 + 1e-8))


def adam_with_eps_inside(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
    """Epsilon under the root: a popular other rule, nearly the same where gradients are large."""
    state["b1"], state["b2"] = state.get("b1", 1.0) * 0.9, state.get("b2", 1.0) * 0.999
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + (1 - 0.999) * g * g
    p.sub_(0.01 * (state["m"] / (1 - state["b1"])) / (state["v"] / (1 - state["b2"]) + 1e-8) ** 0.5)


SAME_RULE: dict[str, tuple[Factory, Factory]] = {
    "p - lr g": (partial(SGD, lr=0.1), rule(lambda p, g, s: p.copy_(p - 0.1 * g))),
    "lr (p/lr - g)": (partial(SGD, lr=0.1), rule(lambda p, g, s: p.copy_(0.1 * (p / 0.1 - g)))),
    "two halves": (partial(SGD, lr=0.1), rule(lambda p, g, s: p.sub_(0.05 * g).sub_(0.05 * g))),
    "ten tenths": (
        partial(SGD, lr=0.1),
        rule(ten_tenths),
    ),
    "lr in the momentum": (partial(SGD, lr=0.05, momentum=0.9), rule(heavy_ball)),
    "unstable": (partial(SGD, lr=3.0), rule(lambda p, g, s: p.copy_(3.0 * (p / 3.0 - g)))),
    "schedule-free": (rule(schedule_free), rule(schedule_free_in_place)),
    "cancellation": (rule(centred(factored=False)), rule(centred(factored=True))),
    "textbook Adam": (partial(Adam, lr=0.01), rule(textbook_adam)),
    "fused Adam": (partial(Adam, lr=0.01, foreach=False), partial(Adam, lr=0.01, fused=True)),
    "fused SGD": (partial(SGD, lr=0.1, momentum=0.9), partial(SGD, lr=0.1, momentum=0.9, fused=True)),
    "decay first": (
        partial(SGD, lr=0.1, weight_decay=0.01),
        rule(lambda p, g, s: p.mul_(1 - 0.1 * 0.01).sub_(0.1 * g)),
    ),
}

OTHER_RULE: dict[str, tuple[Factory, Factory]] = {
    "lr 1e-7 off": (partial(SGD, lr=0.1), partial(SGD, lr=0.1 * (1 + 1e-7))),
    "lr 1e-11 off": (partial(SGD, lr=0.1), partial(SGD, lr=0.1 * (1 + 1e-11))),
    "small lr 1e-7 off": (partial(SGD, lr=1e-6), partial(SGD, lr=1e-6 * (1 + 1e-7))),
    "momentum 1e-7 off": (partial(SGD, lr=0.1, momentum=0.9), partial(SGD, lr=0.1, momentum=0.9 + 1e-7)),
    "nesterov": (
        partial(SGD, lr=0.1, momentum=0.9),
        partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "decay of 1e-9": (partial(SGD, lr=0.1), partial(SGD, lr=0.1, weight_decay=1e-9)),
    "Adam's eps": (partial(Adam, eps=1e-8), partial(Adam, eps=1.1e-8)),
    "eps under the root": (partial(Adam, lr=0.01), rule(adam_with_eps_inside)),
    "AdamW": (partial(Adam, weight_decay=1e-5), partial(AdamW, weight_decay=1e-5)),
    "lr in float32": (partial(SGD, lr=0.1), partial(SGD, lr=torch.tensor(0.1).item())),
    "gradients in float32": (partial(SGD, lr=0.1), rule(lambda p, g, s: p.sub_(0.1 * g.float()))),
    "1e-6 off from step 30": (partial(SGD, lr=0.1), rule(changes_its_mind)),
    "stands still": (partial(SGD, lr=0.1), rule(lambda p, g, s: None)),
    "not a number": (partial(SGD, lr=0.1), rule(lambda p, g, s: p.mul_(math.nan))),
}
