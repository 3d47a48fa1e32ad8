"""Where a backward is judged: the inputs given and some near them, each with several incoming gradients v."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchgd.check.differences import column, like, moved, real, sizes
from torchgd.check.probes import YOUR_DATA
from torchgd.check.subject import Due, Point

NEAR = "near it"
_PLACES = 4
_MORE = 4  # places, ever farther away, while all derivatives by an input are 0
_TRIES = 5  # of a place near the inputs, until forward is finite there
_ELEMENTS = 200  # of each input are moved; of a larger one as many are drawn
# The accuracy of differences in each dtype, and of those that only rounding makes, of |output| / |input|.
ACCURACY = {torch.float64: (1e-7, 1e-4), torch.float32: (2e-4, 1e-2)}


def is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


@dataclass(frozen=True)
class Place:
    """Inputs, and the derivatives of all outputs by some elements of each: J, a column for each element."""

    data: str
    inputs: list[Any]
    columns: dict[str, Tensor]  # (elements, outputs)
    elements: dict[str, list[int]]
    floors: dict[str, Tensor]  # by how much a column is wrong through the rounding of forward
    kinks: list[str]  # the elements at which forward bends or jumps: these were moved a little


@dataclass(frozen=True)
class FunctionPoint(Point):
    """A place with one incoming gradient for each output: due is Jᵀ v, for the elements that were moved."""

    place: Place
    v: list[Tensor]
    strided: bool  # v does not lie in memory as the output does

    @property
    def data(self) -> str:  # type: ignore[override]
        return self.place.data

    @property
    def x(self) -> list[Any]:
        return self.place.inputs

    @property
    def n(self) -> int:
        return max(2, *(value.numel() for value in self.x if isinstance(value, Tensor)))

    @property
    def place_name(self) -> str:
        place = "your inputs" if self.data == YOUR_DATA else "inputs near yours"
        return place + (", for an incoming gradient that is not contiguous" if self.strided else "")

    def due(self, each: bool) -> dict[str, Due]:
        return {name: self.product(name) for name in self.place.columns}

    def product(self, name: str, change: Callable[[Tensor], Tensor] = torch.clone) -> Due:
        """Jᵀ v, or of v after a change."""
        table, vector = self.place.columns[name], change(torch.cat([real(v).double() for v in self.v]))
        largest = (table.abs() @ vector.abs()).max() if table.numel() else torch.tensor(0.0).double()
        scale = largest + self.place.floors[name] * vector.abs().sum()
        value = table @ vector
        return Due(value, (scale * 10 / (self.n + 8)).expand(value.shape))  # whatever n is

    def element_by_element(self, name: str, index: int) -> tuple[Tensor, Tensor] | None:
        """The elements of the input and of v beside them, where forward may be a function of each alone."""
        value = self.x[index]
        if len(self.v) != 1 or self.v[0].shape != value.shape or value.is_complex():
            return None
        return tuple(real(t).double()[self.place.elements[name]] for t in (value, self.v[0]))  # type: ignore[return-value]

    def references(self, name: str, index: tuple[int, ...], each: bool) -> tuple[float, float]:
        return torch.nan, float(self.due(each)[name].value[index])  # autograd knows this backward only

    def entry(self, name: str, index: tuple[int, ...], each: bool) -> str:
        return f"{name}[{self.place.elements[name][index[0]]}]"


def function_points(
    outputs: Callable[[Sequence[Any]], list[Tensor]], inputs: list[Any], names: dict[str, int], seed: int
) -> list[FunctionPoint]:
    """The points; ``names`` are those of the inputs that need a gradient, with their places."""
    points: list[FunctionPoint] = []
    mute = set(names)  # those of which no place has told anything yet, as all derivatives were 0
    for number in range(_PLACES + _MORE):
        if number >= _PLACES and not mute:
            break
        generator = torch.Generator().manual_seed(seed + number)
        spread = 0.1 if number < _PLACES else 2.0 ** (number - _PLACES)
        found = _place(outputs, inputs, names, generator, spread if number else 0.0)
        if found:
            mute -= {name for name, table in found.columns.items() if table.any() or not table.numel()}
            v = _incoming(outputs(found.inputs), generator)
            points += [FunctionPoint(found, one, strided=one is v[-1]) for one in v]
    return points


def _place(
    outputs: Callable[[Sequence[Any]], list[Tensor]],
    inputs: list[Any],
    names: dict[str, int],
    generator: torch.Generator,
    near: float,
) -> Place | None:
    """The inputs as they are, or changed by this much of their size, where forward takes them."""

    def vector(values: Sequence[Any]) -> Tensor:
        return torch.cat([real(y).double() for y in outputs(values)])

    here = inputs
    for _ in range(_TRIES if near else 1):
        if near:
            here = [_near(v, near, generator) if i in names.values() else v for i, v in enumerate(inputs)]
        try:
            if bool(vector(here).isfinite().all()):
                break
        except Exception:  # a place outside the domain of forward
            continue
    else:
        return None
    kinks: list[str] = []
    while True:
        data = NEAR if near else YOUR_DATA
        place, bent = _derivatives(vector, Place(data, here, {}, {}, {}, kinks), names, generator)
        if not bent or kinks:
            return place
        kinks += [f"{name}[{element}]" for name, element in bent]
        here = list(here)
        for name, element in bent:
            value = here[names[name]]
            here[names[name]] = moved(value, element, 0.03 * sizes(value)[element])


def _derivatives(
    vector: Callable[[Sequence[Any]], Tensor], place: Place, names: dict[str, int], generator: torch.Generator
) -> tuple[Place, list[tuple[str, int]]]:
    """The place with its columns, and the elements that have none, as forward bends or jumps there."""
    largest = vector(place.inputs).abs().max() if len(vector(place.inputs)) else torch.tensor(0.0)
    bent = []
    for name, index in names.items():
        value = place.inputs[index]
        size = torch.tensor(sizes(value)).double()
        chosen = list(range(len(size)))
        if len(size) > _ELEMENTS:
            chosen = torch.randperm(len(size), generator=generator)[:_ELEMENTS].sort().values.tolist()
        found = [(element, *column(vector, place.inputs, index, element)) for element in chosen]
        bent += [(name, element) for element, _, smooth in found if not smooth]
        place.elements[name] = [element for element, _, smooth in found if smooth]
        columns = [derivative for _, derivative, smooth in found if smooth]
        place.columns[name] = (
            torch.stack(columns) if columns else torch.zeros(0, len(vector(place.inputs))).double()
        )
        place.floors[name] = ACCURACY[value.dtype.to_real()][1] * largest / size[place.elements[name]]
    return place, bent


def _near(value: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """Each number changed by this much of its size; symmetric, triangular and rows of length 1 stay so."""
    noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    size = value.abs()
    largest = float(size.max()) if size.numel() else 0.0
    other = value + spread * noise * (torch.where(size > 0, size, largest) if largest else 3.0)
    if value.dim() > 1 and value.any():
        if value.shape[-1] == value.shape[-2] > 1:
            if torch.equal(value, value.mT):
                other = (other + other.mT) / 2
            elif torch.equal(value, value.tril()):
                other = other.tril()
            elif torch.equal(value, value.triu()):
                other = other.triu()
        norms, sums = value.norm(dim=-1, keepdim=True), value.sum(-1, keepdim=True)
        if value.shape[-1] > 1 and torch.allclose(norms, torch.ones_like(norms), rtol=1e-6):
            other = other / other.norm(dim=-1, keepdim=True)
        elif value.shape[-1] > 1 and torch.allclose(sums, torch.ones_like(sums), rtol=1e-6):
            other = other / other.sum(-1, keepdim=True)
    return like(real(other), value)


def _incoming(ys: Sequence[Tensor], generator: torch.Generator) -> list[list[Tensor]]:
    """Random, twice that, minus that, and one that does not lie in memory as y does."""

    def draw() -> list[Tensor]:
        return [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in ys]

    first = draw()
    strided = [torch.stack([v, v]).movedim(0, -1).contiguous()[..., 0].mT.contiguous().mT if v.dim() > 1
               else torch.stack([v, v], dim=-1)[..., 0] for v in draw()]  # fmt: skip
    return [first, [2 * v for v in first], [-v for v in first], strided]
