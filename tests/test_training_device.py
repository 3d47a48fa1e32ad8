"""No update waits for the device: the host looks at its numbers once in a hundred updates."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode

from torchgd import LinearModel, MiniBatchGradientDescent, StochasticGradientDescent, train
from torchgd.recorder import Recorder
from torchgd.update import update_of


class Count(TorchDispatchMode):
    """Counts the calls that make the host wait for a device, or move numbers from one to the other."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func._schema.name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        return sum(
            self.calls[f"aten::{name}"]
            for name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "_to_copy", "masked_select")
        )


@pytest.mark.parametrize("gradient", ["hand", "autograd"])
@pytest.mark.parametrize("max_points", [10_000, 1])
def test_the_host_does_not_wait_for_each_update(gradient: str, max_points: int) -> None:
    n = 2000
    x = torch.randn(n, dtype=torch.float64)
    waits = []
    for some in (n // 2, n):
        model = LinearModel(1.0, dtype=torch.float64)
        optimizer = StochasticGradientDescent(model.parameters(), lr=0.01)
        with Count() as count:
            train(model, x[:some], 2 * x[:some], optimizer, 1, gradient=gradient, max_points=max_points)
        waits.append(count.waits)
    more = n // 2 // 100  # looks; each asks at four kinds of numbers, and some seconds pass
    assert waits[1] - waits[0] <= 8 * more


@pytest.mark.parametrize("gradient", ["hand", "autograd"])
@pytest.mark.parametrize("stride", [1, 7])
def test_updates_and_records_need_no_numbers(gradient: str, stride: int) -> None:
    """On the meta device there are none: an item(), a nonzero() or a bool() would fail."""
    for model in (LinearModel(1.0, device="meta"), nn.Linear(1, 1, device="meta")):
        if gradient == "hand" and not isinstance(model, LinearModel):
            continue
        x = (
            torch.zeros(6, device="meta")
            if isinstance(model, LinearModel)
            else torch.zeros(6, 1, device="meta")
        )
        optimizer = MiniBatchGradientDescent(model.parameters(), lr=0.01, batch_size=4)
        update = update_of(model, optimizer, gradient, mse_loss, x, x)
        recorder = Recorder(model, x, x, mse_loss, optimizer.batches(6), stride=stride)
        for epoch in range(20):
            for batch in (slice(0, 4), slice(4, 6)):
                recorder.before(x[batch], x[batch])
                recorder.after(x[batch], x[batch], update(x[batch], x[batch]))
            recorder.end_epoch(epoch + 1)
        assert recorder.updates == 40


@pytest.mark.cuda
@pytest.mark.parametrize("gradient", ["hand", "autograd"])
@pytest.mark.parametrize("order", ["sequential", "shuffled"])
def test_train_on_cuda(gradient: str, order: str) -> None:
    x = torch.tensor([1.0, 2.0, 3.0]).double()
    weights = []
    for device in ("cpu", "cuda"):
        model = LinearModel(1.0, dtype=torch.float64, device=device)
        optimizer = StochasticGradientDescent(
            model.parameters(), lr=0.01, order=order, generator=torch.Generator().manual_seed(1)
        )
        history = train(model, x, 2 * x, optimizer, 100, gradient=gradient)  # x moves to the device
        assert history.weight.device.type == "cpu"
        weights.append(history.weight)
    assert weights[1].tolist() == pytest.approx(weights[0].tolist(), rel=1e-12)


@pytest.mark.cuda
@pytest.mark.parametrize("gradient", ["hand", "autograd"])
def test_no_update_waits_on_cuda(gradient: str) -> None:
    x = torch.randn(64, dtype=torch.float64, device="cuda")
    model = LinearModel(1.0, dtype=torch.float64, device="cuda")
    optimizer = StochasticGradientDescent(model.parameters(), lr=0.01)
    update = update_of(model, optimizer, gradient, mse_loss, x, 2 * x)
    recorder = Recorder(model, x, 2 * x, mse_loss, optimizer.batches(64), stride=2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(64):
            batch = x[i : i + 1], 2 * x[i : i + 1]
            recorder.before(*batch)
            recorder.after(*batch, update(*batch))
        recorder.end_epoch(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert recorder.look() is None
