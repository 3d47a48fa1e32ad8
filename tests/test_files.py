"""Opening files and reading CSV: what is read, and the one line about what cannot be."""

from __future__ import annotations

import gzip
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from torchgd.data import quick, table
from torchgd.data.loading import load
from torchgd.errors import InputError

pytestmark = pytest.mark.usefixtures("folder")


GOOD_CSV = [
    ("plain", b"x,y\n1,2\n2,4\n"),
    ("no last line end", b"x,y\n1,2\n2,4"),
    ("Windows line ends", b"x,y\r\n1,2\r\n2,4\r\n"),
    ("byte order mark", b"\xef\xbb\xbfx,y\n1,2\n2,4\n"),
    ("quoted numbers", b'"x","y"\n"1","2"\n"2","4"\n'),
    ("spaces before quotes", b'x, "y"\n1, "2"\n2, "4"\n'),
    ("spaces", b"x , y\n 1, 2\n2 ,4 \n"),
    ("line ends of an old Mac", b"x,y\r1,2\r2,4\r"),
    ("exponents and signs", b"x,y\n+1e0,.2e1\n200E-2,4.\n"),
    ("blank lines", b"\nx,y\n\n1,2\n\n2,4\n\n"),
    ("other columns, other order", b"name,y,x\nM31,2,1\n,4,2\n"),
    ("Latin-1 in a column that is not read", b"name,x,y\ncaf\xe9,1,2\nth\xe9,2,4\n"),
    ("semicolons, quoted names", b'"x";"y"\n1;2\n2;4\n'),
    ("tabs", b"x\ty\n1\t2\n2\t4\n"),
    ("bars", b"x|y\n1|2\n2|4\n"),
    ("semicolons, a comma in a name", b"x;a,b;y\n1;0;2\n2;0;4\n"),
    ("comments", b'#Digilent, WaveForms\n# "Serial: 1\n\nx,y\n1,2\n# the second\n2,4\n#2,5\n'),
    ("every line ends in a comma", b"x,y,\n1,2,\n2,4,\n"),
    ("packed", gzip.compress(b"x,y\n1,2\n2,4\n", mtime=0)),
    ("a line end within quotes", b'name,x,y\n"a\nb",1,2\nc,2,4\n'),
]


@pytest.mark.parametrize("content", [case[1] for case in GOOD_CSV], ids=[case[0] for case in GOOD_CSV])
def test_csv(content: bytes) -> None:
    Path("a.csv").write_bytes(content)
    x, y = load("a.csv")
    assert (x.tolist(), y.tolist()) == ([1.0, 2.0], [2.0, 4.0])


def test_columns_by_name_and_labels() -> None:
    Path("sky.csv").write_text("distance (Mpc),velocity\n0.5,290\n")
    data = load(Path("sky.csv"), x="distance (Mpc)", y="velocity", dtype=torch.float32)
    assert (data.x.item(), data.y.item(), data.x.dtype) == (0.5, 290.0, torch.float32)
    assert (data.x_label, data.y_label, data.name) == ("distance (Mpc)", "velocity", "sky")


def test_every_bit_of_a_number_survives() -> None:
    numbers = torch.cat([torch.randn(500, dtype=torch.float64) * 10.0**k for k in (-300, -5, 0, 5, 300)])
    Path("a.csv").write_text("x,y\n" + "".join(f"{v!r},{v!r}\n" for v in numbers.tolist()))
    assert torch.equal(load("a.csv").x, numbers)


def test_the_largest_float32_as_it_prints_is_no_overflow() -> None:
    Path("a.csv").write_text("x,y\n3.4028235e38,1\n")  # a little above the largest float32, and nearest to it
    assert load("a.csv", dtype=torch.float32).x.item() == torch.finfo(torch.float32).max


def test_a_million_columns() -> None:
    Path("wide.csv").write_text("x,y," + ",".join(map(str, range(10**6))) + "\n1,2" + ",0" * 10**6 + "\n")
    assert [v.item() for v in load("wide.csv")] == [1.0, 2.0]
    with pytest.raises(InputError, match="there is 'x', 'y', '0'") as caught:
        load("wide.csv", x="z")
    assert len(str(caught.value)) < 200


NOT_A_NUMBER = " is not a number; write one, such as 1.5"
NOT_FINITE = " is not finite; correct it, or leave the sample out"
RAGGED = " cells, but the header has 2; give each column one value, without thousands separators"
BLANK = " is blank; write a number, or leave such lines out with drop_missing (--drop-missing)"
ENCODING = " the data as CSV in UTF-8, or give its encoding (--encoding)"
QUOTES = "; check the quotes there"
BAD_CSV = [
    (b"", "the file is empty; give one that holds data"),
    (b"\n", "line 1: no column 'x'; there is none; choose the columns by name with x and y (--x, --y)"),
    (b"x,y\n", "has a header but no samples; add a line for each sample"),
    (b"x\n1\n", "line 1: no column 'y'; there is 'x'; choose the columns by name with x and y (--x, --y)"),
    (b"X,Y\n1,2\n", "line 1: no column 'x'; there is 'X', 'Y'; did you mean 'X'?"),
    (b"x,x,y\n1,1,2\n", "line 1: column 'x' occurs 2 times; rename all but one"),
    (b"1,2\n2,4\n", "line 1: holds numbers, not names; add a first line that names the columns, such as x,y"),
    (b"x y\n1 2\n", "line 1: looks separated by spaces; save it with commas"),
    (b"x,y\n1,2\ntwo,4\n", "line 3, column 'x': 'two'" + NOT_A_NUMBER),
    (
        b"x,y\n1,\n",
        "line 2, column 'y':" + BLANK,
    ),
    (b"x,y\n1,2\n3,NaN\n", "line 3, column 'y': 'NaN'" + NOT_FINITE),
    (b"x,y\n-inf,2\n", "line 2, column 'x': '-inf'" + NOT_FINITE),
    (b"x,y\n1,1e999\n", "line 2, column 'y': '1e999' is too large for float64; use another unit or type"),
    (b'x,y\n"1,234",2\n', "line 2, column 'x': '1,234' has thousands separators; write it without commas"),
    (b'x,y\n"1,5",2\n', "line 2, column 'x': '1,5' has a decimal comma; write a point"),
    (b"x,y\n1_000,2\n", "line 2, column 'x': '1_000'" + NOT_A_NUMBER),
    ("x,y\n１,2\n".encode(), "line 2, column 'x': '１'" + NOT_A_NUMBER),
    (b"x,y\n\xe9,2\n", "line 2, column 'x': '\\udce9'" + NOT_A_NUMBER),
    (b"x,y\n\x00,2\n", "line 2, column 'x': '\\x00'" + NOT_A_NUMBER),
    (b"x,y\n1,234,2\n", "line 2: has 3" + RAGGED),
    (b"x,y\n1,2\n\n3\n", "line 4: has 1" + RAGGED),
    (
        b"x,y\n1,2\n2,4,\n",
        "line 3: has 3 cells, but the header has 2; delete the comma at its end, or end the header in one",
    ),
    (
        b";Instrument ABC\n;Collected 2018\nx,y\n1,2\n",
        "line 1: ';Instrument ABC' is not the header, but line 3 is ('x,y'); delete lines 1 to 2",
    ),
    (
        b"Phenotype ID: 1\nx;y\n1;2\n",
        "line 1: 'Phenotype ID: 1' is not the header, but line 2 is ('x;y'); delete line 1",
    ),
    (
        b"name,x,y\nM31,1,2\n#M33,2,4\n",
        "line 3: begins with '#' and has a cell for each column; delete the line, or the '#' of a sample",
    ),
    (b"x;y\n1,5;2\n", "line 2, column 'x': '1,5' has a decimal comma; write a point"),
    (
        gzip.compress(b"x,y\n" + b"1,2\n" * 99, mtime=0)[:-9],
        "is not a whole gzip file; copy or pack it again",
    ),
    (b'x,y\n"1,2\n', "line 2: unexpected end of data" + QUOTES),
    (b'x,y\n"1"0,2\n', "line 2: ',' expected after '\"'" + QUOTES),
    (b'x,y\n"' + b"1" * 200_000 + b'",2\n', "line 2: field larger than field limit (131072)" + QUOTES),
    (
        "x,y\n1,2\n".encode("utf-16"),
        "line 1: is not text in UTF-8; save" + ENCODING,
    ),
    (
        b"PK\x03\x04\x14\x00",
        "line 1: is not text in UTF-8; save" + ENCODING,
    ),
    (b"\0" * (1 << 25), "line 1: is over 16777216 characters long; give a CSV file"),
    (b"x,y\n0,1\n-0.0,2\n", "x is 0 in every sample, so there is nothing to learn; give other data"),
]


@pytest.mark.parametrize(("content", "message"), BAD_CSV, ids=[case[1][:40] for case in BAD_CSV])
def test_bad_csv(content: bytes, message: str) -> None:
    Path("a.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load("a.csv")
    assert str(caught.value) == ("a.csv, " if message.startswith("line") else "a.csv: ") + message


def test_overflow_of_the_dtype_is_named() -> None:
    Path("a.csv").write_text("x,y\n1,1e308\n")
    assert load("a.csv").y.item() == 1e308
    with pytest.raises(InputError, match=r"a.csv, line 2, column 'y': '1e308' is too large for float32"):
        load("a.csv", dtype=torch.float32)


@pytest.mark.parametrize("name", ["a b.csv", "日本.csv", "l\nine.csv", "-x.csv", "a,b.csv"])
def test_odd_names_are_read(name: str) -> None:
    Path(name).write_text("x,y\n1,2\n")
    assert load(name).y.item() == 2.0
    Path(name).write_text("x,y\n1,two\n")
    with pytest.raises(InputError) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_links_are_followed() -> None:
    Path("a.csv").write_text("x,y\n1,2\n")
    Path("link.csv").symlink_to("a.csv")
    Path("loop.csv").symlink_to("loop.csv")
    assert load("link.csv").y.item() == 2.0
    with pytest.raises(InputError, match=r"^loop.csv: no such file"):
        load("loop.csv")


PLACES = [
    ("gone.csv", "gone.csv: no such file; check the path"),
    ("a\0b.csv", "'a\\x00b.csv': no such file; check the path"),
    ("\ud800.csv", "'\\ud800.csv': no such file; check the path"),
    ("folder", "folder: is a folder; give a file"),
    ("", ".: is a folder; give a file"),
    ("fifo", "fifo: is a pipe or a device; save the data in a file first"),
    ("/dev/zero", "/dev/zero: is a pipe or a device; save the data in a file first"),
    ("/proc/self/status", "/proc/self/status: the file is empty; give one that holds data"),
    ("fifo.npz", "fifo.npz: is a pipe or a device; save the data in a file first"),
    ("a.npy", "'a.npy' holds one vector; give x and y each as an .npy file (--x, --y)"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="names of Linux")
@pytest.mark.parametrize(("name", "message"), PLACES, ids=[repr(case[0]) for case in PLACES])
def test_what_is_no_file(name: str, message: str) -> None:
    Path("folder").mkdir()
    os.mkfifo("fifo")
    os.mkfifo("fifo.npz")
    with pytest.raises(InputError) as caught:
        load(name)
    assert str(caught.value) == message


def test_a_name_that_the_system_refuses() -> None:
    with pytest.raises(
        InputError, match=r"cannot be read \(File name too long\); check the file|no such file"
    ):
        load("a" * 5000)


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.csv").write_text("x,y\n1,2\n")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # as root, no file refuses
    with pytest.raises(InputError, match=r"^a.csv: cannot be read \(Permission denied\); check the file$"):
        load("a.csv")


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (b"x,y\n1,2\n,4\n2,4\n3,NA\n", {"drop_missing": True}, ([1.0, 2.0], [2.0, 4.0], 2)),
        ("x,y,名\n1,2,数据\n2,4,数\n".encode("gbk"), {"encoding": "gbk"}, ([1.0, 2.0], [2.0, 4.0], 0)),
        ("x,y\n1,2\n2,4\n".encode("utf-16"), {"encoding": "utf-16"}, ([1.0, 2.0], [2.0, 4.0], 0)),
    ],
)
def test_options_of_a_table(content: bytes, options: dict[str, Any], expected: Any) -> None:
    Path("a.csv").write_bytes(content)
    data = load("a.csv", **options)
    assert (data.x.tolist(), data.y.tolist(), data.dropped) == expected


BAD_OPTIONS = [
    (b"x,y\n,2\n", {"drop_missing": True}, "a.csv: has 1 rows, and x or y is missing in each"),
    (b"x,y\n1,2\n", {"encoding": "gkb"}, "encoding 'gkb' is not a text encoding that Python knows"),
    (b"x,y\n1,2\n", {"encoding": "hex"}, "encoding 'hex' is not a text encoding that Python knows"),
    (b"x,y\n1,2\n3,4", {"encoding": "utf-32"}, "a.csv: is not text in utf-32; give its encoding"),
    (b"x,y\n1,two\n", {"drop_missing": True}, "a.csv, line 2, column 'y': 'two' is not a number"),
]


@pytest.mark.parametrize(("content", "options", "message"), BAD_OPTIONS)
def test_bad_options_of_a_table(content: bytes, options: dict[str, Any], message: str) -> None:
    Path("a.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load("a.csv", **options)
    assert str(caught.value).startswith(message)


READERS = [quick._by_numpy, quick._by_polars] if importlib.util.find_spec("polars") else [quick._by_numpy]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [case[1] for case in GOOD_CSV] + [case[0] for case in BAD_CSV])
def test_the_quick_readers_give_the_same_numbers_or_none(
    content: bytes, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.csv").write_bytes(content)

    def read() -> Any:
        try:
            return [values.tolist() for values in load("a.csv")]
        except InputError as error:
            return str(error)

    exact = read()
    monkeypatch.setattr(table, "_QUICK", 0)
    monkeypatch.setattr(quick, "_by_polars", reader)
    monkeypatch.setattr(quick, "_by_numpy", reader)
    assert read() == exact


@pytest.mark.parametrize("reader", READERS)
def test_the_quick_readers_read(reader: Any) -> None:
    """What is regular is not left to the exact reader; a row with a cell too many, hidden in a block, is."""
    rows = [f"name{i},{i},{2 * i}\n" for i in range(40_000)]
    Path("a.csv").write_text("name,x,y\n" + "".join(rows))
    layout = table.Layout(["name", "x", "y"], ",", 1, (1, 2))
    assert quick._is_regular(Path("a.csv"), layout)
    x, y = reader(Path("a.csv"), layout)
    assert (x.tolist(), torch.equal(y, 2 * x)) == ([float(i) for i in range(40_000)], True)
    rows[30_000], rows[30_001] = "a,1,234,2\n", "b,7\n"
    Path("a.csv").write_text("name,x,y\n" + "".join(rows))
    assert not quick._is_regular(Path("a.csv"), layout)


def test_parquet() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"x": [1, 2, 3], "y": [2.0, None, 6.0], "name": ["a", "b", "c"]})
    frame.write_parquet("a.parquet")
    assert load("a.parquet", y="x").y.tolist() == [1.0, 2.0, 3.0]
    data = load("a.parquet", drop_missing=True)
    assert (data.x.tolist(), data.y.tolist(), data.dropped) == ([1.0, 3.0], [2.0, 6.0], 1)
    assert load(frame, drop_missing=True).y.tolist() == [2.0, 6.0]
    Path("torn.parquet").write_bytes(Path("a.parquet").read_bytes()[:-9])
    for options, message in [
        ({"path": "a.parquet"}, "a.parquet, column 'y', index 1: is missing; write a number"),
        ({"path": "a.parquet", "y": "name"}, "a.parquet, column 'name': holds String, not numbers"),
        ({"path": "a.parquet", "y": "z"}, "a.parquet: no column 'z'; there is 'x', 'y', 'name'"),
        ({"path": "torn.parquet"}, "torn.parquet: is not a whole Parquet file; save it again"),
    ]:  # fmt: skip
        with pytest.raises(InputError) as caught:
            load(**options)  # type: ignore[arg-type]
        assert str(caught.value).startswith(message)
