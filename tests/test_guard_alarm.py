"""The guard speaks once, by name, where zero_grad was forgotten, and leaves nothing behind."""

import copy
import gc
import linecache
import math
import pickle
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from torchgd import GradientDescent, LinearModel, course

X = torch.tensor([[1.0, 2.0], [3.0, -1.0]])


def network() -> tuple[nn.Linear, GradientDescent]:
    model = nn.Linear(2, 1)
    return model, GradientDescent(model.parameters(), lr=0.01)


def backward(model: nn.Module) -> None:
    model(X).square().mean().backward()


def alarms(one_step: Callable[[int], object], steps: int) -> list[str]:
    """The warnings of so many steps; each points at this file, where the person calls step()."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(steps):
            one_step(number)
    for warning in caught:
        assert warning.filename == __file__
        assert "step(" in linecache.getline(warning.filename, warning.lineno)
    return [str(warning.message) for warning in caught]


def forget(optimizer: GradientDescent, model: nn.Module, steps: int) -> list[str]:
    """The warnings of so many steps without zero_grad."""

    def one_step(number: int) -> None:
        backward(model)
        optimizer.step()

    return alarms(one_step, steps)


MESSAGE = (
    "GradientDescent.step(): the gradient of parameter {} still holds the last step's, "
    "so this is momentum 1; call optimizer.zero_grad() before backward()"
)


def test_one_alarm_by_the_users_own_name() -> None:
    model, optimizer = network()
    assert forget(optimizer, model, 30) == [MESSAGE.format("model.weight")]


def test_one_alarm_where_gradients_are_clipped() -> None:
    model, optimizer = network()

    def one_step(number: int) -> None:
        backward(model)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    assert alarms(one_step, 30) == [MESSAGE.format("model.weight")]


def test_the_alarm_points_at_the_step_that_a_scheduler_wraps() -> None:
    model, optimizer = network()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    assert forget(optimizer, model, 30) == [MESSAGE.format("model.weight")]
    assert scheduler.get_last_lr() == [0.01]


def test_a_parameter_without_a_name_by_its_place() -> None:
    optimizer = GradientDescent([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))])

    def one_step(number: int) -> None:
        optimizer.param_groups[0]["params"][1].sum().backward()
        optimizer.step()

    assert alarms(one_step, 3) == [MESSAGE.format("1 of group 0")]


def test_the_alarm_comes_at_the_second_step() -> None:
    model, optimizer = network()
    assert forget(optimizer, model, 1) == []
    assert len(forget(optimizer, model, 1)) == 1


def test_one_alarm_by_the_parameters_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    for p in model[0].parameters():
        p.requires_grad = False
    assert forget(GradientDescent(model.named_parameters()), model, 30) == [MESSAGE.format("1.weight")]


def test_the_alarm_names_a_later_groups_parameter() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = GradientDescent([nn.Parameter(torch.ones(1))])
    optimizer.add_param_group({"params": model.parameters(), "lr": 0.1})
    assert forget(optimizer, model, 30) == [MESSAGE.format("model.0.weight")]


def test_an_alarm_where_backward_is_accumulated_but_never_cleared() -> None:
    model, optimizer = network()

    def one_step(number: int) -> None:
        backward(model)
        backward(model)
        optimizer.step()

    assert alarms(one_step, 30) == [MESSAGE.format("model.weight")]


def test_an_alarm_where_clearing_is_forgotten_once() -> None:
    model, optimizer = network()

    def one_step(number: int) -> None:
        if number != 3:
            optimizer.zero_grad()
        backward(model)
        optimizer.step()

    assert alarms(one_step, 30) == [MESSAGE.format("model.weight")]


def test_an_alarm_where_the_closure_forgets() -> None:
    model, optimizer = network()

    def closure() -> float:
        loss = model(X).square().mean()
        loss.backward()
        return float(loss.detach())

    assert alarms(lambda number: optimizer.step(closure), 30) == [MESSAGE.format("model.weight")]


def test_an_alarm_for_sparse_gradients() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = GradientDescent(table.parameters(), lr=0.01)

    def one_step(number: int) -> None:
        table(torch.tensor([1, 3])).sum().backward()
        optimizer.step()

    assert alarms(one_step, 30) == [MESSAGE.format("table.weight")]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_guarded_too(duplicate) -> None:  # type: ignore[no-untyped-def]
    model, optimizer = duplicate(network())
    assert forget(optimizer, model, 30) == [MESSAGE.format("model.weight")]


def test_it_is_momentum_1_indeed() -> None:
    """The trajectory without zero_grad is that of torch.optim.SGD(momentum=1), bit for bit."""
    x, y = course()
    forgetful, peer = (LinearModel(1.0, dtype=torch.float64) for _ in range(2))
    optimizer = GradientDescent(forgetful.parameters(), lr=0.01)
    momentum = torch.optim.SGD(peer.parameters(), lr=0.01, momentum=1.0)
    path = [1.0]

    def one_step(number: int) -> None:
        nn.functional.mse_loss(forgetful(x), y).backward()
        optimizer.step()
        momentum.zero_grad()
        nn.functional.mse_loss(peer(x), y).backward()
        momentum.step()
        assert forgetful.weight.item() == peer.weight.item()
        path.append(peer.weight.item())

    assert len(alarms(one_step, 1000)) == 1
    assert (round(min(path[:201]), 5), round(max(path[:201]), 5)) == (0.98813, 3.01122)
    # w − 2 is a sampled cosine of cos θ = 1 − k/2, where k = lr · 28/3: it starts from −1, −1 + k, and
    # its amplitude follows from two samples; it never shrinks
    k = 0.01 * 28 / 3
    cosine = 1 - k / 2
    amplitude = math.sqrt((1 + (1 - k) ** 2 - 2 * (1 - k) * cosine) / (1 - cosine**2))
    assert (min(path), max(path)) == pytest.approx((2 - amplitude, 2 + amplitude), abs=1e-5)


def hooks(model: nn.Module) -> int:
    return sum(
        len(p._post_accumulate_grad_hooks or ()) + len(p._backward_hooks or ()) for p in model.parameters()
    )


def test_the_hooks_go_after_ten_steps() -> None:
    model, optimizer = network()
    assert hooks(model) == 2 * 2
    for _ in range(9):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
    assert hooks(model) == 2 * 2
    optimizer.step()
    assert hooks(model) == 0
    assert forget(optimizer, model, 5) == []  # who has cleared ten times is left in peace


def test_the_hooks_go_with_the_alarm() -> None:
    model, optimizer = network()
    assert len(forget(optimizer, model, 2)) == 1
    assert hooks(model) == 0


def test_the_hooks_go_with_the_optimizer() -> None:
    model, optimizer = network()
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    assert hooks(model) == 0


def test_the_guard_keeps_no_gradient_alive() -> None:
    model, optimizer = network()
    backward(model)
    optimizer.step()
    assert model.weight.grad is not None
    address = torch.utils.weak.TensorWeakRef(model.weight.grad)
    optimizer.zero_grad()
    gc.collect()
    assert address() is None


def test_a_plain_tensor_can_be_pickled_while_it_is_watched() -> None:
    w = torch.ones(2, requires_grad=True)
    GradientDescent([w]).step()
    optimizer = GradientDescent([w])
    assert torch.equal(pickle.loads(pickle.dumps(w)), w)  # hooks that do not pickle would warn
    assert torch.equal(copy.deepcopy(optimizer).param_groups[0]["params"][0], w)
