"""The model of one weight."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from torchgd import LinearModel


def test_it_is_a_module_with_one_weight_of_shape_nothing() -> None:
    model = LinearModel(1.0)
    assert isinstance(model, nn.Module)
    assert [(name, p.shape) for name, p in model.named_parameters()] == [("weight", torch.Size(()))]
    assert list(model.buffers()) == []
    assert isinstance(model.weight, nn.Parameter)
    assert model.weight.requires_grad


def test_the_prediction_before_training() -> None:
    assert LinearModel(1.0)(4.0).item() == 4.0
    assert LinearModel()(4.0).item() == 4.0  # the course starts from w = 1


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 1), (0,), (2, 3, 4)])
def test_the_prediction_has_the_shape_of_x(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    prediction = LinearModel(2.5)(x)
    assert prediction.shape == shape
    assert torch.equal(prediction, 2.5 * x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_dtype_asked_for(dtype: torch.dtype) -> None:
    assert LinearModel(1.0, dtype=dtype).weight.dtype == dtype
    assert LinearModel(torch.tensor(1.0, dtype=dtype)).weight.dtype == dtype  # or that of the tensor given
    assert LinearModel(torch.tensor(1.0, dtype=dtype), dtype=torch.float64).weight.dtype == torch.float64


def test_the_default_dtype_is_pytorchs() -> None:
    torch.set_default_dtype(torch.float64)
    assert LinearModel(1).weight.dtype == torch.float64


def test_the_weight_is_its_own() -> None:
    given = torch.tensor(1.0, requires_grad=True)
    model = LinearModel(given)
    with torch.no_grad():
        model.weight.add_(1)
    assert given.item() == 1.0
    assert model.weight.is_leaf


def test_a_weight_of_one_element_is_flattened() -> None:
    assert LinearModel(torch.tensor([3.0])).weight.shape == ()


def test_autograd_reaches_the_weight(course_data: tuple[Tensor, Tensor]) -> None:
    x, y = course_data
    model = LinearModel(1.0, dtype=torch.float64)
    nn.functional.mse_loss(model(x), y).backward()
    assert model.weight.grad is not None
    assert model.weight.grad.item() == pytest.approx(-28 / 3, rel=1e-15)


def test_saved_copied_and_loaded() -> None:
    model = LinearModel(1.25, dtype=torch.float64)
    assert copy.deepcopy(model).weight.item() == 1.25
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = LinearModel(0.0, dtype=torch.float64)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.weight.item() == 1.25


def test_it_prints_its_weight() -> None:
    assert repr(LinearModel(1.25)) == "LinearModel(weight=1.25)"


def test_on_the_meta_device_nothing_is_computed_and_nothing_fails() -> None:
    model = LinearModel(1.0, device="meta")
    assert model.weight.is_meta
    assert model(torch.zeros(3, device="meta")).shape == (3,)
    assert repr(model) == "LinearModel(weight=?)"
    real = model.to_empty(device="cpu")
    real.load_state_dict({"weight": torch.tensor(2.0)})
    assert real(4.0).item() == 8.0


@pytest.mark.cuda
def test_on_cuda() -> None:
    model = LinearModel(2.0, device="cuda")
    assert model(torch.ones(3, device="cuda")).tolist() == [2.0, 2.0, 2.0]
