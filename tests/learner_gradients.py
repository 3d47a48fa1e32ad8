"""Gradients as learners write them: right ones of many models, and wrong ones.

A row of ``WRONG`` says: in the right program of this model, where this stands, the learner wrote that;
then the cause that is due, and a word that the message must hold. A row of ``RIGHT`` is another spelling.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LAMBDA = 0.3


class Ridge(nn.Module):
    """y = x θ, with the penalty λ Σ θ² added to every sample's output of a second column."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x @ self.theta, LAMBDA * (self.theta**2).sum().expand(len(x))], dim=1)


class Theta(nn.Module):
    """y = x θ without a bias: the vector of the courses."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.theta


class Net(nn.Module):
    """Two layers with weights as x @ W + b, the hidden width as large as the input."""

    def __init__(self, activation: Callable[[Tensor], Tensor], classes: int) -> None:
        super().__init__()
        self.activation = activation
        self.W1, self.b1 = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        self.W2, self.b2 = nn.Parameter(torch.randn(4, classes)), nn.Parameter(torch.randn(classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x @ self.W1 + self.b1) @ self.W2 + self.b2


class Skip(nn.Module):
    """One hidden layer with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.W1, self.W2 = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.tanh(x @ self.W1)) @ self.W2


class Recurrent(nn.Module):
    """h = tanh(x_t Wx + h Wh), read out at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.Wx, self.Wh = nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(3, 3))
        self.Wy = nn.Parameter(torch.randn(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 3, dtype=x.dtype)
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] @ self.Wx + h @ self.Wh)
        return h @ self.Wy


def hinge(prediction: Tensor, y: Tensor) -> Tensor:
    return (1 - y * prediction).clamp(min=0).mean()


def weighted(prediction: Tensor, y: Tensor) -> Tensor:
    """y holds targets and weights of the samples, two columns."""
    return (y[:, 1:] * (prediction - y[:, :1]) ** 2).mean()


def ridge(prediction: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(prediction[:, 0], y) + prediction[:, 1].mean()


def real(*shape: int) -> Tensor:
    return torch.randn(*shape)


def classes(count: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randint(count, (n,))


def bits(n: int) -> Tensor:
    return torch.randint(2, (n, 1)).float()


@dataclass(frozen=True)
class Program:
    """A model, its loss, its data, and the right gradient as a learner writes it."""

    model: Callable[[], nn.Module]
    loss_fn: Callable[..., Tensor]
    x: Callable[[int], Tensor]
    y: Callable[[int], Tensor]
    source: str

    def function(self, due: str = "", wrong: str = "") -> Callable[..., Any]:
        """The program with one piece of text put in the place of another."""
        source = textwrap.dedent(self.source)
        assert not due or due in source, f"{due!r} is not in the program"
        names: dict[str, Any] = {"torch": torch, "F": functional, "np": np}
        source = source.replace(due, wrong, 1) if due else textwrap.dedent(wrong) or source
        exec("def f(p, x, y):\n" + textwrap.indent(source, "    "), names)
        function: Callable[..., Any] = names["f"]
        return function


PROGRAMS: dict[str, Program] = {
    "linear": Program(
        lambda: nn.Linear(3, 1), functional.mse_loss, lambda n: real(n, 3), lambda n: real(n, 1),
        """
        n = len(x)
        prediction = x @ p["weight"].T + p["bias"]
        error = prediction - y
        dw = 2 / n * error.T @ x
        db = 2 / n * error.sum(0)
        return {"weight": dw, "bias": db}
        """,
    ),
    "theta": Program(
        Theta, functional.mse_loss, lambda n: real(n, 3), real,
        """
        theta, m = p["theta"], len(y)
        h = x @ theta
        grad = 2 / m * x.T @ (h - y)
        return {"theta": grad}
        """,
    ),
    "ridge": Program(
        Ridge, ridge, lambda n: real(n, 3), real,
        """
        theta, m = p["theta"], len(y)
        error = x @ theta - y
        grad = 2 / m * x.T @ error + 2 * 0.3 * theta
        return {"theta": grad}
        """,
    ),
    "logistic": Program(
        lambda: nn.Linear(3, 1), functional.binary_cross_entropy_with_logits, lambda n: real(n, 3), bits,
        """
        n = x.shape[0]
        z = x @ p["weight"].T + p["bias"]
        a = 1 / (1 + torch.exp(-z))
        dz = a - y
        dw = dz.T @ x / n
        db = dz.sum(0) / n
        return {"weight": dw, "bias": db}
        """,
    ),
    "sigmoid_bce": Program(
        lambda: nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()), functional.binary_cross_entropy,
        lambda n: real(n, 3), bits,
        """
        m = len(x)
        A = torch.sigmoid(x @ p["0.weight"].T + p["0.bias"])
        dA = -(y / A) + (1 - y) / (1 - A)
        dZ = dA * A * (1 - A)
        dW = dZ.T @ x / m
        db = dZ.mean(0)
        return {"0.weight": dW, "0.bias": db}
        """,
    ),
    "softmax": Program(
        lambda: nn.Linear(4, 3), functional.cross_entropy, lambda n: real(n, 4), classes(3),
        """
        n = len(x)
        scores = x @ p["weight"].T + p["bias"]
        e = torch.exp(scores - scores.max(1, keepdim=True).values)
        probs = e / e.sum(1, keepdim=True)
        probs[torch.arange(n), y] -= 1
        probs = probs / n
        return {"weight": probs.T @ x, "bias": probs.sum(0)}
        """,
    ),
    "onehot": Program(
        lambda: nn.Linear(4, 3), functional.cross_entropy, lambda n: real(n, 4), classes(3),
        """
        Y = torch.eye(3, dtype=x.dtype)[y]
        z = x @ p["weight"].T + p["bias"]
        yhat = z.softmax(dim=1)
        delta = (yhat - Y) / len(x)
        return {"weight": delta.T @ x, "bias": delta.sum(0)}
        """,
    ),
    "sigmoid_mse": Program(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid()),
        functional.mse_loss, lambda n: real(n, 4), lambda n: torch.rand(n, 1),
        """
        W1, b1, W2, b2 = p["0.weight"], p["0.bias"], p["2.weight"], p["2.bias"]
        z1 = x @ W1.T + b1
        a1 = torch.sigmoid(z1)
        z2 = a1 @ W2.T + b2
        a2 = torch.sigmoid(z2)
        d2 = 2 * (a2 - y) / len(x) * a2 * (1 - a2)
        d1 = d2 @ W2 * a1 * (1 - a1)
        return {"0.weight": d1.T @ x, "0.bias": d1.sum(0), "2.weight": d2.T @ a1, "2.bias": d2.sum(0)}
        """,
    ),
    "tanh_mse": Program(
        lambda: Net(torch.tanh, 2), functional.mse_loss, lambda n: real(n, 4), lambda n: real(n, 2),
        """
        W1, b1, W2, b2 = p["W1"], p["b1"], p["W2"], p["b2"]
        z1 = x @ W1 + b1
        h = torch.tanh(z1)
        out = h @ W2 + b2
        dout = 2 * (out - y) / y.numel()
        dW2 = h.T @ dout
        db2 = dout.sum(axis=0)
        dh = dout @ W2.T
        dz1 = dh * (1 - h ** 2)
        dW1 = x.T @ dz1
        db1 = dz1.sum(axis=0)
        return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
        """,
    ),
    "relu_ce": Program(
        lambda: Net(torch.relu, 3), functional.cross_entropy, lambda n: real(n, 4), classes(3),
        """
        N = x.shape[0]
        z1 = x.mm(p["W1"]) + p["b1"]
        h1 = z1.clamp(min=0)
        scores = h1.mm(p["W2"]) + p["b2"]
        probs = torch.softmax(scores, dim=1)
        dscores = probs.clone()
        dscores[range(N), y] -= 1
        dscores /= N
        dW2 = h1.T.mm(dscores)
        db2 = torch.sum(dscores, dim=0)
        dh1 = dscores.mm(p["W2"].T)
        dz1 = dh1.clone()
        dz1[z1 <= 0] = 0
        dW1 = x.T.mm(dz1)
        db1 = torch.sum(dz1, dim=0)
        return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
        """,
    ),
    "relu_bce": Program(
        lambda: nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid()),
        functional.binary_cross_entropy, lambda n: real(n, 2), bits,
        """
        m = y.shape[0]
        Z1 = x @ p["0.weight"].T + p["0.bias"]
        A1 = torch.maximum(Z1, torch.zeros_like(Z1))
        A2 = torch.sigmoid(A1 @ p["2.weight"].T + p["2.bias"])
        dZ2 = A2 - y
        dW2 = (1 / m) * dZ2.T @ A1
        db2 = (1 / m) * dZ2.sum(0)
        dA1 = dZ2 @ p["2.weight"]
        dZ1 = dA1 * (Z1 > 0)
        dW1 = (1 / m) * dZ1.T @ x
        db1 = (1 / m) * dZ1.sum(0)
        return {"0.weight": dW1, "0.bias": db1, "2.weight": dW2, "2.bias": db2}
        """,
    ),
    "deep": Program(
        lambda: nn.Sequential(
            nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 3)
        ),
        functional.cross_entropy, lambda n: real(n, 3), classes(3),
        """
        a0 = x
        a1 = torch.tanh(a0 @ p["0.weight"].T + p["0.bias"])
        a2 = torch.sigmoid(a1 @ p["2.weight"].T + p["2.bias"])
        z3 = a2 @ p["4.weight"].T + p["4.bias"]
        t = F.one_hot(y, 3)
        d3 = (F.softmax(z3, 1) - t) / len(x)
        d2 = (d3 @ p["4.weight"]) * a2 * (1 - a2)
        d1 = (d2 @ p["2.weight"]) * (1 - a1 * a1)
        return {
            "4.weight": d3.T @ a2, "4.bias": d3.sum(0),
            "2.weight": d2.T @ a1, "2.bias": d2.sum(0),
            "0.weight": d1.T @ a0, "0.bias": d1.sum(0),
        }
        """,
    ),
    "huber": Program(
        lambda: nn.Linear(3, 1), nn.HuberLoss(delta=1.0), lambda n: real(n, 3), lambda n: 3 * real(n, 1),
        """
        r = x @ p["weight"].T + p["bias"] - y
        g = torch.where(r.abs() <= 1, r, torch.sign(r)) / len(x)
        return {"weight": g.T @ x, "bias": g.sum(0)}
        """,
    ),
    "poisson": Program(
        lambda: nn.Linear(3, 1), nn.PoissonNLLLoss(), lambda n: real(n, 3),
        lambda n: torch.randint(6, (n, 1)).float(),
        """
        eta = x @ p["weight"].T + p["bias"]
        mu = torch.exp(eta)
        g = (mu - y) / len(y)
        return {"weight": g.T @ x, "bias": g.sum(0)}
        """,
    ),
    "hinge": Program(
        lambda: nn.Linear(3, 1), hinge, lambda n: real(n, 3), lambda n: 2 * bits(n) - 1,
        """
        margin = y * (x @ p["weight"].T + p["bias"])
        g = torch.where(margin < 1, -y, torch.zeros_like(y)) / len(x)
        return {"weight": g.T @ x, "bias": g.sum(0)}
        """,
    ),
    "embedding": Program(
        lambda: nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 3)),
        functional.cross_entropy, lambda n: torch.randint(4, (n, 2)), classes(3),
        """
        C = p["0.weight"]
        emb = C[x]
        h = emb.view(len(x), -1)
        logits = h @ p["2.weight"].T + p["2.bias"]
        dlogits = logits.softmax(1)
        dlogits[range(len(x)), y] -= 1
        dlogits = dlogits / len(x)
        dh = dlogits @ p["2.weight"]
        demb = dh.view(emb.shape)
        dC = torch.zeros_like(C)
        for k in range(x.shape[0]):
            for j in range(x.shape[1]):
                dC[x[k, j]] += demb[k, j]
        return {"0.weight": dC, "2.weight": dlogits.T @ h, "2.bias": dlogits.sum(0)}
        """,
    ),
    "batchnorm": Program(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
        functional.mse_loss, lambda n: real(n, 3), lambda n: real(n, 1),
        """
        N = len(x)
        z = x @ p["0.weight"].T + p["0.bias"]
        mu = z.mean(0)
        var = z.var(0, unbiased=False)
        std = torch.sqrt(var + 1e-5)
        xhat = (z - mu) / std
        out = p["1.weight"] * xhat + p["1.bias"]
        pred = out @ p["2.weight"].T + p["2.bias"]
        dpred = 2 * (pred - y) / N
        dout = dpred @ p["2.weight"]
        dgamma = (dout * xhat).sum(0)
        dbeta = dout.sum(0)
        dxhat = dout * p["1.weight"]
        dz = (N * dxhat - dxhat.sum(0) - xhat * (dxhat * xhat).sum(0)) / (N * std)
        return {
            "0.weight": dz.T @ x, "0.bias": dz.sum(0), "1.weight": dgamma, "1.bias": dbeta,
            "2.weight": dpred.T @ out, "2.bias": dpred.sum(0),
        }
        """,
    ),
    "conv": Program(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 1)),
        functional.mse_loss, lambda n: real(n, 1, 5, 5), lambda n: real(n, 1),
        """
        K, b = p["0.weight"], p["0.bias"]
        n = len(x)
        z = torch.zeros(n, 2, 3, 3, dtype=x.dtype)
        for i in range(3):
            for j in range(3):
                z[:, :, i, j] = torch.einsum("nchw,kchw->nk", x[:, :, i:i+3, j:j+3], K) + b
        a = z * (z > 0)
        flat = a.reshape(n, 18)
        out = flat @ p["3.weight"].T + p["3.bias"]
        d = 2 * (out - y) / n
        dflat = d @ p["3.weight"]
        da = dflat.reshape(n, 2, 3, 3)
        dz = da * (z > 0)
        dK = torch.zeros_like(K)
        for i in range(3):
            for j in range(3):
                dK += torch.einsum("nk,nchw->kchw", dz[:, :, i, j], x[:, :, i:i+3, j:j+3])
        db = dz.sum((0, 2, 3))
        return {"0.weight": dK, "0.bias": db, "3.weight": d.T @ flat, "3.bias": d.sum(0)}
        """,
    ),
    "weighted": Program(
        lambda: nn.Linear(3, 1), weighted, lambda n: real(n, 3),
        lambda n: torch.cat([real(n, 1), torch.rand(n, 1)], 1),
        """
        t, s = y[:, :1], y[:, 1:]
        r = x @ p["weight"].T + p["bias"] - t
        g = 2 * s * r / len(x)
        return {"weight": g.T @ x, "bias": g.sum(0)}
        """,
    ),
    "skip": Program(
        Skip, functional.mse_loss, lambda n: real(n, 4), lambda n: real(n, 1),
        """
        t = torch.tanh(x @ p["W1"])
        h = x + t
        d = 2 * (h @ p["W2"] - y) / len(x)
        dh = d @ p["W2"].T
        dt = dh * (1 - t**2)
        return {"W1": x.T @ dt, "W2": h.T @ d}
        """,
    ),
    "recurrent": Program(
        Recurrent, functional.mse_loss, lambda n: real(n, 3, 2), lambda n: real(n, 1),
        """
        h = [torch.zeros(len(x), 3, dtype=x.dtype)]
        for t in range(3):
            h.append(torch.tanh(x[:, t] @ p["Wx"] + h[-1] @ p["Wh"]))
        d = 2 * (h[3] @ p["Wy"] - y) / len(x)
        dWx, dWh, dWy = torch.zeros_like(p["Wx"]), torch.zeros_like(p["Wh"]), h[3].T @ d
        dh = d @ p["Wy"].T
        for t in reversed(range(3)):
            dz = dh * (1 - h[t + 1] ** 2)
            dWx += x[:, t].T @ dz
            dWh += h[t].T @ dz
            dh = dz @ p["Wh"].T
        return {"Wx": dWx, "Wh": dWh, "Wy": dWy}
        """,
    ),
}  # fmt: skip

# (program, what is due, what the learner wrote, the cause, a word of the message)
WRONG: list[tuple[str, str, str, str, str]] = [
    ("linear", "dw = 2 / n *", "dw = 1 / n *", "factor", "weight"),
    ("linear", "error = prediction - y", "error = y - prediction", "factor", "sign"),
    ("linear", "2 / n * error.T @ x", "2 * error.T @ x", "reduction", "weight"),
    ("linear", "db = 2 / n * error.sum(0)", "db = 2 / n * error.mean(0)", "factor", "bias"),
    ("linear", "prediction - y", "prediction", "wrong_residual", "target"),
    ("linear", "prediction - y", "-y", "wrong_residual", "prediction"),
    ("linear", "prediction - y", "prediction + y", "wrong_residual", "+"),
    ("linear", "prediction - y", "(prediction - y).abs()", "wrong_residual", "sign"),
    ("linear", "prediction - y", "(prediction - y) ** 2", "other_loss", "loss itself"),
    ("linear", "prediction - y", "torch.sign(prediction - y)", "other_loss", "absolute"),
    ("linear", "error.T @ x", "error.sum() * torch.ones(1, 3)", "missing_input", "input"),
    ("linear", "/ n * error.T @ x", "* error.mean() * x.mean(0, keepdim=True)", "product_of_means", "mean"),
    ("linear", "dw = 2 / n * error.T @ x", "dw = 2 / n * error.T @ x**2", "missing_input", "twice"),
    ("linear", "+ p[\"bias\"]", "", "wrong_residual", "bias"),
    ("linear", "db = 2 / n * error.sum(0)", "db = 2 / n * error[-1]", "part_of_the_data", "last"),
    ("linear", "error = prediction - y",
     "error = prediction - y.flatten(); error = error.mean(1, keepdim=True)",
     "broadcast", "(n,)"),
    ("linear", "\"weight\": dw", "\"weight\": dw + 0.1 * p[\"weight\"]", "other_loss", "penalty"),
    ("linear", "\"weight\": dw, \"bias\": db",
     "\"weight\": dw + 0.1 * p[\"weight\"], \"bias\": db + 0.1 * p[\"bias\"]",
     "other_loss", "penalty"),
    ("linear", "\"weight\": dw", "\"weight\": dw / dw.norm()", "saturated", "norm"),
    ("linear", "\"weight\": dw", "\"weight\": dw.clamp(-0.5, 0.5)", "saturated", "clip"),
    ("theta", "x.T @ (h - y)", "x.T @ (y - h)", "factor", "sign"),
    ("theta", "2 / m *", "1 / m *", "factor", "theta"),
    ("theta", "2 / m *", "2 *", "reduction", "theta"),
    ("theta", "2 / m *", "1 / (2 * m) *", "factor", "theta"),
    ("theta", "x.T @ (h - y)", "x.T.flip(0) @ (h - y)", "wrong_variable", "column"),
    ("theta", "x.T @ (h - y)", "x[:-1].T @ (h - y)[:-1]", "part_of_the_data", "last"),
    ("theta", "x.T @ (h - y)", "x[1:].T @ (h - y)[1:]", "part_of_the_data", "first"),
    ("theta", "x.T @ (h - y)", "(h - y).sum() * x.mean(0)", "product_of_means", "mean"),
    ("theta", "{\"theta\": grad}", "{\"theta\": torch.cat([torch.zeros(1), grad[1:]])}",
     "part_of_the_data", "column"),
    ("theta", "{\"theta\": grad}", "{\"theta\": theta - 0.1 * grad}", "other_loss", "update"),
    ("ridge", " + 2 * 0.3 * theta", "", "other_loss", "penalty"),
    ("ridge", "2 * 0.3 * theta", "0.3 * theta", "other_loss", "penalty"),
    ("ridge", "2 * 0.3 * theta", "2 * 0.3 / m * theta", "other_loss", "penalty"),
    ("ridge", "+ 2 * 0.3 * theta", "- 2 * 0.3 * theta", "other_loss", "penalty"),
    ("ridge", "2 * 0.3 * theta", "0.3 * torch.sign(theta)", "other_loss", "penalty"),
    ("ridge", "2 * 0.3 * theta", "0.3 * (theta ** 2).sum()", "other_loss", "penalty"),
    ("logistic", "a = 1 / (1 + torch.exp(-z))", "a = z", "activation", "sigmoid"),
    ("logistic", "dz = a - y", "dz = (a - y) * a * (1 - a)", "activation", "derivative"),
    ("logistic", "dz = a - y", "dz = y - a", "factor", "sign"),
    ("logistic", "dz = a - y", "dz = a", "wrong_residual", "target"),
    ("logistic", "dz = a - y", "dz = -y * (1 - a)", "wrong_residual", "y"),
    ("logistic", "dz = a - y", "dz = a - (1 - y)", "wrong_residual", "label"),
    ("logistic", "dz = a - y", "dz = -y / a + (1 - y) / (1 - a)", "activation", "sigmoid"),
    ("logistic", "dw = dz.T @ x / n", "dw = dz.T @ x", "reduction", "weight"),
    ("logistic", "exp(-z)", "exp(z)", "activation", "sigmoid"),
    ("logistic", "a - y", "a.round() - y", "wrong_residual", "round"),
    ("logistic", "a - y", "torch.tanh(z) - y", "activation", "tanh"),
    ("logistic", "a - y", "2 * (a - y)", "factor", "2"),
    ("logistic", "db = dz.sum(0) / n", "db = dz.sum(0) / n / n", "factor", "bias"),
    ("sigmoid_bce", "dZ = dA * A * (1 - A)", "dZ = dA", "activation", "sigmoid"),
    ("sigmoid_bce", "dZ = dA * A * (1 - A)", "dZ = dA * A", "activation", "sigmoid"),
    ("sigmoid_bce", "dZ = dA * A * (1 - A)", "dZ = dA * torch.sigmoid(A) * (1 - torch.sigmoid(A))",
     "activation", "sigmoid"),
    ("sigmoid_bce", "+ (1 - y) / (1 - A)", "- (1 - y) / (1 - A)", "wrong_residual", "sign"),
    ("sigmoid_bce", "+ (1 - y) / (1 - A)", "", "wrong_residual", "y"),
    ("sigmoid_bce", "dA = -(y / A) + (1 - y) / (1 - A)", "dA = A - y", "activation", "squared"),
    ("sigmoid_bce", "dW = dZ.T @ x / m", "dW = dZ.T @ x", "reduction", "weight"),
    ("softmax", "probs[torch.arange(n), y] -= 1", "", "wrong_residual", "target"),
    ("softmax", "probs[torch.arange(n), y] -= 1", "probs[torch.arange(n), y] += 1", "wrong_residual", "+"),
    ("softmax", "probs = probs / n", "", "reduction", "weight"),
    ("softmax", "e / e.sum(1, keepdim=True)", "e / e.sum(0, keepdim=True)", "wrong_axis", "axis"),
    ("softmax", "e / e.sum(1, keepdim=True)", "e / e.sum()", "wrong_axis", "axis"),
    ("softmax", "probs = e / e.sum(1, keepdim=True)", "probs = scores", "activation", "softmax"),
    ("softmax", "probs = e / e.sum(1, keepdim=True)", "probs = torch.exp(scores)", "activation", "softmax"),
    ("softmax", "n), y] -= 1", "n), (y + 1) % 3] -= 1", "wrong_residual", "label"),
    ("softmax", "probs = probs / n", "probs = probs / n / 3", "factor", "1/3"),
    ("softmax", "\"bias\": probs.sum(0)", "\"bias\": probs.mean(0)", "factor", "bias"),
    ("onehot", "(yhat - Y)", "(yhat - Y) * yhat * (1 - yhat)", "activation", "derivative"),
    ("onehot", "(yhat - Y)", "(-Y / yhat)", "activation", "softmax"),
    ("onehot", "(yhat - Y)", "(-Y / yhat * yhat * (1 - yhat))", "activation", "diagonal"),
    ("onehot", "(yhat - Y)", "(-Y)", "wrong_residual", "softmax"),
    ("onehot", "(yhat - Y)", "(Y - yhat)", "factor", "sign"),
    ("onehot", "(yhat - Y)", "(torch.log_softmax(z, 1) - Y)", "activation", "log"),
    ("onehot", "(yhat - Y)", "(torch.sigmoid(z) - Y)", "activation", "sigmoid"),
    ("onehot", "softmax(dim=1)", "softmax(dim=0)", "wrong_axis", "axis"),
    ("onehot", "\"weight\": delta.T @ x", "\"weight\": delta.T @ x + 0.5 * p[\"weight\"]",
     "other_loss", "penalty"),
    ("onehot", "(yhat - Y)", "(yhat - Y) * Y", "activation", "class"),
    ("sigmoid_mse", " * a2 * (1 - a2)", "", "activation", "derivative"),
    ("sigmoid_mse", "W2 * a1 * (1 - a1)", "W2", "activation", "derivative"),
    ("sigmoid_mse", "W2 * a1 * (1 - a1)", "W2 * z1 * (1 - z1)", "activation", "input"),
    ("sigmoid_mse", "W2 * a1 * (1 - a1)", "W2 * torch.sigmoid(a1) * (1 - torch.sigmoid(a1))",
     "activation", "again"),
    ("sigmoid_mse", "W2 * a1 * (1 - a1)", "W2 * a1", "activation", "sigmoid"),
    ("sigmoid_mse", "W2 * a1 * (1 - a1)", "W2 * (1 - a1)", "activation", "sigmoid"),
    ("sigmoid_mse", "W2 * a1 * (1 - a1)", "W2 * (1 - a1 ** 2)", "activation", "tanh"),
    ("sigmoid_mse", "d2 @ W2 * a1", "d2 * a1", "missing_input", "2.weight"),
    ("sigmoid_mse", "\"2.weight\": d2.T @ a1", "\"2.weight\": d2.T @ z1", "wrong_variable", "2.weight"),
    ("sigmoid_mse", "\"2.weight\": d2.T @ a1", "\"2.weight\": d2.T @ x", "wrong_variable", "2.weight"),
    ("sigmoid_mse", "2 * (a2 - y)", "(a2 - y)", "factor", "½"),
    ("sigmoid_mse", "(a2 - y) / len(x)", "(a2 - y)", "reduction", "N"),
    ("sigmoid_mse", "* a2 * (1 - a2)", "* z2 * (1 - z2)", "activation", "input"),
    ("sigmoid_mse", "\"0.weight\": d1.T @ x", "\"0.weight\": d1.T @ a1", "wrong_variable", "0.weight"),
    ("sigmoid_mse", "\"0.weight\": d1.T @ x", "\"0.weight\": (d1.T @ x).T", "transposed", "0.weight"),
    ("sigmoid_mse", "2 * (a2 - y) / len(x) * a2 * (1 - a2)", "(a2 - y) / len(x)",
     "other_loss", "cross entropy"),
    ("tanh_mse", "(1 - h ** 2)", "(1 - h)", "activation", "square"),
    ("tanh_mse", "(1 - h ** 2)", "(1 - z1 ** 2)", "activation", "input"),
    ("tanh_mse", "(1 - h ** 2)", "(1 - torch.tanh(h) ** 2)", "activation", "again"),
    ("tanh_mse", " * (1 - h ** 2)", "", "activation", "derivative"),
    ("tanh_mse", "(1 - h ** 2)", "h * (1 - h)", "activation", "sigmoid"),
    ("tanh_mse", "(1 - h ** 2)", "(1 + h ** 2)", "activation", "sign"),
    ("tanh_mse", "dW1 = x.T @ dz1", "dW1 = x.T @ dh", "activation", "W1"),
    ("tanh_mse", "dW2 = h.T @ dout", "dW2 = z1.T @ dout", "wrong_variable", "W2"),
    ("tanh_mse", "dW1 = x.T @ dz1", "dW1 = dz1.T @ x", "transposed", "W1"),
    ("tanh_mse", "/ y.numel()", "/ len(y)", "factor", "2"),
    ("tanh_mse", "/ y.numel()", "", "factor", "N"),
    ("tanh_mse", "db1 = dz1.sum(axis=0)", "db1 = dz1.mean(axis=0)", "factor", "b1"),
    ("tanh_mse", "db1 = dz1.sum(axis=0)", "db1 = dh.sum(axis=0)", "activation", "b1"),
    ("tanh_mse", "dout @ W2.T", "dout @ (W2 - 0.1 * dW2).T", "wrong_variable", "update"),
    ("tanh_mse", "db2 = dout.sum(axis=0)", "db2 = dout[0]", "part_of_the_data", "first"),
    ("relu_ce", "dz1[z1 <= 0] = 0", "", "activation", "relu"),
    ("relu_ce", "dz1[z1 <= 0] = 0", "dz1[dz1 <= 0] = 0", "activation", "gradient"),
    ("relu_ce", "dz1[z1 <= 0] = 0", "dz1[z1 > 0] = 0", "activation", "relu"),
    ("relu_ce", "dz1[z1 <= 0] = 0", "dz1 = dz1 * h1", "activation", "relu"),
    ("relu_ce", "dscores[range(N), y] -= 1", "", "wrong_residual", "target"),
    ("relu_ce", "dscores /= N", "", "reduction", "N"),
    ("relu_ce", "dW2 = h1.T.mm(dscores)", "dW2 = z1.T.mm(dscores)", "wrong_variable", "W2"),
    ("relu_ce", "dW1 = x.T.mm(dz1)", "dW1 = h1.T.mm(dz1)", "wrong_variable", "W1"),
    ("relu_ce", "db2 = torch.sum(dscores, dim=0)", "db2 = torch.mean(dscores, dim=0)", "factor", "b2"),
    ("relu_ce", "dW2 = h1.T.mm(dscores)", "dW2 = h1.T.mm(dscores) + 1e-2 * p[\"W2\"]",
     "other_loss", "penalty"),
    ("relu_ce", "softmax(scores, dim=1)", "softmax(scores, dim=0)", "wrong_axis", "axis"),
    ("relu_ce", "dscores /= N", "dscores *= probs * (1 - probs) / N", "activation", "derivative"),
    ("relu_bce", "dZ1 = dA1 * (Z1 > 0)", "dZ1 = dA1", "activation", "relu"),
    ("relu_bce", "dZ2 = A2 - y", "dZ2 = (A2 - y) * A2 * (1 - A2)", "activation", "derivative"),
    ("relu_bce", "dZ1 = dA1 * (Z1 > 0)", "dZ1 = dA1 * A1 * (1 - A1)", "activation", "sigmoid"),
    ("relu_bce", "dZ1 = dA1 * (Z1 > 0)", "dZ1 = dA1 * (1 - A1 ** 2)", "activation", "tanh"),
    ("relu_bce", "dW1 = (1 / m) *", "dW1 =", "reduction", "0.weight"),
    ("relu_bce", "dZ2 = A2 - y", "dZ2 = 2 * (A2 - y)", "factor", "2"),
    ("relu_bce", "dZ2 @ p[\"2.weight\"]", "dZ2", "missing_input", "2.weight"),
    ("deep", "(d3 @ p[\"4.weight\"]) * a2 * (1 - a2)", "(d3 @ p[\"4.weight\"])", "activation", "derivative"),
    ("deep", "(1 - a1 * a1)", "(1 - a1)", "activation", "square"),
    ("deep", "d2 @ p[\"2.weight\"]", "d2 @ p[\"2.weight\"].T", "transposed", "2.weight"),
    ("deep", "d2 @ p[\"2.weight\"]", "d2", "missing_input", "2.weight"),
    ("deep", "(1 - a1 * a1)", "a1 * (1 - a1)", "activation", "sigmoid"),
    ("deep", "\"2.weight\": d2.T @ a1", "\"2.weight\": d2.T @ a2", "wrong_variable", "2.weight"),
    ("deep", "\"2.bias\": d2.sum(0)", "\"2.bias\": d1.sum(0)", "wrong_variable", "2.bias"),
    ("deep", "a2 * (1 - a2)", "(1 - a2 * a2)", "activation", "tanh"),
    ("deep", "/ len(x)", "", "reduction", "N"),
    ("huber", "torch.where(r.abs() <= 1, r, torch.sign(r))", "r", "other_loss", "squared"),
    ("huber", "torch.where(r.abs() <= 1, r, torch.sign(r))", "torch.sign(r)", "other_loss", "absolute"),
    ("huber", "r.abs() <= 1", "r <= 1", "wrong_residual", "bound"),
    ("huber", "r, torch.sign(r)", "2 * r, torch.sign(r)", "other_loss", "½"),
    ("huber", "torch.where(r.abs() <= 1, r, torch.sign(r))", "r.clamp(-2, 2)", "other_loss", "2"),
    ("huber", "torch.where(r.abs() <= 1, r, torch.sign(r))", "r.clamp(-0.5, 0.5)", "other_loss", "0.5"),
    ("huber", "r, torch.sign(r)", "r, torch.ones_like(r)", "wrong_residual", "sign"),
    ("poisson", "(mu - y)", "(eta - y)", "activation", "exp"),
    ("poisson", "(mu - y)", "(mu - y) * mu", "activation", "derivative"),
    ("poisson", "(mu - y)", "(1 - y / mu)", "activation", "exp"),
    ("poisson", "(mu - y)", "mu", "wrong_residual", "target"),
    ("poisson", "(mu - y)", "(mu - y * eta)", "other_loss", "loss"),
    ("poisson", "/ len(y)", "", "reduction", "N"),
    ("hinge", "margin < 1", "margin < 0", "wrong_residual", "margin"),
    ("hinge", "margin < 1", "margin > 1", "wrong_residual", "margin"),
    ("hinge", "torch.where(margin < 1, -y, torch.zeros_like(y))", "-y", "wrong_residual", "margin"),
    ("hinge", "-y, torch", "y, torch", "factor", "sign"),
    ("hinge", "-y, torch", "-torch.ones_like(y), torch", "wrong_residual", "y"),
    ("hinge", "-y, torch", "-2 * y * (1 - margin), torch", "other_loss", "squared"),
    ("embedding", "dC[x[k, j]] += demb[k, j]", "dC[x[k, j]] = demb[k, j]", "part_of_the_data", "row"),
    ("embedding", "for k in range(x.shape[0])", "for k in range(x.shape[0] - 1)", "part_of_the_data", "last"),
    ("embedding", "for j in range(x.shape[1])", "for j in range(1)", "part_of_the_data", "first"),
    ("embedding", "dlogits[range(len(x)), y] -= 1", "", "wrong_residual", "target"),
    ("embedding", "\"0.weight\": dC", "\"0.weight\": dC / len(x)", "factor", "0.weight"),
    ("batchnorm", "(N * dxhat - dxhat.sum(0) - xhat * (dxhat * xhat).sum(0)) / (N * std)", "dxhat / std",
     "missing_path", "mean"),
    ("batchnorm", " - xhat * (dxhat * xhat).sum(0)", "", "missing_path", "variance"),
    ("batchnorm", " - dxhat.sum(0)", "", "missing_path", "mean"),
    ("batchnorm", "dxhat = dout * p[\"1.weight\"]", "dxhat = dout", "missing_input", "1.weight"),
    ("batchnorm", "dgamma = (dout * xhat).sum(0)", "dgamma = (dout * z).sum(0)",
     "wrong_variable", "1.weight"),
    ("batchnorm", "dgamma = (dout * xhat).sum(0)", "dgamma = dout.sum(0)", "missing_input", "1.weight"),
    ("batchnorm", "dgamma = (dout * xhat).sum(0)", "dgamma = (dout * out).sum(0)",
     "wrong_variable", "1.weight"),
    ("batchnorm", "dbeta = dout.sum(0)", "dbeta = dout.mean(0)", "factor", "1.bias"),
    ("batchnorm", "/ (N * std)", "/ N", "missing_input", "standard deviation"),
    ("conv", "dz = da * (z > 0)", "dz = da", "activation", "relu"),
    ("conv", "\"0.weight\": dK", "\"0.weight\": dK.flip(2, 3)", "transposed", "flip"),
    ("conv", "\"0.weight\": dK", "\"0.weight\": dK.transpose(2, 3)", "transposed", "0.weight"),
    ("conv", "db = dz.sum((0, 2, 3))", "db = dz.mean((0, 2, 3))", "factor", "0.bias"),
    ("conv", "db = dz.sum((0, 2, 3))", "db = da.sum((0, 2, 3))", "activation", "0.bias"),
    ("conv", "\"3.weight\": d.T @ flat", "\"3.weight\": d.T @ z.reshape(n, 18)",
     "wrong_variable", "3.weight"),
    ("weighted", "2 * s * r", "2 * r", "missing_input", "factor"),
    ("weighted", "2 * s * r", "2 * s * s * r", "missing_input", "twice"),
    ("weighted", "/ len(x)", "/ s.sum()", "reduction", "weights"),
    ("weighted", "2 * s * r", "s * r", "factor", "½"),
    ("skip", "dt = dh * (1 - t**2)", "dt = dh * (1 - h**2)", "activation", "tanh"),
    ("skip", "\"W2\": h.T @ d", "\"W2\": t.T @ d", "wrong_variable", "W2"),
    ("recurrent", "dh = dz @ p[\"Wh\"].T", "dh = dz @ p[\"Wh\"]", "transposed", "Wh"),
    ("recurrent", "dWx += x[:, t].T @ dz", "dWx = x[:, t].T @ dz", "missing_path", "Wx"),
    ("recurrent", "dh = dz @ p[\"Wh\"].T", "dh = torch.zeros_like(dh)", "missing_path", "Wh"),
    ("recurrent", "(1 - h[t + 1] ** 2)", "(1 - h[t] ** 2)", "activation", "tanh"),
    ("recurrent", "dWh += h[t].T @ dz", "dWh += h[t + 1].T @ dz", "wrong_variable", "Wh"),
]  # fmt: skip

# (program, what stands there, another right spelling); where nothing stands there, all of it.
RIGHT: list[tuple[str, str, str]] = [
    ("linear", "error.T @ x", 'torch.einsum("ni,nj->ij", error, x)'),
    ("linear", "error.T @ x", "(error * x).sum(0, keepdim=True)"),
    ("linear", "2 / n * error.T @ x", "sum(2 * error[i] * x[i] for i in range(n)).reshape(1, 3) / n"),
    ("linear", "2 / n * error.sum(0)", "2 * error.mean(0)"),
    ("linear", "2 / n * error.T @ x", "-2 / n * (y - prediction).T @ x"),
    ("linear", "x @ p[\"weight\"].T + p[\"bias\"]", "F.linear(x, p['weight'], p['bias'])"),
    ("linear", "", """
        X, t = x.numpy(), y.numpy()
        w, b = p["weight"].numpy(), p["bias"].numpy()
        e = X.dot(w.T) + b - t
        return {"weight": 2 * e.T.dot(X) / len(X), "bias": 2 * e.mean(axis=0)}
        """),
    ("linear", "", """
        w, b = p["weight"].requires_grad_(), p["bias"].requires_grad_()
        gw, gb = torch.autograd.grad(F.mse_loss(x @ w.T + b, y), (w, b))
        return {"weight": gw, "bias": gb}
        """),
    ("linear", "", """
        dw, db = torch.zeros(1, 3), torch.zeros(1)
        dw, db = dw.double(), db.double()
        for xi, yi in zip(x, y):
            e = (xi * p["weight"][0]).sum() + p["bias"] - yi
            dw[0] += 2 * e * xi
            db += 2 * e
        return {"weight": dw / len(x), "bias": db / len(x)}
        """),
    ("linear", "", """
        def loss(p):
            return ((x @ p["weight"].T + p["bias"] - y) ** 2).mean()
        return torch.func.grad(loss)(p)
        """),
    ("linear", "", """
        def one(p, x, y):
            return ((x @ p["weight"].T + p["bias"] - y) ** 2).mean()
        each = torch.func.vmap(torch.func.grad(one), (None, 0, 0))(p, x, y)
        return {name: g.mean(0) for name, g in each.items()}
        """),
    ("theta", "2 / m * x.T @ (h - y)", "2 * (x * (h - y)[:, None]).mean(0)"),
    ("theta", "2 / m * x.T @ (h - y)", "2 / m * (x.T @ x @ theta - x.T @ y)"),
    ("theta", "2 / m * x.T @ (h - y)", "2 / m * (h - y) @ x"),
    ("theta", "2 / m * x.T @ (h - y)", "torch.stack([2 * ((h - y) * x[:, j]).mean() for j in range(3)])"),
    ("theta", "2 / m * x.T @ (h - y)", "2 / m * torch.einsum('ij,i->j', x, h - y)"),
    ("ridge", "2 * 0.3 * theta", "0.6 * theta"),
    ("logistic", "1 / (1 + torch.exp(-z))", "torch.sigmoid(z)"),
    ("logistic", "1 / (1 + torch.exp(-z))", "z.exp() / (1 + z.exp())"),
    ("logistic", "a - y", "(1 - y) * a - y * (1 - a)"),
    ("logistic", "a - y", "torch.where(y == 1, a - 1, a)"),
    ("sigmoid_bce", "dZ = dA * A * (1 - A)", "dZ = A - y"),
    ("softmax", "probs[torch.arange(n), y] -= 1", "probs = probs - F.one_hot(y, 3)"),
    ("softmax", "probs[torch.arange(n), y] -= 1", "for i in range(n): probs[i, y[i]] -= 1"),
    ("softmax", "scores - scores.max(1, keepdim=True).values", "scores"),
    ("onehot", "Y = torch.eye(3, dtype=x.dtype)[y]", "Y = F.one_hot(y, num_classes=3).to(x)"),
    ("onehot", "z.softmax(dim=1)", "(z - z.logsumexp(1, keepdim=True)).exp()"),
    ("onehot", "(yhat - Y) / len(x)",
     "torch.stack([(torch.diag(s) - torch.outer(s, s)) @ (-t / s) for s, t in zip(yhat, Y)]) / len(x)"),
    ("sigmoid_mse", "d2 @ W2 * a1 * (1 - a1)", "torch.einsum('no,oh->nh', d2, W2) * (a1 - a1**2)"),
    ("sigmoid_mse", "a1 * (1 - a1)", "torch.exp(-z1) / (1 + torch.exp(-z1)) ** 2"),
    ("tanh_mse", "(1 - h ** 2)", "(1 - h) * (1 + h)"),
    ("tanh_mse", "(1 - h ** 2)", "1 / torch.cosh(z1) ** 2"),
    ("tanh_mse", "h = torch.tanh(z1)", "h = 2 * torch.sigmoid(2 * z1) - 1"),
    ("relu_ce", "dz1[z1 <= 0] = 0", "dz1[h1 == 0] = 0"),
    ("relu_ce", "dz1[z1 <= 0] = 0", "dz1 = dz1 * torch.heaviside(z1, torch.zeros_like(z1))"),
    ("relu_bce", "dA1 * (Z1 > 0)", "dA1 * torch.where(Z1 > 0, 1.0, 0.0)"),
    ("deep", "(1 - a1 * a1)", "(1 - a1.pow(2))"),
    ("huber", "torch.where(r.abs() <= 1, r, torch.sign(r))", "r.clamp(-1, 1)"),
    ("poisson", "(mu - y)", "mu.sub(y)"),
    ("hinge", "torch.where(margin < 1, -y, torch.zeros_like(y))", "-y * (margin < 1)"),
    ("embedding", "dC[x[k, j]] += demb[k, j]", "dC.index_add_(0, x[k, j:j+1], demb[k, j][None])"),
    ("embedding", "emb = C[x]", "emb = F.one_hot(x, 4).to(C) @ C"),
    ("batchnorm", "(N * dxhat - dxhat.sum(0) - xhat * (dxhat * xhat).sum(0)) / (N * std)",
     "(dxhat - dxhat.mean(0) - xhat * (dxhat * xhat).mean(0)) / std"),
    ("conv", "db = dz.sum((0, 2, 3))", "db = torch.einsum('nkij->k', dz)"),
    ("weighted", "2 * s * r / len(x)", "2 * (s / len(x)) * r"),
    ("skip", "\"W1\": x.T @ dt", "\"W1\": torch.einsum('ni,nj->ij', x, dt)"),
    ("recurrent", "dh = dz @ p[\"Wh\"].T", "dh = torch.einsum('nj,ij->ni', dz, p['Wh'])"),
]  # fmt: skip
