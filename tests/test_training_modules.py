"""Any module: recording changes no bit, and the fast path has the slow path's bits."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer, lr_scheduler

from torchgd import (
    GradientDescent,
    InputError,
    LinearModel,
    MiniBatchGradientDescent,
    StochasticGradientDescent,
    train,
)
from torchgd.batches import Batches

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "nn.Linear": lambda: nn.Linear(2, 1),
    "dropout": lambda: nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
    "batch norm": lambda: nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)),
    "large": lambda: nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1)),
}


def data(n: int = 24) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    return x, x.sum(dim=1, keepdim=True) + 1


def state(model: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in model.state_dict().values()]


OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "ours": lambda p: MiniBatchGradientDescent(p, lr=0.05, batch_size=5),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p),
    "Adamax": lambda p: torch.optim.Adamax(p),
    "ASGD": lambda p: torch.optim.ASGD(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p),
    "Rprop": lambda p: torch.optim.Rprop(p),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_training_is_the_plain_loop_bit_for_bit(
    make: Callable[[], nn.Module], make_optimizer: Callable[[Any], Optimizer]
) -> None:
    """The loop of lecture 5, with its optimizers; what is recorded beside it changes no bit and no mode."""
    x, y = data()
    batches = Batches(24, 5)
    model = make()
    peer = copy.deepcopy(model)
    optimizer, other = make_optimizer(model.parameters()), make_optimizer(peer.parameters())
    schedules = [lr_scheduler.StepLR(o, 2) for o in (optimizer, other)]

    torch.manual_seed(7)  # for dropout
    history = train(model, x, y, optimizer, 6, batches=batches, scheduler=schedules[0])
    assert all(module.training for module in model.modules())

    torch.manual_seed(7)
    losses = []
    for _ in range(6):
        for batch in batches:

            def closure(batch: list[int] = batch) -> float:
                other.zero_grad()
                loss = mse_loss(peer(x[batch]), y[batch])
                loss.backward()
                return loss  # type: ignore[return-value]

            losses.append(float(other.step(closure).detach()))  # type: ignore[attr-defined]
        schedules[1].step()
    assert history.loss_before.tolist() == losses
    assert all(torch.equal(a, b) for a, b in zip(state(model), state(peer), strict=True))
    peer.eval()
    assert history.cost[-1].item() == mse_loss(peer(x), y).item()
    small = sum(p.numel() for p in model.parameters()) <= 64
    last = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert history.weight[-1].tolist() == (last.tolist() if small else [])
    assert history.weight.shape == (7, len(last) if small else 0)
    assert history.loss_after.isnan().all()


def test_the_modes_of_the_modules_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    model[1].eval()  # a frozen normalization
    modes = [module.training for module in model.modules()]
    train(model, *data(), GradientDescent(model.parameters()), 3)
    assert [module.training for module in model.modules()] == modes == [True, True, False, True, True]


def test_the_norm_of_the_gradients_and_sparse_ones() -> None:
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Flatten(), nn.Linear(2, 1))
    x, y = torch.tensor([[1], [3], [3]]), torch.ones(3, 1)
    dense = copy.deepcopy(model)
    assert isinstance(dense[0], nn.Embedding)
    dense[0].sparse = False
    one, other = (train(m, x, y, GradientDescent(m.parameters(), lr=0.1), 3) for m in (model, dense))
    assert one.gradient.tolist() == pytest.approx(other.gradient.tolist(), rel=1e-6)
    norm = torch.cat([p.grad.reshape(-1) for p in dense.parameters() if p.grad is not None]).norm()
    assert other.gradient[-1].item() == pytest.approx(norm.item(), rel=1e-6)


def test_classes_as_targets() -> None:
    model = nn.Linear(2, 3)
    x, y = data(12)[0], torch.arange(12) % 3
    optimizer = MiniBatchGradientDescent(model.parameters(), lr=0.1, batch_size=5)
    history = train(model, x, y, optimizer, 3, loss_fn=nn.functional.cross_entropy)
    assert history.cost[-1] < history.cost[0]


def test_lecture_5_from_a_start_of_its_own() -> None:
    """nn.Linear(1, 1), the *sum* of the squares, lr 0.01: along the flat eigenvector of the Hessian the error
    shrinks by 1 − 0.01 · 0.7212 an update."""
    model = nn.Linear(1, 1).double()
    x = torch.tensor([[1.0], [2.0], [3.0]]).double()
    optimizer = GradientDescent(model.parameters(), lr=0.01)
    history = train(model, x, 2 * x, optimizer, 1000, loss_fn=nn.MSELoss(reduction="sum"))
    weights = history.weight - torch.tensor([2.0, 0.0]).double()
    shrinks = weights[1000].norm() / weights[500].norm()
    assert shrinks.item() == pytest.approx((1 - 0.01 * 0.72121) ** 500, rel=1e-3)


def test_an_optimizer_of_ones_own() -> None:
    """It forgets enable_grad around its closure and returns no loss."""

    class Mine(Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            closure()
            for group in self.param_groups:
                for p in group["params"]:
                    p -= 0.01 * p.grad

    class Deaf(Mine):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            pass

    x = torch.tensor([1.0, 2.0, 3.0]).double()
    mine, model = LinearModel(1.0, dtype=torch.float64), LinearModel(1.0, dtype=torch.float64)
    history = train(mine, x, 2 * x, Mine(mine.parameters()), 5)
    expected = train(model, x, 2 * x, GradientDescent(model.parameters(), lr=0.01), 5)
    assert history.weight.tolist() == pytest.approx(expected.weight.tolist(), rel=1e-15)
    with pytest.raises(ValueError, match=r"^the optimizer's step\(closure\) did not call the closure"):
        train(model, x, 2 * x, Deaf(model.parameters()), 5)


# The fast path


@pytest.mark.parametrize("order", ["sequential", "shuffled", "replacement"])
@pytest.mark.parametrize("batch_size", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_bits_do_not_depend_on_how_much_is_recorded(
    order: str, batch_size: int, dtype: torch.dtype, noisy_data: tuple[Tensor, Tensor]
) -> None:
    def run(max_points: int, **options: Any) -> Tensor:
        model = LinearModel(1.0, dtype=dtype)
        generator = torch.Generator().manual_seed(2)
        optimizer = MiniBatchGradientDescent(
            model.parameters(), lr=0.03, batch_size=batch_size, order=order, generator=generator, **options
        )
        history = train(model, *noisy_data, optimizer, 30, gradient="hand", max_points=max_points)
        assert len(history.update) <= max_points
        return history.weight

    every = run(10_000)
    assert torch.equal(run(1), every)
    assert torch.equal(run(10), every)
    assert torch.equal(run(1, foreach=True), every)


def test_what_watches_the_optimizer_sees_every_step() -> None:
    """A hook, a scheduler's count of steps or a step() of one's own switch the fast path off."""
    x = torch.tensor([1.0, 2.0, 3.0]).double()

    def run(watch: Callable[[StochasticGradientDescent], Any]) -> Any:
        model = LinearModel(1.0, dtype=torch.float64)
        optimizer = StochasticGradientDescent(model.parameters(), lr=0.01)
        seen = watch(optimizer)
        scheduler = seen if isinstance(seen, lr_scheduler.LRScheduler) else None
        train(model, x, 2 * x, optimizer, 4, gradient="hand", max_points=1, scheduler=scheduler)
        return seen

    def hook(optimizer: StochasticGradientDescent) -> list[int]:
        seen: list[int] = []
        optimizer.register_step_post_hook(lambda *_: seen.append(1))
        return seen

    assert len(run(hook)) == 12
    run(lambda optimizer: lr_scheduler.StepLR(optimizer, 2))  # would warn: "before `optimizer.step()`"


def test_other_parameters_of_the_optimizer_are_stepped_too() -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).double()
    model, other = LinearModel(1.0, dtype=torch.float64), nn.Parameter(torch.ones(1))
    other.grad = torch.ones(1)
    optimizer = StochasticGradientDescent([*model.parameters(), other], lr=0.125)
    train(model, x, 2 * x, optimizer, 1, gradient="hand", max_points=1)
    assert other.item() == 1 - 3 * 0.125


def test_after_a_divergence_the_buffers_are_finite_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    x = torch.linspace(-1, 1, 16, dtype=torch.float64).unsqueeze(1)
    history = train(net, x, 3 * x, GradientDescent(net.parameters(), lr=50.0), 2000)
    assert history.status == "diverged"
    for tensor in net.state_dict().values():
        assert tensor.isfinite().all()


def test_steps_that_grow_prove_nothing_of_a_curved_model() -> None:
    """y = w² x leaves its flat start at a growing pace, and settles at w = 2."""

    class Square(LinearModel):
        def forward(self, x: Tensor | float) -> Tensor:
            return self.weight * self.weight * x

    x = torch.tensor([1.0, 2.0, 3.0]).double()
    for epochs in (8, 200):
        model = Square(0.01, dtype=torch.float64)
        history = train(model, x, 4 * x, GradientDescent(model.parameters(), lr=0.002), epochs)
        assert history.status == "finished"
    assert history.weight[-1].item() == pytest.approx(2, rel=1e-8)


@pytest.mark.parametrize("gradient", ["hand", "autograd"])
def test_the_data_may_require_gradients_and_get_none(gradient: str) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    history = train(model, x, 2 * x, GradientDescent(model.parameters()), 3, gradient=gradient)
    assert x.grad is None
    assert not history.weight.requires_grad
    assert not history.cost.requires_grad


def test_a_history_is_on_the_cpu_whatever_the_default_device() -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    model = LinearModel(1.0)
    with torch.device("meta"):
        history = train(model, x, 2 * x, GradientDescent(model.parameters()), 2)
    for name in ("epoch", "end_update", "update", "samples_seen", "weight", "loss_before"):
        assert getattr(history, name).device.type == "cpu", name


REFUSED = [
    (
        {"loss_fn": nn.MSELoss(reduction="none")},
        r"the loss has shape \(2,\); return one number, e.g. its mean",
    ),
    ({"x": {1.0, 2.0}}, "x is a set; give numbers: a tensor, an array or a list"),
    ({"gradient": "hand", "loss_fn": nn.functional.l1_loss}, "the gradient by hand is that of mse_loss"),
    ({"frozen": True}, "no parameter requires a gradient"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_does_not_fit_is_said_in_one_line(changes: dict[str, Any], message: str) -> None:
    model = LinearModel(1.0, dtype=torch.float64)
    optimizer = GradientDescent(model.parameters())
    options = {"x": torch.tensor([1.0, 2.0]).double(), "gradient": "autograd", **changes}
    model.weight.requires_grad_(not options.pop("frozen", False))
    with pytest.raises(InputError, match=message):
        train(model, options.pop("x"), torch.tensor([2.0, 4.0]).double(), optimizer, **options)


def test_a_gradient_of_ones_own_cannot_move_the_weight_behind_the_optimizer() -> None:
    model = LinearModel(1.0, dtype=torch.float64)

    def careless(w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        value = (2 * x * (w * x - y)).mean()
        w += 1
        return value

    x = torch.tensor([1.0, 2.0, 3.0]).double()
    train(model, x, 2 * x, GradientDescent(model.parameters(), lr=0.01), 1, gradient=careless, check=False)
    assert model.weight.item() == pytest.approx(1.0933333333333333, rel=1e-15)


def test_a_scheduler_that_waits_for_a_plateau_sees_the_cost() -> None:
    """A fall of less than 99.9 % counts as none, so lr halves after every epoch but the first."""
    model = LinearModel(1.0, dtype=torch.float64)
    optimizer = GradientDescent(model.parameters(), lr=0.04)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.999)
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    history = train(model, x, 2 * x, optimizer, 4, scheduler=scheduler)
    w, expected = 1.0, [1.0]
    for lr in (0.04, 0.04, 0.02, 0.01):
        w -= lr * 28 / 3 * (w - 2)  # 2 mean x² = 28/3
        expected.append(w)
    assert history.weight.tolist() == pytest.approx(expected, rel=1e-14)
    assert scheduler.best == history.cost[1].item()
    assert optimizer.param_groups[0]["lr"] == 0.005


def test_a_module_of_one_weight_has_a_history_of_numbers() -> None:
    class OwnLinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.w * x

    x = torch.tensor([1.0, 2.0, 3.0])
    for model in (OwnLinear(), LinearModel(1.0)):
        history = train(model, x, 2 * x, GradientDescent(model.parameters(), lr=0.01), 2)
        assert (history.weight.shape, history.update_weight.shape) == ((3,), (2,))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": nn.functional.mse_loss,
    "sum": nn.MSELoss(reduction="sum"),
    "root of the mean": lambda p, t: (p - t).square().mean().sqrt(),
    "largest": lambda p, t: (p - t).abs().max(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_cost_of_much_data_is_that_of_one_forward(
    name: str, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks where it is the mean or the sum of theirs, and else at once."""
    monkeypatch.setattr("torchgd.recorder.BLOCK", 16)
    sizes = list[int]()
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    x = torch.randn(100, 3, dtype=torch.float64)
    y = x.sum(1, keepdim=True)
    whole = LOSSES[name](network(x), y).item()
    sizes.clear()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)
    history = train(network, x, y, optimizer, 1, loss_fn=LOSSES[name], batches=10)
    assert history.cost[0].item() == pytest.approx(whole, rel=1e-12)
    assert max(sizes) == (16 if name in {"mean", "sum"} else 100)


def test_an_optimizer_whose_step_takes_no_closure() -> None:
    class Plain(torch.optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self) -> None:  # type: ignore[override]
            for p in self.param_groups[0]["params"]:
                p.add_(p.grad, alpha=-self.param_groups[0]["lr"])

    x = torch.tensor([1.0, 2.0, 3.0]).double()
    model = LinearModel(1.0, dtype=torch.float64)
    history = train(model, x, 2 * x, Plain(model.parameters(), lr=0.01), 2)
    assert history.weight[1].item() == pytest.approx(1 + 0.28 / 3, rel=1e-15)
    assert history.loss_before[0].item() == pytest.approx(14 / 3, rel=1e-15)
