"""Vectors in .npy files: mapped, in shards, in blocks, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from torchgd.data.arrays import BLOCK
from torchgd.data.dataset import Dataset, course
from torchgd.data.loading import load, open_data
from torchgd.errors import InputError

pytestmark = pytest.mark.usefixtures("folder")


def save_pair(n: int, dtype: str = "f8", shards: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
    """Write x = 1 … n and y = 2x as x0.npy, y0.npy and so on; returns them whole."""
    x = np.arange(1, n + 1).astype(dtype)
    for shard, part in enumerate(np.array_split(x, shards)):
        np.save(f"x{shard}.npy", part)
        np.save(f"y{shard}.npy", 2 * part)
    return x, 2 * x


@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i4", "f2"])
@pytest.mark.parametrize("wanted", [torch.float64, torch.float32])
@pytest.mark.parametrize("shards", [1, 3])
def test_npy_vectors(dtype: str, wanted: torch.dtype, shards: int) -> None:
    x, y = save_pair(1000, dtype, shards)
    xs, ys = [f"x{i}.npy" for i in range(shards)], [f"y{i}.npy" for i in range(shards)]
    data = load(x=xs, y=ys, dtype=wanted)
    assert len(data) == 1000
    assert data.x.dtype == data.y.dtype == wanted
    assert data.x.tolist() == x.tolist()
    assert data.y.tolist() == y.tolist()
    assert data.name == "x0"


@pytest.mark.parametrize("shards", [1, 3, 7])
@pytest.mark.parametrize(
    ("size", "start", "stop"), [(1, 0, None), (10, 0, 100), (33, 5, 71), (64, 99, 200), (500, 3, 3)]
)
def test_blocks_are_the_slices_of_the_whole(shards: int, size: int, start: int, stop: int | None) -> None:
    x, y = save_pair(100, shards=shards)
    stored = load(x=[f"x{i}.npy" for i in range(shards)], y=[f"y{i}.npy" for i in range(shards)])
    for data in (stored, Dataset(torch.from_numpy(x), torch.from_numpy(y))):
        blocks = list(
            data.blocks(size, start, stop)
        )  # kept all at once: released pages come back from the file
        assert [len(a) for a, _ in blocks[:-1]] == [size] * (len(blocks) - 1)
        assert [v for a, _ in blocks for v in a.tolist()] == x[start:stop].tolist()
        assert [v for _, b in blocks for v in b.tolist()] == y[start:stop].tolist()


def test_slices_as_of_a_list_but_without_a_step() -> None:
    save_pair(10)
    x = load(x="x0.npy", y="y0.npy").inputs
    assert x[7:3].tolist() == []
    assert x[-3:].tolist() == [8, 9, 10]
    with pytest.raises(InputError, match="has the step 2; give start and stop only"):
        x[::2]


def test_a_block_has_a_size() -> None:
    with pytest.raises(InputError, match="a block of 0 samples; give at least 1"):
        next(course().blocks(0))


def test_one_file_of_the_right_type_is_mapped_and_never_written() -> None:
    x, _ = save_pair(1000)
    before = Path("x0.npy").read_bytes()
    data = load(x="x0.npy", y="y0.npy")
    whole = data.x
    assert whole.data_ptr() == next(data.blocks(10))[0].data_ptr()  # the same pages: nothing was copied
    whole[0] = 99.0
    assert Path("x0.npy").read_bytes() == before
    assert load(x="x0.npy", y="y0.npy").x.tolist() == x.tolist()


MEASURE = """
from pathlib import Path
import torch
from torchgd.data.loading import load

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
def total(*numbers):
    data = load(x=[f"x{i}.npy" for i in numbers], y=[f"y{i}.npy" for i in numbers])
    return sum(torch.dot(x, y).item() for x, y in data.blocks())
total(0, 1)  # brings the code into memory
before = peak()
print(total(2, 3), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_is_bounded() -> None:
    """Of 64 MB of data less than 12 MiB are ever resident: a few blocks of 1 MiB, more where shards meet."""
    n = 4_000_000
    x = np.arange(1.0, n + 1)
    for shard, part in enumerate([x[: 2 * BLOCK], x[: 2 * BLOCK], *np.array_split(x, 2)]):
        np.save(f"x{shard}.npy", part)
        np.save(f"y{shard}.npy", 2 * part)
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    total, grown = done.stdout.split()
    assert float(total) == pytest.approx(n * (n + 1) * (2 * n + 1) / 3, rel=1e-12)  # 2 Σ k²
    assert int(grown) < 12 << 20


def test_hundreds_of_shards_need_few_open_files() -> None:
    x, _ = save_pair(1500, shards=300)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
    try:
        data = open_data("", x="x*.npy", y="y*.npy")
        assert data.x.tolist() == x.tolist()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nan_in_the_37th_block_is_named() -> None:
    x = np.ones(40 * BLOCK)
    np.save("y.npy", x)
    x[at := 37 * BLOCK + 11] = np.nan
    np.save("x.npy", x)
    blocks = load(x="x.npy", y="y.npy").blocks()
    assert sum(len(next(blocks)[0]) for _ in range(37)) == 37 * BLOCK
    with pytest.raises(InputError) as caught:
        next(blocks)
    assert str(caught.value) == f"x.npy, index {at}: nan is not finite; correct it, or leave the sample out"


def test_index_counts_within_the_shard() -> None:
    save_pair(30, shards=3)
    np.save("y1.npy", np.array([1.0] * 7 + [np.inf] + [1.0] * 2))
    with pytest.raises(InputError, match=r"^y1.npy, index 7: inf is not finite"):
        print(load(x=["x0.npy", "x1.npy", "x2.npy"], y=["y0.npy", "y1.npy", "y2.npy"]).y)


def test_numbers_at_an_odd_place_are_copied_to_an_even_one() -> None:
    """A header of any length is valid; PyTorch assumes that an element lies at a multiple of its size."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} \n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + np.arange(3.0).tobytes()
    assert (10 + len(header)) % 8 != 0
    Path("x.npy").write_bytes(content)
    x = load(x="x.npy", y="x.npy").x
    assert x.tolist() == [0.0, 1.0, 2.0]
    assert x.data_ptr() % 8 == 0


def test_what_is_zero_in_the_dtype_is_zero() -> None:
    np.save("x.npy", np.array([1e-300, 0.0]))
    assert load(x="x.npy", y="x.npy").x.tolist() == [1e-300, 0.0]
    with pytest.raises(InputError, match=r"^x.npy: x is 0 in every sample"):
        load(x="x.npy", y="x.npy", dtype=torch.float32)


def test_overflow_of_an_array_is_named() -> None:
    np.save("x.npy", np.array([1.0, 1e300]))
    with pytest.raises(InputError, match=r"^x.npy, index 1: 1e\+300 is too large for float32"):
        print(load(x="x.npy", y="x.npy", dtype=torch.float32).y)


XS, YS = ["x0.npy", "x1.npy"], ["y0.npy", "y1.npy"]
SHARDS = [
    (["x0.npy", "x1.npy"], ["y0.npy"], "x is in 2 files, y in 1; give one y file for each x file"),
    ([], [], "x is in 0 files, y in 0; give one y file for each x file"),
    (XS, ["y0.npy", "long.npy"], "x1.npy: has 5 samples, long.npy 6; give one y for each x"),
    (["x0.npy", "empty.npy"], YS, "empty.npy: is empty; give at least one sample"),
    (
        ["x0.npy", "single.npy"],
        YS,
        "single.npy: holds float32, but x0.npy holds float64; save all in one type",
    ),
    (["x0.npy", "gone.npy"], YS, "gone.npy: no such file; check the path"),
    (
        ["zero.npy", "zero.npy"],
        YS,
        "zero.npy: x is 0 in every sample, so there is nothing to learn; give other data",
    ),
    ("pickle.npy", "y0.npy", "pickle.npy: holds pickled objects, which are never loaded; save it as float64"),
    ("table.npy", "y0.npy", "table.npy: has shape (5, 1), not (n,); save it as a.reshape(-1)"),
    (
        "torn.npy",
        "y0.npy",
        "torn.npy: is 160 bytes long, which does not fit its 5 of float64; copy or save it again",
    ),
]


@pytest.mark.parametrize(("x", "y", "message"), SHARDS, ids=[case[2][:40] for case in SHARDS])
def test_bad_shards(x: Any, y: Any, message: str) -> None:
    save_pair(10, shards=2)
    np.save("long.npy", np.ones(6))
    np.save("empty.npy", np.ones(0))
    np.save("zero.npy", np.zeros(5))
    np.save("single.npy", np.ones(5, dtype="f4"))
    np.save("pickle.npy", np.array([{}] * 5, dtype=object))
    np.save("table.npy", np.ones((5, 1)))
    np.save("torn.npy", np.ones(5))
    os.truncate("torn.npy", 160)
    with pytest.raises(InputError) as caught:
        load(x=x, y=y)
    assert str(caught.value) == message


def test_a_file_that_changes_meanwhile_is_named() -> None:
    save_pair(20, shards=2)
    data = load(x=["x0.npy", "x1.npy"], y=["y0.npy", "y1.npy"])
    np.save("x0.npy", np.ones(3))
    with pytest.raises(InputError, match=r"^x0.npy: has changed since it was first read; start again"):
        list(data.blocks())


def test_shards_too_large_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    save_pair(2000, shards=2)
    data = load(x=["x0.npy", "x1.npy"], y=["y0.npy", "y1.npy"])
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 4096}.__getitem__)
    with pytest.raises(
        InputError, match=r"^x0.npy: takes 0.0 GiB, over half of the memory; read it in blocks"
    ):
        print(data.x)
    assert len(list(data.blocks(100))) == 20


def test_a_file_that_is_cut_while_it_is_mapped_is_one_line() -> None:
    """Without the look at its size the process would end by SIGBUS."""
    np.save("x.npy", np.ones(4 * BLOCK))
    np.save("y.npy", np.ones(4 * BLOCK))
    blocks = load(x="x.npy", y="y.npy").blocks()
    next(blocks)
    os.truncate("x.npy", 1000)
    with pytest.raises(InputError, match=r"^x.npy: has changed since it was first read; start again"):
        next(blocks)
