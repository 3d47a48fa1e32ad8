"""The optimizers: torch.optim.SGD bit for bit, and the whole contract of torch.optim.Optimizer."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rules import every_method, parameter
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from torchgd import GradientDescent

NAN, INF = math.nan, math.inf

# Equality with torch.optim.SGD


def network(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 2)).to(dtype)


def groups(model: nn.Sequential) -> list[dict[str, Any]]:
    """Three layers in three groups; one has its own lr, one climbs."""
    first, second, third = (list(model[i].parameters()) for i in (0, 2, 4))
    return [
        {"params": first},
        {"params": second, "lr": 0.03},
        {"params": third, "lr": 0.001, "maximize": True},
    ]


# SGD(fused=True) of torch 2.13 leaves all but the last n mod 16 elements in bfloat16 where they are
VARIANTS = [
    (torch.float32, [{"foreach": False}, {"foreach": True}, {"fused": True}]),
    (torch.float64, [{"foreach": False}, {"foreach": True}, {"fused": True}]),
    (torch.bfloat16, [{"foreach": False}, {"foreach": True}]),
]


@pytest.mark.parametrize(("dtype", "variants"), VARIANTS, ids=str)
def test_equal_to_torchs_sgd_bit_for_bit_over_1000_steps(
    dtype: torch.dtype, variants: list[dict[str, Any]]
) -> None:
    model = network(dtype)
    optimizer = GradientDescent(groups(model), lr=0.01)
    peers: list[tuple[nn.Sequential, Optimizer]] = []
    for variant in variants:
        peer = network(dtype)
        peers.append((peer, torch.optim.SGD(groups(peer), lr=0.01, **variant)))
    for foreach in (True, False):
        peer = network(dtype)
        peers.append((peer, GradientDescent(groups(peer), lr=0.01, foreach=foreach)))
    schedules = [
        lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=1000, cycle_momentum=False)
        for o in [optimizer, *(o for _, o in peers)]
    ]
    x, y = torch.randn(8, 6, dtype=dtype), torch.randn(8, 2, dtype=dtype)
    start = [p.detach().clone() for p in model.parameters()]
    for step in range(1000):
        optimizer.zero_grad(set_to_none=bool(step % 2))
        nn.functional.mse_loss(model(x), y).backward()
        for p in model[4].parameters():
            assert p.grad is not None
            p.grad = p.grad.neg()  # this group climbs
        for peer, o in peers:  # the same .grad
            for p, q in zip(model.parameters(), peer.parameters(), strict=True):
                q.grad = p.grad
            o.step()
        optimizer.step()
        for schedule in schedules:
            schedule.step()
        for peer, o in peers:
            pairs = zip(model.parameters(), peer.parameters(), strict=True)
            assert all(torch.equal(p, q) for p, q in pairs), f"step {step}, {o}"
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), start, strict=True))


@every_method
@pytest.mark.parametrize("foreach", [True, False, None])
@pytest.mark.parametrize("maximize", [True, False])
def test_extreme_numbers_round_as_in_torchs_sgd(
    method: Callable[..., GradientDescent], foreach: bool | None, maximize: bool
) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, 5e-324, -1e308, 1e308, INF, -INF, NAN], dtype=torch.float64)
    w, g = values.repeat(len(values)), values.repeat_interleave(len(values))
    for lr in (0.1, 1e-320, 1e300, 3):
        p, q = nn.Parameter(w.clone()), nn.Parameter(w.clone())
        p.grad, q.grad = g.clone(), g.clone()
        method([p], lr=lr, maximize=maximize, foreach=foreach).step()
        torch.optim.SGD([q], lr=lr, maximize=maximize, foreach=False).step()
        assert torch.equal(
            p.detach().view(torch.int64)[p.isfinite()], q.detach().view(torch.int64)[q.isfinite()]
        )
        assert torch.equal(p.isnan(), q.isnan())
        assert torch.equal(p[p.isinf()], q[q.isinf()])


@every_method
def test_one_step_is_the_formula(method: Callable[..., GradientDescent]) -> None:
    w = parameter(1.0, -2.0)
    w.grad = torch.tensor([4.0, 0.5]).double()
    method([w], lr=0.25).step()
    assert w.tolist() == [1.0 - 0.25 * 4.0, -2.0 - 0.25 * 0.5]
    method([w], lr=0.25, maximize=True).step()
    assert w.tolist() == [1.0, -2.0]
    assert w.grad.tolist() == [4.0, 0.5]  # left as found


@pytest.mark.parametrize("foreach", [True, False, None])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_learning_rate_in_a_tensor(foreach: bool | None, shape: tuple[int, ...]) -> None:
    pair = [[nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(2)))] for _ in range(2)]
    ours = GradientDescent(pair[0], lr=torch.full(shape, 0.1), foreach=foreach)
    sgd = torch.optim.SGD(pair[1], lr=torch.full(shape, 0.1), foreach=foreach)
    for rate in (0.1, 0.05):
        for optimizer, (p,) in zip((ours, sgd), pair, strict=True):
            optimizer.param_groups[0]["lr"].fill_(rate)
            p.grad = torch.full((3,), 0.3)
            optimizer.step()
        assert torch.equal(pair[0][0], pair[1][0])


@pytest.mark.parametrize("foreach", [False, None])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("sign", [-1, 1], ids=["descend", "climb"])
def test_autograd_sees_a_differentiable_step(foreach: bool | None, shape: tuple[int, ...], sign: int) -> None:
    """dw₁/dlr = ∓g and dw₁/dw₀ = 1 for a gradient that does not depend on w₀."""
    w0 = torch.tensor([1.0, 2.0], requires_grad=True)
    lr = torch.full(shape, 0.1, requires_grad=True)
    w = w0.clone()
    w.grad = torch.tensor([3.0, 5.0])
    GradientDescent([w], lr=lr, differentiable=True, foreach=foreach, maximize=sign > 0).step()
    assert torch.equal(w, torch.tensor([1.0 + sign * 0.1 * 3.0, 2.0 + sign * 0.1 * 5.0]))
    d_lr, d_w0 = torch.autograd.grad(w.sum(), (lr, w0))
    assert d_lr.reshape(()).item() == sign * 8.0
    assert d_w0.tolist() == [1.0, 1.0]


def test_without_differentiable_the_step_leaves_no_trace() -> None:
    w = parameter(1.0)
    w.grad = torch.ones(1).double()
    GradientDescent([w]).step()
    assert w.grad_fn is None
    assert w.is_leaf
    assert w.requires_grad
    assert torch.is_grad_enabled()


# Kinds of parameters


KINDS: dict[str, Callable[[], Tensor]] = {
    "shape ()": lambda: torch.tensor(1.5),
    "empty": lambda: torch.zeros(0, 3),
    "transposed": lambda: torch.randn(4, 3).t(),
    "every other": lambda: torch.randn(10)[::2],
    "channels last": lambda: torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "half": lambda: torch.randn(3).half(),
}


@pytest.mark.parametrize("foreach", [True, False, None])
def test_all_kinds_of_parameters_in_one_group(foreach: bool | None) -> None:
    torch.manual_seed(4)
    ours = [nn.Parameter(make()) for make in KINDS.values()]
    theirs = [nn.Parameter(p.detach().clone(memory_format=torch.preserve_format)) for p in ours]
    for p, q in zip(ours, theirs, strict=True):
        p.grad = torch.randn_like(p).contiguous()  # of other strides than its parameter
        q.grad = p.grad.clone()
    strides = [p.stride() for p in ours]
    GradientDescent(ours, lr=0.1, foreach=foreach).step()
    torch.optim.SGD(theirs, lr=0.1, foreach=foreach).step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
    assert [p.stride() for p in ours] == strides


@pytest.mark.parametrize("foreach", [True, False, None])
@pytest.mark.parametrize("coalesced", [True, False])
def test_sparse_gradients(foreach: bool | None, coalesced: bool) -> None:
    weight = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    tables = [nn.Embedding.from_pretrained(weight.clone(), freeze=False, sparse=True) for _ in range(2)]
    dense = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizers = (
        GradientDescent([tables[0].weight, dense[0]], lr=0.1, foreach=foreach),
        torch.optim.SGD([tables[1].weight, dense[1]], lr=0.1, foreach=False),
    )
    for optimizer, table, p in zip(optimizers, tables, dense, strict=True):
        (table(torch.tensor([1, 4, 4])) * p).sum().backward()
        assert table.weight.grad is not None
        if coalesced:
            table.weight.grad = table.weight.grad.coalesce()
        optimizer.step()
    assert torch.equal(tables[0].weight, tables[1].weight)
    assert torch.equal(dense[0], dense[1])
    untouched = [0, 2, 3, 5]
    assert torch.equal(tables[0].weight[untouched], weight[untouched])


@pytest.mark.parametrize("foreach", [True, False, None])
def test_parameters_without_a_gradient_are_left_alone(foreach: bool | None) -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    unused, used = parameter(1.0), parameter(1.0)
    used.grad = torch.ones(1).double()
    optimizer = GradientDescent([frozen, unused, used], lr=0.5, foreach=foreach)
    optimizer.step()
    assert frozen.tolist() == [1.0, 1.0]
    assert unused.item() == 1.0
    assert unused.grad is None
    assert used.item() == 0.5
    used.grad = None
    optimizer.step()  # none has one
    assert used.item() == 0.5


@pytest.mark.parametrize("foreach", [True, False, None])
def test_on_the_meta_device(foreach: bool | None) -> None:
    """A step on meta tensors computes nothing; it fails if anything asks for a number."""
    model = nn.Linear(2, 2, device="meta")
    optimizer = GradientDescent(model.parameters(), lr=0.1, foreach=foreach)
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.zeros(3, 2, device="meta")).sum().backward()
        optimizer.step()


@pytest.mark.cuda
@pytest.mark.parametrize("foreach", [True, False, None])
def test_on_cuda(foreach: bool | None) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)).cuda()
    peer = copy.deepcopy(model)
    on_cpu = nn.Parameter(torch.ones(2))
    optimizer = GradientDescent([*model.parameters(), on_cpu], lr=0.1, foreach=foreach)
    sgd = torch.optim.SGD(peer.parameters(), lr=0.1)
    x = torch.ones(5, 3, device="cuda")
    on_cpu.grad = torch.ones(2)
    for _ in range(20):
        for network, o in ((model, optimizer), (peer, sgd)):
            network.zero_grad()
            network(x).square().mean().backward()
            torch.cuda.set_sync_debug_mode("error")
            try:
                o.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), peer.parameters(), strict=True))
