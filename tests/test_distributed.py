"""Two processes on this machine under torchrun, against one."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from torchgd import InputError, LinearModel, epoch_map, train
from torchgd.batches import Batches
from torchgd.cli import main
from torchgd.data.dataset import Dataset
from torchgd.epoch.distributed import Group, epoch_of_shards, process_group
from torchgd.epoch.parallel import Pieces, mean_over_ranks
from torchgd.moments import Moments

RANK = Path(__file__).parent / "rank.py"


def samples(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    return x, 3 * x + torch.randn(n, generator=generator, dtype=torch.float64)


def small_network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def torchrun(*program: str | Path) -> subprocess.CompletedProcess[str]:
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launch, *program], env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    done = torchrun(RANK, "answer", answers)
    assert done.returncode == 0, done.stderr
    found = json.loads(answers.read_text())  # rank 0 alone wrote it

    x, y = samples(1001)
    for batch_size in (1, 7, 1001, 5000):
        assert found[f"epochs of {batch_size}"] == pytest.approx(
            [epoch_map(x, y, 0.01, batch_size).after(k)(1.0) for k in (1, 50)], rel=1e-12
        )
    moments = Moments.of([(x, y)])
    assert found["costs"] == pytest.approx([moments.cost(w) for w in (-1.0, 3.0)], rel=1e-12)

    x, y = samples(7)
    for batch_size in (7, 3):  # shares of 3 and 4 samples; a last batch of one sample, none of it for rank 0
        model, trajectory = small_network(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
        for _ in range(5):
            for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):
                optimizer.zero_grad()
                loss = mse_loss(model(xs.unsqueeze(1)).squeeze(1), ys)
                loss.backward()
                optimizer.step()
                trajectory.append([loss.item(), *nn.utils.parameters_to_vector(model.parameters()).tolist()])
        assert found[f"network, batches of {batch_size}"] == [
            pytest.approx(row, rel=1e-12) for row in trajectory
        ]

    linear = LinearModel(1.0, dtype=torch.float64)
    history = train(linear, x, y, torch.optim.SGD(linear.parameters(), lr=0.05), epochs=20)
    reason = "the loss of another process is not finite after update 1"  # of rank 1, whose x is 1e150
    assert found["diverged"] == ["diverged", reason]
    assert found["train"] == [pytest.approx(history.cost.tolist(), rel=1e-12), "finished"]


def test_a_process_that_dies_ends_the_job_with_one_line() -> None:
    done = torchrun(RANK, "die")
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if line.startswith("torchgd:")]
    assert ours == ["torchgd: rank 0: another process has died; see its own lines"]
    assert "rank.py" not in done.stderr.split("Traceback")[0]  # the traceback that follows is torchrun's own


def test_the_command_reads_in_two_processes_and_goes_on_in_them(tmp_path: Path) -> None:
    """Half a run, the other half of it, and the whole run in one process."""
    x, y = samples(1001)
    for name, values in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", values.numpy())
    files = [f"--{option}={tmp_path / name}" for option, name in (("x", "x.npy"), ("y", "y.npy"))]
    for folder, command in (
        ("two", [*files, "--epochs=3"]),
        ("two", [*files, "--epochs=6", "--resume", "--override=epochs"]),
    ):
        done = torchrun("-m", "torchgd", "train", *command, "--method=sgd", f"--logdir={tmp_path / folder}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run_dir") == 1  # rank 0 alone prints
    assert main(["train", *files, "--epochs=6", "--method=sgd", f"--logdir={tmp_path / 'one'}"]) == 0
    found = {}
    for name in ("one", "two"):
        with (tmp_path / name / "x/sgd/history.csv").open(newline="") as file:
            found[name] = [row for row in csv.DictReader(file) if row["epoch"]]
    assert len(found["one"]) == 7
    for column in ("epoch", "update", "samples_seen", "weight", "cost"):
        one, two = ([float(row[column]) for row in found[name]] for name in ("one", "two"))
        assert two == pytest.approx(one, rel=1e-12)


def test_a_process_that_stalls_is_waited_for_aloud_and_not_for_ever(tmp_path: Path) -> None:
    script = tmp_path / "stall.py"
    script.write_text(
        "import time\nfrom torchgd.epoch import distributed\ndistributed.HEARTBEAT = 0.1\n"
        "with distributed.process_group(patience=2) as group:\n"
        "    time.sleep(8 * group.rank)\n"
        "    group.gather([1.0])\n",
        encoding="utf-8",
    )
    done = torchrun(script)
    assert done.returncode != 0
    assert "torchgd: rank 0 waits: another rank has not answered since " in done.stderr
    assert "torchgd: rank 0: another process has not answered for 2 s" in done.stderr
    assert "Traceback" not in done.stderr.split("torchgd: rank 0: another process has not")[0]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts the only process of a job."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize(("gpus", "backend"), [(0, "gloo"), (1, "gloo"), (2, "nccl"), (3, "nccl")])
def test_all_ranks_of_a_machine_take_the_same_backend(
    monkeypatch: pytest.MonkeyPatch, gpus: int, backend: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank in (0, 1):
        chosen = list[str]()
        begin = lambda backend, timeout, chosen=chosen: chosen.append(backend)  # noqa: E731
        monkeypatch.setattr(torch.distributed, "init_process_group", begin)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        with process_group() as group:
            assert (chosen, group.device) == ([backend], f"cuda:{rank}" if backend == "nccl" else "cpu")


@pytest.mark.usefixtures("launched")
def test_errors_name_the_rank(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = samples(5)
    x[3] = math.nan
    with (
        pytest.raises(InputError, match=r"^rank 0: x\[3\]: nan"),
        process_group() as group,
    ):
        epoch_of_shards(Dataset(x, y), 0.01, 1, group)
    with pytest.raises(SystemExit) as ended, process_group():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:5")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "torchgd: rank 0: another process has died; see its own lines\n"
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(InputError, match=r"^2 processes for 1 samples"), process_group() as group:
        group.shard(1)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with pytest.raises(SystemExit) as ended, process_group() as group:  # rank 0 has said it
        group.shard(1)
    assert (ended.value.code, capsys.readouterr().err) == (2, "")
    with pytest.raises(RuntimeError, match="another bug"), process_group():
        raise RuntimeError("another bug")


def test_alone_it_is_a_group_of_one() -> None:
    x, y = samples(20)
    with process_group() as group:
        (epoch,), moments = epoch_of_shards(Dataset(x, y), 0.01, 3, group)
        assert group == Group(0, 1)
        assert list(Pieces(Batches(5, 2), group)) == list(Batches(5, 2))
        assert mean_over_ranks(mse_loss, group)(x, y) == mse_loss(x, y)
    assert epoch(1.0) == pytest.approx(epoch_map(x, y, 0.01, 3)(1.0), rel=1e-14)
    assert moments.cost(-1.0) == pytest.approx(Moments.of([(x, y)]).cost(-1.0), rel=1e-14)


@pytest.mark.parametrize(
    ("n", "batch_size", "size"), [(10, 1, 3), (10, 3, 4), (10, 3, 2), (7, 7, 2), (7, 99, 7)]
)
def test_shards_are_all_samples_in_order(n: int, batch_size: int, size: int) -> None:
    shards = [Group(rank, size).shard(n, batch_size) for rank in range(size)]
    assert [sample for begin, end in shards for sample in range(begin, end)] == list(range(n))
    assert all(begin < end for begin, end in shards)
    if batch_size < n:
        assert all(begin % batch_size == 0 for begin, _ in shards)


@pytest.mark.parametrize(
    ("n", "batch_size", "message"),
    [
        (2, 1, "3 processes for 2 samples; start 2 or fewer"),
        (2, 2, "3 processes for 2 samples; start 2 or fewer"),
        (20, 10, "3 processes for 2 batches of 10 samples; start 2 or fewer"),
    ],
)
def test_more_ranks_than_work(n: int, batch_size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Group(0, 3).shard(n, batch_size)
