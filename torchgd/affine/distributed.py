"""The same under torchrun: every process takes a contiguous share of the samples.

    torchrun --nproc-per-node 2 -m torchgd train --x x.npy --y y.npy --method sgd

Sequential SGD over all samples is exact: rank r maps its own share of the epoch, the maps, two numbers
each, are gathered in one message, and composed in rank order they are the map of the whole epoch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from torchgd.affine.composition import EpochMap
from torchgd.affine.maps import epoch_with_moments
from torchgd.data.dataset import Dataset
from torchgd.data.moments import Moments
from torchgd.errors import InputError


class _EveryRankError(InputError):
    """The input is at fault in the same way on every rank: one line is enough."""


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
            InputError: there are more ranks than samples, or than batches where these are more than one.
        """
        unit = 1 if batch_size >= n else batch_size
        units = -(-n // unit)
        if self.size > units:
            what = "samples" if unit == 1 else f"batches of {unit} samples"
            raise _EveryRankError(f"{self.size} processes for {units} {what}; start {units} or fewer")
        begin, end = (unit * (units * rank // self.size) for rank in (self.rank, self.rank + 1))
        return begin, min(n, end)

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Every rank's numbers, in rank order, on every rank: one message."""
        rows = torch.zeros(self.size, len(numbers), dtype=torch.float64)
        rows[self.rank] = torch.tensor(numbers, dtype=torch.float64)
        gathered: list[list[float]] = self.sum(rows).tolist()  # a sum with zeros changes no bit
        return gathered

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks."""
        values = values.to(self.device, copy=True)
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def compose(self, share: EpochMap) -> EpochMap:
        """The map of the whole epoch from the ranks' maps of their shares, one after another."""
        whole = EpochMap()
        for scale, shift in self.gather([share.scale, share.shift]):
            whole = whole.then(EpochMap(scale, shift))
        return whole

    def total(self, moments: Moments) -> Moments:
        """The moments of all samples from the ranks' own, written about rank 0's centre."""
        rows = self.gather([moments.n, moments.c, moments.xx, moments.xz, moments.zz])
        n, center, xx, xz, zz = 0.0, rows[0][1], 0.0, 0.0, 0.0
        for own_n, c, own_xx, own_xz, own_zz in rows:
            gap = c - center  # y − center · x = z + gap · x
            n, xx, xz = n + own_n, xx + own_xx, xz + own_xz + gap * own_xx
            zz += own_zz + gap * (2 * own_xz + gap * own_xx)
        return Moments(int(n), center, xx, xz, zz)


ALONE = Group()  # a process that torchrun did not start


def epoch_of_shards(
    data: Dataset, lr: float, batch_size: int, group: Group, *, compiled: bool | None = None
) -> tuple[EpochMap, Moments]:
    """The map of an epoch in order and the moments of all samples; each rank reads its own share, once.

    Args:
        data: all samples, the same on every rank: in files, or in memory.
        lr, batch_size, compiled: as for :func:`torchgd.affine.maps.epoch_map`.
        group: from :func:`process_group`.

    Raises:
        InputError: as for :func:`torchgd.affine.maps.epoch_map` and :meth:`Group.shard`.
    """
    begin, end = group.shard(len(data), batch_size)
    blocks = data.blocks(1 << 20, begin, end)
    (share,), own = epoch_with_moments(blocks, lr, batch_size, compiled=compiled)
    moments = group.total(own)
    if batch_size < len(data) or group.size == 1:
        return group.compose(share), moments
    rate = 2 * lr / moments.n  # one batch is all: its map comes from the sums over all ranks
    return EpochMap(1 - rate * moments.xx, rate * moments.xz, moments.c), moments


@contextmanager
def process_group() -> Iterator[Group]:
    """The group that torchrun started, by gloo, or nccl for GPUs; without torchrun a group of one.

    Where another process dies, this one ends with one line and status 1; an InputError names its rank.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Group()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    on_gpu = torch.cuda.is_available() and local_rank < torch.cuda.device_count()
    if on_gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if on_gpu else "gloo")
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
        if not (isinstance(error, dist.DistError) or "by peer" in str(error)):  # as gloo words it
            raise
        print(f"torchgd: rank {group.rank}: another process has died; see its own lines", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        dist.destroy_process_group()
