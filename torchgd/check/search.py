"""Which mistake in a backward pass gives the gradients that a person wrote: the mutant that agrees.

The right backward pass is known (`torchgd.check.graph`), and so is each edit of it that people make by
mistake (`torchgd.check.edits`). An edit that gives the person's gradients at every point to rounding is the
diagnosis. The search goes from the loss backwards: a mistake in an upper layer changes all that lies below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from torchgd.check.edits import EDITS
from torchgd.check.explain import Factor, simplest
from torchgd.check.graph import Graph, Node, Site, generic, record
from torchgd.check.mistakes import Cause
from torchgd.check.model_points import ModelPoint
from torchgd.check.mutants import Key, Mutant, sentence, values_of
from torchgd.check.report import Diagnosis
from torchgd.check.steps import VIEWS, Value, View, parameter_of

_MOST_EDITS = 4
# what may stand between a layer and the loss
_LINKS = VIEWS | {"sigmoid", "tanh", "exp", "_softmax", "_log_softmax", "softplus"}
Changes = dict[Site, list[tuple[Key, Factor]]]


def explain(
    points: Sequence[ModelPoint],
    given: Sequence[Mapping[str, Tensor]],
    eps: float,
    name_factor: Callable[[Factor], Diagnosis],
) -> tuple[bool, Diagnosis | None]:
    """Whether the model can be traced, and what is wrong with the gradients ``given`` at the points."""
    chosen = generic(points)
    if len({points[i].n for i in chosen}) < 2:
        return True, None
    try:
        graphs = [record(points[i]) for i in chosen]
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError):
        return False, None
    search = Search(graphs, [given[i] for i in chosen], 1e-7 + 2000 * eps)
    names = [[node.name for node in graph.nodes] for graph in graphs]
    traced = all(other == names[0] for other in names) and len(search.order) == len(points[0].parameters)
    if not traced or len(search.agreeing([points[i].right for i in chosen])) < len(search.order):
        return False, None
    found = search.run(name_factor)
    if found is not None and found.cause is Cause.unknown:
        found = _without_bias([points[i] for i in chosen], search) or found
    return True, found


def _without_bias(points: Sequence[ModelPoint], search: Search) -> Diagnosis | None:
    """The gradients are right for a model that lacks one bias."""
    for name, p in points[0].parameters.items() if len(search.order) > 1 else ():
        lacking = [replace(q, parameters={**q.parameters, name: 0 * q.parameters[name]}) for q in points]
        if p.dim() < 2 and all(
            search.same(q.right[n], search.given[i][n], i)
            for i, q in enumerate(lacking)
            for n in search.order
        ):
            message = f"{name} is missing in the prediction: the gradients are those of a model without it."
            return Diagnosis(Cause.wrong_residual, message)
    return None


class Search:
    """The graphs of several points, and what the person gave there."""

    def __init__(
        self, graphs: Sequence[Graph], given: Sequence[Mapping[str, Tensor]], tolerance: float
    ) -> None:
        self.graphs, self.given, self.tolerance = graphs, given, tolerance
        self.changes: Changes = {}
        self.kept: dict[tuple[int, tuple[Site, int]], dict[str, Value]] = {}
        self.above: dict[str, set[int]] = {}  # what depends on each parameter
        last = {}
        for name, leaf in graphs[0].parameters.items():
            above = self.above[name] = {leaf.index}
            for node in graphs[0].nodes:
                if node.moves and any(source.index in above for source in node.sources.values()):
                    above.add(node.index)
                    if any(parameter_of(source) == name for source in node.sources.values()):
                        last[name] = node.index, leaf.value.dim()
        self.order = sorted(last, key=lambda name: last[name], reverse=True)  # from the loss backwards

    def same(self, value: Tensor, other: Tensor, i: int) -> bool:
        floor = 1e-3 * max(float(g.abs().max()) for g in self.graphs[i].right.values())
        scale = max(float(value.abs().max()), float(other.abs().max()), floor)
        return bool(value.isfinite().all()) and float((value - other).abs().max()) <= self.tolerance * scale

    def agreeing(self, given: Sequence[Mapping[str, Tensor]]) -> tuple[str, ...]:
        """The parameters for which the graphs, as changed, give this."""
        pairs = list(zip(self.graphs, given, strict=True))
        return tuple(
            n for n in self.order if all(self.same(g.right[n], d[n], i) for i, (g, d) in enumerate(pairs))
        )

    def run(self, name_factor: Callable[[Factor], Diagnosis]) -> Diagnosis | None:
        """Edit after edit, from the loss backwards; None where nothing is wrong."""
        good = self.agreeing(self.given)
        said: list[tuple[Diagnosis, list[str]]] = []
        while len(good) < len(self.order) and len(said) < _MOST_EDITS and (found := self.best(good)):
            self.changes = self.with_edit(found)
            self.redo(self.changes)
            names = [name for name in found.explained if name not in good]
            empty = not any(bool(given[name].any()) for given in self.given for name in names)
            diagnosis = name_factor(Factor(0.0)) if empty else sentence(found, name_factor)
            good = found.explained
            alike = next((listed for other, listed in said if other == diagnosis), None)
            if alike is None:
                said.append((diagnosis, names))
            else:
                alike += names
        return self.report(said, good)

    def sites(self) -> Iterator[Site]:
        graph = self.graphs[0]
        for node in reversed(graph.nodes):
            if node.op is not None and node.moves and node.index in graph.deltas:
                yield from ((node.index, i) for i, source in node.sources.items() if source.moves)
        if graph.prediction is not None:
            node = graph.prediction
            yield from (
                (n.index, -1)
                for n in graph.nodes[node.index :]
                if n is node or (n.name in VIEWS and node in n.sources.values() and n.index in graph.deltas)
            )
            while node.name in _LINKS and len(node.sources) == 1:
                node = next(iter(node.sources.values()))
                if node.op is not None and node.index in graph.deltas:
                    yield node.index, -1
        yield from ((leaf.index, -1) for leaf in graph.parameters.values() if leaf.index in graph.deltas)

    def view(self, i: int, site: Site) -> View | None:
        graph, (index, position) = self.graphs[i], site
        node = graph.nodes[index]
        if position < 0:
            return View(graph, node, position, graph.deltas[index], self.given[i].get(node.name))
        found = node.pull(graph.deltas[index]).get(position)
        return None if found is None else View(graph, node, position, found)

    def values(self, i: int, place: tuple[Site, int], view: View) -> dict[str, Value]:
        """What the row puts there, by labels, kept until the graphs change."""
        if (i, place) not in self.kept:
            self.kept[i, place] = values_of(place[1], view)
        return self.kept[i, place]

    def best(self, good: tuple[str, ...]) -> Mutant | None:
        """The edit that explains the wrong parameter nearest the loss, and as many others as possible."""
        name = next(n for n in self.order if n not in good)
        fitting: dict[int, list[tuple[Key, View, Value]]] = {}  # by how much each explains at the first point
        for site in dict.fromkeys(self.sites()):
            if (view := self.view(0, site)) is None or view.source.index not in self.above[name]:
                continue
            for row in range(len(EDITS)):
                for label, value in self.values(0, (site, row), view).items():
                    c = self.number(0, view, value, name)
                    if c is not None:
                        reached = self.reached(view, value, 0.0 if math.isnan(c) else c)
                        fitting.setdefault(len(reached), []).append(((site, row, label), view, value))
        found: list[Mutant] = []
        for _, group in sorted(fitting.items(), reverse=True):
            laws = [(key, view, value, self.law(key, name)) for key, view, value in group]
            ranked = sorted((Mutant([k], v, value, c) for k, v, value, c in laws if c), key=lambda m: m.rank)
            found += [m for mutant in ranked if not found and (m := self.verify(mutant, good, name))]
            self.redo(self.changes)
            if found:
                break
        if not found or len(found[0].explained) < len(self.order):
            found += [m for mutant in list(self.everywhere()) if (m := self.verify(mutant, good, name))]
            self.redo(self.changes)
        return min(found, key=lambda mutant: -len(mutant.explained), default=None)

    def reached(self, view: View, value: Value, c: float) -> tuple[str, ...]:
        """The parameters that an edit explains at the first point."""
        graph, start = self.graphs[0], 0.0 if value.start is None else value.start
        moved = graph.push({view.source.index: start + c * value.value - view.right}, {})
        return tuple(n for n in self.order if self.same(graph.right[n] + moved[n], self.given[0][n], 0))

    def number(self, i: int, view: View, value: Value, name: str) -> float | None:
        """The c with which the edit explains one parameter at one point; NaN where any c does."""
        graph = self.graphs[i]

        def reach(delta: Tensor) -> Tensor:
            return graph.push({view.source.index: delta}, {}, None, self.above[name])[name]

        place = i, ((view.node.index, view.position), -1)
        if place not in self.kept:
            self.kept[place] = {"": Value(graph.right[name] - reach(view.right))}
        rest = self.kept[place][""].value + (0 if value.start is None else reach(value.start))
        due, effect = self.given[i][name] - rest, reach(value.value)
        size = float((effect * effect).sum())
        c = float((due * effect).sum()) / size if size > 0 else 0.0
        fits = math.isfinite(c) and self.same(rest + c * effect, self.given[i][name], i)
        return None if not fits else c if size > 0 else math.nan

    def law(self, key: Key, name: str) -> Factor | None:
        """The c of all points as k · Nᵖ, if they follow such a law."""
        found, tolerance = [], 1e3 * self.tolerance
        for i, graph in enumerate(self.graphs):
            view = self.view(i, key[0])
            value = None if view is None else self.values(i, key[:2], view).get(key[2])
            c = None if view is None or value is None else self.number(i, view, value, name)
            if c is None:
                return None
            if not math.isnan(c):
                found.append((c, float(len(graph.x.value))))
        if len({n for _, n in found}) < 2:
            return None
        (c, n), (d, m) = found[0], next(item for item in found if item[1] != found[0][1])
        if all(abs(value) <= tolerance for value, _ in found):
            return Factor(0.0)
        exact = math.log(c / d) / math.log(n / m) if c * d > 0 else math.nan
        power = round(exact) if abs(exact) < 3.5 else 0
        k = c / n**power
        law = all(abs(value - k * n**power) <= tolerance * abs(value) for value, n in found)
        return Factor(simplest(k, tolerance), power) if law else None

    def verify(self, mutant: Mutant, good: tuple[str, ...], name: str) -> Mutant | None:
        """With all the parameters that it explains: this one and the right ones at least."""
        changes = self.with_edit(mutant)
        for i in range(len(self.graphs)):
            self.redo(changes, i)
            if not all(self.same(self.graphs[i].right[n], self.given[i][n], i) for n in (*good, name)):
                return None
        return replace(mutant, explained=self.agreeing(self.given))

    def with_edit(self, mutant: Mutant) -> Changes:
        return {
            **self.changes,
            **{key[0]: [*self.changes.get(key[0], []), (key, mutant.factor)] for key in mutant.keys},
        }

    def redo(self, changes: Changes, only: int | None = None) -> None:
        """The backward passes with these edits, or one of them."""
        self.kept.clear()

        def change(
            site: Site, given: Mapping[str, Tensor], graph: Graph, node: Node, right: Tensor
        ) -> Tensor:
            for key, factor in changes[site]:
                view = View(graph, node, site[1], right, given.get(node.name) if site[1] < 0 else None)
                value = values_of(key[1], view).get(key[2])
                if value is not None:
                    scaled = factor.value(len(graph.x.value)) * value.value
                    right = scaled if value.start is None else value.start + scaled
            return right

        for i, (graph, given) in enumerate(zip(self.graphs, self.given, strict=True)):
            if only in (None, i):
                graph.backward({site: partial(change, site, given) for site in changes})

    def everywhere(self) -> Iterator[Mutant]:
        """The same edit at all operations of one kind, as at every step of a recurrent network."""
        kinds: dict[tuple[str, str, int], list[Site]] = {}
        for index, position in self.sites():
            node = self.graphs[0].nodes[index]
            if position >= 0:
                kinds.setdefault((node.name, parameter_of(node.sources[position]), position), []).append(
                    (index, position)
                )
        for sites in kinds.values():
            if (view := self.view(0, sites[0])) is None or len(sites) == 1:
                continue
            for row in range(1, len(EDITS)):
                for label, value in self.values(0, (sites[0], row), view).items():
                    if value.start is None:
                        yield Mutant([(site, row, label) for site in sites], view, value, Factor(1.0))

    def report(self, said: list[tuple[Diagnosis, list[str]]], good: tuple[str, ...]) -> Diagnosis | None:
        """All that was found in one message; what is left is located."""
        wrong = [name for name in self.order if name not in good]
        text = [f"{', '.join(names)}: {diagnosis.message}" for diagnosis, names in said]
        if wrong:
            due, given = self.graphs[-1].right[wrong[0]], self.given[-1][wrong[0]]
            worst = int((given - due).abs().argmax())
            at = "".join(f"[{int(k)}]" for k in torch.unravel_index(torch.tensor(worst), due.shape))
            where = "wrong as well" if said else "the first, from the loss backwards, that is wrong"
            numbers = f"{float(given.flatten()[worst]):.6g} where {float(due.flatten()[worst]):.6g} is right"
            text.append(
                f"{wrong[0]} is {where}: {wrong[0]}{at} is {numbers}, and no known mistake explains it."
            )
        named = [name for _, names in said for name in names]
        right = [name for name in self.order if name in good and name not in named]
        text += [f"Right: {', '.join(right)}."] if right else []
        if not said:
            return Diagnosis(Cause.unknown, " ".join(text)) if wrong else None
        return replace(said[0][0], message=" ".join(text))
