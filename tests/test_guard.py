"""The guard against a forgotten zero_grad keeps silent wherever the gradient was cleared."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchgd import GradientDescent, LinearModel, StochasticGradientDescent, train

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


def test_training_raises_no_alarm(course_data: tuple[Tensor, Tensor]) -> None:
    for gradient in ("autograd", "hand"):
        model = LinearModel(1.0, dtype=torch.float64)
        optimizer = StochasticGradientDescent(model.parameters(), lr=0.01)
        train(model, *course_data, optimizer, 5, gradient=gradient)
        train(model, *course_data, optimizer, 5, gradient="autograd")
