"""The optimizers keep the contract of torch.optim.Optimizer, and refuse what it takes in silence."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rules import every_method, parameter
from torch import nn
from torch.optim import Optimizer

from torchgd import GradientDescent, MiniBatchGradientDescent, StochasticGradientDescent
from torchgd.errors import InputError

NAN, INF = math.nan, math.inf

# Errors


LR_ERRORS = [
    (0, "lr is 0.0; give a finite number above 0"),
    (0.0, "lr is 0.0; give a finite number above 0"),
    (-0.0, "lr is -0.0; give a finite number above 0"),
    (-0.01, "lr is -0.01; give a finite number above 0"),
    (NAN, "lr is nan; give a finite number above 0"),
    (INF, "lr is inf; give a finite number above 0"),
    (-INF, "lr is -inf; give a finite number above 0"),
    (torch.tensor(0.0), "lr is 0.0; give a finite number above 0"),
    (torch.tensor(-1.0), "lr is -1.0; give a finite number above 0"),
    (torch.tensor(NAN), "lr is nan; give a finite number above 0"),
    (torch.tensor([INF]), "lr is inf; give a finite number above 0"),
    (torch.tensor([0.1, 0.2]), "lr is a tensor of shape (2,); give one element"),
    (torch.tensor([]), "lr is a tensor of shape (0,); give one element"),
    ("0.1", "lr is '0.1'; give a number above 0"),
    (None, "lr is None; give a number above 0"),
    (1j, "lr is 1j; give a number above 0"),
]


@every_method
@pytest.mark.parametrize(("lr", "message"), LR_ERRORS, ids=str)
def test_learning_rates_that_are_refused(
    method: Callable[..., GradientDescent], lr: Any, message: str
) -> None:
    with pytest.raises(InputError) as error:
        method([parameter(1.0)], lr=lr)
    assert str(error.value) == message
    with pytest.raises(InputError) as error:
        method([{"params": [parameter(1.0)]}, {"params": [parameter(1.0)], "lr": lr}])
    assert str(error.value) == message
    optimizer = method([parameter(1.0)])
    with pytest.raises(InputError) as error:
        optimizer.add_param_group({"params": [parameter(1.0)], "lr": lr})
    assert str(error.value) == message
    assert len(optimizer.param_groups) == 1


def test_an_input_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="lr is 0"):
        GradientDescent([parameter(1.0)], lr=0)


@every_method
def test_what_torch_refuses_is_refused(method: Callable[..., GradientDescent]) -> None:
    w = parameter(1.0)
    with pytest.raises(ValueError, match="empty parameter list"):
        method([])
    with pytest.raises(TypeError, match="Tensors or dicts"):
        method(w)
    with pytest.raises(ValueError, match="more than one parameter group"):
        method([w]).add_param_group({"params": [w]})
    with pytest.raises(ValueError, match="non-leaf"):
        method([w * 2])
    with pytest.raises(TypeError, match="must be a dict"):
        method([w]).add_param_group([w])  # type: ignore[arg-type]


# Groups, schedulers, closures, hooks


@every_method
def test_each_group_has_its_own_options(method: Callable[..., GradientDescent]) -> None:
    a, b, c = parameter(1.0), parameter(1.0), parameter(1.0)
    optimizer = method([{"params": [a]}, {"params": [b], "lr": 0.5, "maximize": True}], lr=0.25)
    optimizer.add_param_group({"params": c, "lr": 2})
    for w in (a, b, c):
        w.grad = torch.ones(1).double()
    optimizer.step()
    assert (a.item(), b.item(), c.item()) == (0.75, 1.5, -1.0)
    assert set(optimizer.defaults) == {"lr", "maximize", "foreach", "differentiable"}
    assert all(set(optimizer.defaults) <= set(group) for group in optimizer.param_groups)


def test_the_learning_rate_left_out_is_a_hundredth() -> None:
    for optimizer in (
        GradientDescent([parameter(1.0)]),
        StochasticGradientDescent([parameter(1.0)]),
        MiniBatchGradientDescent([parameter(1.0)], batch_size=2),
    ):
        assert stepped(optimizer) == 1 - 0.01


def test_named_parameters_are_taken() -> None:
    model = nn.Linear(2, 1)
    optimizer = GradientDescent(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]


@every_method
def test_the_closure_runs_with_gradients_and_its_loss_comes_back(
    method: Callable[..., GradientDescent],
) -> None:
    w = parameter(1.0)
    optimizer = method([w], lr=0.25)
    calls: list[bool] = []

    def closure() -> Any:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (3 * w).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss: Any = optimizer.step(closure)
        assert not torch.is_grad_enabled()
    assert calls == [True]
    assert loss.item() == 3.0
    assert w.item() == 0.25
    assert optimizer.step(lambda: 7.0) == 7.0
    assert optimizer.step() is None


def test_hooks_before_and_after_a_step() -> None:
    w = parameter(1.0)
    optimizer = StochasticGradientDescent([w], lr=0.5)
    seen: list[tuple[str, float]] = []
    handles = [
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", w.item()))),
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", w.item()))),
    ]
    w.grad = torch.ones(1).double()
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert seen == [("before", 1.0), ("after", 0.5)]


@every_method
@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_both_ways(method: Callable[..., GradientDescent], set_to_none: bool) -> None:
    w = parameter(1.0)
    w.grad = torch.ones(1).double()
    method([w]).zero_grad(set_to_none)
    assert (w.grad is None) if set_to_none else (w.grad is not None and w.grad.item() == 0.0)


# State


def stepped(optimizer: Optimizer) -> float:
    (w,) = optimizer.param_groups[0]["params"]
    w.grad = torch.ones(1).double()
    optimizer.step()
    return float(w.detach())


@every_method
def test_the_state_there_and_back(method: Callable[..., GradientDescent]) -> None:
    optimizer = method([parameter(1.0)], lr=0.25, maximize=True)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = method([parameter(1.0)], lr=0.5)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.param_groups[0]["lr"] == 0.25
    assert stepped(other) == stepped(optimizer) == 1.25
    assert other.state_dict() == optimizer.state_dict()


def test_the_state_of_torchs_sgd_and_back() -> None:
    sgd = torch.optim.SGD([parameter(1.0)], lr=0.25, maximize=True)
    optimizer = GradientDescent([parameter(1.0)], lr=0.5)
    optimizer.load_state_dict(sgd.state_dict())
    assert stepped(optimizer) == stepped(sgd) == 1.25
    back = torch.optim.SGD([parameter(1.0)], lr=0.5)
    back.load_state_dict(optimizer.state_dict())
    assert stepped(back) == 1.25


def test_the_state_of_a_torchs_sgd_with_momentum_is_refused() -> None:
    sgd = torch.optim.SGD([parameter(1.0)], lr=0.25, momentum=0.9)
    optimizer = GradientDescent([parameter(1.0)], lr=0.5)
    with pytest.raises(InputError) as error:
        optimizer.load_state_dict(sgd.state_dict())
    assert str(error.value) == (
        "the state has momentum 0.9, but GradientDescent has none; load it into a torch.optim.SGD"
    )
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_an_old_state_lacks_options() -> None:
    optimizer = GradientDescent([parameter(1.0)], lr=0.5)
    state = optimizer.state_dict()
    for name in ("maximize", "foreach", "differentiable"):
        del state["param_groups"][0][name]
    optimizer.load_state_dict(state)
    assert stepped(optimizer) == 0.5


def test_a_pickle_from_before_an_option_existed() -> None:
    """Such an option is off, in the groups and for the groups added later."""
    optimizer = GradientDescent([parameter(1.0)], lr=0.5)
    names = ("maximize", "foreach", "differentiable")
    for name in names:
        del optimizer.defaults[name], optimizer.param_groups[0][name]
    twin = pickle.loads(pickle.dumps(optimizer))
    twin.add_param_group({"params": [parameter(1.0)]})
    assert [[group[name] for name in names] for group in twin.param_groups] == [[False] * 3] * 2
    assert stepped(twin) == 0.5


@every_method
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_whole_and_independent(
    method: Callable[..., GradientDescent], duplicate: Callable[[Any], Any]
) -> None:
    w = parameter(1.0)
    generator = torch.Generator().manual_seed(8)
    options = {} if method is GradientDescent else {"order": "shuffled", "generator": generator}
    optimizer = method([w], lr=0.25, **options)
    list(optimizer.batches(20))
    twin = duplicate(optimizer)
    assert type(twin) is type(optimizer)
    assert repr(twin) == repr(optimizer)
    assert [list(twin.batches(20)) for _ in range(2)] == [list(optimizer.batches(20)) for _ in range(2)]
    assert stepped(twin) == 0.75
    assert w.item() == 1.0


def test_it_keeps_no_state() -> None:
    optimizer = GradientDescent([parameter(1.0)])
    stepped(optimizer)
    assert optimizer.state == {}


@pytest.mark.parametrize(
    ("count", "options", "at_once"),
    [
        (1, {}, False),
        (2, {}, True),
        (3, {}, True),
        (2, {"differentiable": True}, False),
        (1, {"foreach": True}, True),
        (3, {"foreach": False}, False),
    ],
)
def test_all_tensors_in_one_call_where_asked_or_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, count: int, options: dict[str, bool], at_once: bool
) -> None:
    calls, update = list[int](), torch._foreach_add_

    def counted(tensors: list[torch.Tensor], *arguments: Any, **more: Any) -> None:
        calls.append(len(tensors))
        update(tensors, *arguments, **more)

    monkeypatch.setattr(torch, "_foreach_add_", counted)
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(count)]
    optimizer = GradientDescent(
        [p.clone() for p in params] if options.get("differentiable") else params, **options
    )
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.ones(2)
    optimizer.step()
    assert calls == [count] * at_once
