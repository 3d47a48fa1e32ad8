"""The checksum: the same for the same data however they are read, another one for any other data."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest
import torch
from torch import Tensor

from torchgd.data.checksum import CHUNK, Checksum, measured
from torchgd.data.dataset import Dataset

N = 2 * CHUNK + 4321


def dataset(dtype: torch.dtype = torch.float64) -> Dataset:
    x = (torch.arange(N) % 1999 + 1).to(dtype)  # float16 holds them
    return Dataset(x, 2 * x)


EXPECTED = measured(dataset())


@pytest.mark.parametrize("size", [CHUNK // 3 + 1, CHUNK, 2 * CHUNK, N])
def test_the_blocks_do_not_matter(size: int) -> None:
    checksum = Checksum(dataset())
    assert sum(len(x) for x, _ in checksum.reading(size)) == N
    assert checksum.hexdigest() == EXPECTED


def test_processes_share_the_reading() -> None:
    """Three threads with a sum over all of them, as three processes have it; shares meet in chunks."""
    shares = [(0, 1001), (1001, CHUNK + 7), (CHUNK + 7, N)]
    barrier, given, digests = Barrier(3), dict[int, Tensor](), dict[int, str]()

    def rank(number: int) -> None:
        def total(values: Tensor) -> Tensor:
            barrier.wait()
            given[number] = values
            barrier.wait()
            return torch.stack([given[i] for i in range(3)]).sum(0)

        checksum = Checksum(dataset())
        for _ in checksum.reading(CHUNK, *shares[number]):
            pass
        digests[number] = checksum.hexdigest(total)

    threads = [Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == dict.fromkeys(range(3), EXPECTED)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("at", [0, CHUNK - 1, CHUNK + 1, N - 1])
def test_every_bit_and_every_place_counts(at: int, dtype: torch.dtype) -> None:
    before = measured(dataset(dtype))
    data = dataset(dtype)
    data.y[at] = torch.nextafter(data.y[at], torch.zeros((), dtype=dtype))
    assert measured(data)[:16] == before[:16]
    assert measured(data)[16:] != before[16:]
    data = dataset(dtype)
    other = (at + 2048) % N  # whole numbers end in many zero bits: a sum weighed by the place would miss this
    data.x[[at, other]] = data.x[[other, at]]
    assert measured(data)[:16] != before[:16]
