"""One step of the chain rule as an edit sees it, and the form of an edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from torchgd.check.graph import Graph, Node
from torchgd.check.mistakes import Cause

VIEWS = frozenset(
    ("t", "transpose", "view", "_unsafe_view", "permute", "expand", "unsqueeze", "squeeze", "select", "slice")
)
POINTWISE = frozenset(
    (
        "sigmoid",
        "tanh",
        "relu",
        "leaky_relu",
        "elu",
        "gelu",
        "silu",
        "softplus",
        "hardtanh",
        "hardswish",
        "mish",
        "log_sigmoid_forward",
        "clamp",
        "clamp_min",
        "exp",
        "log",
        "log1p",
        "sqrt",
        "abs",
        "pow",
        "sin",
        "cos",
        "reciprocal",
        "_softmax",
        "_log_softmax",
    )
)
PRODUCTS = frozenset(("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution"))
_WORDS = {
    "log_sigmoid_forward": "logsigmoid",
    "native_batch_norm": "batch norm",
    "native_layer_norm": "layer norm",
}


@dataclass(frozen=True)
class View:
    """From the derivative by what an operation gives to that by one of its arguments.

    At position −1 it is the whole derivative by a result: of the prediction, or of a parameter.
    """

    graph: Graph
    node: Node
    position: int
    right: Tensor
    given: Tensor | None = None  # where it is the derivative of a parameter, what the person gave

    @property
    def source(self) -> Node:
        return self.node if self.position < 0 else self.node.sources[self.position]

    @property
    def delta(self) -> Tensor:
        return self.graph.deltas[self.node.index]

    @property
    def z(self) -> Tensor:
        return self.source.value

    @property
    def a(self) -> Tensor:
        return self.node.value

    @property
    def other(self) -> int:
        """The position of the other factor of a product, or −1."""
        found = [i for i, v in enumerate(self.node.flat) if isinstance(v, Tensor) and i != self.position]
        if self.node.name in ("addmm", "baddbmm", "addmv"):
            found = found[1:] if self.position else []
        return found[0] if found else -1

    @property
    def h(self) -> Tensor:
        """The other factor."""
        factor: Tensor = self.node.flat[self.other]
        return factor

    @property
    def weight(self) -> str:
        """The parameter that the other factor is, if it is one."""
        return parameter_of(self.node.sources[self.other]) if self.other in self.node.sources else ""

    def again(self, change: Mapping[int, object], delta: Tensor | None = None) -> Tensor:
        """The step with other values of some arguments, or from another derivative."""
        return self.node.pull(self.delta if delta is None else delta, change)[self.position]

    def with_factor(self, factor: Tensor) -> Tensor:
        return self.again({self.other: factor})

    def slope(self, at: Tensor | None = None) -> Tensor:
        return self.again({self.position: self.z if at is None else at}, torch.ones_like(self.a))

    def values(self, like: Tensor) -> Iterator[tuple[Node, str]]:
        """The other results of as many numbers, and how many steps before or after this one they are."""
        size = like.numel(), like.shape[:1]
        fits = [
            n
            for n in self.graph.nodes
            if (n.value.numel(), n.value.shape[:1]) == size
            and (n.data or not n.moves)
            and n.value.is_floating_point()
        ]
        before = [n for n in reversed(fits) if n.index < self.node.index and n is not self.graph.y]
        yield from ((node, f"{-1 - i}") for i, node in enumerate(before))
        after = [n for n in fits if n.index > self.node.index]
        yield from ((node, f"+{i}") for i, node in enumerate(after))


def parameter_of(node: Node) -> str:
    """The name of the parameter that a result is, seen through transposes; else nothing."""
    while node.op is not None and node.name in VIEWS and len(node.sources) == 1:
        node = next(iter(node.sources.values()))
    return node.name if node.op is None and node.moves else ""


def word_of(node: Node) -> str:
    return _WORDS.get(node.name, node.name.strip("_")) + (f" ({node.module})" if node.module else "")


def describe(node: Node, beside: Node | None = None) -> str:
    """A result of the forward pass in the user's words; ``beside`` another one, which it may be like."""
    if beside is not None and node.name == beside.name:
        return f"the {'next' if node.index > beside.index else 'previous'} output of {word_of(node)}"
    if node.op is None:
        return node.name
    names = ", ".join(filter(None, (parameter_of(source) for source in node.sources.values())))
    return f"the output of the layer with {names}" if names else f"the output of {word_of(node)}"


@dataclass(frozen=True)
class Value:
    """What stands there instead: ``start`` + c · ``value``, the number c as the answers say."""

    value: Tensor
    message: str = ""  # if not the row's
    cause: Cause | None = None  # likewise
    word: str = ""  # for the row's message
    start: Tensor | None = None
    label: str = ""  # which of several


@dataclass(frozen=True)
class Edit:
    """One row: the cause, where it fits, what stands there instead, and the sentence."""

    cause: Cause
    fits: Callable[[View], bool]
    edit: Callable[[View], Tensor | Value | Iterator[Value] | None]
    message: str = ""


def is_op(*names: str, at: int | None = None) -> Callable[[View], bool]:
    def fits(view: View) -> bool:
        first = view.node.output == 0 and (at is None or view.position == at)
        return view.position >= 0 and view.node.name in names and first

    return fits


def is_pointwise(view: View) -> bool:
    return view.position == 0 and view.node.name in POINTWISE and view.a.shape == view.z.shape


def by_weight(view: View) -> bool:
    return is_op(*PRODUCTS)(view) and view.other >= 0 and bool(parameter_of(view.source))


def by_input(view: View) -> bool:
    return is_op(*PRODUCTS)(view) and view.other >= 0 and not parameter_of(view.source)


def by_parameter(view: View) -> bool:
    return view.position >= 0 and bool(parameter_of(view.source)) and view.node.name not in VIEWS


def of_parameter(view: View) -> bool:
    return view.position < 0 and view.node.op is None


def of_prediction(view: View) -> bool:
    return view.position < 0 and view.node.op is not None
