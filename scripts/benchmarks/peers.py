"""Per-sample SGD of y = w·x, in order: torchgd and its peers, each as a function of the number of epochs.

`sides(x, y)` gives those that are installed, and the names of those that are not. Each returns the weight
that it ends with, so that what is timed is also known to be the same computation.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np
import torch
from torch import Tensor

from torchgd import LinearModel, StochasticGradientDescent, epoch_map, train

LR, START = 0.01, 1.0  # for x of unit variance
Side = Callable[[int], float]


def scan(x: Tensor, y: Tensor) -> Side:
    return lambda epochs: epoch_map(x, y, LR).after(epochs)(START)


def loop_by_hand(x: Tensor, y: Tensor) -> Side:
    def run(epochs: int) -> float:
        model = LinearModel(START, dtype=x.dtype)
        optimizer = StochasticGradientDescent(model.parameters(), lr=LR)
        train(model, x, y, optimizer, epochs, gradient="hand", max_points=1)
        return model.weight.item()

    return run


def torch_sgd(x: Tensor, y: Tensor) -> Side:
    """The loop that everybody writes: autograd and torch.optim.SGD, one sample a step."""

    def run(epochs: int) -> float:
        model = LinearModel(START, dtype=x.dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for _ in range(epochs):
            for a, b in zip(x.split(1), y.split(1), strict=True):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(a), b)
                loss.backward()
                optimizer.step()
        return model.weight.item()

    return run


def plain_python(x: Tensor, y: Tensor) -> Side:
    xs, ys = x.tolist(), y.tolist()

    def run(epochs: int) -> float:
        w = START
        for _ in range(epochs):
            for a, b in zip(xs, ys, strict=True):
                w -= LR * (2 * a * (w * a - b))
        return w

    return run


def sgd_regressor(x: Tensor, y: Tensor) -> Side:
    """Its loss is ½ (w x − y)², so its eta0 is 2 lr; no penalty, intercept, shuffling or early stop."""
    from sklearn.linear_model import SGDRegressor

    columns, targets, start = x.numpy().reshape(-1, 1), y.numpy(), np.array([START])

    def run(epochs: int) -> float:
        regressor = SGDRegressor(
            penalty=None,
            fit_intercept=False,
            shuffle=False,
            learning_rate="constant",
            eta0=2 * LR,
            max_iter=epochs,
            tol=None,
        )
        return float(regressor.fit(columns, targets, coef_init=start).coef_[0])

    return run


def jax_scan(x: Tensor, y: Tensor) -> Side:
    import jax
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    xs, ys = jax.numpy.asarray(x.numpy()), jax.numpy.asarray(y.numpy())

    @jax.jit
    def epoch(w, xs, ys):  # type: ignore[no-untyped-def]
        return lax.scan(lambda w, s: (w - LR * (2 * s[0] * (w * s[0] - s[1])), None), w, (xs, ys))[0]

    def run(epochs: int) -> float:
        w = jax.numpy.asarray(START, dtype=xs.dtype)
        for _ in range(epochs):
            w = epoch(w, xs, ys)
        return float(w)

    return run


def numba_loop(x: Tensor, y: Tensor) -> Side:
    import numba

    @numba.njit  # type: ignore[untyped-decorator, unused-ignore]
    def loop(w, xs, ys, epochs):  # type: ignore[no-untyped-def]
        for _ in range(epochs):
            for i in range(len(xs)):
                w -= LR * (2 * xs[i] * (w * xs[i] - ys[i]))
        return w

    xs, ys = x.numpy(), y.numpy()
    return lambda epochs: float(loop(START, xs, ys, epochs))


SIDES = {
    "torchgd scan": scan,
    "numba loop": numba_loop,
    "jitted jax.lax.scan": jax_scan,
    "scikit-learn SGDRegressor": sgd_regressor,
    "plain Python": plain_python,
    "torchgd loop by hand": loop_by_hand,
    "torch.optim.SGD, autograd": torch_sgd,
}


def sides(x: Tensor, y: Tensor, *, leave_out: Container[str]) -> tuple[dict[str, Side], list[str]]:
    """The sides that can run on these samples, but those left out; and the names of those not installed."""
    ready: dict[str, Side] = {}
    missing = []
    for name, make in SIDES.items():
        if name not in leave_out:
            try:
                ready[name] = make(x, y)
            except ImportError:
                missing.append(name)
    return ready, missing
