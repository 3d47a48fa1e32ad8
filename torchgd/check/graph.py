"""The forward pass of a loss as a list of operations, and the chain rule along it, one operation at a time.

A derivative that is replaced at one place, as `torchgd.check.edits` does, changes what lies below it only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from torchgd.check.model_points import Exact, ModelPoint, seeded, takes_parameters

_POINTS = 6  # at which mutants are compared
# (operation, which of its arguments); −1: the whole derivative by what the operation gives.
Site = tuple[int, int]


@dataclass(eq=False)
class Node:
    """One operation, or a leaf: a parameter, x or y."""

    index: int
    name: str  # of the parameter, or of the operation in aten
    module: str = ""
    op: Any = None
    flat: list[Any] = field(default_factory=list)  # the arguments in a row
    spec: Any = None
    sources: dict[int, Node] = field(default_factory=dict)  # position among the arguments to where it is from
    output: int = 0  # which of several results
    value: Tensor = field(default_factory=lambda: torch.empty(0))
    moves: bool = False  # with a parameter
    data: bool = False  # moves with x or y
    random: Tensor | None = None  # the state of the random numbers that it draws
    _graph: tuple[Tensor, dict[int, Tensor]] | None = None

    def run(self, change: Mapping[int, Any]) -> Tensor:
        """The operation with some arguments exchanged; on copies where it works in place."""
        flat = [change.get(i, v) for i, v in enumerate(self.flat)]
        if self.op._schema.is_mutable:
            flat = [v.clone() if isinstance(v, Tensor) else v for v in flat]
        args, kwargs = tree_unflatten(flat, self.spec)
        with torch.random.fork_rng(devices=[], enabled=self.random is not None):
            if self.random is not None:
                torch.random.set_rng_state(self.random)
            result = self.op(*args, **kwargs)
        value: Tensor = result[self.output] if isinstance(result, (tuple, list)) else result
        return value

    def graph(self, change: Mapping[int, Any]) -> tuple[Tensor, dict[int, Tensor]]:
        with torch.enable_grad():
            leaves = {
                i: change.get(i, self.flat[i]).detach().clone().requires_grad_()
                for i, source in self.sources.items()
                if source.moves
            }
            return self.run({**change, **leaves}), leaves

    def pull(self, delta: Tensor, change: Mapping[int, Any] | None = None) -> dict[int, Tensor]:
        """The derivatives by the arguments, from that by the result; with other values of some on request."""
        if change:
            result, leaves = self.graph(change)
        else:
            self._graph = self._graph or self.graph({})
            result, leaves = self._graph
        if not (leaves and result.requires_grad):
            return {}
        found = torch.autograd.grad(
            result, list(leaves.values()), delta.expand_as(result), retain_graph=True, allow_unused=True
        )
        return {i: g for i, g in zip(leaves, found, strict=True) if g is not None}


class Graph:
    """What loss(parameters, x, y) did at one point; ``prediction`` is the node of the model's output."""

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, y: Tensor) -> None:
        self.nodes: list[Node] = []
        self.of: dict[int, Node] = {}  # by the identity of a tensor; the nodes keep these alive
        self.parameters = {name: self._leaf(name, p, True) for name, p in parameters.items()}
        self.x, self.y = self._leaf("x", x, False), self._leaf("y", y, False)
        self.paths = {module: path for path, module in model.named_modules()}
        self.inside: list[str] = []
        self.prediction: Node | None = None
        self.deltas: dict[int, Tensor] = {}  # the derivative of the loss by each result, as changed
        self.known: dict[int, Tensor] = {}  # and as it is right
        self.right: dict[str, Tensor] = {}

    def _leaf(self, name: str, value: Tensor, moves: bool) -> Node:
        node = Node(len(self.nodes), name, value=value, moves=moves, data=not moves)
        self.nodes.append(node)
        self.of[id(value)] = node
        return node

    def add(self, op: Any, args: Any, kwargs: Any, result: Any, random: Tensor | None) -> None:
        flat, spec = tree_flatten((args, kwargs))
        sources = {
            i: self.of[id(v)] for i, v in enumerate(flat) if isinstance(v, Tensor) and id(v) in self.of
        }
        moves = torch.is_grad_enabled() and any(source.moves for source in sources.values())
        for output, value in enumerate(result if isinstance(result, (tuple, list)) else (result,)):
            if isinstance(value, Tensor):
                path = self.inside[-1] if self.inside else ""
                name = op._schema.name.removeprefix("aten::")
                node = Node(len(self.nodes), name, path, op, flat, spec, sources, output, value)
                node.random = random
                node.data = any(source.data for source in sources.values())
                node.moves = moves and value.is_floating_point()
                self.nodes.append(node)
                self.of[id(value)] = node

    def backward(self, change: Mapping[Site, Callable[[Graph, Node, Tensor], Tensor]]) -> None:
        """All derivatives of the loss, those at the sites of ``change`` exchanged."""
        last = self.nodes[-1]
        self.deltas = {}
        self.right = self.push({last.index: torch.ones_like(last.value)}, change, self.deltas)

    def push(
        self,
        seeds: Mapping[int, Tensor],
        change: Mapping[Site, Callable[[Graph, Node, Tensor], Tensor]],
        record: dict[int, Tensor] | None = None,
        towards: set[int] | None = None,
    ) -> dict[str, Tensor]:
        """The derivatives by the parameters, from derivatives by some results; linear in these."""
        deltas = dict(seeds)
        for index in range(max(deltas), -1, -1):
            node = self.nodes[index]
            if record is not None and index in deltas:
                record[index] = deltas[index]
                if (index, -1) in change:
                    record[index] = deltas[index] = change[index, -1](self, node, deltas[index])
            if index not in deltas or node.op is None or not node.moves:
                continue
            for position, g in node.pull(deltas[index]).items():
                if record is not None and (index, position) in change:
                    g = change[index, position](self, node, g)
                source = node.sources[position].index
                if towards is not None and source not in towards:
                    continue
                deltas[source] = deltas[source] + g if source in deltas else g
        return {
            name: deltas.get(leaf.index, torch.zeros_like(leaf.value))
            for name, leaf in self.parameters.items()
        }


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; otherwise the first operation imports the compiler, for seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        random = torch.random.get_rng_state() if torch.Tag.nondeterministic_seeded in func.tags else None
        result = func(*args, **(kwargs or {}))
        self.graph.add(func, args, kwargs or {}, result, random)
        return result


def record(point: ModelPoint) -> Graph:
    """The graph of the loss at one point; the modules name the places in it."""
    graph = Graph(point.model, point.parameters, point.x, point.y)

    def enter(module: nn.Module, args: Any) -> None:
        graph.inside.append(graph.paths.get(module, ""))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        graph.inside.pop()

    handles = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        with torch.enable_grad(), Exact(), _Recorder(graph):
            with seeded(point.seed):
                prediction = functional_call(point.model, point.parameters, (point.x,))
            graph.prediction = graph.of.get(id(prediction))
            more = [{**point.frozen, **point.parameters}] if takes_parameters(point.loss_fn) else []
            result = point.loss_fn(prediction, point.y, *more)
    finally:
        for handle in handles:
            handle.remove()
    del graph.nodes[graph.of[id(result)].index + 1 :]
    graph.backward({})
    graph.known = dict(graph.deltas)
    return graph


def generic(points: Sequence[ModelPoint]) -> list[int]:
    """Points of moderate size with no two numbers of a parameter alike, of several N."""
    fits = [
        i
        for i, point in enumerate(points)
        if point.n > 2 and all(len(p.unique()) == p.numel() for p in point.parameters.values())
    ]
    fits.sort(key=lambda i: max(float(p.abs().max()) for p in points[i].parameters.values()))
    first = {points[i].n: i for i in reversed(fits)}
    chosen = sorted(first.values(), key=fits.index)
    return [*chosen, *(i for i in fits if i not in chosen)][:_POINTS]
