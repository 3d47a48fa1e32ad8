"""Where a run is written: names fit for every system, folders of their own, files whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest

from torchgd.errors import InputError
from torchgd.runs.folders import check_name, new_folder, remove, runs_in
from torchgd.runs.runlog import write_config, write_text


def test_a_new_run_never_enters_an_old_ones_folder(tmp_path: Path) -> None:
    names = [new_folder(tmp_path, "course", "sgd") for _ in range(12)]
    assert [path.name for path in names] == ["sgd", *(f"sgd-{i}" for i in range(2, 13))]
    assert all(path.is_dir() for path in names)
    assert new_folder(tmp_path, "hubble", "sgd") == tmp_path / "hubble" / "sgd"
    names[3].rmdir()
    assert new_folder(tmp_path, "course", "sgd").name == "sgd-4"
    (tmp_path / "course" / "gd").write_text("a file of this name")
    assert new_folder(tmp_path, "course", "gd").name == "gd-2"


BAD_NAMES = [
    ("a:b", "the name 'a:b' holds ':'; use letters, digits, '-', '_' and '.'"),
    ("a/b", "the name 'a/b' holds '/'; use letters, digits, '-', '_' and '.'"),
    ("a\\b", "the name 'a\\\\b' holds '\\\\'; use letters, digits, '-', '_' and '.'"),
    ("what?", "the name 'what?' holds '?'; use letters, digits, '-', '_' and '.'"),
    ("a*", "the name 'a*' holds '*'; use letters, digits, '-', '_' and '.'"),
    ('a"', "the name 'a\"' holds '\"'; use letters, digits, '-', '_' and '.'"),
    ("a|b", "the name 'a|b' holds '|'; use letters, digits, '-', '_' and '.'"),
    ("<a>", "the name '<a>' holds '<'; use letters, digits, '-', '_' and '.'"),
    ("a\nb", "the name 'a\\nb' holds '\\n'; use letters, digits, '-', '_' and '.'"),
    ("a\x00b", "the name 'a\\x00b' holds '\\x00'; use letters, digits, '-', '_' and '.'"),
    *(
        (name, f"the name {name!r} is not a folder name on every system; use e.g. 'sgd-1'")
        for name in ("", ".", "..", " sgd", "sgd ", "sgd.", "con", "NUL", "com1", "aux.txt", "x" * 101)
    ),
]


@pytest.mark.parametrize(("name", "message"), BAD_NAMES)
def test_names_that_are_refused(name: str, message: str, tmp_path: Path) -> None:
    for experiment, run in ((name, "sgd"), ("course", name)):
        with pytest.raises(InputError) as error:
            new_folder(tmp_path, experiment, run)
        assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["sgd", "lr=0.01", "my run", "梯度下降", "a.b-c_d", "x" * 100, "console", "nullable"]
)
def test_names_that_are_taken(name: str, tmp_path: Path) -> None:
    check_name(name)
    assert new_folder(tmp_path, name, name).is_dir()


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError) as error:
        new_folder(file, "course", "sgd")
    assert str(error.value) == f"{file}/course/sgd: cannot be made (Not a directory); give another --logdir"
    with pytest.raises(InputError) as error:
        new_folder(tmp_path, "file", "sgd")
    assert str(error.value).startswith(f"{file}")
    assert str(error.value).endswith("; give another --logdir")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match=r"cannot be made \(Permission denied\); give another --logdir"):
        new_folder(tmp_path, "course", "sgd")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "history.csv"
    write_text(file, "old\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new, and much longer\n")
    assert file.read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_the_configuration(tmp_path: Path) -> None:
    write_config(tmp_path, {"data": "数据.csv", "lr": 0.1, "batch_size": None})
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"schema": 1, "data": "数据.csv", "lr": 0.1, "batch_size": None}
    assert "数据" in text


def a_run(folder: Path, **settings: object) -> Path:
    """The folder of a run, as far as the list reads it."""
    write_config(folder, settings)
    (folder / "history.csv").write_text("epoch,update,cost\n0,0,4.5\n1,1,0.25\n,2,\n", encoding="utf-8")
    return folder


def test_the_list_of_runs_and_its_removal(tmp_path: Path) -> None:
    for name in ("gd", "gd", "sgd"):
        a_run(new_folder(tmp_path, "course", name), data="course", lr=0.01)
    (tmp_path / "course" / "mine").mkdir()
    (tmp_path / "course" / "mine" / "notes.txt").write_text("kept")
    listed = {entry.name: entry for entry in runs_in(tmp_path)}
    assert set(listed) == {"course/gd", "course/gd-2", "course/sgd"}
    assert (listed["course/sgd"].settings["lr"], listed["course/sgd"].cost) == (0.01, 0.25)
    assert remove(tmp_path, "course/gd*") == ["course/gd", "course/gd-2"]
    assert [entry.name for entry in runs_in(tmp_path)] == ["course/sgd"]
    for name in ("course/mine", "course/no", "../course", "*"):
        with pytest.raises(InputError, match="no run has this name"):
            remove(tmp_path, name)
    assert (tmp_path / "course" / "mine" / "notes.txt").read_text() == "kept"


def test_overwriting_replaces_a_run_and_nothing_else(tmp_path: Path) -> None:
    old = a_run(new_folder(tmp_path, "course", "gd"))
    assert new_folder(tmp_path, "course", "gd", overwrite=True) == old
    assert list(old.iterdir()) == []
    (old / "photo.jpg").touch()
    with pytest.raises(InputError, match="no run has this name"):
        new_folder(tmp_path, "course", "gd", overwrite=True)
    assert [path.name for path in old.iterdir()] == ["photo.jpg"]
