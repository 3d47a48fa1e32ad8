"""What may be given as x and y, and the one line about what may not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from torchgd import GradientDescent, InputError, LinearModel, course, stability, sweep_lr, train
from torchgd.samples import rows, samples

X, Y = course()
TAKEN = [
    ([1, 2, 3], (2.0, 4.0, 6.0)),
    (np.array([1, 2, 3], dtype=">i2"), np.array([2, 4, 6], dtype=">f8")),
    (np.array([3.0, 2.0, 1.0])[::-1], np.array([2, 4, 6], dtype=np.uint64)),
    (np.array([1, 2, 3], dtype=np.longdouble), [torch.tensor(2.0), torch.tensor(4.0), torch.tensor(6.0)]),
    (np.frombuffer(X.numpy().tobytes()), np.array([2**53, 2**60, 6]) / [2**52, 2**58, 1]),
]


@pytest.mark.parametrize(("x", "y"), TAKEN, ids=[type(x).__name__ + str(i) for i, (x, _) in enumerate(TAKEN)])
def test_what_holds_numbers_is_taken_as_tensors_are(x: Any, y: Any) -> None:
    assert [values.tolist() for values in samples(x, y)] == [X.tolist(), Y.tolist()]
    assert stability(x, y) == stability(X, Y)
    assert torch.equal(sweep_lr(x, y, points=3).epochs, sweep_lr(X, Y, points=3).epochs)
    model = LinearModel(1.0, dtype=torch.float64)
    assert train(model, x, y, GradientDescent(model.parameters()), 2).weight[1].item() == 1.0933333333333333


def test_the_columns_of_a_frame_are_taken_or_named() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": [3.5, 4], "name": ["M31", "M33"]})
    x, y = rows(frame[["a", "b"]], frame["a"])
    assert (x.tolist(), y.tolist(), y.dtype) == ([[1.0, 3.5], [2.0, 4.0]], [1, 2], torch.int64)
    with pytest.raises(InputError, match=r"^x: the column 'name' does not hold numbers; leave it out"):
        rows(frame, frame["a"])
    with pytest.raises(InputError, match=r"^y\[1\]: nan is not finite"):
        samples([1.0, 2.0], pandas.Series([1, None], dtype="Int64"))


REFUSED = [
    ([1.0, math.nan], [1.0, 2.0], "x[1]: nan is not finite; correct it, or leave the sample out"),
    ([1.0, 2.0], np.array([-np.inf, 2.0]), "y[0]: -inf is not finite; correct it, or leave the sample out"),
    ([0.0, 0], [1.0, 2.0], "x is 0 in every sample, so there is nothing to learn; give other data"),
    ([1.0], [1.0, 2.0], "x has shape (1,) and y has shape (2,); give one y for each x"),
    ([[[1.0]]], [1.0], "x has shape (1, 1, 1) and y has shape (1,); flatten both to (n,)"),
    ("12", [1.0], "x is a str; give numbers: a tensor, an array or a list"),
    ({1.0}, [1.0], "x is a set; give numbers: a tensor, an array or a list"),
    (["1", "2"], [1.0, 2.0], "x holds <U1, not numbers; give numbers"),
    ([[1.0], [1.0, 2.0]], [1.0], "x holds what is not a number, or rows of different lengths"),
    (DataLoader(TensorDataset(X)), Y, "x is a DataLoader, which holds x and y in batches; give all of x"),
    ([1, 2**53 + 1], [1.0, 2.0], "x[1]: 9007199254740993 is above 2^53, where float64 does not hold every"),
    ([1.0, 2.0], np.array([1, 2**64 - 1], dtype=np.uint64), "y[1]: 18446744073709551615 is above 2^53"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "y", "message"), REFUSED, ids=[row[2][:40] for row in REFUSED])
def test_what_is_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        samples(x, y)
    assert str(caught.value).startswith(message)
    with pytest.raises(InputError) as again:
        stability(x, y)
    assert str(again.value) == str(caught.value)
