"""The limit of the learning rate for more than one weight: exact for w and b, local for any module.

On a quadratic loss with Hessian H full-batch gradient descent multiplies the error along an eigenvector of
eigenvalue λ by 1 − lr λ, so it converges for 0 < lr < 2/λmax. Near a point every smooth loss is
about quadratic: above 2/λmax the steepest direction begins to swing. The rest of the run may differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import Tensor, nn

from torchgd.errors import InputError
from torchgd.samples import Numbers, check_finite, vectors

DOUBT = 1e-3  # the probability that a bound does not hold
LOSS_SCALE = {"mean": 1.0, "half": 0.5}


@dataclass(frozen=True)
class LineCertificate:
    """What gradient descent on y = w·x + b does, from the two eigenvalues of its Hessian.

    Attributes:
        eigenvalues: (smallest, largest), in units of the loss over the weight².
        slow, fast: their unit eigenvectors as (w, b), along which the error shrinks slowest and fastest.
        condition: largest over smallest; inf if the samples do not determine w and b.
        limit: 2 / largest: every lr below it converges.
        best_lr: 2 / (smallest + largest), which shrinks both errors equally.
        best_factor: what is left of the error after an update at best_lr, (condition − 1) / (condition + 1).
        verdict: all of this in one sentence.
    """

    eigenvalues: tuple[float, float]
    slow: tuple[float, float]
    fast: tuple[float, float]
    condition: float
    limit: float
    best_lr: float
    best_factor: float
    verdict: str


def line_stability(x: Numbers, loss: str = "mean") -> LineCertificate:
    """Certify full-batch gradient descent on y = w·x + b; y does not matter.

        H = 2 [Σx², Σx; Σx, n] for the sum, H/n for the mean, H/2n for half the mean

    Args:
        x: the inputs, shape (n,).
        loss: "mean", "sum" or "half", as for :func:`torchgd.stability`.

    Raises:
        InputError: x is not a vector of finite numbers, or the loss has another name.

    Example:
        >>> import torch
        >>> line = line_stability(torch.tensor([1.0, 2.0, 3.0]), loss="sum")  # lecture 5
        >>> [round(value, 4) for value in (*line.eigenvalues, line.condition, line.limit)]
        [0.7212, 33.2788, 46.145, 0.0601]

    Source: 《PyTorch深度学习实践》, lecture 5 (2020).
    """
    x = vectors(x, x)[0].to("cpu", torch.float64)
    check_finite(x, "x")
    scale = {"sum": float(len(x)), **LOSS_SCALE}.get(loss)
    if scale is None:
        raise InputError(f"loss is {loss!r}; give one of mean, sum, half")
    mean, square = x.mean(), x.square().mean()
    hessian = 2 * scale * torch.stack([square, mean, mean, torch.ones_like(mean)]).reshape(2, 2)
    values, directions = torch.linalg.eigh(hessian)
    low, high = values.tolist()
    flat = low <= 4 * torch.finfo(torch.float64).eps * high
    condition = math.inf if flat else high / low
    # of the two directions that with w > 0
    directions = directions * torch.where(directions[0] < 0, -1.0, 1.0)
    slow, fast = (tuple(vector.tolist()) for vector in directions.T)
    best = 2 / (low + high)
    why = "the samples do not tell w from b" if flat else f"the condition number is {condition:.4g}"
    verdict = (
        f"lr must be below {2 / high:.6g} = 2/{high:.6g}; {why}: even the best lr, {best:.6g}, "
        f"leaves {1 - best * low:.6g} of the error an update along (w, b) = ({slow[0]:.3f}, {slow[1]:.3f})."
    )
    return LineCertificate((low, high), slow, fast, condition, 2 / high, best, 1 - best * low, verdict)


@dataclass(frozen=True)
class LocalLimit:
    """The limit of the learning rate at a point of a module's parameters.

    Attributes:
        eigenvalue: a lower bound of the Hessian's largest eigenvalue, λmax.
        highest: an upper bound of λmax, with a certainty of 99.9 %.
        limit: 2 / highest, on the safe side; inf if no direction has a positive curvature.
        iterations: the number of Hessian-vector products.
        converged: whether highest is within the tolerance of eigenvalue.
        message: the limit in words, which holds at this point only.
    """

    eigenvalue: float
    highest: float
    limit: float
    iterations: int
    converged: bool
    message: str


def local_limit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
    *,
    tolerance: float = 0.01,
    max_iterations: int = 500,
    seed: int = 0,
) -> LocalLimit:
    """Find 2/λmax of the Hessian H at the model's present parameters, for full-batch gradient descent.

    Lanczos' method never forms H: k products Hv from a random start give a k × k matrix, whose largest
    eigenvalue θ is at most λmax. For P parameters, with probability 1 − δ,

        λmax ≤ θ + ε (λmax − λmin),    ε = (log(1.648 √P / δ) / (2k − 1))²,    and λmax = θ from k = P on

    Args:
        model: any module; only its parameters that require a gradient count. It is left unchanged.
        x, y: all samples, as the model and the loss take them.
        loss_fn: loss of (prediction, target).
        tolerance: of ``highest``, relative to ``eigenvalue``.
        max_iterations: Hessian-vector products at most; each keeps a vector of P numbers.
        seed: of the start.

    Raises:
        InputError: no parameters require a gradient, or the loss is not finite.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, dtype=torch.float64)
        >>> x = torch.tensor([[1.0], [2.0], [3.0]]).double()
        >>> round(local_limit(model, x, 2 * x, torch.nn.MSELoss(reduction="sum")).limit, 4)
        0.0601

    Source: J. Kuczyński, H. Woźniakowski, Estimating the largest eigenvalue by the power and Lanczos
    algorithms with a random start, SIAM J. Matrix Anal. Appl. 13 (1992), theorem 4.2.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("no parameter of the model requires a gradient; there is nothing to train")
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # a forward may change them
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
    with torch.enable_grad(), torch.random.fork_rng(devices):
        loss = loss_fn(torch.func.functional_call(model, buffers, (x,)), y)
        if not torch.isfinite(loss).all():
            raise InputError(f"the loss is {loss.item()} at these parameters; start where it is finite")
        slope = _flat(torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True))

    def product(v: Tensor) -> Tensor:
        if not slope.requires_grad:  # the loss is linear in the parameters
            return torch.zeros_like(v)
        rows = torch.autograd.grad(slope, parameters, v, retain_graph=True, materialize_grads=True)
        return _flat(rows).detach()

    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(len(slope), generator=generator, dtype=torch.float64).to(slope)
    eigenvalue, highest, iterations = _largest(product, v, tolerance, max_iterations)
    limit = 2 / highest if highest > 0 else math.inf
    converged = highest <= (1 + tolerance) * eigenvalue or highest <= 0
    message = f"Here, and only here, lr must be below {limit:.6g} = 2/λmax; along the run λmax changes."
    if f"{highest:.6g}" != f"{eigenvalue:.6g}":
        message += f" After {iterations} products λmax is known to lie from {eigenvalue:.6g} to"
        message += f" {highest:.6g}, with a certainty of {1 - DOUBT:.1%}; the limit is that of the latter."
    return LocalLimit(eigenvalue, highest, limit, iterations, converged, message)


def _largest(
    product: Callable[[Tensor], Tensor], v: Tensor, tolerance: float, most: int
) -> tuple[float, float, int]:
    """A lower and an upper bound of the largest eigenvalue, and the number of products."""
    basis, count = [v / v.norm()], len(v)
    diagonal, beside = list[float](), list[float]()
    rounding = torch.finfo(v.dtype).eps
    while True:
        hv = product(basis[-1])
        diagonal.append(torch.dot(basis[-1], hv).item())
        for _ in range(2):  # orthogonal to all earlier vectors; once is not exact enough
            for known in basis:
                hv = hv - torch.dot(known, hv) * known
        k, rest = len(diagonal), hv.norm().item()
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        for i, value in enumerate(beside):
            small[i, i + 1] = small[i + 1, i] = value
        values = torch.linalg.eigvalsh(small)
        low, high = values[0].item(), values[-1].item()
        size = max(abs(low), abs(high), rest)
        slack = 8 * rounding * math.sqrt(k) * size if count > 1 else 0.0
        if k == count or rest <= 8 * rounding * math.sqrt(count) * size:  # nothing lies outside the basis
            return high, high if abs(high) > slack else slack, k
        part = (math.log(1.648 * math.sqrt(count) / DOUBT) / (2 * k - 1)) ** 2
        highest = high + part * (high - low) / (1 - 2 * part) + slack if part < 0.25 else math.inf
        if k >= most or highest <= (1 + tolerance) * high:
            return high, highest, k
        beside.append(rest)
        basis.append(hv / rest)


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
