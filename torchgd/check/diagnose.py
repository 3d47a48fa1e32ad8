"""From the answers of a gradient to a report: the questions in the order in which they are asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from torchgd.check.explain import Factor, close, proportion
from torchgd.check.gather import Answered, Answers, fit, gather
from torchgd.check.mistakes import Cause
from torchgd.check.probes import OWN_DATA, YOUR_DATA
from torchgd.check.report import Diagnosis, Evidence, GradientReport
from torchgd.check.subject import Candidate, Due, Subject, named

_LOW_PRECISION = 5e-4  # below the ε of float16 and bfloat16, above that of float32

_FACTORS = {
    Factor(1.0, 1): "It is the sum over the samples where the mean is due: N times too large.",
    Factor(1.0, -1): "It is divided by N twice: a mean of a mean, or the share of one sample in a mean.",
    Factor(0.0): "It is always 0: no term reaches the answer.",
}
_FACTORS_OF_A_SQUARE = {
    Factor(2.0): "It is 2 times the right gradient: the derivative of a square brings one 2, not two.",
    Factor(0.5): "It is half the right gradient: the 2 of the square is missing (it fits a loss with ½).",
    Factor(-1.0): "Its sign is turned: look for target − prediction, a leading minus, or a sum by -=.",
}


def examine(subject: Subject, per_sample: bool | None = None) -> GradientReport:
    """Call it, compare it, name what is wrong; ``per_sample`` as in `torchgd.check_gradient`."""
    diagnosis, line = subject.prepare() or gather(subject), None
    rows: Callable[[], Iterable[Evidence]] = tuple
    if isinstance(diagnosis, Answers):
        answers = diagnosis
        each = answers.each if per_sample is None else per_sample
        diagnosis = diagnose(answers, each)
        line, rows = subject.line(diagnosis.cause, each), partial(_evidence, answers)
    return GradientReport(
        **vars(replace(diagnosis, message=diagnosis.message + subject.note)),
        function=subject.function,
        line=line,
        form=subject.form,
        rows=rows,
    )


def diagnose(answers: Answers, due_each: bool) -> Diagnosis:
    """What is wrong; ``due_each`` says whether a gradient for each sample is due."""
    if not _repeats(answers):
        message = "Two calls with the same numbers give two answers: is it random, or does it keep a sum?"
        return Diagnosis(Cause.nondeterministic, message)
    found = {name: _of_one(answers, name) for name in answers.names}
    wrong = {name: diagnosis for name, diagnosis in found.items() if diagnosis}
    if wrong:
        return answers.subject.explain_together(answers, wrong) or _joined(wrong, answers.names)
    if answers.failures:
        point, failure = max(answers.failures, key=lambda failure: failure[0].data == YOUR_DATA)
        cause = failure.cause if point.data == YOUR_DATA else Cause.lucky
        return Diagnosis(cause, f"It is right elsewhere, but at {point.place_name}: {failure.message}")
    return _correct(answers, due_each)


def _repeats(answers: Answers) -> bool:
    """Whether a second call gives the same, on the largest of our data and on the user's."""
    own = [answered for answered in answers.points if answered.point.data != YOUR_DATA]
    yours = [answered for answered in answers.points if answered.point.data == YOUR_DATA]
    for answered in (*yours[:1], *sorted(own, key=lambda answered: -answered.point.n)[:2]):
        again = fit(answers.subject.call(answered.point), answered.point, answers.each)
        if isinstance(again, Diagnosis) or answered.values is None:
            if answered.values is not None or not isinstance(again, Diagnosis):
                return False
            continue
        for name, value in answered.values.items():
            due = answers.due(answered.point, name)
            if not answers.close(answered, again[name], Due(value, due.scale)):
                return False
    return True


def _of_one(answers: Answers, name: str) -> Diagnosis | None:
    """What is wrong with the gradient of one name; None where it is right."""
    right = [answered.values is None or answers.right_at(answered, name) for answered in answers.points]
    if all(right):
        return None
    if not any(answered.values and answered.values[name].any() for answered in answers.points):
        return factor_diagnosis(Factor(0.0), answers)
    special = answers.subject.special(answers, name)
    if special:
        return special
    points = [answered for answered in answers.points if _tells(answers, answered, name)]
    factor = _factor(points, answers, name, Candidate(Cause.factor, "", lambda p: answers.due(p, name).value))
    if factor and factor != Factor(1.0):
        return factor_diagnosis(factor, answers)
    for group in answers.subject.candidates(answers, name):
        fitting = [
            (mistake, found) for mistake in group if (found := _factor(points, answers, name, mistake))
        ]
        if fitting:
            plain = (Factor(1.0), Factor(1.0, 1))
            return named(*min(fitting, key=lambda item: item[1] not in plain), answers.n)
    return (
        _constant(answers, name)
        or _lucky(answers, right, name)
        or _rough(answers, name)
        or _unknown(answers, right)
    )


def _tells(answers: Answers, answered: Answered, name: str) -> bool:
    """Whether a point tells mistakes apart: where 0 is due, any multiple is right."""
    due = answers.due(answered.point, name)
    return answered.point.tells(answers.eps) and not answers.close(answered, torch.zeros_like(due.value), due)


def _factor(points: list[Answered], answers: Answers, name: str, mistake: Candidate) -> Factor | None:
    """The factor with which a candidate explains these answers."""

    def value(i: int) -> Tensor:
        return mistake.value(points[i].point)

    def scale(i: int) -> Tensor:
        if mistake.scale:
            return mistake.scale(points[i].point)
        return answers.due(points[i].point, name).scale + value(i).abs().max()

    given = [answered.values[name] if answered.values else None for answered in points]
    return proportion(given, [a.point.n for a in points], value, scale, answers.eps, mistake.slack)


def factor_diagnosis(factor: Factor, answers: Answers) -> Diagnosis:
    """A multiple of the right gradient."""
    n, summed = answers.n, answers.subject.summed and not answers.each
    value, name = factor.value(n), factor.name
    if factor.power and abs(value - 1) < 1e-9:
        message = f"It is right at N = {n} only: at other N it is {name} times the right gradient."
        return Diagnosis(Cause.lucky, message, value, name)
    if summed and factor == Factor(1.0, -1):
        message = "It is the mean over the samples where the sum is due."
        return Diagnosis(Cause.reduction, message, value, name)
    here = f" ({value:.6g} times at N = {n})" if factor.power else ""
    message = f"It is {name} times the right gradient{here}, at every point tried."
    cause = Cause.reduction if factor == Factor(1.0, 1) and not answers.each else Cause.factor
    sentences = {**_FACTORS, **(_FACTORS_OF_A_SQUARE if answers.subject.squared else {})}
    return Diagnosis(cause, sentences.get(factor, message), value, name)


def _constant(answers: Answers, name: str) -> Diagnosis | None:
    """The same answer at all parameters, on every data set that was tried with several."""
    first_on: dict[int, Tensor] = {}
    several = False
    for answered in answers.points:
        if answered.values is None:
            return None
        value = answered.values[name]
        first = first_on.setdefault(id(answered.point.x), value)
        several = several or first is not value
        if not close(value, first, first.abs(), answered.point.n, answers.eps):
            return None
    return Diagnosis(Cause.constant, answers.subject.same) if several else None


def _lucky(answers: Answers, right: list[bool], name: str) -> Diagnosis | None:
    judged = [(answered.point, r) for answered, r in zip(answers.points, right, strict=True)]
    yours = [(point, r) for point, r in judged if point.data == YOUR_DATA]
    if not all(r for _, r in yours) or not any(answers.due(p, name).value.any() for p, _ in yours):
        return None
    wrong = ", ".join(str(count) for count in sorted({point.n for point, r in judged if not r}))
    message = (
        f"It is right on your data only, wrong on other data (N = {wrong}): does it use its own x and y?"
    )
    if all(r for point, r in judged if point.n == answers.n):
        message = f"It is right at N = {answers.n} only, and wrong at N = {wrong}."
    return Diagnosis(Cause.lucky, message)


def _rough(answers: Answers, name: str) -> Diagnosis | None:
    if answers.error(name) > answers.subject.rough:
        return None
    digits = _digits(answers.error(name))
    return Diagnosis(
        Cause.approximate,
        f"It is right only roughly, {digits}: is it a finite difference, or in low precision?",
    )


def _digits(error: float) -> str:
    digits = next(d for d in range(17, -1, -1) if error <= 10.0**-d)
    return f"to {digits} digit{'' if digits == 1 else 's'}"


def _unknown(answers: Answers, right: list[bool]) -> Diagnosis:
    if answers.dtype is torch.int64:
        message = "It returns whole numbers: a gradient is a floating-point number."
        return Diagnosis(Cause.wrong_dtype, message)
    points = f"{right.count(False)} of {len(right)} points"
    message = f"It is wrong at {points}, and no known mistake explains them all: see the evidence."
    return Diagnosis(Cause.unknown, message)


def _joined(wrong: Mapping[str, Diagnosis], names: list[str]) -> Diagnosis:
    """The first of what is wrong, what has the same name, what else is wrong, and what is right."""
    first = next(iter(wrong.values()))
    if names == [""]:
        return first
    alike = [name for name, other in wrong.items() if other == first]
    others = [f"{name}: {other.cause.value}" for name, other in wrong.items() if other != first]
    right = [name for name in names if name not in wrong]
    message = f"{', '.join(alike)}: {first.message}" + (f" Also {', '.join(others)}." if others else "")
    message += f" Right: {', '.join(right)}." if right else ""
    return Diagnosis(first.cause, message, first.factor, first.factor_name)


def _correct(answers: Answers, due_each: bool) -> Diagnosis:
    dtype = str(answers.dtype).removeprefix("torch.")
    if answers.eps > _LOW_PRECISION:
        error = max(answers.error(name) for name in answers.names)
        return Diagnosis(Cause.approximate, f"It is right as far as {dtype} goes, {_digits(error)}.")
    if answers.each != due_each:
        message = "It returns each sample's right gradient where their mean is due."
        if due_each:
            message = "It returns the right mean where each sample's gradient is due."
        return Diagnosis(Cause.reduction, message)
    kind = "for each sample " if answers.each else ""
    precision = f"to the rounding of {dtype}"
    if answers.eps == answers.subject.accuracy:
        precision = "as far as central differences can tell"
    return Diagnosis(
        Cause.correct, f"It is right {kind}{precision}, at all {len(answers.points)} points tried."
    )


def _evidence(answers: Answers) -> Iterator[Evidence]:
    """The user's data first; of each name the element that differs most, of each sample's the first three."""
    each, names = answers.each, answers.names
    for answered in sorted(answers.points, key=lambda answered: answered.point.data == OWN_DATA):
        point = answered.point
        for name in names:
            due = answers.due(point, name)
            hand = torch.full_like(due.value, math.nan)
            hand = hand if answered.values is None else answered.values[name]
            error = (hand - due.value).abs().nan_to_num(math.inf).flatten()
            count = point.n if answers.subject.summed and not each else 1
            for i in sorted(error.topk(min(3 if each and names == [""] else 1, len(error))).indices.tolist()):
                index = tuple(int(k) for k in torch.unravel_index(torch.tensor(i), due.value.shape))
                autograd, difference = point.references(name, index, each)
                yield Evidence(
                    data=point.data,
                    n=point.n,
                    at=point.at,
                    entry=point.entry(name, index, each),
                    hand=float(hand[index]),
                    autograd=float(hand[index]) if math.isnan(autograd) else autograd * count,
                    difference=difference * count,
                    ok=close(hand[index], due.value[index], due.scale[index], point.n, answers.eps),
                )
