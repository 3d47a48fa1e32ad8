"""The hand-written loss and gradient against autograd, central differences and plain Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchgd import MiniBatchGradientDescent, train
from torchgd.errors import InputError
from torchgd.gradient import cost, gradient, gradients, linear_gradient, losses

EPS = 2.0**-52

# n = 1, x = 0, the solution itself, large and small numbers, and seeded noise of several sizes
SCALES = [1.0, 1e-8, 1e8]


def grid() -> list[tuple[str, float, Tensor, Tensor]]:
    cases = [
        ("one sample", 1.5, torch.tensor([3.0]), torch.tensor([-2.0])),
        ("x is 0", 1.5, torch.zeros(4), torch.tensor([1.0, -1.0, 2.0, 0.0])),
        ("the solution", 2.0, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])),
        ("w is 0", 0.0, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])),
    ]
    for n in (1, 2, 7, 100):
        generator = torch.Generator().manual_seed(n)
        for scale in SCALES:
            x = torch.randn(n, generator=generator, dtype=torch.float64)
            y = torch.randn(n, generator=generator, dtype=torch.float64)
            cases.append((f"n = {n}, x near {scale:g}", -0.75, scale * x, y))
            cases.append((f"n = {n}, y near {scale:g}", scale * 0.5, x, scale * y))
    return [(name, w, x.double(), y.double()) for name, w, x, y in cases]


@pytest.mark.parametrize(("name", "w", "x", "y"), grid(), ids=lambda value: str(value)[:20])
def test_three_ways_to_the_gradient(name: str, w: float, x: Tensor, y: Tensor) -> None:
    by_hand = gradient(w, x, y).item()
    leaf = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.mse_loss(leaf * x, y).backward()
    assert leaf.grad is not None
    # both sum n terms, each rounded a few times: n eps of the sum of the terms' sizes bounds the difference
    size = (2 * x * (w * x)).abs().mean().item() + (2 * x * y).abs().mean().item()
    assert abs(by_hand - leaf.grad.item()) <= (len(x) + 4) * EPS * size

    # the cost is quadratic in w: a central difference has no truncation error, whatever its step h;
    # only rounding is left, n eps of the cost, divided by 2h
    h = max(abs(w), 1.0)
    central = (cost(w + h, x, y) - cost(w - h, x, y)).item() / (2 * h)
    largest = max(cost(w + h, x, y).item(), cost(w - h, x, y).item())
    assert abs(by_hand - central) <= (len(x) + 8) * EPS * (largest / h + size)


def test_each_sample_against_plain_python() -> None:
    xs, ys, w = [1.0, -2.0, 0.0, 3.5], [2.0, 4.5, 6.0, -1.0], 1.25
    x, y = torch.tensor(xs).double(), torch.tensor(ys).double()
    pairs = list(zip(xs, ys, strict=True))
    assert losses(w, x, y).tolist() == [(w * a - b) ** 2 for a, b in pairs]
    assert gradients(w, x, y).tolist() == [2 * a * (w * a - b) for a, b in pairs]
    assert cost(w, x, y).item() == pytest.approx(sum((w * a - b) ** 2 for a, b in pairs) / 4, rel=4 * EPS)
    assert gradient(w, x, y).item() == pytest.approx(
        sum(2 * a * (w * a - b) for a, b in pairs) / 4, rel=4 * EPS
    )


def test_the_parabola_of_lecture_2(course_data: tuple[Tensor, Tensor]) -> None:
    printed = [f"{cost(float(w), *course_data).item():.2f}" for w in range(5)]
    assert printed == ["18.67", "4.67", "0.00", "4.67", "18.67"]


def test_there_is_no_half_in_the_loss(course_data: tuple[Tensor, Tensor]) -> None:
    x, y = course_data
    assert cost(1.0, x, y).item() == torch.nn.functional.mse_loss(1.0 * x, y).item()


@given(
    w=st.floats(-1e3, 1e3),
    samples=st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=20),
)
def test_the_gradient_is_the_mean_of_the_samples_gradients(
    w: float, samples: list[tuple[float, float]]
) -> None:
    x, y = torch.tensor(samples, dtype=torch.float64).unbind(1)
    exact = math.fsum(2 * a * (w * a - b) for a, b in samples) / len(samples)
    size = math.fsum(abs(2 * a * w * a) + abs(2 * a * b) for a, b in samples) / len(samples)
    assert abs(gradient(w, x, y).item() - exact) <= (len(samples) + 4) * EPS * size + 5e-324
    assert gradients(w, x, y).mean().item() == gradient(w, x, y).item()


@given(shift=st.floats(-10, 10), w=st.floats(-10, 10))
def test_moving_the_weight_and_the_targets_together_changes_nothing(shift: float, w: float) -> None:
    x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    y = torch.tensor([2.0, 4.0, 6.0], dtype=torch.float64)
    moved = gradient(w + shift, x, y + shift * x).item()
    assert moved == pytest.approx(gradient(w, x, y).item(), rel=1e-12, abs=1e-12)  # numbers to 100: 50 eps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_dtype_and_device_are_kept(dtype: torch.dtype, device: str) -> None:
    x = torch.ones(3, dtype=dtype, device=device)
    for w in (0.5, torch.tensor(0.5, dtype=dtype, device=device)):
        for function, shape in ((losses, (3,)), (cost, ()), (gradients, (3,)), (gradient, ())):
            result = function(w, x, x)
            assert (result.dtype, result.device.type, result.shape) == (dtype, device, shape)


def test_autograd_differentiates_the_cost_twice(course_data: tuple[Tensor, Tensor]) -> None:
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(cost(w, *course_data), w, create_graph=True)[0]
    second = torch.autograd.grad(first, w)[0]
    assert second.item() == pytest.approx(28 / 3, rel=4 * EPS)  # 2 mean x²
    assert torch.autograd.gradcheck(lambda w: gradient(w, *course_data), w)


VECTOR, COLUMN = torch.zeros(4), torch.zeros(4, 1)
ERRORS = [
    (
        1.0,
        COLUMN,
        VECTOR,
        "x has shape (4, 1) and y has shape (4,); flatten both to (n,), e.g. y.reshape(-1)",
    ),
    (
        1.0,
        VECTOR,
        COLUMN,
        "x has shape (4,) and y has shape (4, 1); flatten both to (n,), e.g. y.reshape(-1)",
    ),
    (
        1.0,
        COLUMN,
        COLUMN,
        "x has shape (4, 1) and y has shape (4, 1); flatten both to (n,), e.g. y.reshape(-1)",
    ),
    (
        1.0,
        torch.zeros(300),
        torch.zeros(300, 1),
        "x has shape (300,) and y has shape (300, 1); flatten both to (n,), e.g. y.reshape(-1)",
    ),
    (1.0, VECTOR, torch.zeros(3), "x has shape (4,) and y has shape (3,); give one y for each x"),
    (1.0, VECTOR, torch.zeros(1), "x has shape (4,) and y has shape (1,); give one y for each x"),
    (1.0, torch.zeros(3), VECTOR, "x has shape (3,) and y has shape (4,); give one y for each x"),
    (1.0, torch.zeros(0), torch.zeros(0), "x has shape (0,) and y has shape (0,); give one y for each x"),
    (
        1.0,
        torch.zeros(()),
        torch.zeros(()),
        "x has shape () and y has shape (); flatten both to (n,), e.g. y.reshape(-1)",
    ),
    (1.0, [1.0, 2.0], VECTOR, "x is a list; give a tensor, e.g. torch.tensor(x)"),
    (torch.zeros(1), VECTOR, VECTOR, "w has shape (1,), not (); give one weight, e.g. w.reshape(())"),
    (torch.zeros(4), VECTOR, VECTOR, "w has shape (4,), not (); give one weight, e.g. w.reshape(())"),
]


@pytest.mark.parametrize("function", [losses, cost, gradients, gradient])
@pytest.mark.parametrize(("w", "x", "y", "message"), ERRORS)
def test_shapes_that_would_broadcast_are_refused(function, w, x, y, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as error:
        function(w, x, y)
    assert str(error.value) == message


# Several features


@pytest.mark.parametrize("seed", range(6))
def test_several_features_against_autograd(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, d = 1 + 3 * seed, 1 + seed % 4
    x, y = torch.randn(n, d, generator=generator).double(), torch.randn(n, generator=generator).double()
    w = torch.randn(d, generator=generator).double().requires_grad_()
    b = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    right = torch.autograd.grad(torch.nn.functional.mse_loss(x @ w + b, y), (w, b))
    # sums of n terms, each of the size of |x| (|x w| + |b| + |y|)
    torch.testing.assert_close(linear_gradient(w.detach(), b.detach(), x, y), right, rtol=1e-12, atol=1e-13)


def test_one_feature_without_a_bias_is_the_one_weight() -> None:
    x, y = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 4.0, 6.5]).double()
    dw, _ = linear_gradient(torch.tensor([1.5]).double(), 0.0, x[:, None], y)
    assert dw.item() == pytest.approx(gradient(1.5, x, y).item(), rel=1e-15)


@pytest.mark.parametrize(
    ("w", "x", "y"), [((2,), (3, 1), (3,)), ((1,), (3, 1), (3, 1)), ((1,), (3,), (3,)), ((1,), (0, 1), (0,))]
)
def test_shapes_of_several_features(w: tuple[int], x: tuple[int], y: tuple[int]) -> None:
    with pytest.raises(InputError, match=r"give \(d,\), \(n, d\) and \(n,\)"):
        linear_gradient(torch.ones(w), 0.0, torch.ones(x), torch.ones(y))


@pytest.mark.parametrize("bias", [True, False])
def test_training_by_hand_is_training_by_autograd_at_every_step(bias: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(7, 3, generator=generator).double(), torch.randn(7, 1, generator=generator).double()
    histories = []
    for way in ("hand", "autograd"):
        torch.manual_seed(2)
        model = torch.nn.Linear(3, 1, bias=bias, dtype=torch.float64)
        optimizer = MiniBatchGradientDescent(model.parameters(), lr=0.05, batch_size=2)
        histories.append(train(model, x, y, optimizer, 10, gradient=way))
    by_hand, by_autograd = histories
    assert len(by_hand.update) == 40
    for name in ("update_weight", "gradient", "loss_before", "weight", "cost"):
        torch.testing.assert_close(getattr(by_hand, name), getattr(by_autograd, name), rtol=1e-12, atol=1e-13)
