"""One sound optimizer, and its broken kin: each differs from it by one named defect."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

Group = dict[str, Any]


class Sound(Optimizer):
    """Gradient descent with momentum, m ← 0.9 m + g, p ← p − lr m; it keeps every clause of the contract."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        self.check(float(lr))
        options = {"lr": lr, "maximize": maximize, "foreach": foreach, "weight_decay": weight_decay}
        super().__init__(params, options)

    def check(self, lr: float) -> None:
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr is {lr}")

    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else self.evaluate(closure)
        with torch.no_grad():
            for group in self.param_groups:
                params = [p for p in group["params"] if self.takes_part(p)]
                self.move(params, [self.direction(p, group) for p in params], group)
        return loss

    def evaluate(self, closure: Callable[[], Any]) -> Any:
        with torch.enable_grad():
            return closure()

    def takes_part(self, p: Tensor) -> bool:
        return p.grad is not None

    def gradient(self, p: Tensor, group: Group) -> Tensor:
        grad: Tensor = p.grad  # type: ignore[assignment]
        grad = grad.to_dense() if grad.is_sparse else grad
        return grad.neg() if group["maximize"] else grad

    def direction(self, p: Tensor, group: Group) -> Tensor:
        grad = self.gradient(p, group) + group["weight_decay"] * p
        memory = self.memory(p)
        memory["m"] = grad if "m" not in memory else 0.9 * memory["m"] + grad
        return memory["m"]

    def memory(self, p: Tensor) -> dict[str, Tensor]:
        return self.state[p]  # type: ignore[no-any-return]

    def lr(self, group: Group) -> float:
        return float(group["lr"])

    def move(self, params: list[Tensor], directions: list[Tensor], group: Group) -> None:
        if group["foreach"] and params:
            torch._foreach_add_(params, directions, alpha=-self.lr(group))
        else:
            for p, m in zip(params, directions, strict=True):
                p.add_(m, alpha=-self.lr(group))


class Climbs(Sound):
    def lr(self, group: Group) -> float:
        return -super().lr(group)


class GoesNowhere(Sound):
    def lr(self, group: Group) -> float:
        return 0.0


class ClosureWithoutGrad(Sound):
    def evaluate(self, closure: Callable[[], Any]) -> Any:
        with torch.no_grad():
            return closure()


class ClosureNotRun(Sound):
    def evaluate(self, closure: Callable[[], Any]) -> Any:
        return None


class LossNotReturned(Sound):
    def evaluate(self, closure: Callable[[], Any]) -> Any:
        super().evaluate(closure)


class GradOverwritten(Sound):
    def direction(self, p: Tensor, group: Group) -> Tensor:
        direction = super().direction(p, group)
        p.grad = direction.clone()
        return direction


class GradIsTheMomentum(Sound):
    """The first gradient itself becomes the state, and the second step writes into it."""

    def direction(self, p: Tensor, group: Group) -> Tensor:
        memory = self.memory(p)
        grad = self.gradient(p, group)
        memory["m"] = memory["m"].mul_(0.9).add_(grad) if "m" in memory else grad
        return memory["m"]


class DecayInPlace(Sound):
    def gradient(self, p: Tensor, group: Group) -> Tensor:
        grad = super().gradient(p, group)
        return grad.add_(p, alpha=group["weight_decay"]) if group["weight_decay"] else grad


class CrashesOnNone(Sound):
    def takes_part(self, p: Tensor) -> bool:
        return True


class SparseNotSummed(Sound):
    def gradient(self, p: Tensor, group: Group) -> Tensor:
        grad = p.grad
        if grad is None or not grad.is_sparse:
            return super().gradient(p, group)
        dense = torch.zeros_like(p)
        dense[grad._indices()[0]] = grad._values()
        return dense


class SparseCrashes(Sound):
    def takes_part(self, p: Tensor) -> bool:
        return p.grad is not None and bool(p.grad.addcmul(p, p, value=0.0).isfinite().all())


class GroupLrIgnored(Sound):
    def lr(self, group: Group) -> float:
        return float(self.defaults["lr"])


class FirstGroupOnly(Sound):
    def move(self, params: list[Tensor], directions: list[Tensor], group: Group) -> None:
        if group is self.param_groups[0]:
            super().move(params, directions, group)


class StateNotSaved(Sound):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


class StateOutside(Sound):
    """The natural form of the same mistake: the state in a dictionary of its own."""

    def __init__(self, params: ParamsT, lr: float | Tensor = 0.1, **options: Any) -> None:
        self.own: dict[Tensor, dict[str, Tensor]] = {}
        super().__init__(params, lr, **options)

    def memory(self, p: Tensor) -> dict[str, Tensor]:
        return self.own.setdefault(p, {})


class NotPicklable(Sound):
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rule": lambda p: p}


class SchedulerWarns(Sound):
    """Its step throws away what a scheduler has wrapped around it."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.__dict__.pop("step", None)
        return loss


class MaximizeIgnored(Sound):
    def gradient(self, p: Tensor, group: Group) -> Tensor:
        return super().gradient(p, {**group, "maximize": False})


class ForeachForgetsTheLast(Sound):
    def move(self, params: list[Tensor], directions: list[Tensor], group: Group) -> None:
        kept = len(params) - (group["foreach"] is True)
        super().move(params[:kept], directions[:kept], group)


class HooksBypassed(Sound):
    def step(self, closure: Any = None) -> Any:
        return super().step.__wrapped__(self, closure)  # type: ignore[attr-defined]

    step.hooked = True  # type: ignore[attr-defined]


class TakesNanLr(Sound):
    """The usual check, in the negative form: NaN passes every comparison that may fail."""

    def check(self, lr: float) -> None:
        if lr < 0 or lr == math.inf:
            raise ValueError(f"lr is {lr}")


class AssertsLr(Sound):
    def check(self, lr: float) -> None:
        assert math.isfinite(lr)
        assert lr >= 0


class ThawsFrozen(Sound):
    def takes_part(self, p: Tensor) -> bool:
        p.requires_grad_()
        return super().takes_part(p)


class DecaysFrozen(Sound):
    def move(self, params: list[Tensor], directions: list[Tensor], group: Group) -> None:
        super().move(params, directions, group)
        for p in group["params"]:
            if not p.requires_grad:
                p.mul_(0.99)


class ComplexModulus(Sound):
    """It scales a complex gradient by its modulus, and a real one by nothing."""

    def gradient(self, p: Tensor, group: Group) -> Tensor:
        grad = super().gradient(p, group)
        return grad * grad.abs() if grad.is_complex() else grad


class FlattensTheParameter(Sound):
    """reshape(-1) is a view of a contiguous parameter and a copy of any other."""

    def move(self, params: list[Tensor], directions: list[Tensor], group: Group) -> None:
        super().move([p.reshape(-1) for p in params], [m.reshape(-1) for m in directions], group)


class AddedGroupIgnored(Sound):
    def add_param_group(self, param_group: Group) -> None:
        if not self.state:
            super().add_param_group(param_group)


class TensorLrRounded(Sound):
    def lr(self, group: Group) -> float:
        lr = super().lr(group)
        return round(lr, 2) if isinstance(group["lr"], Tensor) else lr


class OtherRuleWhenCompiled(Sound):
    def lr(self, group: Group) -> float:
        return super().lr(group) * (0.5 if torch.compiler.is_compiling() else 1.0)


# The class, and the one finding that must fail; every other must not.
BROKEN: tuple[tuple[type[Optimizer], str], ...] = (
    (Climbs, "update"),
    (GoesNowhere, "update"),
    (ClosureWithoutGrad, "closure gradient"),
    (ClosureNotRun, "closure gradient"),
    (LossNotReturned, "closure loss"),
    (GradOverwritten, ".grad untouched"),
    (GradIsTheMomentum, ".grad untouched"),
    (DecayInPlace, ".grad untouched"),
    (CrashesOnNone, "None gradients"),
    (SparseNotSummed, "sparse gradients"),
    (SparseCrashes, "sparse gradients"),
    (GroupLrIgnored, "param groups"),
    (FirstGroupOnly, "param groups"),
    (StateNotSaved, "state_dict"),
    (StateOutside, "state_dict"),
    (NotPicklable, "deepcopy and pickle"),
    (SchedulerWarns, "schedulers"),
    (MaximizeIgnored, "maximize"),
    (ForeachForgetsTheLast, "foreach"),
    (HooksBypassed, "hooks"),
    (TakesNanLr, "lr refused"),
    (AssertsLr, "lr refused"),
    (ThawsFrozen, "frozen parameters"),
    (DecaysFrozen, "frozen parameters"),
    (ComplexModulus, "complex"),
    (FlattensTheParameter, "non-contiguous"),
    (AddedGroupIgnored, "add_param_group"),
    (TensorLrRounded, "lr as tensor"),
    (OtherRuleWhenCompiled, "torch.compile"),
)
