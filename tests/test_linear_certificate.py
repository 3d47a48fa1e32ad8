"""The certificate of several features, against plain loops and against that of one weight."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torchgd import InputError, course, hubble, stability
from torchgd.convergence.linear_certificate import LinearCertificate, linear_stability
from torchgd.features import standardization


def features(seed: int, condition: float = 1e3) -> tuple[Tensor, Tensor]:
    """Raw columns whose sizes spread over √condition."""
    generator = torch.Generator().manual_seed(seed)
    d, n = 2 + seed % 4, 7 + 5 * seed
    sizes = torch.logspace(0, math.log10(condition) / 2, d, dtype=torch.float64)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * sizes
    return x, torch.randn(n, generator=generator, dtype=torch.float64) + x[:, 0]


def epoch_matrix(x: Tensor, lr: float, size: int) -> Tensor:
    """The plain loop: what an epoch does to each error."""
    matrix = torch.eye(x.shape[1], dtype=torch.float64)
    for batch in x.split(size):
        matrix = matrix - lr * 2 / len(batch) * batch.T @ (batch @ matrix)
    return matrix


METHODS = [{"method": "gd"}, {"method": "sgd"}, {"method": "minibatch", "batch_size": 4}]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("bias", [True, False])
def test_limits_and_factors_are_those_of_the_plain_loop(seed: int, bias: bool) -> None:
    x, y = features(seed)
    asked = METHODS[seed % 3]
    limit = linear_stability(x, y, bias=bias, **asked).limit  # type: ignore[arg-type]
    data = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1) if bias else x
    for share in (0.5, 1 - 1e-6, 1 + 1e-6):
        certificate = linear_stability(x, y, share * limit, bias=bias, **asked)  # type: ignore[arg-type]
        size = certificate.plan.batch_size_of(len(x))
        plain = torch.linalg.eigvals(epoch_matrix(data, share * limit, size)).abs().max().item()
        assert certificate.factor == pytest.approx(plain, abs=1e-9)
        assert certificate.converges == (plain < 1) == (share < 1)


@pytest.mark.parametrize("asked", METHODS, ids=lambda asked: asked["method"])
def test_predicted_weights_are_the_trained_ones(asked: dict[str, object]) -> None:
    x, y = features(4)
    certificate = linear_stability(x, y, bias=False, epochs=30, **asked)  # type: ignore[arg-type]
    w, size = torch.zeros(x.shape[1], dtype=torch.float64), certificate.plan.batch_size_of(len(x))
    for _ in range(30):
        for xs, ys in zip(x.split(size), y.split(size), strict=True):
            w = w - certificate.plan.rate * 2 / len(xs) * xs.T @ (xs @ w - ys)
    torch.testing.assert_close(certificate.weights_after(30, [0.0] * len(w)), w, rtol=1e-9, atol=0)
    assert certificate.fixed_point is not None
    far = certificate.weights_after(10**7, [0.0] * len(w))
    torch.testing.assert_close(
        far, torch.tensor(certificate.fixed_point, dtype=torch.float64), rtol=1e-8, atol=0
    )


@pytest.mark.parametrize("order", ["sequential", "replacement"])
@pytest.mark.parametrize("asked", METHODS, ids=lambda asked: asked["method"])
def test_one_feature_without_a_bias_is_the_one_weight(asked: dict[str, object], order: str) -> None:
    for x, y in (course(), hubble()):
        if asked.get("batch_size") == 4 and len(x) < 4:
            continue
        one = stability(x, y, order=order, **asked)  # type: ignore[call-overload]
        lr = 0.7 * one.limit
        one = stability(x, y, lr, order=order, **asked)  # type: ignore[call-overload]
        many = linear_stability(x, y, lr, bias=False, order=order, **asked)  # type: ignore[arg-type]
        assert many.limit == pytest.approx(one.limit, rel=1e-9)
        assert many.factor == pytest.approx(abs(one.factor), rel=1e-9)
        assert many.converges is one.converges is True
        assert many.epochs == one.epochs


def test_the_mean_square_limit_of_the_course() -> None:
    """E (1 − 2 lr x²)² = 1 at lr = mean x² / mean x⁴ = 1/7."""
    certificate = linear_stability(*course(), bias=False, method="sgd", order="replacement")
    assert certificate.limit == pytest.approx(1 / 7, rel=1e-12)


def test_a_bound_for_every_order_is_safe_and_claims_no_more() -> None:
    x, y = features(3)
    bound = linear_stability(x, y, method="sgd", order="shuffled")
    assert (bound.converges, bound.limit_proved) == (True, False)
    above = linear_stability(x, y, 1.5 * bound.limit, method="sgd", order="shuffled")
    assert above.converges is None
    assert "It is not known" in str(above)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        data = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
        matrix = epoch_matrix(data[torch.randperm(len(x), generator=generator)], 0.999 * bound.limit, 1)
        assert torch.linalg.matrix_norm(matrix, 2) < 1


def test_stability_hands_features_and_a_bias_on() -> None:
    x, y = features(2)
    assert repr(stability(x, y, 0.01)) == repr(linear_stability(x, y, 0.01, bias=False))
    assert stability(*course(), bias=True) == linear_stability(*course())
    rows = x.tolist()
    assert repr(stability(rows, y.tolist(), 0.01)) == repr(linear_stability(x, y, 0.01, bias=False))


def test_lecture_5() -> None:
    """Hessian eigenvalues 0.7212 and 33.279, condition 46.1, limit 0.0601."""
    certificate = linear_stability(*course(), loss="sum", names=["x"])
    assert [round(value, 4) for value in certificate.eigenvalues] == [0.7212, 33.2788]
    assert (round(certificate.condition, 3), round(certificate.limit, 4)) == (46.145, 0.0601)


def test_the_advice_is_kept_by_a_run() -> None:
    """The large column is named, and standardised data need just the epochs that it promises."""
    x, y = features(6)
    x = x * torch.tensor([1.0, 1.0, 1.0, 1000.0], dtype=torch.float64)
    certificate = linear_stability(x, y, names=["rooms", "age", "width", "area"])
    assert "Column area is" in str(certificate)
    assert "area sets the limit" in str(certificate)
    other = certificate.standardized
    assert other is not None
    assert f"{other.best_epochs} epoch" in str(certificate)
    shift, scale = standardization(x, bias=True)
    z = torch.cat([(x - shift) / scale, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(z, y[:, None]).solution[:, 0]
    w, start = torch.zeros_like(best), best.norm()
    epoch = 0
    while (w - best).norm() > 1e-6 * start and epoch < 10_000:
        w = w - other.best_lr * 2 / len(z) * z.T @ (z @ w - y)
        epoch += 1
    assert other.best_epochs is not None
    assert 0.9 * other.best_epochs <= epoch <= other.best_epochs


def test_collinear_and_constant_columns_are_named() -> None:
    x, y = features(5)
    doubled = torch.cat([x, 2 * x[:, :1] - x[:, 1:2], torch.full((len(x), 1), 3.0, dtype=torch.float64)], 1)
    certificate = linear_stability(doubled, y)
    count = x.shape[1]
    assert certificate.collinear == (f"x{count}", f"x{count + 1}")
    assert len(certificate.eigenvalues) == count + 1
    assert "nearest to its start" in str(certificate)
    few = linear_stability(x[:2], y[:2])
    assert "do not determine" in str(few)
    w = few.weights_after(10**6, [0.0] * (count + 1))
    data = torch.cat([x[:2], torch.ones(2, 1, dtype=torch.float64)], 1)
    torch.testing.assert_close(w, torch.linalg.pinv(data) @ y[:2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        ([[1.0, 2.0]], [1.0, 2.0], {}, "one y for each row"),
        ([[1.0, math.nan]], [1.0], {}, r"x\[0, 1\]: nan is not finite"),
        ([[0.0, 0.0]], [1.0], {}, "x is 0 in every sample"),
        ([[1.0, 2.0]], [1.0], {"names": ["a"]}, "names has 1 names, but x has 2 columns"),
        ([[1.0, 2.0]], [1.0], {"tolerance": 2.0}, "tolerance is 2.0"),
        ([[1.0, 2.0]], [1.0], {"lr": -1.0}, "lr is -1.0"),
    ],
)
def test_errors(x: object, y: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        linear_stability(x, y, **options)  # type: ignore[arg-type]


def test_it_says_itself_in_a_line() -> None:
    certificate = linear_stability(*features(2))
    assert isinstance(certificate, LinearCertificate)
    assert repr(certificate) == f"<LinearCertificate: {certificate}>"
    assert "\n" not in repr(certificate)
