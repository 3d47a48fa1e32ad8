"""The mistakes that people make in a backward pass: each row edits one step of the chain rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchgd.check.graph import Node
from torchgd.check.layer_edits import by_scale, embedding, norm_input, norm_weight, softmax
from torchgd.check.loss_edits import residuals
from torchgd.check.mistakes import Cause
from torchgd.check.steps import (
    POINTWISE,
    VIEWS,
    Edit,
    Value,
    View,
    by_input,
    by_parameter,
    by_weight,
    describe,
    is_op,
    is_pointwise,
    of_parameter,
    of_prediction,
    parameter_of,
    word_of,
)  # fmt: skip


def _parts(view: View) -> Iterator[Value]:
    """Some of the samples."""
    n, delta = len(view.graph.x.value), view.right if view.position < 0 else view.delta
    if delta.dim() == 0 or len(delta) != n or n < 3:
        return
    at = torch.arange(n).reshape(n, *[1] * (delta.dim() - 1))
    for message, kept in (
        ("Only the first sample counts: does it return inside the loop?", at == 0),
        ("Only the last sample counts: is it = where += is due?", at == n - 1),
        ("The first sample is left out: indices begin at 0.", at > 0),
        ("The last sample is left out: range(n) ends before n already.", at < n - 1),
        ("Only every second sample counts.", at % 2 == 0),
    ):
        for share in (1.0, n / int(kept.sum())):  # divided by N, or by the number of those that count
            part = delta * kept * share
            yield Value(part if view.position < 0 else view.again({}, part), message)


def _other_output(view: View) -> Iterator[Value]:
    """The derivative of an activation at another result than its own."""
    slopes: dict[str, Callable[[Tensor], Tensor]] = {
        "tanh": lambda v: 1 - v * v,
        "sigmoid": lambda v: v * (1 - v),
    }
    slope = slopes.get(view.node.name, view.slope)
    for node, label in view.values(view.a):
        if node is not view.node:
            yield Value(
                view.delta * slope(node.value.reshape(view.a.shape)),
                word=describe(node, view.node),
                label=label,
            )


def _missing_weight(view: View) -> Iterator[Value]:
    if view.node.name != "convolution":
        yield Value(view.delta, word=view.weight)
        yield Value(view.delta.sum(-1, keepdim=True), word=view.weight)


def _turned_weight(view: View) -> Value | None:
    if view.node.name == "convolution":
        message = f"The kernel {view.weight} is turned by 180 degrees here."
        return Value(view.with_factor(view.h.flip(*range(2, view.h.dim()))), message)
    square = view.h.dim() > 1 and view.h.shape[-1] == view.h.shape[-2]
    return Value(view.with_factor(view.h.mT), word=view.weight) if square else None


def _updated_weight(view: View) -> Value | None:
    """W − lr · dW where W is due: linear in lr."""
    known = view.graph.known.get(view.node.sources[view.other].index) if view.weight else None
    return None if known is None else Value(view.with_factor(known), word=view.weight, start=view.right)


def _other_weight(view: View) -> Iterator[Value]:
    for node in view.graph.nodes:
        if parameter_of(node) and node.value.shape == view.h.shape and node.value is not view.h:
            yield Value(view.with_factor(node.value), word=parameter_of(node))


def _other_input(view: View) -> Iterator[Value]:
    for node, label in view.values(view.h):
        if node.value is not view.h:
            yield Value(view.with_factor(node.value.reshape(view.h.shape)), word=describe(node), label=label)


def _other_delta(view: View) -> Iterator[Value]:
    """The derivative by another result of the same shape."""
    for node in view.graph.nodes:
        delta = view.graph.known.get(node.index)
        if delta is not None and node is not view.node and delta.shape == view.delta.shape and node.data:
            value = view.again({}, delta)
            if _is_activation_of(node, view.node):
                message = f"The derivative of {word_of(node)} is missing here."
                yield Value(value, message, Cause.activation)
            else:
                yield Value(value, word=describe(node))


def _is_activation_of(high: Node, low: Node) -> bool:
    """Whether ``high`` is a pointwise operation on ``low``, or on ``low`` and a bias."""
    below = [high.sources[0]] if high.name in POINTWISE else []
    while below:
        node = below.pop()
        if node is low:
            return True
        below += node.sources.values() if node.name in ("add", *VIEWS) else ()
    return False


def _means(view: View) -> Tensor | None:
    n = len(view.graph.x.value)
    side = 0 if len(view.h) == n else -1
    fits = view.h.dim() == 2 and view.h.shape[side] == n == len(view.delta)
    return view.with_factor(view.h.mean(side, keepdim=True).expand_as(view.h)) if fits else None


def _arranged(view: View) -> Iterator[Value]:
    g = view.right
    if g.dim() >= 2 and g.shape[-1] == g.shape[-2]:
        yield Value(g.mT, "It is transposed.")
    if g.dim() > 2:
        yield Value(g.flip(*range(2, g.dim())), "The kernel is turned by 180 degrees: no flip is due here.")
    message = "Its entries stand in another order: look at the columns of the input."
    for dim in range(g.dim()):
        for value in (g.roll(1, dim), g.roll(-1, dim), g.flip(dim)) if g.shape[dim] > 1 else ():
            yield Value(value, message, Cause.wrong_variable)


def _left_out(view: View) -> Tensor | None:
    """0 where it is not due."""
    empty = torch.ones(()) if view.given is None else view.given == 0
    return None if bool(empty.all()) or not bool(empty.any()) else view.right * ~empty


def _other_parameter(view: View) -> Iterator[Value]:
    for name, node in view.graph.parameters.items():
        if (
            node is not view.node
            and node.value.shape == view.node.value.shape
            and node.index in view.graph.known
        ):
            yield Value(view.graph.known[node.index], word=name)


def _saturated(view: View) -> Iterator[Value]:
    g = view.right
    if view.given is not None and bool((view.given * g >= 0).all()):
        yield Value(g.sign(), "Only the sign of the gradient is left: its size is lost.")
    if view.given is not None and g.numel() > 1:
        most = float(view.given.abs().max())
        yield Value(g.clamp(-most, most), "It is clipped: its size is cut at a bound.")
        message = "It is divided by its norm, or clipped: its direction is right, its size is not."
        yield Value(g * (view.given.norm() / g.norm()), message)


def _one_use(view: View) -> Iterator[Value]:
    """Of a parameter that is used several times one use."""
    nodes, deltas = view.graph.nodes, view.graph.deltas
    uses = [(n, i) for n in nodes for i, s in n.sources.items() if s is view.node and n.index in deltas]
    for word, (node, i) in (("last", uses[-1]), ("first", uses[0])) if len(uses) > 1 else ():
        yield Value(node.pull(deltas[node.index])[i], word=word)


def _penalties(view: View) -> Iterator[Value]:
    yield Value(view.z, word="the parameter", start=view.right)
    yield Value(view.z.sign(), word="the sign of the parameter", start=view.right)
    yield Value(view.right, "This is the parameter after an update, not its gradient.", start=view.z)


def _slope(value: Callable[[View], Tensor], message: str, *names: str) -> Edit:
    """What stands where the derivative of an activation is due; z goes into it, a comes out."""

    def fits(view: View) -> bool:
        return is_pointwise(view) and (not names or view.node.name in names)

    return Edit(Cause.activation, fits, lambda view: view.delta * value(view), message)


# fmt: off
EDITS: tuple[Edit, ...] = (
    Edit(Cause.factor, lambda v: v.position >= 0 or of_parameter(v), lambda v: v.right),
    Edit(Cause.wrong_residual, of_prediction, residuals),
    _slope(lambda v: torch.ones_like(v.a), "The derivative of {op} is missing."),
    _slope(lambda v: v.slope(v.a), "The derivative of {op} is taken again: of its output, not of its input."),
    _slope(lambda v: v.slope() ** 2, "The derivative of {op} is there twice."),
    _slope(lambda v: v.a, "{op} itself stands where its derivative is due."),
    _slope(lambda v: v.z, "The input of {op} stands where its derivative is due."),
    _slope(lambda v: v.z * (1 - v.z), "The derivative of {op} takes its input for its output.", "sigmoid"),
    _slope(lambda v: 1 - v.z ** 2, "The derivative of {op} takes its input for its output.", "tanh"),
    _slope(lambda v: 1 - v.a, "The square is missing in the derivative of {op}, 1 − a².", "tanh"),
    _slope(lambda v: 1 + v.a ** 2, "The sign in the derivative of {op} is wrong: it is 1 − a².", "tanh"),
    _slope(lambda v: v.a ** 2, "The derivative of {op} is 1 − a², not a².", "tanh"),
    _slope(lambda v: (1 - v.a) ** 2, "The square in the derivative of {op} is misplaced, 1 − a².", "tanh"),
    _slope(lambda v: 1 - v.a, "A factor is missing in the derivative of {op}: it is a (1 − a).", "sigmoid"),
    _slope(lambda v: v.a * (1 + v.a), "The sign in the derivative of {op} is wrong, a (1 − a).", "sigmoid"),
    _slope(lambda v: v.a * (1 - v.a), "The derivative of sigmoid stands where that of {op} is due."),
    _slope(lambda v: 1 - v.a ** 2, "The derivative of tanh stands where that of {op} is due."),
    _slope(lambda v: v.z.sigmoid() * (-v.z).sigmoid(),
           "The derivative of sigmoid stands where that of {op} is due."),
    _slope(lambda v: 1 - v.z.tanh() ** 2, "The derivative of tanh stands where that of {op} is due."),
    _slope(lambda v: v.z > 0, "The derivative of relu stands where that of {op} is due."),
    _slope(lambda v: v.z <= 0, "The mask of {op} is turned around."),
    _slope(lambda v: v.delta > 0, "The mask of {op} is taken of the gradient, not of its input."),
    _slope(lambda v: v.z.sign(), "The sign stands where the derivative of {op} is due."),
    _slope(lambda v: v.a.sum(), "{op} itself, summed, stands where its derivative is due."),
    Edit(Cause.activation, is_op("_softmax", "_log_softmax", at=0), softmax),
    Edit(Cause.activation, is_pointwise, _other_output, "The derivative of {op} is taken at {word}."),
    Edit(Cause.missing_input, is_op("mul", "div"), lambda v: v.delta, "A factor of {op} is missing."),
    Edit(Cause.missing_input, is_op("mul"), lambda v: v.right * v.h, "A factor of {op} is there twice."),
    Edit(Cause.reduction, is_op("mul"), lambda v: v.right * len(v.h) / v.h.sum(),
         "It is divided by the sum of the weights of the samples, not by N."),
    Edit(Cause.missing_input, by_input, _missing_weight,
         "The weight {word} is missing: it is a factor of the derivative by the input of its layer."),
    Edit(Cause.transposed, by_input, _turned_weight, "The weight {word} is transposed here."),
    Edit(Cause.wrong_variable, by_input, _updated_weight,
         "The weight {word} is already updated here: all derivatives take the weights before the update."),
    Edit(Cause.wrong_variable, by_input, _other_weight, "{word} stands where another weight is due."),
    Edit(Cause.missing_input, by_weight, lambda v: v.with_factor(torch.ones_like(v.h)),
         "The input of the layer is missing."),
    Edit(Cause.missing_input, by_weight, lambda v: v.with_factor(v.h ** 2),
         "The input of the layer is there twice."),
    Edit(Cause.wrong_variable, by_weight, _other_input, "Where the input of the layer is due is {word}."),
    Edit(Cause.wrong_variable, by_parameter, _other_delta, "It is taken from the derivative by {word}."),
    Edit(Cause.product_of_means, by_weight, _means,
         "It is a product of means: multiply sample by sample first, then take the mean."),
    Edit(Cause.part_of_the_data, lambda v: of_prediction(v) or by_parameter(v), _parts),
    Edit(Cause.part_of_the_data, is_op("embedding"), embedding,
         "Rows that occur several times are lost: their gradients must be added (+=)."),
    Edit(Cause.missing_path, is_op("native_batch_norm", "native_layer_norm", at=0), norm_input),
    Edit(Cause.wrong_variable, by_scale, norm_weight,
         "Where the normalised input is due stands {word}."),
    Edit(Cause.transposed, of_parameter, _arranged),
    Edit(Cause.wrong_variable, of_parameter, _other_parameter, "This is the gradient of {word}."),
    Edit(Cause.missing_path, of_parameter, _one_use,
         "It is used several times, and only its {word} use counts: add them all."),
    Edit(Cause.other_loss, of_parameter, _penalties,
         "A weight penalty is in it: it adds {times} times {word}."),
    Edit(Cause.part_of_the_data, of_parameter, _left_out, "A row or a column is left out: it is 0 there."),
    Edit(Cause.saturated, of_parameter, _saturated),
)
# fmt: on
