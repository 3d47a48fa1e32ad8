"""What people write for the derivative of a loss by the prediction: tables, each row a formula.

u is the prediction, or what goes into its last activation; t the target, classes as rows of 0 and 1;
s is a link of u, as the sigmoid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from torchgd.check.mistakes import Cause
from torchgd.check.steps import Value, View

_Formula = Callable[[Tensor, Tensor], Tensor]
_HUBER = (0.1, 0.25, 0.5, 1.0, 1.345, 1.35, 1.5, 2.0, 3.0, 5.0, 10.0)  # δ that people take


def _several(u: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
    """What makes sense where a sample has several outputs only."""
    return value(u) if u.dim() > 1 and u.shape[1] > 1 else torch.full_like(u, torch.nan)


def _softmax(u: Tensor) -> Tensor:
    return _several(u, lambda u: u.softmax(1))


def _exp(u: Tensor) -> Tensor:
    """exp(u − the largest of the row), as it is written against overflow."""
    return _several(u, lambda u: (u - u.amax(1, keepdim=True)).exp())


# fmt: off
_LINKS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {  # and the loss whose derivative s − t is
    "": (lambda u: u, "the squared error"),
    "sigmoid": (torch.sigmoid, "the binary cross entropy"),
    "softmax": (_softmax, "the cross entropy"),
    "exp": (torch.exp, "the Poisson loss"),
    "tanh": (torch.tanh, "the squared error of tanh(z), the derivative of tanh forgotten"),
}
_EVERY, _PROBABLE = tuple(_LINKS), ("sigmoid", "softmax")
# What stands for s − t: the cause, the formula, the sentence, and the links with which it makes sense.
_RESIDUALS: tuple[tuple[Cause, str, _Formula, str, tuple[str, ...]], ...] = (
    (Cause.wrong_residual, "s", lambda s, t: s, "The target is missing.", _EVERY),
    (Cause.wrong_residual, "−t", lambda s, t: -t, "The prediction is missing, the target is there.", _EVERY),
    (Cause.wrong_residual, "s + t", lambda s, t: s + t,
     "The sign of the target is wrong: s − t is due, not s + t.", _EVERY),
    (Cause.wrong_residual, "|s − t|", lambda s, t: (s - t).abs(), "The residual has lost its sign.", _EVERY),
    (Cause.other_loss, "(s − t)²", lambda s, t: (s - t) ** 2, "This is the loss itself.", _EVERY),
    (Cause.activation, "(s − t) s (1 − s)", lambda s, t: (s - t) * s * (1 - s),
     "An extra derivative of the activation stands there, as for the squared error: this loss cancels it.",
     ("", *_PROBABLE)),
    (Cause.activation, "(s − t) (1 − s²)", lambda s, t: (s - t) * (1 - s * s),
     "An extra derivative of tanh stands there.", _EVERY),
    (Cause.activation, "(s − t) s", lambda s, t: (s - t) * s,
     "An extra derivative (a factor s) stands there.", _EVERY),
    (Cause.activation, "(s − t) (1 − s)", lambda s, t: (s - t) * (1 - s),
     "An extra factor 1 − s stands there.", _PROBABLE),
    (Cause.activation, "(s − t)/s", lambda s, t: (s - t) / s, "A division by s is too much.", _PROBABLE),
    (Cause.activation, "(s − t)/(s (1 − s))", lambda s, t: (s - t) / (s * (1 - s)),
     "The derivative of sigmoid is missing: this is the derivative by its output.", ("sigmoid",)),
    (Cause.activation, "−t/s", lambda s, t: -t / s,
     "The derivative of softmax is missing: this is the derivative by its output.", ("softmax",)),
    (Cause.activation, "−t (1 − s)", lambda s, t: -t * (1 - s),
     "Only the class of the target counts: of the derivative of softmax the diagonal alone is there.",
     ("softmax",)),
    (Cause.wrong_residual, "−t (1 − s)", lambda s, t: -t * (1 - s),
     "Only the term of y is there, that of 1 − y is missing.", ("sigmoid",)),
    (Cause.wrong_residual, "(1 − t) s", lambda s, t: (1 - t) * s,
     "Only the term of 1 − y is there, that of y is missing.", ("sigmoid",)),
    (Cause.wrong_residual, "−t (1 − s) − (1 − t) s", lambda s, t: -t * (1 - s) - (1 - t) * s,
     "The sign of the second term, that of 1 − y, is wrong.", ("sigmoid",)),
    (Cause.wrong_residual, "(s − t) t", lambda s, t: (s - t) * (1 - t),
     "The class of the target does not count: all classes are due.", _PROBABLE),
    (Cause.wrong_residual, "s − (1 − t)", lambda s, t: s - (1 - t),
     "The labels are exchanged: 1 − y stands for y.", _PROBABLE),
    (Cause.wrong_residual, "round(s) − t", lambda s, t: s.round() - t,
     "The prediction is rounded to a class before the target is subtracted.", _PROBABLE),
    (Cause.wrong_residual, "s − t", lambda s, t: s - _several(t, lambda t: t.roll(1, 1)),
     "The labels are off by one: y + 1 stands for y.", _EVERY),
    (Cause.wrong_residual, "s − t", lambda s, t: s - _several(t, lambda t: t.roll(-1, 1)),
     "The labels are off by one: y − 1 stands for y.", _EVERY),
    (Cause.broadcast, "s − mean(t)", lambda s, t: s - t.mean(0, keepdim=True),
     "(n,) against (n, 1) makes a table of all pairs: each prediction meets all targets.", _EVERY),
    (Cause.broadcast, "mean(s) − t", lambda s, t: s.mean(0, keepdim=True) - t,
     "(n,) against (n, 1) makes a table of all pairs: each target meets all predictions.", _EVERY),
)
# The same for losses without a link.
_LOSSES: tuple[tuple[Cause, str, _Formula, str], ...] = (
    (Cause.other_loss, "sign(u − t)", lambda u, t: (u - t).sign(),
     "This is the gradient of the absolute error."),
    (Cause.other_loss, "tanh(u − t)", lambda u, t: (u - t).tanh(),
     "This is the gradient of the log-cosh loss."),
    (Cause.other_loss, "(u − t) |u − t|", lambda u, t: (u - t) * (u - t).abs(),
     "This is the gradient of |u − t|³."),
    (Cause.other_loss, "(u − t)³", lambda u, t: (u - t) ** 3, "This is the gradient of the fourth power."),
    (Cause.other_loss, "(u − t)/√mean((u − t)²)", lambda u, t: (u - t) / (u - t).square().mean().sqrt(),
     "This is the gradient of the root of the mean squared error."),
    (Cause.wrong_residual, "min(u − t, 1)", lambda u, t: (u - t).clamp(max=1),
     "The bound of the residual holds on one side only: |u − t| is due."),
    (Cause.wrong_residual, "u − t within 1, else 1", lambda u, t: torch.where((u - t).abs() <= 1, u - t, 1.0),
     "The sign of the residual is missing where it is large."),
    (Cause.other_loss, "2 (u − t) within 1, else its sign",
     lambda u, t: torch.where((u - t).abs() <= 1, 2 * (u - t), (u - t).sign()),
     "The ½ of the Huber loss is missing: within δ the derivative is u − t."),
    (Cause.wrong_residual, "its sign within 1, else u − t",
     lambda u, t: torch.where((u - t).abs() <= 1, (u - t).sign(), u - t), "The two cases are exchanged."),
    (Cause.wrong_residual, "−t where t u < 0", lambda u, t: -t * (t * u < 0),
     "The margin is missing: a sample counts where t u < 1 (this is the perceptron)."),
    (Cause.wrong_residual, "−t where t u > 1", lambda u, t: -t * (t * u > 1),
     "The condition on the margin is turned around: a sample counts where t u < 1."),
    (Cause.wrong_residual, "−1 where t u < 1", lambda u, t: -(t * u < 1).to(u.dtype),
     "The label y is missing: the derivative of 1 − y u is −y."),
    (Cause.wrong_residual, "−u where t u < 1", lambda u, t: -u * (t * u < 1),
     "The prediction stands where the label is due: the derivative of 1 − y u is −y."),
    (Cause.wrong_residual, "−t", lambda u, t: -t,
     "The margin is forgotten: only samples with t u < 1 count."),
    (Cause.other_loss, "−t where t u < 1", lambda u, t: -t * (t * u < 1),
     "This is the gradient of the hinge loss."),
    (Cause.other_loss, "−t (1 − t u) where t u < 1", lambda u, t: -t * (1 - t * u).clamp(min=0),
     "This is the gradient of the squared hinge loss."),
    (Cause.other_loss, "−t σ(−t u)", lambda u, t: -t * (-t * u).sigmoid(),
     "This is the gradient of the logistic loss log(1 + exp(−y u))."),
    (Cause.other_loss, "(1 − t)/(1 − u) − t/u", lambda u, t: (1 - t) / (1 - u) - t / u,
     "This is the gradient of the binary cross entropy."),
    (Cause.other_loss, "−t/u", lambda u, t: _several(u, lambda u: -t / u),
     "This is the gradient of the cross entropy, −Σ y log u."),
    (Cause.wrong_axis, "e/Σ e − t", lambda u, t: _exp(u) / _exp(u).sum(0) - t,
     "The softmax is divided by the sum over the wrong axis: over the samples."),
    (Cause.wrong_axis, "e/Σ e − t", lambda u, t: _exp(u) / _exp(u).sum() - t,
     "The softmax is divided by the sum over all entries: the axis of the classes is missing."),
    (Cause.activation, "e − t", lambda u, t: _exp(u) - t,
     "The softmax is not divided by the sum over the classes."),
    (Cause.wrong_axis, "softmax(u, 0) − t", lambda u, t: _several(u, lambda u: u.softmax(0)) - t,
     "The softmax goes over the wrong axis: over the samples, not over the classes."),
    (Cause.wrong_axis, "exp(u)/Σ exp(u) − t", lambda u, t: _several(u, lambda u: u.exp() / u.exp().sum()) - t,
     "The softmax is divided by the sum over all entries: the axis of the classes is missing."),
    (Cause.activation, "log softmax(u) − t", lambda u, t: _softmax(u).log() - t,
     "The log of the softmax stands where the softmax is due."),
    (Cause.activation, "1/(1 + exp(u)) − t", lambda u, t: torch.sigmoid(-u) - t,
     "The sign in the exponent of the sigmoid is wrong: it is 1/(1 + exp(−z))."),
    (Cause.other_loss, "exp(u) − t u", lambda u, t: u.exp() - t * u,
     "This is the loss itself, not its derivative."),
    (Cause.activation, "1 − t exp(−u)", lambda u, t: 1 - t * (-u).exp(),
     "The derivative of exp is missing: this is the derivative by exp(u), not by u."),
)
# fmt: on


def targets(view: View) -> tuple[Tensor, Tensor] | None:
    """u and t in one shape; None where the loss takes other targets."""
    u, y = view.node.value, view.graph.y.value
    if not y.is_floating_point() and y.shape == u.shape[:1] and u.dim() == 2 and y.numel():
        if int(y.min()) < 0 or int(y.max()) >= u.shape[1]:
            return None
        y = one_hot(y, u.shape[1])
    same = (
        y.numel() == u.numel() and y.shape[:1] == u.shape[:1]
    )  # (n,) for (n, 1), where the model makes it so
    return (u, y.reshape(u.shape).to(u.dtype)) if same else None


def _multiple(of: Tensor, r: Tensor) -> float | None:
    """The c of of = c · r, if there is one."""
    size = float((r * r).sum())
    if not (math.isfinite(size) and size > 0):
        return None
    c = float((of * r).sum()) / size
    return c if float((of - c * r).abs().max()) <= 1e-9 * float(of.abs().max()) else None


def residuals(view: View) -> Iterator[Value]:
    pair = targets(view)
    for value in _residuals(view.right, *pair) if pair else ():
        yield replace(value, label=value.message)


def _residuals(right: Tensor, u: Tensor, t: Tensor) -> Iterator[Value]:
    found = {name: _multiple(right, link(u) - t) for name, (link, _) in _LINKS.items()}
    due = next((name for name, c in found.items() if c is not None), None)
    factor = 1 / len(u) if due is None else found[due] or 0.0  # that of the right derivative
    for name, (link, loss) in _LINKS.items():
        s, text = link(u), f"{name}(z)" if name else "z"
        if not due:
            n = len(u) if name == "softmax" else u.numel()
            yield Value((s - t) / n, f"This is the gradient of {loss}.", Cause.other_loss)
        else:
            said = f"The {due} is missing" if not name else f"{name} stands where {due} is due"
            message = f"{said}: it computes {text} − y, {due}(z) − y is due."
            yield Value((s - t) * factor, message, Cause.activation)
        if name == due or (due is None and not bool((t.abs() == 1).all())):  # labels ±1 have no residual
            for cause, formula, value, message, links in _RESIDUALS:
                if name in links:
                    message = f"{message} It computes {formula}, with s = {text}."
                    yield Value(value(s, t) * factor, message, cause)
    for cause, formula, value, message in _LOSSES:
        n = len(u) if cause is Cause.wrong_axis else u.numel()
        yield Value(value(u, t) / n, f"{message} It computes {formula}.", cause)
    for delta in _HUBER:
        message = f"This is the gradient of the Huber loss with δ = {delta:g}."
        yield Value((u - t).clamp(-delta, delta) / u.numel(), message, Cause.other_loss)
