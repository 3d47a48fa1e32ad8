"""Any words on the command line end in status 0, 1 or 2, a 2 in one line; nothing lands outside --logdir."""

from __future__ import annotations

import contextlib
import io
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchgd.cli import main

OPTIONS = (
    "--lr",
    "--epochs",
    "--batch-size",
    "--weight",
    "--seed",
    "--name",
    "--predict",
    "--x",
    "--y",
    "-h",
)
CHOICES = ("--method", "--order", "--dtype", "--gradient", "--device", "--engine")
WORDS = st.one_of(
    st.sampled_from(
        ["gd", "sgd", "minibatch", "shuffled", "float32", "cpu", "scan", "auto", "", "-", "--", "x"]
    ),
    st.sampled_from(["0", "-1", "1e308", "5e-324", "nan", "inf", "1_000", "٣", "0x10", "1e-400", "2" * 400]),
    st.integers().map(str),
    st.floats(allow_nan=True).map(str),
    st.text(string.printable, max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
FEW = st.sampled_from(["1", "2", "3"])
ARGUMENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(OPTIONS), WORDS),
        st.tuples(st.sampled_from(CHOICES), WORDS),
        st.tuples(st.sampled_from(["course", "hubble"])),
        st.tuples(WORDS),
    ),
    max_size=4,
).map(lambda groups: [word for group in groups for word in group])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    command=st.sampled_from(["train", "stability", "lesson", "compare", "check"]),
    arguments=ARGUMENTS,
    epochs=FEW,
)
def test_any_words_end_in_a_status(command: str, arguments: list[str], epochs: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "work")
        words = [command, *arguments]
        if command in {"train", "lesson"}:
            words += ["--epochs", epochs]  # the last one counts: no example runs for hours
        if command != "check":
            words += (
                ["--logdir", str(tmp_path / "runs")] if command in {"train", "lesson", "stability"} else []
            )
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status = main(words)
        assert status in {0, 1, 2}
        if status == 2 and error.getvalue():
            assert len(error.getvalue().splitlines()) == 1, error.getvalue()
            assert error.getvalue().startswith("torchgd: ")
        assert "Traceback" not in error.getvalue()
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "runs") == ["work"]
        assert not list((tmp_path / "work").iterdir())
