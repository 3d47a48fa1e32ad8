"""The optimizers: torch.optim.SGD bit for bit, and the whole contract of torch.optim.Optimizer."""

import copy
import io
import math
import pickle
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from torchgd import GradientDescent, MiniBatchGradientDescent, StochasticGradientDescent
from torchgd.errors import InputError

NAN, INF = math.nan, math.inf

METHODS: dict[str, Callable[..., GradientDescent]] = {
    "full batch": GradientDescent,
    "per sample": StochasticGradientDescent,
    "mini-batch": lambda params, lr=0.01, **options: MiniBatchGradientDescent(
        params, lr, batch_size=2, **options
    ),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


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


# torch's fused variant rounds otherwise in bfloat16
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
def test_autograd_sees_a_differentiable_step(foreach: bool | None, shape: tuple[int, ...]) -> None:
    """dw₁/dlr = −g and dw₁/dw₀ = 1 for a gradient that does not depend on w₀."""
    w0 = torch.tensor([1.0, 2.0], requires_grad=True)
    lr = torch.full(shape, 0.1, requires_grad=True)
    w = w0.clone()
    w.grad = torch.tensor([3.0, 5.0])
    GradientDescent([w], lr=lr, differentiable=True, foreach=foreach).step()
    assert torch.equal(w, torch.tensor([1.0 - 0.1 * 3.0, 2.0 - 0.1 * 5.0]))
    d_lr, d_w0 = torch.autograd.grad(w.sum(), (lr, w0))
    assert d_lr.reshape(()).item() == -8.0
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


# Errors


LR_ERRORS = [
    (0, "lr is 0.0; give a finite number above 0"),
    (0.0, "lr is 0.0; give a finite number above 0"),
    (-0.0, "lr is -0.0; give a finite number above 0"),
    (-0.01, "lr is -0.01; give a finite number above 0"),
    (NAN, "lr is nan; give a finite number above 0"),
    (INF, "lr is inf; give a finite number above 0"),
    (-INF, "lr is -inf; give a finite number above 0"),
    (torch.tensor(0.0), "lr is 0.0; give a finite number above 0"),
    (torch.tensor(-1.0), "lr is -1.0; give a finite number above 0"),
    (torch.tensor(NAN), "lr is nan; give a finite number above 0"),
    (torch.tensor([INF]), "lr is inf; give a finite number above 0"),
    (torch.tensor([0.1, 0.2]), "lr is a tensor of shape (2,); give one element"),
    (torch.tensor([]), "lr is a tensor of shape (0,); give one element"),
    ("0.1", "lr is '0.1'; give a number above 0"),
    (None, "lr is None; give a number above 0"),
    (1j, "lr is 1j; give a number above 0"),
]


@every_method
@pytest.mark.parametrize(("lr", "message"), LR_ERRORS, ids=str)
def test_learning_rates_that_are_refused(
    method: Callable[..., GradientDescent], lr: Any, message: str
) -> None:
    with pytest.raises(InputError) as error:
        method([parameter(1.0)], lr=lr)
    assert str(error.value) == message
    with pytest.raises(InputError) as error:
        method([{"params": [parameter(1.0)]}, {"params": [parameter(1.0)], "lr": lr}])
    assert str(error.value) == message
    optimizer = method([parameter(1.0)])
    with pytest.raises(InputError) as error:
        optimizer.add_param_group({"params": [parameter(1.0)], "lr": lr})
    assert str(error.value) == message
    assert len(optimizer.param_groups) == 1


def test_an_input_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="lr is 0"):
        GradientDescent([parameter(1.0)], lr=0)


@every_method
def test_what_torch_refuses_is_refused(method: Callable[..., GradientDescent]) -> None:
    w = parameter(1.0)
    with pytest.raises(ValueError, match="empty parameter list"):
        method([])
    with pytest.raises(TypeError, match="Tensors or dicts"):
        method(w)
    with pytest.raises(ValueError, match="more than one parameter group"):
        method([w]).add_param_group({"params": [w]})
    with pytest.raises(ValueError, match="non-leaf"):
        method([w * 2])
    with pytest.raises(TypeError, match="must be a dict"):
        method([w]).add_param_group([w])  # type: ignore[arg-type]


# Groups, schedulers, closures, hooks


@every_method
def test_each_group_has_its_own_options(method: Callable[..., GradientDescent]) -> None:
    a, b, c = parameter(1.0), parameter(1.0), parameter(1.0)
    optimizer = method([{"params": [a]}, {"params": [b], "lr": 0.5, "maximize": True}], lr=0.25)
    optimizer.add_param_group({"params": c, "lr": 2})
    for w in (a, b, c):
        w.grad = torch.ones(1).double()
    optimizer.step()
    assert (a.item(), b.item(), c.item()) == (0.75, 1.5, -1.0)
    assert set(optimizer.defaults) == {"lr", "maximize", "foreach", "differentiable"}
    assert all(set(optimizer.defaults) <= set(group) for group in optimizer.param_groups)


def test_named_parameters_are_taken() -> None:
    model = nn.Linear(2, 1)
    optimizer = GradientDescent(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]


SCHEDULERS: list[Callable[[Optimizer], Any]] = [
    lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
    lambda o: lr_scheduler.StepLR(o, 3),
    lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    lambda o: lr_scheduler.ConstantLR(o),
    lambda o: lr_scheduler.LinearLR(o),
    lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    lambda o: lr_scheduler.PolynomialLR(o),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, cycle_momentum=False),
    lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False),
    lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)]),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[2]
    ),
    lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.05),
]


def test_the_table_of_schedulers_is_complete() -> None:
    tested = {type(make(GradientDescent([parameter(1.0)]))).__name__ for make in SCHEDULERS} | {"LRScheduler"}
    assert set(lr_scheduler.__all__) <= tested


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("make", SCHEDULERS, ids=lambda make: make.__code__.co_names[1])
def test_every_scheduler_without_a_warning(make: Callable[[Optimizer], Any], tensor_lr: bool) -> None:
    weights, paths = (parameter(1.0), parameter(1.0)), ([], [])  # type: ignore[var-annotated]
    for w, path, factory in zip(weights, paths, (GradientDescent, torch.optim.SGD), strict=True):
        lr = torch.tensor(0.1, dtype=torch.float64) if tensor_lr else 0.1
        optimizer = factory([{"params": [w]}, {"params": [parameter(1.0)], "lr": lr}], lr=lr)
        schedule = make(optimizer)
        for _ in range(12):  # warnings are errors
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()
            if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
                schedule.step(1.0)
            else:
                schedule.step()
            path.append((w.item(), float(optimizer.param_groups[0]["lr"])))
    assert paths[0] == paths[1]
    assert len({rate for _, rate in paths[0]}) > 1


@every_method
def test_the_closure_runs_with_gradients_and_its_loss_comes_back(
    method: Callable[..., GradientDescent],
) -> None:
    w = parameter(1.0)
    optimizer = method([w], lr=0.25)
    calls: list[bool] = []

    def closure() -> Any:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (3 * w).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss: Any = optimizer.step(closure)
        assert not torch.is_grad_enabled()
    assert calls == [True]
    assert loss.item() == 3.0
    assert w.item() == 0.25
    assert optimizer.step(lambda: 7.0) == 7.0
    assert optimizer.step() is None


def test_hooks_before_and_after_a_step() -> None:
    w = parameter(1.0)
    optimizer = StochasticGradientDescent([w], lr=0.5)
    seen: list[tuple[str, float]] = []
    handles = [
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", w.item()))),
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", w.item()))),
    ]
    w.grad = torch.ones(1).double()
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert seen == [("before", 1.0), ("after", 0.5)]


@every_method
@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_both_ways(method: Callable[..., GradientDescent], set_to_none: bool) -> None:
    w = parameter(1.0)
    w.grad = torch.ones(1).double()
    method([w]).zero_grad(set_to_none)
    assert (w.grad is None) if set_to_none else (w.grad is not None and w.grad.item() == 0.0)


# State


def stepped(optimizer: Optimizer) -> float:
    (w,) = optimizer.param_groups[0]["params"]
    w.grad = torch.ones(1).double()
    optimizer.step()
    return float(w.detach())


@every_method
def test_the_state_there_and_back(method: Callable[..., GradientDescent]) -> None:
    optimizer = method([parameter(1.0)], lr=0.25, maximize=True)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = method([parameter(1.0)], lr=0.5)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.param_groups[0]["lr"] == 0.25
    assert stepped(other) == stepped(optimizer) == 1.25
    assert other.state_dict() == optimizer.state_dict()


def test_the_state_of_torchs_sgd_and_back() -> None:
    sgd = torch.optim.SGD([parameter(1.0)], lr=0.25, maximize=True)
    optimizer = GradientDescent([parameter(1.0)], lr=0.5)
    optimizer.load_state_dict(sgd.state_dict())
    assert stepped(optimizer) == stepped(sgd) == 1.25
    back = torch.optim.SGD([parameter(1.0)], lr=0.5)
    back.load_state_dict(optimizer.state_dict())
    assert stepped(back) == 1.25


def test_the_state_of_a_torchs_sgd_with_momentum_is_refused() -> None:
    sgd = torch.optim.SGD([parameter(1.0)], lr=0.25, momentum=0.9)
    optimizer = GradientDescent([parameter(1.0)], lr=0.5)
    with pytest.raises(InputError) as error:
        optimizer.load_state_dict(sgd.state_dict())
    assert str(error.value) == (
        "the state has momentum 0.9, but GradientDescent has none; load it into a torch.optim.SGD"
    )
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_an_old_state_lacks_options() -> None:
    optimizer = GradientDescent([parameter(1.0)], lr=0.5)
    state = optimizer.state_dict()
    for name in ("maximize", "foreach", "differentiable"):
        del state["param_groups"][0][name]
    optimizer.load_state_dict(state)
    assert stepped(optimizer) == 0.5


@every_method
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_whole_and_independent(
    method: Callable[..., GradientDescent], duplicate: Callable[[Any], Any]
) -> None:
    w = parameter(1.0)
    generator = torch.Generator().manual_seed(8)
    options = {} if method is GradientDescent else {"order": "shuffled", "generator": generator}
    optimizer = method([w], lr=0.25, **options)
    list(optimizer.batches(20))
    twin = duplicate(optimizer)
    assert type(twin) is type(optimizer)
    assert repr(twin) == repr(optimizer)
    assert [list(twin.batches(20)) for _ in range(2)] == [list(optimizer.batches(20)) for _ in range(2)]
    assert stepped(twin) == 0.75
    assert w.item() == 1.0


def test_it_keeps_no_state() -> None:
    optimizer = GradientDescent([parameter(1.0)])
    stepped(optimizer)
    assert optimizer.state == {}


# With the rest of PyTorch


@pytest.mark.parametrize("bad", [NAN, INF])
def test_with_a_grad_scaler(bad: float) -> None:
    w, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    for p, optimizer in ((w, GradientDescent([w], lr=0.1)), (q, torch.optim.SGD([q], lr=0.1))):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for factor in (1.0, bad, 3.0):  # the second step is left out
            optimizer.zero_grad()
            scaler.scale((factor * p).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert torch.equal(w, q)
    assert w.isfinite().all()


def test_with_the_foreach_of_autocast() -> None:
    model = nn.Linear(3, 1)
    optimizer = GradientDescent(model.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.ones(2, 3)).square().mean()
    loss.backward()
    optimizer.step()
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
def test_a_compiled_step(backend: str, lr: float | Tensor) -> None:
    models = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    compiled = GradientDescent(models[0].parameters(), lr=lr)
    plain = GradientDescent(models[1].parameters(), lr=lr)
    step = torch.compile(compiled.step, backend=backend)
    x = torch.ones(2, 3)
    for _ in range(12):
        for model, optimizer in zip(models, (compiled, plain), strict=True):
            optimizer.zero_grad()
            model(x).square().mean().backward()
        step()
        plain.step()
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
            assert torch.equal(p, q)
    torch._dynamo.reset()


def distributed_run(rank: int, world: int, folder: str) -> None:
    """Train a network on this rank's share of the data, twice: by us and by torch.optim.SGD."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=timedelta(minutes=2),
    )
    ends = []
    for factory in (GradientDescent, torch.optim.SGD):
        torch.manual_seed(0)
        model = nn.parallel.DistributedDataParallel(
            nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), gradient_as_bucket_view=True
        )
        optimizer = factory(model.parameters(), lr=0.1)
        x = torch.randn(8, 3)[rank * 4 : rank * 4 + 4]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for step in range(12):
                optimizer.zero_grad(set_to_none=bool(step % 2))
                model(x).square().mean().backward()
                optimizer.step()
        ends.append([p.detach().clone() for p in model.parameters()])
    torch.save(ends, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel_of_one_process(tmp_path: Path) -> None:
    distributed_run(0, 1, str(tmp_path))
    ours, theirs = torch.load(tmp_path / "0.pt", weights_only=True)
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_distributed_data_parallel_of_two_processes(tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=distributed_run, args=(rank, 2, str(tmp_path)), daemon=True) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    ours, theirs = ranks[0]
    for others in (theirs, ranks[1][0], ranks[1][1]):
        assert all(torch.equal(p, q) for p, q in zip(ours, others, strict=True))
