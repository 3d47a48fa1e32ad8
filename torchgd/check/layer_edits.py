"""What people write for the derivatives of softmax, embedding and normalisation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from torchgd.check.mistakes import Cause
from torchgd.check.steps import Value, View, describe, is_op


def softmax(view: View) -> Iterator[Value]:
    s = view.a if view.node.name == "_softmax" else view.a.exp()
    if view.node.name == "_softmax":
        message = (
            "Only the diagonal of the derivative of softmax is there: each output depends on every input."
        )
        yield Value(view.delta * s * (1 - s), message)
        yield Value(view.delta * s, "The derivative of softmax is s (δ − Σ s δ): the second term is missing.")
    for dim in {0, 1} - {view.node.flat[1] % s.dim()}:
        yield Value(view.again({1: dim}), "The softmax goes over the wrong axis.", Cause.wrong_axis)


def embedding(view: View) -> Iterator[Value]:
    index, delta = view.node.flat[1].flatten(), view.delta.reshape(-1, view.delta.shape[-1])
    last = torch.zeros_like(view.z)
    for row, value in zip(index.tolist(), delta, strict=True):
        last[row] = value
    yield Value(last)
    counts = torch.bincount(index, minlength=len(view.z)).clamp(min=1)
    yield Value(view.right / counts[:, None], "Rows that occur several times are averaged: their sum is due.")
    for word, at in (("first", 0), ("last", -1)) if view.delta.dim() > 2 else ():
        kept = torch.zeros_like(view.delta)
        kept[:, at] = 1
        yield Value(view.again({}, view.delta * kept), f"Only the {word} index of each sample counts.")


def norm_input(view: View) -> Iterator[Value]:
    """The input of batch and layer norm, which the mean and the variance depend on, too."""
    dims, scale = _norm(view)
    centred = view.z - view.z.mean(dims, keepdim=True)
    std = (centred.square().mean(dims, keepdim=True) + view.node.flat[-1]).sqrt()

    def paths(d: Tensor) -> tuple[Tensor, Tensor]:
        hat = centred / std
        return d.mean(dims, keepdim=True), hat * (d * hat).mean(dims, keepdim=True)

    d = view.delta * scale
    mean, spread = paths(d)
    yield Value(d / std, "The mean and the variance are taken for constants: both depend on the input.")
    yield Value((d - mean) / std, "The path through the variance is missing.")
    yield Value((d - spread) / std, "The path through the mean is missing.")
    message = "The division by the standard deviation is missing."
    yield Value(d - mean - spread, message, Cause.missing_input)
    message = "The division by the standard deviation is there twice."
    yield Value((d - mean - spread) / std**2, message, Cause.missing_input)
    message = "The scale of the normalisation (its weight) is missing."
    yield Value((view.delta - sum(paths(view.delta))) / std, message, Cause.missing_input)


def _norm(view: View) -> tuple[list[int], Tensor]:
    """Over which dimensions it goes, and its weight in the shape of the input."""
    weights = [i for i, v in enumerate(view.node.flat) if i and isinstance(v, Tensor)]
    weight = view.node.flat[weights[0]] if weights else torch.ones(())
    if view.node.name == "native_layer_norm":
        return list(range(-sum(isinstance(v, int) for v in view.node.flat), 0)), weight
    return [0, *range(2, view.z.dim())], weight.reshape(-1, *[1] * (view.z.dim() - 2))


def by_scale(view: View) -> bool:
    """A step to the weight of a normalisation: the first tensor after its input."""
    first = next((i for i, v in enumerate(view.node.flat) if i and isinstance(v, Tensor)), 0)
    return is_op("native_batch_norm", "native_layer_norm", at=first)(view) and first > 0


def norm_weight(view: View) -> Iterator[Value]:
    batch = view.node.name == "native_batch_norm"
    dims = (
        [i for i in range(view.delta.dim()) if i != 1] if batch else [*range(view.delta.dim() - view.z.dim())]
    )
    yield Value(view.delta.sum(dims), "The normalised input is missing.", Cause.missing_input)
    yield Value((view.delta * view.a).sum(dims), word="its own output")
    for node, label in view.values(view.delta):
        value = (view.delta * node.value.reshape(view.delta.shape)).sum(dims)
        yield Value(value, word=describe(node), label=label)
