"""How a function takes the parameters of a module and gives their gradients back.

    f(parameters, x, y)          a dict of tensors; f(theta, x, y) where there is one
    f(W1, b1, W2, b2, x, y)      one argument each, matched by name or in the order of named_parameters()
    f(model, x, y)               a copy of the module; its gradients are left in .grad

It may give a dict, a tuple or list in that order, arrays of numpy, or leave the gradients in ``.grad``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from torchgd.check.calling import ARRAYS, as_tensor
from torchgd.check.mistakes import Cause
from torchgd.check.report import Diagnosis
from torchgd.check.signature import positional
from torchgd.check.subject import Values
from torchgd.errors import InputError

_MODULES = {"model", "net", "network", "module"}


@dataclass(frozen=True)
class HandIn:
    """One way: ``names`` are those of the parameters, in the order in which f takes them."""

    name: str
    names: Sequence[str]
    keys: Mapping[str, str]  # what else f may call a parameter in what it gives back
    module: nn.Module | None = None
    apart: bool = False  # an argument for each parameter
    requires_grad: bool = False
    arrays: bool = False

    def give(self, parameters: Values, x: Tensor, y: Tensor) -> tuple[list[Any], list[Any]]:
        """The arguments for f, and the leaves in which it may leave gradients, in the order of names."""
        if self.module:
            twin = copy.deepcopy(self.module)
            twin.load_state_dict(parameters, strict=False)
            own = dict(twin.named_parameters())
            return [twin, x.clone(), y.clone()], [own[name] for name in self.names]
        leaves: list[Any] = [
            parameters[name].clone().requires_grad_(self.requires_grad) for name in self.names
        ]
        x, y = x.clone(), y.clone()
        if self.arrays:
            leaves, x, y = [leaf.numpy() for leaf in leaves], x.numpy(), y.numpy()  # type: ignore[assignment]
        return [*(leaves if self.apart else [dict(zip(self.names, leaves, strict=True))]), x, y], leaves

    def take(self, raw: Any, leaves: Sequence[Any], wanted: Sequence[str]) -> Values | Diagnosis:
        """What f gave, by the names of the parameters, in its own dtype."""
        left = {
            name: leaf.grad for name, leaf in zip(self.names, leaves, strict=True) if hasattr(leaf, "grad")
        }
        if raw is None and any(g is not None for g in left.values()):
            raw = left
        if isinstance(raw, Mapping):
            found = {self._parameter(key): value for key, value in raw.items()}
        elif isinstance(raw, tuple | list) and len(raw) in (len(self.names), len(wanted)):
            order = self.names if len(raw) == len(self.names) else [n for n in self.names if n in wanted]
            found = dict(zip(order, raw, strict=True))
        elif len(wanted) == 1 and raw is not None:
            found = {wanted[0]: raw}
        else:
            kind = "None: a return is missing" if raw is None else f"a {type(raw).__name__}"
            message = f"It returned {kind}; a dict from the parameters' names is due."
            return Diagnosis(Cause.wrong_dtype, message)
        if not set(wanted) <= set(found) <= set(self.names):
            given, due = ", ".join(map(str, found)), ", ".join(wanted)
            return Diagnosis(Cause.wrong_shape, f"It gives gradients for {given}; due are {due}.")
        values = {}
        for name in wanted:
            with suppress(TypeError, ValueError, RuntimeError):
                values[name] = as_tensor(found[name])
                continue
            cause = Cause.detached if found[name] is None else Cause.wrong_dtype
            kind = "None" if found[name] is None else f"a {type(found[name]).__name__}"
            return Diagnosis(cause, f"It gives {name} {kind} for a gradient.")
        return values

    def _parameter(self, key: Any) -> Any:
        """W1, dW1, d_W1, grad_W1 and W1_grad are all of W1."""
        word = str(key).lower()
        for part in (
            word,
            word.removeprefix("grad").lstrip("_"),
            word.removesuffix("_grad"),
            word[1:].lstrip("_"),
        ):
            if part in self.keys:
                return self.keys[part]
        return key


def hand_ins(f: Callable[..., Any], name: str, model: nn.Module) -> list[HandIn]:
    """The ways in which f may take the parameters, by its signature, in the order in which they are tried.

    Raises:
        InputError: its signature fits none of them.
    """
    parameters = [key for key, _ in model.named_parameters()]
    keys = {key.lower(): key for key in parameters}
    try:
        signature = inspect.signature(f)
        named, required = positional(signature)
        signature.bind(*range(3))
        three = True
    except ValueError:  # some builtins have no signature
        named, required, three = [], [], True
    except TypeError:
        three = False
    if three and required and required[0].lower() in _MODULES:
        return [HandIn("the module", parameters, keys, module=model)]
    ways = [HandIn("a dict of tensors", parameters, keys)] if three else []
    if len(required) == len(parameters) + 2 or (three and len(parameters) == 1):
        order = _matched(named[: len(parameters)], model)
        keys = keys | {argument.lower(): key for argument, key in zip(named, order, strict=False)}
        ways.append(HandIn("a tensor for each parameter", order, keys, apart=True))
    if not ways:
        asked = f"{name}(parameters, x, y) or with an argument for each of {', '.join(parameters)}"
        raise InputError(f"{name}{signature} does not fit the model; write {asked}")
    kinds = [("", False, False), (", that require a gradient", True, False), (f": {ARRAYS}", False, True)]
    return [
        replace(way, name=way.name + words, requires_grad=requires_grad, arrays=arrays)
        for words, requires_grad, arrays in kinds
        for way in ways
    ]


def _matched(arguments: Sequence[str], model: nn.Module) -> list[str]:
    """The parameter of each argument: by its name, else weights and biases in their order."""
    shapes = {key: p.dim() for key, p in model.named_parameters()}
    plain = {key.replace(".", "_").lower(): key for key in shapes}
    if all(argument.lower() in plain for argument in arguments):
        return [plain[argument.lower()] for argument in arguments]
    biases = [key for key in shapes if key.rpartition(".")[2].startswith("b")]
    weights = [key for key in shapes if key not in biases]
    if sum(argument.lower().startswith("b") for argument in arguments) == len(biases):
        return [(biases if argument.lower().startswith("b") else weights).pop(0) for argument in arguments]
    return list(shapes)
