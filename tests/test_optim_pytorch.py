"""The optimizers in the company of schedulers, GradScaler, torch.compile and DistributedDataParallel."""

import math
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from torchgd import GradientDescent

NAN, INF = math.nan, math.inf


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


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
