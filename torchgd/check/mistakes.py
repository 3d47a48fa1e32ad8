"""The mistakes that people make in a gradient of the squared error: a table, each row a formula.

A row explains an answer where answer = k · Nᵖ · (the mean of its terms) at *every* point, to rounding;
`explain` finds k and p.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

# (w, x, y, residuals r = w x − y, right gradients g = 2 x r) to one term per sample (n,), or one number ().
Terms = Callable[[float, Tensor, Tensor, Tensor, Tensor], Tensor]


class Cause(str, Enum):
    """What is the matter with a gradient.

    ==================== =================================================================
    correct              right to rounding, at every point tried
    approximate          right only roughly: finite differences, low precision
    factor               a constant, or a power of N, times the right one
    lucky                right on this data or at this N only
    missing_input        the x of the chain rule is missing, or there twice
    wrong_variable       the derivative by x or by y, not by w
    misplaced_bracket    a bracket ends too early or too late
    wrong_residual       not prediction − target: its sign, or one of the two alone
    other_loss           the right gradient of another loss
    product_of_means     mean · mean where the mean of the product is due
    part_of_the_data     some samples are left out
    reduction            the sum or each sample's where the mean is due, or the reverse
    surrogate            deliberately not the derivative: straight-through, reversed, clipped in backward
    saturated            clipped, normalised or signed: direction right, size wrong
    constant             does not depend on w
    nondeterministic     two calls, two answers
    mutates_input        changes w, x or y in place
    non_finite           NaN or infinity
    wrong_shape          neither one number nor one for each sample
    wrong_dtype          no floating-point number
    activation           the derivative of an activation is missing, another one, or one too many
    transposed           a matrix is transposed, or a kernel turned
    wrong_axis           a softmax or a sum goes over the wrong axis
    missing_path         a path of the chain rule is left out, or counted another number of times
    broadcast            (n,) against (n, 1) has made a table of all pairs
    detached             autograd has lost the way back to w
    raises               raises an exception
    unknown              wrong, and nothing above explains all the evidence
    ==================== =================================================================
    """

    correct = "correct"
    approximate = "approximate"
    factor = "factor"
    lucky = "lucky"
    missing_input = "missing_input"
    wrong_variable = "wrong_variable"
    misplaced_bracket = "misplaced_bracket"
    wrong_residual = "wrong_residual"
    other_loss = "other_loss"
    product_of_means = "product_of_means"
    part_of_the_data = "part_of_the_data"
    reduction = "reduction"
    surrogate = "surrogate"
    saturated = "saturated"
    constant = "constant"
    nondeterministic = "nondeterministic"
    mutates_input = "mutates_input"
    non_finite = "non_finite"
    wrong_shape = "wrong_shape"
    wrong_dtype = "wrong_dtype"
    activation = "activation"
    transposed = "transposed"
    wrong_axis = "wrong_axis"
    missing_path = "missing_path"
    broadcast = "broadcast"
    detached = "detached"
    raises = "raises"
    unknown = "unknown"


@dataclass(frozen=True)
class Mistake:
    """One candidate: what a function computes where the mean of 2 x (w x − y) is due.

    The formula is empty where the message says it all.
    """

    cause: Cause
    formula: str
    terms: Terms
    message: str
    times: tuple[str, Callable[[int], float]] | None = None  # how many times the right one, in N

    def __call__(self, w: float, x: Tensor, y: Tensor) -> Tensor:
        residual = w * x - y
        return self.terms(w, x, y, residual, 2 * x * residual)


def _part(g: Tensor, start: int, stop: int) -> Tensor:
    """The gradients of some samples, and 0 for the others."""
    kept = torch.zeros_like(g)
    kept[start:stop] = g[start:stop]
    return kept


def _normalised(epsilon: float) -> tuple[str, Terms, str]:
    """As it is written to avoid a division by zero."""
    message = "The gradient is divided by its size: its direction is right, its size is not."
    formula = f"gradient / (|gradient| + {epsilon:g})"
    return formula, lambda w, x, y, r, g: g.mean() / (g.mean().abs() + epsilon), message


# fmt: off
_TABLE: dict[Cause, tuple[tuple[str, Terms, str], ...]] = {
    Cause.missing_input: (
        ("2 (w x − y)", lambda w, x, y, r, g: 2 * r,
         "The x of the chain rule is missing: the derivative of w x − y by w is x."),
        ("2 x² (w x − y)", lambda w, x, y, r, g: 2 * x * x * r,
         "The x of the chain rule is there twice: the derivative of w x − y by w is x, once."),
    ),
    Cause.wrong_variable: (
        ("2 w (w x − y)", lambda w, x, y, r, g: 2 * w * r,
         "This is the derivative by x, not by w: the inner derivative is x, not w."),
        ("−2 (w x − y)", lambda w, x, y, r, g: -2 * r,
         "This is the derivative by y, not by w: the inner derivative is x, not −1."),
    ),
    Cause.misplaced_bracket: (
        ("2 x (x w) − y", lambda w, x, y, r, g: 2 * w * x * x - y,
         "The bracket ends too early: 2 x must multiply y as well."),
        ("2 x (x w) − x y", lambda w, x, y, r, g: 2 * w * x * x - x * y,
         "The bracket ends too early: the 2 must multiply x y as well."),
        ("x (x w) − 2 x y", lambda w, x, y, r, g: w * x * x - 2 * x * y,
         "The 2 stands in the wrong place: it must multiply both terms of the bracket."),
        ("2 (x x w − y)", lambda w, x, y, r, g: 2 * (w * x * x - y),
         "The x stands inside the bracket and reaches only w x: it must multiply y as well."),
        ("x w − y x", lambda w, x, y, r, g: x * w - y * x,
         "The brackets are lost: x multiplies y but not w x, which needs x · (w x)."),
        ("2 x w − y", lambda w, x, y, r, g: 2 * x * w - y,
         "The bracket is lost and an x with it: 2 x must multiply the whole of w x − y."),
        ("2 x w − y x", lambda w, x, y, r, g: 2 * x * w - x * y,
         "The bracket is lost: 2 x must multiply the whole of w x − y."),
        ("2 x w (x − y)", lambda w, x, y, r, g: 2 * x * w * (x - y),
         "The bracket begins too late: w belongs to x alone, in w x − y."),
        ("2 Σ x (x w) − mean 2 x y", lambda w, x, y, r, g: 2 * (w * x * x).sum() - 2 * (x * y).mean(),
         "The division by N reaches the last term only: put the whole sum in a bracket."),
        ("mean 2 x (x w) − 2 Σ x y", lambda w, x, y, r, g: 2 * (w * x * x).mean() - 2 * (x * y).sum(),
         "The mean reaches the first term only: put both terms in its bracket."),
    ),
    Cause.wrong_residual: (
        ("2 x (w x + y)", lambda w, x, y, r, g: 2 * x * (w * x + y),
         "The sign of y is wrong: the residual is w x − y, not w x + y."),
        ("2 x (w x)", lambda w, x, y, r, g: 2 * w * x * x,
         "The prediction w x stands where the residual w x − y is due: the target is missing."),
        ("2 x y", lambda w, x, y, r, g: 2 * x * y,
         "The target y stands where the residual w x − y is due: the prediction is missing."),
        ("2 x |w x − y|", lambda w, x, y, r, g: 2 * x * r.abs(),
         "The residual has lost its sign: no absolute value is due."),
        ("2 x (x − y)", lambda w, x, y, r, g: 2 * x * (x - y),
         "The input x stands in the residual where the prediction w x is due."),
    ),
    Cause.other_loss: (
        ("(w x − y)²", lambda w, x, y, r, g: r * r,
         "This is the loss itself, not its derivative by w."),
        ("x sign(w x − y)", lambda w, x, y, r, g: x * r.sign(),
         "This is the gradient of the absolute error |w x − y|."),
        ("3 x (w x − y)²", lambda w, x, y, r, g: 3 * x * r * r,
         "This is the gradient of the cube (w x − y)³: derived, the square leaves the power 1, not 2."),
        ("3 x (w x − y) |w x − y|", lambda w, x, y, r, g: 3 * x * r * r.abs(),
         "This is the gradient of the cubic loss |w x − y|³."),
        ("4 x (w x − y)³", lambda w, x, y, r, g: 4 * x * r * r * r,
         "This is the gradient of the fourth power (w x − y)⁴."),
        ("x sign(w x − y) / (2 √|w x − y|)", lambda w, x, y, r, g: x * r.sign() / (2 * r.abs().sqrt()),
         "This is the gradient of the square root of |w x − y|."),
        ("mean x (w x − y) / √mean (w x − y)²", lambda w, x, y, r, g: (x * r).mean() / (r * r).mean().sqrt(),
         "This is the gradient of the root of the mean squared error."),
        ("x clamp(w x − y, −1, 1)", lambda w, x, y, r, g: x * r.clamp(-1, 1),
         "This is the gradient of the Huber loss with δ = 1 (smooth_l1_loss)."),
        ("x tanh(w x − y)", lambda w, x, y, r, g: x * r.tanh(),
         "This is the gradient of the log-cosh loss."),
    ),
    Cause.product_of_means: (
        ("2 mean x · mean (w x − y)", lambda w, x, y, r, g: 2 * x.mean() * r.mean(),
         "This is the product of the means of x and of the residual: multiply first, then take the mean."),
        ("2 x · mean (w x − y)", lambda w, x, y, r, g: 2 * x * r.mean(),
         "The residual is averaged before it meets x: multiply sample by sample first."),
        ("2 (w (mean x)² − mean x y)", lambda w, x, y, r, g: 2 * (w * x.mean() ** 2 - (x * y).mean()),
         "The square of the mean of x stands where the mean of x² is due."),
        ("2 (w mean x² − mean x mean y)",
         lambda w, x, y, r, g: 2 * w * (x * x).mean() - 2 * x.mean() * y.mean(),
         "mean(x) · mean(y) stands where the mean of x y is due."),
    ),
    Cause.part_of_the_data: (
        ("", lambda w, x, y, r, g: _part(g, 0, 1),
         "Only the first sample counts: does the function return inside its loop?"),
        ("", lambda w, x, y, r, g: _part(g, len(g) - 1, len(g)),
         "Only the last sample counts: is it = where += is due, or is the sum reset inside the loop?"),
        ("", lambda w, x, y, r, g: g[1:].mean(),
         "The first sample is left out: indices begin at 0."),
        ("", lambda w, x, y, r, g: _part(g, 1, len(g)),
         "The first sample is left out: indices begin at 0."),
        ("", lambda w, x, y, r, g: g[:-1].mean(),
         "The last sample is left out: range(n) ends before n already."),
        ("", lambda w, x, y, r, g: _part(g, 0, len(g) - 1),
         "The last sample is left out: range(n) ends before n already."),
        ("", lambda w, x, y, r, g: g[::2].mean(),
         "Only every second sample counts."),
    ),
    Cause.reduction: (
        ("", lambda w, x, y, r, g: g.mean().expand(len(x)),
         "Each sample gets the mean where its own gradient is due."),
    ),
    Cause.saturated: (
        ("", lambda w, x, y, r, g: g.mean().sign(),
         "Only the sign of the gradient is left: its size is lost."),
        ("", lambda w, x, y, r, g: g.sign(),
         "Only the sign of each sample's gradient is left: its size is lost."),
        ("", lambda w, x, y, r, g: g.mean().tanh(),
         "The gradient went through tanh: its direction is right, its size is not."),
        ("", lambda w, x, y, r, g: g.tanh(),
         "Each sample's gradient went through tanh: its direction is right, its size is not."),
        ("", lambda w, x, y, r, g: g / g.norm(),
         "The gradient is divided by its size: its direction is right, its size is not."),
        *(_normalised(epsilon) for epsilon in (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5)),
    ),
}
# fmt: on


MISTAKES = (
    Mistake(
        Cause.factor,
        "",
        lambda w, x, y, r, g: g.sum() / (len(x) - 1),
        "The sum is divided by N − 1 where N is due.",
        times=("N/(N − 1)", lambda n: n / (n - 1)),
    ),
    *(Mistake(cause, *row) for cause, rows in _TABLE.items() for row in rows),
)
