"""An epoch under torchrun: every process takes a contiguous share of the samples.

    torchrun --nproc-per-node 2 -m torchgd train --x x.npy --y y.npy --method sgd

Sequential SGD over all samples is exact: rank r reads its own share and composes its updates to one map.
The maps, and the sums that give the cost, are gathered in one message; composed in rank order the maps are
the map of the whole epoch. Without shuffling this map holds for every epoch, and rank 0 does the rest.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import timedelta
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchgd.data.checksum import Checksum
from torchgd.data.dataset import Dataset
from torchgd.epoch.maps import epoch_with_moments
from torchgd.epoch_maps import EpochMap
from torchgd.errors import InputError
from torchgd.interruption import stoppable
from torchgd.moments import Moments

IN_MEMORY, FROM_FILES = 1 << 24, 1 << 21  # samples of a block, between which the threads meet

HEARTBEAT = 30.0  # seconds without another rank's answer, then a message is printed
PATIENCE = 1800.0  # seconds without another rank's answer, then the job ends


class _EveryRankError(InputError):
    """The same input error on every rank; only rank 0 prints it."""


@dataclass(frozen=True)
class Group:
    """The processes of a job: this one's rank, how many there are, and its device.

    Example:
        >>> [Group(rank, 3).shard(10, batch_size=2) for rank in range(3)]
        [(0, 2), (2, 6), (6, 10)]
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    def shard(self, n: int, batch_size: int = 1) -> tuple[int, int]:
        """This rank's samples of n, from begin to end: whole batches, unless one batch is all.

        Raises:
            InputError: there are more ranks than batches; or, if one batch is all, more ranks than samples.
        """
        unit = 1 if batch_size >= n else batch_size
        units = -(-n // unit)
        if self.size > units:
            what = "samples" if unit == 1 else f"batches of {unit} samples"
            raise _EveryRankError(f"{self.size} processes for {units} {what}; start {units} or fewer")
        begin, end = (unit * (units * rank // self.size) for rank in (self.rank, self.rank + 1))
        return begin, min(n, end)

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Every rank's numbers, in rank order, on every rank: one message.

        A signal from torchrun (another process has died) is held back, because the failed message says more.
        """
        own = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        rows = list(own.repeat(self.size, 1))
        if self.size > 1:
            with stoppable(lambda: f"rank {self.rank}: stopped while it waited for the others"):
                self._wait(dist.all_gather(rows, own, async_op=True))
        return [row.tolist() for row in rows]

    def _wait(self, message: Any) -> None:
        """Wait for the message; after HEARTBEAT seconds print once that another rank has not answered."""
        begun, said = time.monotonic(), False
        while not message.is_completed():
            time.sleep(0.005)
            if not said and time.monotonic() - begun > HEARTBEAT:
                said, since = True, time.strftime("%H:%M:%S", time.localtime(time.time() - HEARTBEAT))
                waits = f"rank {self.rank} waits: another rank has not answered since {since}"
                print(f"torchgd: {waits}; --patience says for how long", file=sys.stderr, flush=True)
        message.wait()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks."""
        values = values.to(self.device, copy=True)
        if self.size > 1:
            dist.all_reduce(values)
        return values


ALONE = Group()  # a process that torchrun did not start


def epoch_of_shards(
    data: Dataset,
    lr: float,
    batch_size: int = 1,
    group: Group = ALONE,
    stops: Sequence[int] = (),
    *,
    checksum: Checksum | None = None,
    on_samples: Callable[[int], None] = lambda samples: None,
) -> tuple[list[EpochMap], Moments]:
    """The result of :func:`.maps.epoch_with_moments` for all samples; each rank reads only its share, once.

    Args:
        data: all samples, the same on every rank: in files, or in memory.
        lr, batch_size: as for :func:`torchgd.epoch.maps.epoch_map`.
        group: from :func:`process_group`.
        stops: as for :func:`torchgd.epoch.maps.epoch_with_moments`, for a group of one only.
        checksum: of the data, which is taken by the same reading.
        on_samples: called with the number of samples read so far, as if the other ranks were as fast.

    Raises:
        InputError: as for :func:`torchgd.epoch.maps.epoch_map` and :meth:`Group.shard`.
    """
    begin, end = group.shard(len(data), batch_size)

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        samples = 0
        size = IN_MEMORY if isinstance(data.inputs, Tensor) else FROM_FILES
        for x, y in (checksum.reading if checksum else data.blocks)(size, begin, end):
            yield x, y
            samples += len(x)
            on_samples(samples * len(data) // (end - begin))

    maps, own = epoch_with_moments(blocks(), lr, batch_size, stops)
    if group.size == 1:
        return maps, own
    rows = group.gather([*astuple(maps[-1]), *astuple(own)])
    moments = Moments.total(Moments(int(n), *sums) for _, _, _, _, n, *sums in rows)
    if batch_size >= len(data):  # one batch is all: its map comes from the sums over all ranks
        rate = 2 * lr / moments.n
        lost = rate * moments.xx
        return [EpochMap(1 - lost, rate * moments.xz, moments.c, lost)], moments
    shares = [EpochMap(*row[:4]) for row in rows]
    return [reduce(EpochMap.then, shares)], moments


@contextmanager
def process_group(patience: float = PATIENCE) -> Iterator[Group]:
    """The group that torchrun started, by gloo, or nccl for GPUs; without torchrun a group of one.

    If another process dies, or does not answer for ``patience`` seconds, this one prints one line and ends
    with status 1; the message of an InputError names the rank.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Group()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    # All ranks of a machine choose the same: with fewer GPUs than ranks, no rank takes a GPU.
    on_gpu = torch.cuda.is_available() and int(os.environ["LOCAL_WORLD_SIZE"]) <= torch.cuda.device_count()
    if on_gpu:
        torch.cuda.set_device(local_rank)
    # The first optimizer imports this module, whose default arguments keep a group that exists at that time.
    # Its threads would then abort the exit of the interpreter; so import it now, before there is a group.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(seconds=patience))
    group = Group(dist.get_rank(), dist.get_world_size(), f"cuda:{local_rank}" if on_gpu else "cpu")
    try:
        yield group
    except _EveryRankError:
        if group.rank:
            raise SystemExit(2) from None
        raise
    except InputError as error:
        raise InputError(f"rank {group.rank}: {error}") from None
    except RuntimeError as error:
        late = "imed out" in str(error)  # the words of gloo and of nccl
        if not (late or isinstance(error, dist.DistError) or "by peer" in str(error)):
            raise
        what = f"has not answered for {patience:g} s" if late else "has died"
        print(f"torchgd: rank {group.rank}: another process {what}; see its own lines", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        dist.destroy_process_group()
