"""The limit with a bias against lecture 5 and a plain loop; any module's against its dense Hessian."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from torchgd import InputError, LinearModel
from torchgd.convergence.certificate import stability
from torchgd.convergence.curvature import line_stability, local_limit

Loss = Callable[[Tensor, Tensor], Tensor]
X = torch.zeros(1, dtype=torch.float64)


def descend(x: Tensor, y: Tensor, lr: float, steps: int) -> tuple[float, float]:
    """Lecture 5 in plain Python: w and b, the sum of the squares."""
    w, b = 1.0, 0.0
    for _ in range(steps):
        residuals = [w * a + b - c for a, c in zip(x.tolist(), y.tolist(), strict=True)]
        w -= lr * sum(2 * r * a for r, a in zip(residuals, x.tolist(), strict=True))
        b -= lr * sum(2 * r for r in residuals)
    return w, b


def test_lecture_5(course_data: tuple[Tensor, Tensor]) -> None:
    x, y = course_data
    line = line_stability(x, "sum")
    assert line.eigenvalues == pytest.approx((17 - math.sqrt(265), 17 + math.sqrt(265)), rel=1e-12)
    assert (round(line.condition, 1), round(line.limit, 4)) == (46.1, 0.0601)
    for share, grows in ((1 - 1e-3, False), (1 + 1e-3, True)):
        w, b = descend(x, y, share * line.limit, 8000)
        assert (abs(w - 2) + abs(b) > 1) == grows
    # At the best lr the error along the slow direction is what remains, with the factor that was said.
    before, after = (descend(x, y, line.best_lr, steps)[0] - 2 for steps in (200, 202))
    assert after / before == pytest.approx(line.best_factor**2, rel=1e-6)
    assert line.slow[0] > 0 > line.slow[1]
    assert f"({line.slow[0]:.3f}, {line.slow[1]:.3f})" in line.verdict


def test_the_slow_and_the_fast_direction(noisy_data: tuple[Tensor, Tensor]) -> None:
    x, _ = noisy_data
    for loss, scale in (("mean", 2 / 7), ("sum", 2.0), ("half", 1 / 7)):
        line = line_stability(x, loss)
        for vector, value in zip((line.slow, line.fast), line.eigenvalues, strict=True):
            w, b = vector
            image = (scale * (x * (w * x + b)).sum().item(), scale * (w * x + b).sum().item())
            assert image == pytest.approx((value * w, value * b), abs=1e-12)
            assert math.hypot(w, b) == pytest.approx(1.0, rel=1e-12)
        assert line.limit == 2 / line.eigenvalues[1]


def test_one_x_does_not_tell_w_from_b() -> None:
    line = line_stability(torch.tensor([2.0, 2.0, 2.0]))
    assert line.condition == math.inf
    assert line.eigenvalues == pytest.approx((0.0, 10.0), abs=1e-12)
    assert "the samples do not tell w from b" in line.verdict


def network(seed: int, activation: type[nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    layers = (nn.Linear(3, 8), activation(), nn.Linear(8, 4), activation(), nn.Linear(4, 2))
    return nn.Sequential(*layers).double(), torch.randn(30, 3).double(), 3 * torch.randn(30, 2).double()


def dense(model: nn.Module, x: Tensor, y: Tensor, loss_fn: Loss) -> Tensor:
    """All eigenvalues of the Hessian, formed row by row."""
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]

    def loss(flat: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        return loss_fn(functional_call(model, dict(zip(names, parts, strict=True)), (x,)), y)

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    values: Tensor = torch.linalg.eigvalsh(hessian(loss, flat))
    return values


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("loss_fn", [F.mse_loss, F.smooth_l1_loss])
def test_the_dense_hessian_agrees(activation: type[nn.Module], loss_fn: Loss) -> None:
    for seed in range(5):
        model, x, y = network(seed, activation)
        exact = dense(model, x, y, loss_fn)[-1].item()
        found = local_limit(model, x, y, loss_fn)
        assert found.eigenvalue == pytest.approx(exact, rel=1e-3)
        assert found.limit == 2 / found.highest
        assert exact <= found.highest * (1 + 1e-12)
        assert found.converged


def test_a_large_negative_eigenvalue_is_not_the_largest() -> None:
    """A saddle with the eigenvalues −5 and 1, and y = w₁w₂x near its saddle, with ±2 mean xy but for 1e-6."""
    model = nn.Linear(2, 1, bias=False).double()
    signs = torch.tensor([-2.5, 0.5]).double()
    saddle = local_limit(
        model, torch.eye(2).double(), signs, lambda prediction, weigh: (weigh @ prediction**2).sum()
    )
    assert saddle.eigenvalue == pytest.approx(1.0, rel=1e-3)

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1e-3, -1e-3], dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.w[0] * self.w[1] * x

    x = torch.tensor([1.0, 2.0, 3.0]).double()
    values = dense(Product(), x, 2 * x, F.mse_loss)
    assert values.tolist() == pytest.approx([-2 * 28 / 3, 2 * 28 / 3], rel=1e-5)
    assert local_limit(Product(), x, 2 * x).eigenvalue == pytest.approx(values[1].item(), rel=1e-3)


def test_one_weight_has_the_limit_of_the_certificate(noisy_data: tuple[Tensor, Tensor]) -> None:
    x, y = noisy_data
    found = local_limit(LinearModel(0.3, dtype=torch.float64), x, y)
    assert found.limit == pytest.approx(stability(x, y).limit, rel=1e-12)
    assert "Here, and only here" in found.message


def test_nothing_in_the_model_is_changed() -> None:
    model, x, y = network(0, nn.Tanh)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    local_limit(model, x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@torch.no_grad()
def test_nor_its_running_means_nor_the_random_numbers() -> None:
    net = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1)).double()
    before, x = copy.deepcopy(net.state_dict()), torch.arange(8.0).double().unsqueeze(1)
    dice = torch.get_rng_state()
    assert local_limit(net, x, 2 * x).limit > 0
    assert torch.equal(torch.get_rng_state(), dice)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_frozen_parameters_do_not_count() -> None:
    model, x, y = network(0, nn.Tanh)
    whole = local_limit(model, x, y).eigenvalue
    next(model.parameters()).requires_grad_(False)
    assert local_limit(model, x, y).eigenvalue < whole


def test_a_loss_without_curvature_has_no_limit() -> None:
    model, x = nn.Linear(2, 1), torch.ones(3, 2)
    found = local_limit(model, x, torch.zeros(3, 1), lambda prediction, target: prediction.sum())
    assert (found.eigenvalue, found.limit, found.converged) == (0.0, math.inf, True)


def test_too_few_iterations_are_said() -> None:
    model, x, y = network(1, nn.Tanh)
    found = local_limit(model, x, y, max_iterations=32)
    assert (found.converged, found.iterations) == (False, 32)
    exact = dense(model, x, y, F.mse_loss)[-1].item()
    assert found.eigenvalue <= exact * (1 + 1e-12) <= found.highest
    assert f"from {found.eigenvalue:.6g} to {found.highest:.6g}, with a certainty of 99.9%" in found.message


class Bowl(nn.Module):
    """A loss whose Hessian is diagonal."""

    def __init__(self, curvatures: Tensor) -> None:
        super().__init__()
        self.curvatures, self.p = curvatures, nn.Parameter(torch.ones_like(curvatures))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (self.curvatures * self.p * self.p).sum() + 0 * x.sum()


@pytest.mark.parametrize("size", [2, 5, 60, 400])
@pytest.mark.parametrize("negative", [0.0, -1.0, -1e3, -1e6])
def test_the_limit_is_on_the_safe_side_however_large_a_negative_curvature(size: int, negative: float) -> None:
    generator = torch.Generator().manual_seed(size)
    curvatures = torch.rand(size, generator=generator, dtype=torch.float64)
    curvatures[0] = negative or 0.5
    found = local_limit(Bowl(curvatures), X, X, lambda loss, _: loss, max_iterations=40)
    largest = curvatures.max().item()
    assert found.eigenvalue <= largest + 1e-12 * abs(negative)
    assert found.limit <= 2 / largest * (1 + 1e-12)
    if size <= 40:
        assert found.eigenvalue == pytest.approx(largest, rel=1e-9, abs=1e-13 * abs(negative))
    assert found.converged or "is known to lie" in found.message


def test_a_loss_that_curves_upwards_nowhere_has_no_limit() -> None:
    assert (
        local_limit(Bowl(torch.tensor([-1.0, -2.0]).double()), X, X, lambda loss, _: loss).limit == math.inf
    )


def test_errors() -> None:
    model = nn.Linear(1, 1)
    x = torch.ones(2, 1)
    with pytest.raises(InputError, match="the loss is nan at these parameters; start where it is finite"):
        local_limit(model, x, x * math.nan)
    with pytest.raises(InputError, match="no parameter of the model requires a gradient"):
        local_limit(model.requires_grad_(False), x, x)
    with pytest.raises(InputError, match="loss is 'l1'; give one of mean, sum, half"):
        line_stability(x[:, 0], "l1")
    with pytest.raises(InputError, match=r"x\[1\]: inf is not finite"):
        line_stability(torch.tensor([1.0, math.inf]))
