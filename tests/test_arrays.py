"""The arrays of .npz files, and the one line about those that are none."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from torchgd.data.loading import load
from torchgd.errors import InputError

pytestmark = pytest.mark.usefixtures("folder")


def npy(array: NDArray[Any]) -> bytes:
    """The bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: NDArray[Any]) -> bytes:
    """The bytes of an .npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=True, **arrays)
    return file.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The bytes of any zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f8", "g", "i1", "u2", ">i4", "u8"])
def test_npz_of_any_real_type(dtype: str) -> None:
    x = np.arange(1, 300_001).astype(dtype) if dtype[-1] in "8g" else np.arange(1, 101).astype(dtype)
    Path("a.npz").write_bytes(npz(x=x, y=x, other=np.array(["text"])))
    data = load("a.npz")
    assert data.x.dtype == torch.float64
    assert data.x.tolist() == data.y.tolist() == [float(v) for v in x]


def test_npz_arrays_by_name() -> None:
    Path("a.NPZ").write_bytes(npz(d=np.array([1.0]), v=np.array([2.0])))
    assert load("a.NPZ", x="d", y="v").y.item() == 2.0


def damaged(at: int) -> bytes:
    """An archive with one byte of its first member's data changed."""
    content = bytearray(zipped({"x.npy": npy(np.ones(2)), "y.npy": npy(np.ones(2))}, zipfile.ZIP_STORED))
    content[at] ^= 1
    return bytes(content)


def member(x: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive with those bytes as its x."""
    return zipped({"x.npy": x, "y.npy": npy(np.ones(2))}, method)


def header(text: str) -> bytes:
    """An array of two float64 with any header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + np.ones(2).tobytes()


ONE = np.ones(2)
ARRAY_X = ", array 'x': "
NAMES = "; choose the arrays by name with x and y (--x, --y)"
NOT_FINITE = " is not finite; correct it, or leave the sample out"
SAVE = "; save it with numpy.savez"
IN_BLOCKS = "; save x and y as .npy files, which are read in blocks"
BAD_NPZ = [
    (npz(x=ONE), ": no array 'y'; there is 'x'" + NAMES),
    (npz(X=ONE, y=ONE), ": no array 'x'; there is 'X', 'y'; did you mean 'X'?"),
    (npz(x=ONE, y=np.ones(3)), ": 'x' has 2 samples, 'y' 3; give one y for each x"),
    (npz(x=0 * ONE, y=ONE), ": x is 0 in every sample, so there is nothing to learn; give other data"),
    (npz(x=ONE, y=np.array([1, np.nan])), ", array 'y', index 1: nan" + NOT_FINITE),
    (npz(x=np.array([-np.inf, 1]), y=ONE), ", array 'x', index 0: -inf" + NOT_FINITE),
    (npz(x=1j * ONE, y=ONE), ARRAY_X + "holds 'complex128', not real numbers; save it as float64"),
    (npz(x=np.array(["1", "2"]), y=ONE), ARRAY_X + "holds '<U1', not real numbers; save it as float64"),
    (npz(x=ONE > 0, y=ONE), ARRAY_X + "holds 'bool', not real numbers; save it as float64"),
    (
        npz(x=np.array([1, None]), y=ONE),
        ARRAY_X + "holds pickled objects, which are never loaded; save it as float64",
    ),
    (npz(x=np.ones((2, 1)), y=ONE), ARRAY_X + "has shape (2, 1), not (n,); save it as a.reshape(-1)"),
    (
        npz(x=np.ones((10, 2)), y=ONE),
        ARRAY_X + "has shape (10, 2), not (n,); save x and y each as one column, e.g. a[:, 0] and a[:, 1]",
    ),
    (
        npz(x=np.ones((2, 10)), y=ONE),
        ARRAY_X + "has shape (2, 10), not (n,); save x and y each as one row, e.g. a[0] and a[1]",
    ),
    (
        npz(x=np.ones((4, 3, 2)), y=ONE),
        ARRAY_X + "has shape (4, 3, 2), not (n,); save x and y each as a vector",
    ),
    (
        npz(x=np.zeros(2, dtype=[("t", "f8"), ("v", "f4")]), y=ONE),
        ARRAY_X + "holds records; save the fields that are x and y alone: a['t'], a['v']",
    ),
    (
        npz(x=np.array([1, 2**53 + 1]), y=ONE),
        ARRAY_X[:-2] + ", index 1: 9007199254740993 is above 2^53, where "
        "float64 does not hold every whole number; subtract an offset, or save it as float64",
    ),
    (
        npz(x=ONE, y=np.array([2**63, 2**64 - 1], dtype=np.uint64)),
        ", array 'y', index 1: 18446744073709551615 is above 2^53, where "
        "float64 does not hold every whole number; subtract an offset, or save it as float64",
    ),
    (npz(x=np.ones(()), y=ONE), ARRAY_X + "has shape (), not (n,); save it as a.reshape(-1)"),
    (npz(x=np.ones(0), y=ONE), ARRAY_X + "is empty; give at least one sample"),
    (zipped({"readme.txt": b"hello"}), ": no array 'x'; there is none" + NAMES),
    (member(b"hello"), ARRAY_X + "is not an .npy array; save it with numpy.save"),
    (
        member(npy(ONE)[:-1]),
        ARRAY_X + "is 143 bytes long, which does not fit its 2 of float64; copy or save it again",
    ),
    (
        member(npy(ONE) + b"!"),
        ARRAY_X + "is 145 bytes long, which does not fit its 2 of float64; copy or save it again",
    ),
    (member(npy(ONE), zipfile.ZIP_BZIP2), ARRAY_X + "is packed in a way that numpy does not use" + SAVE),
    (
        member(npy(np.zeros(10**7))),
        ARRAY_X + "unpacks to 80000128 bytes, over 100 times the file" + IN_BLOCKS,
    ),
    (npz(x=ONE, y=ONE)[:-30], ": is not a whole .npz file (File is not a zip file)" + SAVE),
    (b"x,y\n1,2\n", ": is not a whole .npz file (File is not a zip file)" + SAVE),
    (damaged(170), ": is not a whole .npz file (Bad CRC-32 for file 'x.npy')" + SAVE),
]


@pytest.mark.parametrize(("content", "message"), BAD_NPZ, ids=[case[1][:50] for case in BAD_NPZ])
def test_bad_npz(content: bytes, message: str) -> None:
    Path("a.npz").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load("a.npz")
    assert str(caught.value) == "a.npz" + message


BAD_HEADERS = [
    "",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (2.0,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': 2}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000000000000000000,)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
    "{'descr': '<q8', 'fortran_order': False, 'shape': (2,)}",
    "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,)}",
    "{'descr': '(2,)f8', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': 'V0', 'fortran_order': False, 'shape': (2,)}",
    "{'descr': __import__('os').mkdir('made'), 'fortran_order': False, 'shape': (2,)}",
    "{'descr': ('<f8',), 'fortran_order': False, 'shape': (2,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",)}",
    "(" * 5000,
    "-" * 9000 + "1",
    "1+" * 4000 + "1",
    "  x\n y",
    "{[]: 1}",
    "[" * 90 + "]" * 90,
]


@pytest.mark.parametrize("text", BAD_HEADERS, ids=[text[:60] for text in BAD_HEADERS])
def test_hostile_headers_of_an_array(text: str, folder: Path) -> None:
    Path("a.npz").write_bytes(member(header(text)))
    Path("x.npy").write_bytes(header(text))
    np.save("y.npy", ONE)
    for files in ({"path": "a.npz"}, {"x": "x.npy", "y": "y.npy"}):
        with pytest.raises(InputError):
            load(**files)  # type: ignore[arg-type]
    assert sorted(path.name for path in folder.iterdir()) == ["a.npz", "x.npy", "y.npy"]


def test_a_long_complaint_of_zipfile_is_cut() -> None:
    """Found by fuzzing: zipfile quotes the whole name that it finds in a member's own header."""
    content = bytearray(member(npy(ONE), zipfile.ZIP_STORED))
    content[26:28] = (250).to_bytes(2, "little")  # the length of that name, which then runs over the numbers
    Path("a.npz").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load("a.npz")
    assert str(caught.value).startswith("a.npz: is not a whole .npz file (File name in directory 'x.npy' and")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("bits", [0x7F8000BF, 0xFF8000BF, 0x7FA00000])
def test_a_signalling_nan_is_refused_without_a_warning(bits: int) -> None:
    """Found by fuzzing: numpy warns where one is compared or converted."""
    np.save("x.npy", np.array([0x3F800000, bits], dtype="<u4").view("<f4"))
    np.save("y.npy", ONE)
    with pytest.raises(InputError, match=r"^x.npy, index 1: nan is not finite"):
        print(load(x="x.npy", y="y.npy").x)


def test_a_lying_directory_of_an_archive() -> None:
    """A member that declares another size than it unpacks to: that is checked and not exceeded."""
    numbers = npy(np.ones(10**5))
    content = member(numbers)
    true, false = (size.to_bytes(4, "little") for size in (len(numbers), 50_000))
    assert content.count(true) == 2  # in the member's own header and in the directory
    Path("a.npz").write_bytes(content.replace(true, false))
    with pytest.raises(InputError, match="is 50000 bytes long, which does not fit its 100000 of float64"):
        load("a.npz")


def test_more_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.npz").write_bytes(npz(x=np.random.default_rng(0).random(10**4), y=np.ones(10**4)))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 4096}.__getitem__)
    with pytest.raises(
        InputError, match=r"a.npz, array 'x': takes 0.0 GiB, over half of the memory; save x and y"
    ):
        load("a.npz")
