"""One sound optimizer, and its broken kin: each differs from it by one named defect."""

from __future__ import annotations

import copy
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
        grad = grad + group["weight_decay"] * p if group["weight_decay"] else grad
        memory["m"] = memory["m"].mul_(0.9).add_(grad) if "m" in memory else grad
        return memory["m"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(copy.deepcopy(state_dict))


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
        return getattr(Sound.step, "__wrapped__", Sound.step)(self, closure)

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


class KeepsItsFirstLr(Sound):
    def lr(self, group: Group) -> float:
        kept: float = group.setdefault("first lr", super().lr(group))
        return kept


class ZeroIsTheDefault(Sound):
    def lr(self, group: Group) -> float:
        return super().lr(group) or 0.1


class StateInTheFirstStepOnly(Sound):
    begun = False

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.begun = bool(self.state)
        return loss

    def memory(self, p: Tensor) -> dict[str, Tensor]:
        if self.begun and p not in self.state:
            raise KeyError("m")
        return super().memory(p)


class NeedsSomeGradient(Sound):
    def move(self, params: list[Tensor], directions: list[Tensor], group: Group) -> None:
        torch.stack([m.abs().sum() for m in directions])
        super().move(params, directions, group)


class GroupDecayIgnored(Sound):
    def direction(self, p: Tensor, group: Group) -> Tensor:
        return super().direction(p, {**group, "weight_decay": self.defaults["weight_decay"]})


class DecaySubtractsANumber(Sound):
    def gradient(self, p: Tensor, group: Group) -> Tensor:
        grad = super().gradient(p, group)
        return grad.add(group["weight_decay"] * (1 - p))


class DecayIgnored(Sound):
    def direction(self, p: Tensor, group: Group) -> Tensor:
        return super().direction(p, {**group, "weight_decay": 0.0})


class DecayGrows(Sound):
    def direction(self, p: Tensor, group: Group) -> Tensor:
        return super().direction(p, {**group, "weight_decay": -group["weight_decay"]})


class DecaysWithoutGradient(Sound):
    def move(self, params: list[Tensor], directions: list[Tensor], group: Group) -> None:
        super().move(params, directions, group)
        for p in group["params"]:
            if p.grad is None and p.requires_grad:
                p.mul_(1 - self.lr(group) * group["weight_decay"])


class SwallowsOptions(Sound):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        maximize: bool = False,
        foreach: bool | None = None,
        weight_decay: float = 0.0,
        **_: Any,
    ) -> None:
        super().__init__(params, lr, maximize=maximize, foreach=foreach, weight_decay=weight_decay)


class SavedInOrderOfArrival(Sound):
    def state_dict(self) -> dict[str, Any]:
        saved = super().state_dict()
        return {**saved, "state": dict(enumerate(saved["state"].values()))}


class SharesItsState(Sound):
    """It writes into the tensors that load_state_dict takes over as they are, as torch's own classes do."""

    def direction(self, p: Tensor, group: Group) -> Tensor:
        grad = self.gradient(p, group) + group["weight_decay"] * p
        memory = self.memory(p)
        memory["m"] = memory["m"].mul_(0.9).add_(grad) if "m" in memory else grad
        return memory["m"]


class ScalarsStandStill(Sound):
    def takes_part(self, p: Tensor) -> bool:
        return super().takes_part(p) and p.dim() > 0


class CrashesInBfloat16(Sound):
    """A float32 buffer meets a gradient in lerp_."""

    def takes_part(self, p: Tensor) -> bool:
        if p.grad is not None and p.dtype is torch.bfloat16:
            torch.zeros_like(p, dtype=torch.float32).lerp_(p.grad, 0.1)
        return super().takes_part(p)


class ClimbsInFloat16(Sound):
    def gradient(self, p: Tensor, group: Group) -> Tensor:
        grad = super().gradient(p, group)
        return -grad if p.dtype is torch.float16 else grad


class StateInFloat32(Sound):
    """Its state is wider than a bfloat16 parameter, and load_state_dict casts it."""

    def direction(self, p: Tensor, group: Group) -> Tensor:
        memory = self.memory(p)
        grad = (self.gradient(p, group) + group["weight_decay"] * p).to(
            torch.promote_types(p.dtype, torch.float32)
        )
        memory["m"] = grad if "m" not in memory else 0.9 * memory["m"] + grad
        return memory["m"].to(p.dtype)


class FusedLeavesWholeVectors(Sound):
    """In bfloat16 and float16 only the last n mod 16 elements move, as with torch.optim.SGD in 2.13.0."""

    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.1, *, fused: bool | None = None, **options: Any
    ) -> None:
        super().__init__(params, lr, **options)
        for group in self.param_groups:
            group["fused"] = fused

    def move(self, params: list[Tensor], directions: list[Tensor], group: Group) -> None:
        if group.get("fused"):
            short = [(p, m) for p, m in zip(params, directions, strict=True) if p.element_size() == 2]
            for p, m in short:
                kept = p.numel() - p.numel() % 16
                p.view(-1)[kept:].add_(m.view(-1)[kept:], alpha=-self.lr(group))
            if short:
                return
        super().move(params, directions, group)


class TurnsGradientsOff(Sound):
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        torch.set_grad_enabled(False)
        return loss


class SetsTheSeed(Sound):
    def step(self, closure: Any = None) -> Any:
        torch.manual_seed(0)
        return super().step(closure)


class ScalesItself(Sound):
    """It tells the scaler that it handles infinite gradients, and does not."""

    _step_supports_amp_scaling = True


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
    (KeepsItsFirstLr, "lr changed"),
    (ZeroIsTheDefault, "lr 0"),
    (StateInTheFirstStepOnly, "first gradient in step 2"),
    (NeedsSomeGradient, "no gradient"),
    (GroupDecayIgnored, "group options"),
    (DecaySubtractsANumber, "weight decay"),
    (DecayIgnored, "weight decay"),
    (DecayGrows, "weight decay"),
    (DecaysWithoutGradient, "None gradients"),
    (SwallowsOptions, "unknown option"),
    (SavedInOrderOfArrival, "several parameters"),
    (SharesItsState, "shared state"),
    (ScalarsStandStill, "shapes"),
    (CrashesInBfloat16, "dtypes"),
    (ClimbsInFloat16, "dtypes"),
    (StateInFloat32, "resume in bfloat16"),
    (FusedLeavesWholeVectors, "fused"),
    (TurnsGradientsOff, "grad mode and dice"),
    (SetsTheSeed, "grad mode and dice"),
    (ScalesItself, "GradScaler"),
)
