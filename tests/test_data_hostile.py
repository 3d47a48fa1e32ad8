"""Whatever a file holds, the loader ends in samples that can be learned from, or in one line."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from torchgd.data.dataset import Dataset
from torchgd.data.loading import load
from torchgd.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All examples of a test write to the same names in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def outcome(read: Callable[[], Dataset]) -> Dataset | None:
    """What the reading gave, which must be sound; None after one short line about the input."""
    try:
        data = read()
    except InputError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert message.isprintable()  # one line
        assert len(message) < 500
        return None
    x, y = data
    assert x.shape == y.shape == (len(data),)
    assert x.isfinite().all()
    assert y.isfinite().all()
    assert x.any()
    return data


def npy(array: NDArray[Any]) -> bytes:
    """The bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


ONE = npy(np.ones(2))


def read_bytes(kind: str, content: bytes, dtype: torch.dtype = torch.float64) -> Dataset | None:
    """The outcome for these bytes as a file of that kind, or as the array x inside an archive ("member")."""
    if kind == "npy":
        Path("x.npy").write_bytes(content)
        Path("y.npy").write_bytes(ONE)
        return outcome(lambda: load(x="x.npy", y="y.npy", dtype=dtype))
    path = Path(f"a.{'csv' if kind == 'csv' else 'npz'}")
    if kind == "member":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", content)
            archive.writestr("y.npy", ONE)
    else:
        path.write_bytes(content)
    return outcome(lambda: load(path, dtype=dtype))


KINDS = st.sampled_from(["csv", "npz", "npy", "member"])
DTYPES = st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16])


@given(KINDS, st.binary(max_size=300))
@example("npz", b"PK\x05\x06" + b"\0" * 18)  # an archive of nothing
@example("npz", b"PK\x05\x06" + b"\0" * 8 + b"\xff" * 8 + b"\0\0")  # a directory before the start of the file
def test_random_bytes(kind: str, content: bytes) -> None:
    read_bytes(kind, content)


@given(KINDS, st.sampled_from(["csv", "npz", "npy"]), st.data())
def test_valid_files_damaged(kind: str, holds: str, data: st.DataObject) -> None:
    """Cut anywhere, and with any bytes changed."""
    archive = io.BytesIO()
    np.savez_compressed(archive, x=np.arange(9.0), y=np.arange(9))
    valid = {"csv": b'x,y\r\n1,"2"\r\n2.5e3,-4\r\n', "npz": archive.getvalue(), "npy": npy(np.arange(2.0))}
    content = bytearray(valid[holds])
    for at, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)
    ):
        content[at] = byte
    read_bytes(kind, bytes(content[: data.draw(st.integers(0, len(content)))]) or b"x")


CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
    st.sampled_from(
        [
            "",
            " ",
            "nan",
            "-INF",
            "1e999",
            "1_0",
            "0x1",
            "1,5",
            "1,234,567",
            '"',
            '""',
            "x",
            "\0",
            "\ufeff",
            "１",
        ]
    ),
    st.text(max_size=5),
)
TABLES = st.lists(st.lists(CELLS, max_size=4), max_size=6)


@given(TABLES, st.sampled_from([",", ";", "\t", ", ", ""]), st.sampled_from(["\n", "\r\n", "\r", ""]), DTYPES)
def test_text_like_csv(rows: list[list[str]], separator: str, end: str, dtype: torch.dtype) -> None:
    text = end.join(separator.join(row) for row in [["x", "y"], *rows])
    read_bytes("csv", text.encode("utf-8", "surrogatepass"), dtype)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_a_row_is_read_exactly_when_both_cells_are_plain_numbers(rows: list[tuple[str, str]]) -> None:
    """The oracle is the grammar of a number, spelled out character by character."""

    def plain(cell: str) -> bool:
        mantissa, e, exponent = cell.strip().casefold().partition("e")
        digits = mantissa[mantissa[:1] in ("+", "-") and bool(mantissa) :].replace(".", "", 1)
        power = exponent[exponent[:1] in ("+", "-") and bool(exponent) :]
        number = digits.isascii() and digits.isdigit() and (not e or (power.isascii() and power.isdigit()))
        return number and cell.isascii() and math.isfinite(float(cell))

    assume(not any(sign in cell for row in rows for cell in row for sign in '"\r\n'))
    quoted = "".join(f'"{a}","{b}"\n' for a, b in rows)
    data = read_bytes("csv", f"x,y\n{quoted}".encode("utf-8", "surrogatepass"))
    fit = all(plain(a) and plain(b) for a, b in rows) and any(float(a) for a, _ in rows)
    assert (data is not None) == fit
    if data is not None:
        assert data.x.tolist() == [float(a) for a, _ in rows]
        assert data.y.tolist() == [float(b) for _, b in rows]


SCALARS = st.one_of(
    hnp.floating_dtypes(sizes=(16, 32, 64)),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.complex_number_dtypes(sizes=(64, 128)),
    hnp.boolean_dtypes(),
    hnp.unicode_string_dtypes(max_len=3),
    hnp.datetime64_dtypes(),
    st.just(np.dtype(object)),
    st.just(np.dtype([("a", "f8")])),
)
SHAPES = st.one_of(
    hnp.array_shapes(max_dims=1, max_side=4), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=2)
)
ARRAYS = SCALARS.flatmap(
    lambda dtype: (
        SHAPES.map(lambda shape: np.zeros(shape, dtype)) if dtype.kind in "OV" else hnp.arrays(dtype, SHAPES)
    )
)
NAMES = st.one_of(
    st.sampled_from(["x", "y", "X"]),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=3),
)


@given(st.dictionaries(NAMES, ARRAYS, max_size=4), DTYPES)
def test_archives_of_any_arrays(arrays: dict[str, NDArray[Any]], dtype: torch.dtype) -> None:
    """Read exactly when x and y are real vectors of one length, finite in the dtype, x not all zero."""
    with zipfile.ZipFile("a.npz", "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", npy(array))
    data = outcome(lambda: load("a.npz", dtype=dtype))
    x, y = arrays.get("x", np.zeros(())), arrays.get("y", np.zeros(()))
    same = fits(x, dtype) and fits(y, dtype) and len(x) == len(y)
    assert (data is not None) == (same and bool(expected(x, dtype).any()))
    if data is not None:
        assert data.x.tolist() == expected(x, dtype).tolist()
        assert data.y.tolist() == expected(y, dtype).tolist()


def fits(array: NDArray[Any], dtype: torch.dtype) -> bool:
    """Is the array a vector of real numbers, each finite in the dtype?"""
    if array.dtype.kind not in "iuf" or array.ndim != 1 or len(array) == 0:
        return False
    return bool(expected(array, dtype).isfinite().all())


def expected(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
    """The numbers one by one, as Python's floats, in the dtype."""
    return torch.tensor([float(number) for number in array], dtype=torch.float64).to(dtype)


HEADERS = st.fixed_dictionaries(
    {
        "descr": st.one_of(
            st.sampled_from(["<f8", ">f4", "|O", "V8", "<f16", "i4,f4", "a9", 1, [("x", "<f8")]]),
            st.text(max_size=4),
        ),
        "fortran_order": st.sampled_from([True, False, None]),
        "shape": st.one_of(st.tuples(st.integers()), st.integers(), st.just((2,)), st.just([2])),
    }
)


@given(
    st.sampled_from(["npy", "member"]),
    st.one_of(HEADERS.map(repr), st.text(max_size=40)),
    st.binary(max_size=32),
)
@example("npy", repr({"descr": "<f8", "fortran_order": False, "shape": (10**4000,)}), b"")
@example("npy", "(" * 9000, b"")
@example("npy", "{[]: 1}", b"")
def test_hostile_headers(kind: str, header: str, numbers: bytes) -> None:
    text = header.encode("latin-1", "replace")
    read_bytes(kind, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + numbers)


@given(st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=20))
def test_any_name_of_a_file(name: str) -> None:
    assume(name not in (".", "..") and not name.casefold().endswith((".npz", ".npy")))
    path = Path("names") / name
    path.parent.mkdir(exist_ok=True)
    assert outcome(lambda: load(path)) is None  # there is none yet
    path.write_text("x,y\n1,2\n")
    data = outcome(lambda: load(path))
    assert data is not None
    assert data.y.tolist() == [2.0]
    path.write_text("x,y\n1,two\n")
    assert outcome(lambda: load(path)) is None
    path.unlink()


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_name_of_a_column(x: str, y: str) -> None:
    Path("a.csv").write_text("x,y\n1,2\n")
    data = outcome(lambda: load("a.csv", x=x, y=y))
    assert (data is not None) == ({x, y} <= {"x", "y"} and x in ("x", "y"))
