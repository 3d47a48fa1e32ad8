"""compare_optimizers: the first difference of two optimizers in lock-step, and what is no input for it."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from rules import rule
from torch import Tensor, nn
from torch.optim import SGD, Adam

from torchgd import (
    GradientDescent,
    InputError,
    LinearModel,
    MiniBatchGradientDescent,
    StochasticGradientDescent,
    compare_optimizers,
)
from torchgd.compare.comparison import Verdict

Data = tuple[Tensor, Tensor]
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_ours_is_torchs_sgd_bit_for_bit(
    network: nn.Module, points: Data, dtype: torch.dtype, foreach: bool
) -> None:
    x, y = (value.to(dtype) for value in points)
    ours, torchs = partial(GradientDescent, lr=0.1, foreach=foreach), partial(SGD, lr=0.1, foreach=foreach)
    found = compare_optimizers(ours, torchs, network.to(dtype), x, y, steps=200)
    assert (found.verdict, found.steps, found.first) == (Verdict.equal, 200, None)
    assert found.ulps.tolist() == [0.0] * 200
    assert str(found) == "equal bit for bit over 200 steps"


@pytest.mark.parametrize("order", ["sequential", "shuffled", "replacement"])
def test_batches_are_the_same_for_both(noisy_data: Data, order: str) -> None:
    x, y = noisy_data
    sampler = StochasticGradientDescent([nn.Parameter(torch.zeros(()))], order=order).batches(len(x))
    for batches in (sampler, MiniBatchGradientDescent([nn.Parameter(x)], batch_size=3).batches(len(x))):
        ours, torchs = partial(GradientDescent, lr=0.02), partial(SGD, lr=0.02)
        found = compare_optimizers(ours, torchs, LinearModel(0.0), x, y, steps=100, batches=batches)
        assert str(found) == "equal bit for bit over 100 steps"


def test_batches_are_used(course_data: Data) -> None:
    """One sample a step, not the mean over all."""
    x, y = course_data
    a, b = partial(SGD, lr=0.01), partial(SGD, lr=0.02)
    found = compare_optimizers(a, b, LinearModel(1.0, dtype=x.dtype), x, y, batches=[[0], [1], [2]], steps=5)
    assert found.first is not None
    # The first sample's gradient is 2·1·(1 − 2) = −2, facts of lecture 3.
    assert (found.first.a, found.first.b) == (1 + 0.01 * 2, 1 + 0.02 * 2)


def test_dropout_is_the_same_for_both(points: Data) -> None:
    x, y = points
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(5, 1)).double()
    found = compare_optimizers(
        partial(Adam, foreach=False), partial(Adam, foreach=True), model, x, y, steps=50
    )
    assert found.verdict is Verdict.equal


def test_lbfgs_gets_its_closure(network: nn.Module, points: Data) -> None:
    a = partial(torch.optim.LBFGS, lr=0.5, max_iter=4)
    assert compare_optimizers(a, a, network, *points, steps=20).verdict is Verdict.equal
    other = partial(torch.optim.LBFGS, lr=0.5, max_iter=5)
    assert compare_optimizers(a, other, network, *points, steps=20).verdict is Verdict.different


def test_the_model_and_the_dice_are_left_alone(network: nn.Module, points: Data) -> None:
    before, dice = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    compare_optimizers(partial(SGD, lr=0.1), partial(SGD, lr=0.2), network, *points, steps=5)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), dice)


def test_momentum_one_is_a_forgotten_zero_grad(course_data: Data) -> None:
    def accumulate(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        state["sum"] = state["sum"] + g if "sum" in state else g.clone()
        p.add_(state["sum"], alpha=-0.01)

    momentum = partial(SGD, lr=0.01, momentum=1.0)
    found = compare_optimizers(momentum, rule(accumulate), LinearModel(dtype=torch.float64), *course_data)
    assert str(found) == "equal bit for bit over 1000 steps"


def test_the_first_difference_names_step_parameter_element_and_values(points: Data) -> None:
    def late(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        state["step"] = state.get("step", 0) + 1
        p.add_(g, alpha=-0.1)
        if state["step"] == 4 and p.shape == (2, 3):
            p[1, 2] = torch.nextafter(p[1, 2], torch.tensor(math.inf).double())

    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double()
    found = compare_optimizers(partial(SGD, lr=0.1), rule(late), model, *points, steps=10)
    assert found.first is not None
    assert (found.first.step, found.first.parameter, found.first.index) == (4, "0.weight", (1, 2))
    assert found.first.ulps == 1
    a, b = found.first.a, found.first.b
    assert isinstance(a, float)
    assert b == math.nextafter(a, math.inf)
    assert str(found.first) == f"step 4, 0.weight[1, 2]: {a!r} against {b!r}, 1 ulps apart"
    assert found.ulps[:4].tolist() == [0, 0, 0, 1]
    assert str(found).startswith("rounding: from the same parameters, in float64, no step differs by over ")
    assert str(found).endswith(f"ulps apart over 10 steps; first at {found.first}")


def test_a_scalar_parameter_has_no_index(course_data: Data) -> None:
    found = compare_optimizers(
        partial(SGD, lr=0.01), partial(SGD, lr=0.02), LinearModel(dtype=torch.float64), *course_data, steps=3
    )
    # Full batch: the gradient at w = 1 is −28/3.
    assert found.first is not None
    assert str(found.first).startswith("step 1, weight: 1.0933333333333333 against 1.1866666666666665, ")


def test_complex_parameters(points: Data) -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j, 0.5j], dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.w).abs().sum(1, keepdim=True)

    def shift(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        p.sub_(0.1 * g)
        p[1] = torch.complex(p[1].real, torch.nextafter(p[1].imag, torch.tensor(9.0)))

    x, y = (value.float() for value in points)
    assert compare_optimizers(partial(SGD, lr=0.1), partial(SGD, lr=0.1), Complex(), x, y).first is None
    found = compare_optimizers(rule(lambda p, g, s: p.sub_(0.1 * g)), rule(shift), Complex(), x, y, steps=1)
    assert found.first is not None
    assert (found.first.parameter, found.first.index, found.first.ulps) == ("w", (1,), 1)
    assert isinstance(found.first.a, complex)


def test_opposite_zeros_are_other_bits_of_the_same_number(course_data: Data) -> None:
    minus = rule(lambda p, g, state: p.copy_(torch.tensor(-0.0)))
    plus = rule(lambda p, g, state: p.copy_(torch.tensor(0.0)))
    found = compare_optimizers(plus, minus, LinearModel(dtype=torch.float64), *course_data, steps=3)
    assert found.first is not None
    assert (found.verdict, found.first.step, found.first.ulps) == (Verdict.rounding, 1, 0)


@pytest.mark.bench
@pytest.mark.parametrize("lr", [0.01, 0.05])
def test_scikit_learns_sgd_regressor(course_data: Data, noisy_data: Data, lr: float) -> None:
    """scikit-learn descends ½ (w x − y)², so that its rate is twice ours for the same steps."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    for x, y in (course_data, noisy_data):
        for epochs in (1, 10):
            peer = linear_model.SGDRegressor(
                penalty=None, learning_rate="constant", eta0=2 * lr, shuffle=False, fit_intercept=False,
                max_iter=epochs, tol=None,
            )  # fmt: skip
            peer.fit(x.numpy()[:, None], y.numpy(), coef_init=[1.0])
            model = LinearModel(1.0, dtype=x.dtype)
            optimizer = StochasticGradientDescent(model.parameters(), lr=lr)
            for _ in range(epochs):
                for batch in optimizer.batches(len(x)):
                    optimizer.zero_grad()
                    nn.functional.mse_loss(model(x[batch]), y[batch]).backward()
                    optimizer.step()
            # Some roundings a step, of numbers of order 1; every step of a stable run damps the earlier ones.
            assert model.weight.item() == pytest.approx(peer.coef_[0], rel=1e-12)


def test_a_model_that_has_no_float64_is_told(points: Data) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.float())  # type: ignore[no-any-return]

    x, y = (value.float() for value in points)
    with pytest.raises(
        InputError, match=r"^the bits differ at step 1, linear\.weight\[0, 0\]: .* in float64"
    ):
        compare_optimizers(partial(SGD, lr=0.1), partial(SGD, lr=0.2), Fixed(), x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_too_small_to_move_a_bit_say_so(course_data: Data, dtype: torch.dtype) -> None:
    """At lr 1e-9 the full batch moves w = 1 by 9.3e-9: half an ulp of float32 is 6e-8."""
    x, y = (value.to(dtype) for value in course_data)
    a, b = partial(SGD, lr=1e-9), partial(SGD, lr=2e-9)
    found = compare_optimizers(a, b, LinearModel(1.0, dtype=dtype), x, y, steps=5)
    assert found.ok == bool(found) == (dtype is torch.float32)
    if found:
        told = "no step moved a bit: each is below the resolution of float32, or 0"
        assert str(found) == f"equal bit for bit over 5 steps, because {told}"
    assert repr(found) == f"Comparison({found.verdict.value} over 5 steps)"


NO_BATCH = "batches: an epoch has no batch; give a list or a sampler, not an iterator"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0; give 1 or more"),
        ({"model": nn.Tanh()}, "the model Tanh has no parameter to train; give one that has"),
        (
            {"model": LinearModel().requires_grad_(False)},
            "the model LinearModel has no parameter to train; give one that has",
        ),
        ({"b": lambda params: nn.Tanh()}, "a factory made a Tanh; it must make an Optimizer"),
        ({"y": torch.ones(2)}, "x has 3 samples and y has 2; give one y for each x, at least one"),
        (
            {"y": torch.ones(3, 1)},
            "the prediction has shape (3,) and y has (3, 1); reshape y, since the squared error would "
            "broadcast them",
        ),
        ({"batches": [[0], [3]]}, "batches: [3] is not a batch of the samples 0 to 2"),
        ({"batches": [[-1]]}, "batches: [-1] is not a batch of the samples 0 to 2"),
        ({"batches": [[]]}, "batches: [] is not a batch of the samples 0 to 2"),
        ({"batches": []}, NO_BATCH),
        ({"batches": iter([[0], [1]])}, NO_BATCH),
    ],
)
def test_errors(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "a": partial(SGD, lr=0.1),
        "b": partial(SGD, lr=0.1),
        "model": LinearModel(),
        "x": torch.ones(3),
        "y": torch.ones(3),
    }
    with pytest.raises(InputError) as error:
        compare_optimizers(**{**arguments, **change})
    assert str(error.value) == message
