"""The guard against a forgotten zero_grad: it speaks when it should, and never when it should not."""

import copy
import gc
import math
import pickle
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchgd import GradientDescent, LinearModel, StochasticGradientDescent, course, train

X = torch.tensor([[1.0, 2.0], [3.0, -1.0]])


def network() -> tuple[nn.Linear, GradientDescent]:
    model = nn.Linear(2, 1)
    return model, GradientDescent(model.parameters(), lr=0.01)


def backward(model: nn.Module) -> None:
    model(X).square().mean().backward()


def nothing(model: nn.Module, optimizer: GradientDescent) -> None:
    """The mistake."""


def grads_to_none(model: nn.Module, optimizer: GradientDescent) -> None:
    for p in model.parameters():
        p.grad = None


def grads_zeroed_in_place(model: nn.Module, optimizer: GradientDescent) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.grad.zero_()


def grads_zeroed_by_data(model: nn.Module, optimizer: GradientDescent) -> None:
    for p in model.parameters():  # as lecture 4 writes it; it leaves no trace in the tensor's version
        if p.grad is not None:
            p.grad.data.zero_()


def grads_filled(model: nn.Module, optimizer: GradientDescent) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.grad.fill_(0)


def grads_multiplied(model: nn.Module, optimizer: GradientDescent) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.grad *= 0


def grads_detached_and_zeroed(model: nn.Module, optimizer: GradientDescent) -> None:
    for p in model.parameters():  # as zero_grad(set_to_none=False) does
        if p.grad is not None:
            p.grad.detach_()
            p.grad.zero_()


def grads_replaced(model: nn.Module, optimizer: GradientDescent) -> None:
    for p in model.parameters():
        p.grad = torch.zeros_like(p)


CLEARED: list[Callable[[nn.Module, GradientDescent], object]] = [
    lambda model, optimizer: optimizer.zero_grad(),
    lambda model, optimizer: optimizer.zero_grad(set_to_none=False),
    lambda model, optimizer: model.zero_grad(),
    lambda model, optimizer: model.zero_grad(set_to_none=False),
    grads_to_none,
    grads_zeroed_in_place,
    grads_zeroed_by_data,
    grads_filled,
    grads_multiplied,
    grads_detached_and_zeroed,
    grads_replaced,
]


@pytest.mark.parametrize("clear", CLEARED)
@pytest.mark.parametrize(
    "first_clear", [*CLEARED, nothing]
)  # ways may be mixed; before step 1 none is needed
def test_no_alarm_where_the_gradient_was_cleared(clear, first_clear) -> None:  # type: ignore[no-untyped-def]
    model, optimizer = network()
    first_clear(model, optimizer)
    for _ in range(12):  # a warning would be an error
        backward(model)
        optimizer.step()
        clear(model, optimizer)


@pytest.mark.parametrize("clear", CLEARED)
def test_no_alarm_for_backward_passes_accumulated_on_purpose(clear) -> None:  # type: ignore[no-untyped-def]
    model, optimizer = network()
    for number in range(12):
        clear(model, optimizer)
        for _ in range(1 + number % 4):  # not always the same count
            backward(model)
        optimizer.step()


@pytest.mark.parametrize("clear", CLEARED)
def test_no_alarm_for_clipped_gradients(clear) -> None:  # type: ignore[no-untyped-def]
    model, optimizer = network()
    for _ in range(12):
        clear(model, optimizer)
        backward(model)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        nn.utils.clip_grad_value_(model.parameters(), 0.05)
        optimizer.step()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_no_alarm_with_a_grad_scaler(set_to_none: bool) -> None:
    model, optimizer = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for number in range(12):
        optimizer.zero_grad(set_to_none)
        scaler.scale(model(X).square().mean()).backward()
        if number % 2:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_no_alarm_for_two_optimizers_on_one_parameter(set_to_none: bool) -> None:
    model, first = network()
    second = StochasticGradientDescent(model.parameters(), lr=0.02)
    for number in range(24):
        (first, second)[number // 3 % 2].zero_grad(set_to_none)
        backward(model)
        first.step()
        if number % 2:
            second.step()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_no_alarm_for_what_another_loss_left_and_zero_grad_threw_away(set_to_none: bool) -> None:
    """As in adversarial training: the generator's backward pass adds to the discriminator's gradient."""
    judge, judged = network()
    maker = nn.Linear(2, 2)
    made = GradientDescent(maker.parameters(), lr=0.01)
    for _ in range(12):
        judged.zero_grad(set_to_none)
        judge(maker(X).detach()).mean().backward()
        judged.step()
        made.zero_grad(set_to_none)
        judge(maker(X)).mean().backward()
        made.step()


def test_no_alarm_where_the_network_uses_a_parameter_more_and_more_often() -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = GradientDescent([w], lr=1e-3)
    for uses in range(1, 12):
        optimizer.zero_grad()
        torch.stack([(w * i).sum() for i in range(uses)]).sum().backward()
        optimizer.step()


def test_no_alarm_for_gradients_set_by_hand_or_by_torch_autograd_grad() -> None:
    model, optimizer = network()
    for _ in range(12):
        for p, g in zip(
            model.parameters(),
            torch.autograd.grad(model(X).square().mean(), list(model.parameters())),
            strict=True,
        ):
            if p.grad is None:
                p.grad = g
            else:
                p.grad.copy_(g)
        optimizer.step()


def test_no_alarm_where_nothing_is_added_after_a_step() -> None:
    model, optimizer = network()
    backward(model)
    for _ in range(12):
        optimizer.step()  # the same gradient again: perhaps odd, but no accumulation


def test_no_alarm_where_gradients_are_sparse_complex_or_of_inference_mode() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    z = nn.Parameter(torch.tensor([1 + 2j]))
    optimizer = GradientDescent([*table.parameters(), z], lr=0.01)
    for number in range(12):
        optimizer.zero_grad(set_to_none=bool(number % 2))
        (table(torch.tensor([1, 3])).sum() + (z * z.conj()).real.sum()).backward()
        optimizer.step()
    with torch.inference_mode():
        g = torch.ones(1)
    w = nn.Parameter(torch.ones(1))
    w.grad = g  # has no version at all
    optimizer = GradientDescent([w], lr=0.5)
    optimizer.step()
    assert w.item() == 0.5


@pytest.mark.parametrize("create_graph", [False, True])
def test_no_alarm_for_second_derivatives(create_graph: bool) -> None:
    model, optimizer = network()
    for _ in range(12):
        optimizer.zero_grad()
        model(X).square().mean().backward(create_graph=False)
        grads = torch.autograd.grad(
            model(X).pow(4).mean(), list(model.parameters()), create_graph=create_graph
        )
        if create_graph:
            torch.stack([g.sum() for g in grads]).sum().backward()
        optimizer.step()


def test_no_alarm_where_the_closure_clears() -> None:
    model, optimizer = network()

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return float(loss.detach())

    for _ in range(12):
        optimizer.step(closure)


def alarms(one_step: Callable[[int], object], steps: int) -> list[str]:
    """The warnings of so many steps; each points at this file, where the person calls step()."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(steps):
            one_step(number)
    assert all(warning.filename == __file__ for warning in caught)
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


def test_one_alarm_by_the_parameters_place() -> None:
    model, optimizer = network()
    assert forget(optimizer, model, 30) == [MESSAGE.format("0 of group 0")]


def test_one_alarm_where_gradients_are_clipped() -> None:
    model, optimizer = network()

    def one_step(number: int) -> None:
        backward(model)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    assert alarms(one_step, 30) == [MESSAGE.format("0 of group 0")]


def test_the_alarm_comes_at_the_second_step() -> None:
    model, optimizer = network()
    assert forget(optimizer, model, 1) == []
    assert len(forget(optimizer, model, 1)) == 1


def test_one_alarm_by_the_parameters_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    for p in model[0].parameters():
        p.requires_grad = False
    assert forget(GradientDescent(model.named_parameters()), model, 30) == [MESSAGE.format("1.weight")]


def test_the_alarm_names_the_group() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = GradientDescent([nn.Parameter(torch.ones(1))])
    optimizer.add_param_group({"params": model.parameters(), "lr": 0.1})
    assert forget(optimizer, model, 30) == [MESSAGE.format("0 of group 1")]


def test_an_alarm_where_backward_is_accumulated_but_never_cleared() -> None:
    model, optimizer = network()

    def one_step(number: int) -> None:
        backward(model)
        backward(model)
        optimizer.step()

    assert alarms(one_step, 30) == [MESSAGE.format("0 of group 0")]


def test_an_alarm_where_clearing_is_forgotten_once() -> None:
    model, optimizer = network()

    def one_step(number: int) -> None:
        if number != 3:
            optimizer.zero_grad()
        backward(model)
        optimizer.step()

    assert alarms(one_step, 30) == [MESSAGE.format("0 of group 0")]


def test_an_alarm_where_the_closure_forgets() -> None:
    model, optimizer = network()

    def closure() -> float:
        loss = model(X).square().mean()
        loss.backward()
        return float(loss.detach())

    assert alarms(lambda number: optimizer.step(closure), 30) == [MESSAGE.format("0 of group 0")]


def test_an_alarm_for_sparse_gradients() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = GradientDescent(table.parameters(), lr=0.01)

    def one_step(number: int) -> None:
        table(torch.tensor([1, 3])).sum().backward()
        optimizer.step()

    assert alarms(one_step, 30) == [MESSAGE.format("0 of group 0")]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_guarded_too(duplicate) -> None:  # type: ignore[no-untyped-def]
    model, optimizer = duplicate(network())
    assert forget(optimizer, model, 30) == [MESSAGE.format("0 of group 0")]


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


def test_training_raises_no_alarm(course_data: tuple[Tensor, Tensor]) -> None:
    for gradient in ("autograd", "hand"):
        model = LinearModel(1.0, dtype=torch.float64)
        optimizer = StochasticGradientDescent(model.parameters(), lr=0.01)
        train(model, *course_data, optimizer, 5, gradient=gradient)
        train(model, *course_data, optimizer, 5, gradient="autograd")
