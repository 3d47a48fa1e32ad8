"""From the answers of a gradient to a verdict: the questions in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchgd.check.calling import Answer, Form, GradientFunction, Problem, call
from torchgd.check.explain import Explanation, Factor, Point, close, explain
from torchgd.check.mistakes import OVER_N_MINUS_1, RIGHT, Cause
from torchgd.check.probes import YOUR_DATA, Probe

_ROUGH = 0.05  # an error larger than this, relative to the terms, is no approximation
_LOW_PRECISION = 5e-4  # below the ε of float16 and bfloat16, above that of float32

_NAMED_FACTORS = {
    Factor(1.0, 1): "It is the sum over the samples where the mean is due: N times too large.",
    Factor(1.0, -1): "It is divided by N twice: a mean of a mean, or the share of one sample in a mean.",
    Factor(2.0): "It is 2 times the right gradient: the derivative of a square brings one 2, not two.",
    Factor(0.5): "It is half the right gradient: the 2 of the square is missing (it fits a loss with ½).",
    Factor(-1.0): "Its sign is turned: look for target − prediction, a leading minus, or a sum by -=.",
    Factor(0.0): "It is always 0: no term reaches the answer.",
}


@dataclass(frozen=True)
class Verdict:
    """The name of what is wrong, in a word and in a sentence or two."""

    cause: Cause
    message: str
    factor: float | None = None
    factor_name: str = ""


@dataclass
class Answers:
    """What f answered at each probe, brought into one shape and one precision."""

    per_sample: bool
    reduction: str
    dtype: torch.dtype
    eps: float
    n: int  # of the user's data
    points: list[Point] = field(default_factory=list)  # only where the dtype can hold the exact value
    failures: list[tuple[Probe, Problem]] = field(default_factory=list)

    def target(self, probe: Probe) -> tuple[Tensor, Tensor]:
        """What is right at a probe, and the scale of its rounding."""
        if self.per_sample:
            return probe.right, probe.scale
        count = probe.n if self.reduction == "sum" else 1
        right, scale = probe.means
        return right * count, scale * count

    def right_at(self, point: Point) -> bool:
        value, scale = self.target(point.probe)
        return point.answer is not None and close(point.answer, value, scale, point.probe.n, self.eps)

    def error(self) -> float:
        """The largest error relative to the terms that were added."""
        errors = [0.0]
        for point in self.points:
            value, scale = self.target(point.probe)
            if point.answer is None:
                return float("inf")
            errors.append(float(torch.where(scale > 0, (point.answer - value).abs() / scale, 0.0).max()))
        return max(errors)


def gather(probes: Sequence[Probe], answers: Sequence[Answer], reduction: str) -> Answers | Verdict:
    """The answers in a form that can be compared, or the verdict that they cannot be."""
    calls = list(zip(probes, answers, strict=True))
    changed = next((answer.changed for answer in answers if answer.changed), "")
    if changed:
        message = f"It changes {changed} in place, so that the next call sees other numbers. Work on a copy."
        return Verdict(Cause.mutates_input, message)
    several = [(probe.n, answer.value) for probe, answer in calls if probe.n > 1 and answer.value is not None]
    if not several:
        failed = next(answer.problem for probe, answer in calls if probe.n > 1 and answer.problem)
        return Verdict(failed.cause, f"It {failed.text}.")
    each = several[0][1].dim() > 0
    for n, result in several:
        if result.shape != ((n,) if each else ()):
            return Verdict(Cause.wrong_shape, _shape_message(n, tuple(result.shape)))
    dtype, eps = precision({answer.dtype for answer in answers}, [result for _, result in several])
    gathered = Answers(each, reduction, dtype, eps, probes[-1].n)
    limits = torch.finfo(dtype if dtype.is_floating_point else torch.float64)
    for probe, answer in calls:
        smallest, largest = probe.sizes
        if smallest > limits.tiny / eps and largest < limits.max / (16 * probe.n):
            value = _fit(answer, probe.n, each)
            gathered.points.append(Point(probe, None if isinstance(value, Problem) else value))
            if isinstance(value, Problem):
                gathered.failures.append((probe, value))
    if all(point.answer is None for point in gathered.points if point.probe.n > 1):
        probe, problem = gathered.failures[0]
        return Verdict(problem.cause, f"It {problem.text} at N = {probe.n}, where the gradient is finite.")
    return gathered


def _fit(answer: Answer, n: int, each: bool) -> Tensor | Problem:
    """The value in the shape of the others and finite, or what is the matter; N = 1 has both shapes."""
    if answer.value is None:
        return answer.problem or Problem(Cause.raises, "gives no answer")
    if answer.value.numel() != (n if each else 1):
        return Problem(Cause.wrong_shape, f"returns shape {tuple(answer.value.shape)}")
    value = answer.value.reshape((n,) if each else ())
    if not bool(value.isfinite().all()):
        return Problem(Cause.non_finite, f"returns {float(value[~value.isfinite()].flatten()[0])}")
    return value


def _shape_message(n: int, shape: tuple[int, ...]) -> str:
    due = (
        f"It returns shape {shape} for {n} samples: shape () is due, or ({n},) for a gradient of each sample."
    )
    if shape == (n, n):
        return due + " (N, 1) against (N,) has made a table of all pairs: flatten both to (N,)."
    if all(size == 1 for size in shape):
        return due + " Take the number out of its brackets: reshape(()) or [0]."
    return due


def precision(dtypes: set[torch.dtype | None], values: Sequence[Tensor]) -> tuple[torch.dtype, float]:
    """The dtype in which the answers were computed: what fits float32 every time is no float64."""
    floating = [dtype for dtype in dtypes if dtype is not None and dtype.is_floating_point]
    if not floating:
        return torch.int64, torch.finfo(torch.float64).eps
    dtype = max(floating, key=lambda d: torch.finfo(d).eps)
    every = torch.cat([value.flatten() for value in values])
    every = every[every.isfinite()]
    fits = [bool((every == every.to(shorter).double()).all()) for shorter in (torch.float32, torch.bfloat16)]
    if dtype is torch.float64 and fits == [True, False]:
        dtype = torch.float32
    return dtype, torch.finfo(dtype).eps


def judge(f: GradientFunction, form: Form, answers: Answers, due: bool) -> Verdict:
    """The verdict on answers that can be compared; ``due`` says whether one for each sample is due."""
    if not _repeats(f, form, answers):
        message = "Two calls with the same numbers give two answers: is it random, or does it keep a sum?"
        return Verdict(Cause.nondeterministic, message)
    right = [answers.right_at(point) for point in answers.points]
    if all(right):
        return _correct(answers, due)
    if all(r or point.answer is None for r, point in zip(right, answers.points, strict=True)):
        probe, problem = max(answers.failures, key=lambda failure: failure[0].data == YOUR_DATA)
        cause = problem.cause if probe.data == YOUR_DATA else Cause.lucky
        message = f"It is right elsewhere, but at N = {probe.n} and w = {probe.w:.6g} it {problem.text}."
        return Verdict(cause, message)
    summed = answers.reduction == "sum" and not answers.per_sample
    if all(point.answer is not None and not point.answer.any() for point in answers.points):
        return factor_verdict(Factor(0.0, int(summed)), answers.n, answers.per_sample, summed)
    informative = [point for point in answers.points if _tells(answers, point)]
    explanation = explain(informative, answers.per_sample, answers.eps)
    if explanation and explanation.mistake is not RIGHT:
        return _mistake(explanation, answers.n)
    if explanation and explanation.factor != Factor(1.0, int(summed)):
        return factor_verdict(explanation.factor, answers.n, answers.per_sample, summed)
    return _constant(answers) or _lucky(answers, right) or _rough(answers) or _unknown(answers, right)


def _repeats(f: GradientFunction, form: Form, answers: Answers) -> bool:
    """Whether a second call gives the same, on the largest of our data and on the user's."""
    own = [point for point in answers.points if point.probe.data != YOUR_DATA]
    yours = [point for point in answers.points if point.probe.data == YOUR_DATA]
    for point in (*yours[:1], *sorted(own, key=lambda point: -point.probe.n)[:2]):
        again = _fit(call(f, form, point.probe), point.probe.n, answers.per_sample)
        if isinstance(again, Problem) or point.answer is None:
            if point.answer is not None or not isinstance(again, Problem):
                return False
        elif not close(again, point.answer, answers.target(point.probe)[1], point.probe.n, answers.eps):
            return False
    return True


def _correct(answers: Answers, due: bool) -> Verdict:
    dtype = str(answers.dtype).removeprefix("torch.")
    if answers.eps > _LOW_PRECISION:
        return Verdict(Cause.approximate, f"It is right as far as {dtype} goes, {_digits(answers)}.")
    if answers.per_sample and not due:
        return Verdict(Cause.reduction, "It returns each sample's right gradient where their mean is due.")
    if due and not answers.per_sample:
        return Verdict(Cause.reduction, "It returns the right mean where each sample's gradient is due.")
    kind = "for each sample " if answers.per_sample else ""
    points = f"all {len(answers.points)} points tried"
    return Verdict(Cause.correct, f"It is right {kind}to the rounding of {dtype}, at {points}.")


def _tells(answers: Answers, point: Point) -> bool:
    """Whether a point tells mistakes apart: at a residual of 0 any multiple is right, a sign is noise."""
    right, scale = point.probe.right.abs(), point.probe.scale
    value, size = answers.target(point.probe)
    at_zero = (right <= answers.eps * 9 * scale) & (scale > 0)
    return not bool(at_zero.any()) and not close(
        value, torch.zeros_like(value), size, point.probe.n, answers.eps
    )


def factor_verdict(
    factor: Factor, n: int, per_sample: bool, summed: bool = False, square: bool = True
) -> Verdict:
    """A multiple of the right gradient. ``summed``: the sum is due; ``square``: of a squared residual."""
    factor = Factor(factor.k, factor.power - (summed and not per_sample))
    value, name = factor.value(n), factor.name
    if factor.power and abs(value - 1) < 1e-9:
        message = f"It is right at N = {n} only: at other N it is {name} times the right gradient."
        return Verdict(Cause.lucky, message, value, name)
    if summed and factor == Factor(1.0, -1):
        return Verdict(Cause.reduction, "It is the mean over the samples where the sum is due.", value, name)
    here = f" ({value:.6g} times at N = {n})" if factor.power else ""
    message = f"It is {name} times the right gradient{here}, at every point tried."
    cause = Cause.reduction if factor == Factor(1.0, 1) and not per_sample else Cause.factor
    return Verdict(cause, _NAMED_FACTORS.get(factor, message) if square else message, value, name)


def _mistake(explanation: Explanation, n: int) -> Verdict:
    mistake, factor = explanation.mistake, explanation.factor
    if mistake is OVER_N_MINUS_1:
        value = factor.value(n) * n / (n - 1) if n > 1 else None
        return Verdict(Cause.factor, mistake.message, value, "N/(N − 1)")
    if not mistake.formula:
        return Verdict(mistake.cause, mistake.message)
    times = {Factor(1.0): "", Factor(-1.0): "minus "}.get(factor, f"{factor.name} times ")
    message = f"{mistake.message} It computes {times}{mistake.formula}."
    return Verdict(mistake.cause, message, factor.value(n) if times else None, factor.name if times else "")


def _constant(answers: Answers) -> Verdict | None:
    """The same answer at every w, on every data set."""
    first_on: dict[int, Point] = {}
    for point in answers.points:
        first = first_on.setdefault(id(point.probe.x), point).answer
        if first is None or point.answer is None:
            return None
        if not close(point.answer, first, first.abs(), point.probe.n, answers.eps):
            return None
    message = "It gives the same answer at every w: does it use a w of its own, a global or an old one?"
    return Verdict(Cause.constant, message)


def _lucky(answers: Answers, right: Sequence[bool]) -> Verdict | None:
    judged = list(zip(answers.points, right, strict=True))
    yours = [(point, r) for point, r in judged if point.probe.data == YOUR_DATA]
    if not all(r for _, r in yours) or not any(bool(point.probe.right.any()) for point, _ in yours):
        return None
    wrong = ", ".join(str(count) for count in sorted({point.probe.n for point, r in judged if not r}))
    message = (
        f"It is right on your data only, wrong on other data (N = {wrong}): does it use its own x and y?"
    )
    if all(r for point, r in judged if point.probe.n == answers.n):
        message = f"It is right at N = {answers.n} only, and wrong at N = {wrong}."
    return Verdict(Cause.lucky, message)


def _digits(answers: Answers) -> str:
    error = answers.error()
    digits = next(d for d in range(17, -1, -1) if error <= 10.0**-d)
    return f"to {digits} digit{'' if digits == 1 else 's'}"


def _rough(answers: Answers) -> Verdict | None:
    if answers.error() > _ROUGH:
        return None
    message = f"It is right only roughly, {_digits(answers)}: is it a finite difference, or in low precision?"
    return Verdict(Cause.approximate, message)


def _unknown(answers: Answers, right: Sequence[bool]) -> Verdict:
    if answers.dtype is torch.int64:
        return Verdict(Cause.wrong_dtype, "It returns whole numbers: a gradient is a floating-point number.")
    points = f"{right.count(False)} of {len(right)} points"
    message = f"It is wrong at {points}, and no known mistake explains them all: see the evidence."
    return Verdict(Cause.unknown, message)
