"""The same weights as other people's programs (the extra `bench`), and the benchmark beside them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torchgd import LinearModel, StochasticGradientDescent, epoch_map, train

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"


@pytest.mark.bench
@pytest.mark.parametrize("epochs", [1, 2, 25])
@pytest.mark.parametrize("lr", [0.001, 0.05])
def test_sgd_regressor(lr: float, epochs: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, generator=generator, dtype=torch.float64)
    y = 3 * x + torch.randn(400, generator=generator, dtype=torch.float64)
    # Its loss is ½ (w x − y)², so its step is half of ours.
    regressor = linear_model.SGDRegressor(
        penalty=None,
        fit_intercept=False,
        shuffle=False,
        learning_rate="constant",
        eta0=2 * lr,
        max_iter=epochs,
        tol=None,
    ).fit(x.numpy().reshape(-1, 1), y.numpy(), coef_init=[1.0])
    model = LinearModel(1.0, dtype=torch.float64)
    train(model, x, y, StochasticGradientDescent(model.parameters(), lr=lr), epochs, gradient="hand")
    # 25 · 400 updates that round a weight of 3 by 2e-16 each, and forget it at the rate of the fixed point.
    assert regressor.coef_[0] == pytest.approx(model.weight.item(), rel=1e-12)
    assert regressor.coef_[0] == pytest.approx(epoch_map(x, y, lr).after(epochs)(1.0), rel=1e-12)


def test_the_benchmark_runs(tmp_path: Path) -> None:
    sections = ["epochs", "batches", "steps", "loops", "busy", "long"]
    options = [
        "--largest",
        "1e3",
        "--repeats",
        "1",
        "--seconds",
        "0.01",
        "--picture",
        str(tmp_path / "b.png"),
    ]
    done = subprocess.run(
        [sys.executable, SCRIPT, *sections, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    for row in (
        "torchgd scan",
        "torch.optim.SGD, autograd",
        "full batch",
        "torch.optim.SGD, fused=True",
        "10⁴ epochs",
    ):
        assert f"\n| {row} | " in done.stdout
    missing = [name for name in ("numba", "sklearn", "jax") if not importlib.util.find_spec(name)]
    assert ("Not installed, left out: " in done.stdout) == bool(missing)
