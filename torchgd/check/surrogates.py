"""Backwards that are deliberately not the derivative: which function's derivative they are instead.

Straight-through estimators, surrogate gradients of spiking networks, gradient reversal, clipping.
Source: E. Neftci, H. Mostafa, F. Zenke, Surrogate gradient learning in spiking neural networks (2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchgd.check.explain import Factor, close, simplest
from torchgd.check.function_points import FunctionPoint
from torchgd.check.mistakes import Cause
from torchgd.check.report import Diagnosis
from torchgd.check.subject import Due

_ACCURACY = 1e-5
_SLOPES = torch.cat([torch.arange(1, 400, dtype=torch.float64) / 4, torch.arange(101.0, 301.0).double()])


Seen = Sequence[tuple[FunctionPoint, Tensor]]  # the points, and what backward gave there


def not_the_derivative(seen: Seen, name: str, index: int, eps: float) -> Diagnosis | None:
    """What a wrong backward does on purpose, or to an incoming gradient v of some kinds only."""

    def equal(point: FunctionPoint, value: Tensor, due: Due) -> bool:
        return close(value, due.value, due.scale, point.n, eps)

    if all(point.strided or equal(point, given, point.product(name)) for point, given in seen):
        message = (
            "It takes v, the incoming gradient, for contiguous; after cat, transpose or expand it is not."
        )
        return Diagnosis(Cause.lucky, f"{message} Call v.contiguous() first.")
    beside = [point.element_by_element(name, index) for point, _ in seen]
    if all(beside):
        x, v = (torch.cat(side) for side in zip(*(b for b in beside if b), strict=True))
        answers = torch.cat([given for _, given in seen])
        k = simplest(float((answers @ v) / (v @ v)), 1e-6)
        identity = all(equal(p, b[1], p.product(name)) for (p, _), b in zip(seen, beside, strict=True) if b)
        if identity and bool((answers - k * v).abs().max() <= 1e-6 * answers.abs().max()):
            what = "the gradient is reversed" if k < 0 else "the gradient is scaled"
            message = f"Forward is the identity, and backward takes v {k:.6g} times: {what}."
            return Diagnosis(Cause.surrogate, message, k, Factor(k).name)
    if all(equal(point, torch.zeros_like(given), point.product(name)) for point, given in seen):
        shape = named_shape(x[v != 0], (answers / v)[v != 0]) if all(beside) else ""
        is_what = f"is that {shape}" if shape else "is not"
        message = f"The derivative of forward is 0 wherever it was tried; its backward {is_what}."
        return Diagnosis(Cause.surrogate, message)
    groups = [
        (one, other, c)
        for one in seen
        for other in seen
        for c in (2, -1)
        if one[0].place is other[0].place and torch.equal(c * one[0].v[0], other[0].v[0])
    ]
    linear = all(equal(p, c * a, Due(b, p.product(name).scale)) for (p, a), (_, b), c in groups)
    # the same whatever v is: it is not used at all, which is another mistake
    if linear or all(equal(p, a, Due(b, p.product(name).scale)) for (p, a), (_, b), _ in groups):
        return None
    most = max(float(given.abs().max()) for _, given in seen)

    def cut(values: Tensor) -> Tensor:
        return values.clamp(-most, most)

    changes: tuple[tuple[str, Callable[[FunctionPoint], Due]], ...] = (
        ("what is negative in v is dropped", lambda p: p.product(name, torch.relu)),
        ("only the sign of v is left", lambda p: p.product(name, torch.sign)),
        (f"v is clipped at {most:.6g}", lambda p: p.product(name, cut)),
        (f"the gradient is clipped at {most:.6g}", lambda p: _cut(p.product(name), cut)),
    )
    for what, change in changes:
        if all(equal(point, given, change(point)) for point, given in seen):
            return Diagnosis(Cause.surrogate, f"Backward is not linear in v, the incoming gradient: {what}.")
    return Diagnosis(Cause.unknown, "Backward is not linear in v: twice v does not give twice the gradient.")


def _cut(due: Due, cut: Callable[[Tensor], Tensor]) -> Due:
    return Due(cut(due.value), due.scale)


def named_shape(x: Tensor, ratio: Tensor) -> str:
    """The function of x whose derivative is ``ratio``, up to a factor; empty where none fits.

    Example:
        >>> x = torch.linspace(-2, 2, 9).double()
        >>> named_shape(x, 3 / (1 + (2 * x) ** 2))
        'of an arctangent of slope 2, 3 times'
    """
    kept = ratio != 0
    size, r = x.abs()[kept], ratio[kept]
    if len(r) < 3:
        return ""
    if _constant(r):
        times = _times(float(r.mean()))
        if bool(kept.all()):
            return f"of the identity{times} (a straight-through estimator)"
        if float(size.max()) < float(x.abs()[~kept].min()):
            return f"of a clamp{times}: 1 where |x| is at most {float(size.max()):.3g} or so, else 0"
        return ""
    if not bool((r > 0).all() or (r < 0).all()):
        return ""
    sign = 1.0 if bool((r > 0).all()) else -1.0
    r = sign * r
    shapes: tuple[tuple[str, Tensor, Tensor, Callable[[float, float], tuple[float, float]]], ...] = (
        ("an arctangent", size**2, 1 / r, lambda a, b: ((b / a) ** 0.5, 1 / a)),
        ("a fast sigmoid x/(1 + |x|)", size, r**-0.5, lambda a, b: (b / a, a**-2)),
        (
            "a Gaussian error function",
            size**2,
            -r.log(),
            lambda a, b: (b**0.5, math.exp(-a)),
        ),
        ("a triangle", size, r, lambda a, b: (-b / a, a)),
    )
    for name, along, value, parameters in shapes:
        table = torch.stack([torch.ones_like(along), along], dim=1)
        a, b = torch.linalg.lstsq(table, value).solution.tolist()
        if float((a + b * along - value).abs().max()) <= _ACCURACY * float(value.abs().max()) and a != 0:
            slope, k = parameters(a, b)
            if isinstance(slope, float) and slope > 0:
                return f"of {name} of slope {simplest(slope, _ACCURACY):.4g}{_times(sign * k)}"
    bump = torch.sigmoid(_SLOPES[:, None] * size) * torch.sigmoid(-_SLOPES[:, None] * size)
    quotients = r / bump
    spread = (quotients.max(1).values - quotients.min(1).values) / quotients.mean(1)
    best = int(spread.nan_to_num(torch.inf).argmin())
    if float(spread[best]) < _ACCURACY:
        steepest = float(_SLOPES[best])
        return f"of a sigmoid of slope {steepest:g}{_times(sign * float(quotients[best].mean()) / steepest)}"
    return ""


def _constant(values: Tensor) -> bool:
    return bool((values - values.mean()).abs().max() <= _ACCURACY * values.abs().max())


def _times(k: float) -> str:
    k = simplest(k, 10 * _ACCURACY)
    return "" if k == 1 else f", {k:.4g} times"
