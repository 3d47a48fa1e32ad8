"""The data that ship, and the words that name data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torchgd.data.dataset import course, hubble
from torchgd.data.loading import load, open_data
from torchgd.errors import InputError

pytestmark = pytest.mark.usefixtures("folder")


def test_course_is_the_lectures_three_samples() -> None:
    x, y = course()
    assert x.tolist() == [1.0, 2.0, 3.0]
    assert y.tolist() == [2.0, 4.0, 6.0]
    assert x.dtype == y.dtype == torch.float64


def test_hubbles_constant_of_1929() -> None:
    data = hubble()
    distance, velocity = data.x.tolist(), data.y.tolist()
    H = sum(d * v for d, v in zip(distance, velocity, strict=True)) / sum(d * d for d in distance)
    cost = sum((H * d - v) ** 2 for d, v in zip(distance, velocity, strict=True)) / 24
    # computed beforehand in another program; 24 terms summed in any order differ by less than 24 ulp
    assert pytest.approx(423.9373232316303, rel=24 * 2**-52) == H
    assert cost == pytest.approx(50266.77658179018, rel=24 * 2**-52)
    pairs = list(zip(distance, velocity, strict=True))
    assert (len(pairs), pairs[0], pairs[5], pairs[-1]) == (24, (0.032, 170.0), (0.275, -220.0), (2.0, 1090.0))
    assert ("Mpc" in data.x_label, "km/s" in data.y_label) == (True, True)


@pytest.mark.parametrize("make", [course, hubble])
def test_dtype_and_device(make: Any) -> None:
    data = make(dtype=torch.float32, device="meta")
    assert (data.x.dtype, data.y.dtype, data.x.device.type) == (torch.float32, torch.float32, "meta")


def test_words_of_the_command_line() -> None:
    for i in range(12):
        np.save(f"x{i}.npy", np.array([i + 1.0]))
        np.save(f"y{i}.npy", np.array([1.0]))
    assert open_data("course").name == open_data("").name == "course"
    assert open_data("hubble", dtype=torch.float32).x.dtype == torch.float32
    assert open_data("", x="x0.npy,x1.npy", y="y0.npy,y1.npy").x.tolist() == [1.0, 2.0]
    assert open_data("course", x="x*.npy", y="y**.npy").x.tolist() == list(range(1, 13))  # x2 before x10
    Path("a.csv").write_text("u,v\n1,2\n")
    assert open_data("a.csv", x="u", y="v").y.item() == 2.0
    many = ",".join(itertools.repeat("x0.npy", 300))  # longer than any file's name may be
    assert len(open_data("", x=many, y=many)) == 300


WORDS = [
    (("", "x.npy", None), "--y is missing; give both --x and --y as .npy files"),
    (("course", None, "y.npy"), "--x is missing; give both --x and --y as .npy files"),
    (
        ("course", "distance", "velocity"),
        "--x 'distance' is not an .npy file; for a column, name its file first",
    ),
    (("cours", None, None), "cours: no such file; did you mean course?"),
    (("Hubbel", None, None), "Hubbel: no such file; did you mean hubble?"),
    (("corse.csv", None, None), "corse.csv: no such file; check the path"),
    (("source", None, None), "source: no such file; check the path"),
    (("a" * 5000, None, None), f"{'a' * 5000}: cannot be read (File name too long); check the file"),
    (("course", "no*.npy", "y.npy"), "no*.npy: no such file; check the path"),
    (("hubble", "x", None), "hubble has its own x and y; leave out --x and --y"),
    (("huble", None, None), "huble: no such file; did you mean hubble?"),
]


@pytest.mark.parametrize(("words", "message"), WORDS, ids=[case[1][:40] for case in WORDS])
def test_bad_words(words: tuple[str, str | None, str | None], message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_data(words[0], x=words[1], y=words[2])
    assert str(caught.value) == message


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({}, "no data: give a path, or both x and y as .npy files"),
    ({"x": "x.npy"}, "no data: give a path, or both x and y as .npy files"),
    (
        {"path": "a.csv", "x": ["a"]},
        "'a.csv' is the table, so x and y are names of its columns; give strings",
    ),
    (
        {"path": "a.csv", "dtype": torch.int64},
        "dtype torch.int64 is not a floating-point type to compute in; give torch.float64",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS, ids=[case[1][:40] for case in ARGUMENTS])
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(**arguments)
    assert str(caught.value) == message
