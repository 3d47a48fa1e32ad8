"""Another rounding or another rule: the verdict on pairs of which we know it, and the distance in ulps."""

from __future__ import annotations

import math
import struct
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rules import OTHER_RULE, SAME_RULE, rule
from torch import Tensor, nn
from torch.optim import SGD

from torchgd import GradientDescent, LinearModel, compare_optimizers
from torchgd.compare.comparison import Verdict
from torchgd.compare.rounding import ulps_apart

Data = tuple[Tensor, Tensor]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SAME_RULE)
def test_another_rounding_is_no_other_rule(
    network: nn.Module, points: Data, name: str, dtype: torch.dtype
) -> None:
    x, y = (value.to(dtype) for value in points)
    found = compare_optimizers(
        *SAME_RULE[name], network.to(dtype), x, y, steps=150 if dtype is torch.float64 else 40
    )
    assert found.verdict is not Verdict.different, str(found)


@pytest.mark.parametrize("name", sorted(set(SAME_RULE) - {"fused Adam", "fused SGD"}))
def test_the_reordered_rules_do_round_differently(network: nn.Module, points: Data, name: str) -> None:
    found = compare_optimizers(*SAME_RULE[name], network, *points, steps=40)
    assert found.first is not None
    assert float(found.ulps.max()) >= 1


@pytest.mark.parametrize("name", OTHER_RULE)
def test_another_rule_is_no_rounding(network: nn.Module, points: Data, name: str) -> None:
    found = compare_optimizers(*OTHER_RULE[name], network, *points, steps=40)
    assert found.verdict is Verdict.different, str(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["lr 1e-7 off", "nesterov", "AdamW", "eps under the root", "Adam's eps"])
def test_low_precision_does_not_hide_another_rule(
    network: nn.Module, points: Data, name: str, dtype: torch.dtype
) -> None:
    """In few digits the two may have the same bits; where they have not, the verdict is the true one."""
    x, y = (value.to(dtype) for value in points)
    found = compare_optimizers(*OTHER_RULE[name], network.to(dtype), x, y, steps=40)
    assert found.verdict is (Verdict.equal if found.first is None else Verdict.different)


@given(
    lr=st.floats(1e-3, 0.2),
    off=st.floats(1e-10, 1e-2),
    weight=st.floats(-10, 0),
    scale=st.floats(0.5, 1),
)
def test_a_rate_that_is_off_is_another_rule(lr: float, off: float, weight: float, scale: float) -> None:
    """The gradient is at least 2·5·mean(x²) > 11, and the first gap, off·lr·11, is above 10⁻¹²."""
    x = scale * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    model = LinearModel(weight, dtype=x.dtype)
    found = compare_optimizers(partial(SGD, lr=lr), partial(SGD, lr=lr * (1 + off)), model, x, 5 * x, steps=3)
    assert found.verdict is Verdict.different


@given(lr=st.floats(1e-4, 0.2), weight=st.floats(-100, 100), pieces=st.integers(2, 9))
def test_an_update_in_pieces_is_the_same_rule(lr: float, weight: float, pieces: int) -> None:
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def in_pieces(p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        for _ in range(pieces):
            p.sub_(g / pieces * lr)

    model = LinearModel(weight, dtype=x.dtype)
    found = compare_optimizers(partial(SGD, lr=lr), rule(in_pieces), model, x, 2 * x, steps=10)
    assert found.verdict is not Verdict.different


def test_divergence_is_compared_until_the_numbers_end(course_data: Data) -> None:
    x, y = course_data
    model = LinearModel(dtype=torch.float32)
    data = x.float(), y.float()
    equal = compare_optimizers(partial(SGD, lr=0.5), partial(GradientDescent, lr=0.5), model, *data)
    assert equal.verdict is Verdict.equal
    # The error grows by |1 − 0.5·28/3| = 11/3 a step, and float32 ends at 2¹²⁸: 128 ln 2 / ln(11/3) = 68.3.
    # The gradient, 28/3 of the error, overflows one or two steps earlier.
    assert 66 <= equal.steps <= 69
    reordered = rule(lambda p, g, s: p.copy_(0.5 * (p / 0.5 - 1.0 * g)))
    assert compare_optimizers(partial(SGD, lr=0.5), reordered, model, *data).verdict is not Verdict.different


def ordered(value: float) -> int:
    """The place of a float64 among all of them, from its bits, by Python's struct."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits if bits >= 0 else -(bits & (2**63 - 1))


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_ulps_count_the_numbers_between(a: float, b: float) -> None:
    found = ulps_apart(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)).item()
    assert found == float(abs(ordered(a) - ordered(b))) or math.isclose(
        found, abs(ordered(a) - ordered(b)), rel_tol=2**-52
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_neighbours_are_one_ulp_apart_in_every_dtype(dtype: torch.dtype) -> None:
    one = torch.ones((), dtype=dtype)
    for count in (1, 2, 3):
        assert ulps_apart(one, one + count * torch.finfo(dtype).eps).item() == count
    assert ulps_apart(one, 2 * one).item() == 1 / torch.finfo(dtype).eps
    tiny = torch.tensor(torch.finfo(dtype).smallest_normal, dtype=dtype)
    assert ulps_apart(tiny, -tiny).item() == 2 / torch.finfo(dtype).eps  # all subnormals lie between, twice
    assert ulps_apart(one, one * math.nan).item() == math.inf
    assert ulps_apart(one * math.nan, -one * math.nan).item() == 0
