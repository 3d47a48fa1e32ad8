"""Checkpoints: a run cut anywhere goes on with the same bits; what is not a whole checkpoint is refused."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from torchgd import InputError, LinearModel, MiniBatchGradientDescent, StochasticGradientDescent, train
from torchgd.history import History
from torchgd.runs.atomic import write_whole
from torchgd.runs.checkpoint import Checkpoint, _checksum, load, save, take
from torchgd.training import Place

DATA = torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0]).double(), torch.tensor([2.0, 5.0, 6.0, 9.0, 15.0]).double()


def assert_same(one: History, other: History) -> None:
    for column in fields(History):
        a, b = getattr(one, column.name), getattr(other, column.name)
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=column.name)
        else:
            assert a == b, column.name


def begin(order: str) -> tuple[LinearModel, MiniBatchGradientDescent]:
    model = LinearModel(1.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    return model, MiniBatchGradientDescent(
        model.parameters(), lr=0.003, batch_size=2, order=order, generator=generator
    )


class CutError(Exception):
    """Ends a run from within ``on_progress``."""


def kept_at(path: Path, order: str, cut: int) -> tuple[Checkpoint, Tensor]:
    """A run of 20 epochs cut at its cut-th report, where it was kept; and its weight at that moment."""
    model, optimizer = begin(order)
    parts: list[History] = []

    def on_progress(part: History, place: Place) -> None:
        parts.append(part)
        if len(parts) == cut:
            save(path, take(model, optimizer, History.join(parts), place))
            raise CutError

    with pytest.raises(CutError):
        train(model, *DATA, optimizer, 20, gradient="hand", on_progress=on_progress)
    return load(path), model.weight.detach()


@pytest.mark.parametrize("order", ["sequential", "shuffled", "replacement"])
def test_a_run_cut_after_any_update_goes_on_with_the_same_bits(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = begin(order)
    whole = train(model, *DATA, optimizer, 20, gradient="hand")
    state = optimizer.batches(5).generator
    assert state is not None
    monkeypatch.setattr("torchgd.training.UPDATES_A_LOOK", 1)
    monkeypatch.setattr("torchgd.training.SECONDS_A_REPORT", -1.0)
    for cut in (1, 2, 3, 4, 29, 30, 31, 59):  # of 60 updates, so within epochs of 3 and between them
        kept, _ = kept_at(tmp_path / "checkpoint.pt", order, cut)
        assert kept.place.epoch * 3 + kept.place.update == cut
        resumed, resumed_optimizer = begin(order)
        history = train(
            resumed,
            *DATA,
            resumed_optimizer,
            20,
            gradient="hand",
            resume=kept.restore(resumed, resumed_optimizer),
        )
        assert_same(history, whole)
        assert torch.equal(resumed.weight, model.weight)
        generator = resumed_optimizer.batches(5).generator
        assert generator is not None
        assert torch.equal(generator.get_state(), state.get_state())


def test_a_module_with_momentum_and_a_scheduler_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    x, y = (data.reshape(-1, 1) for data in DATA)

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 9], gamma=0.5)

    model, optimizer, scheduler = fresh()
    whole = train(model, x, y, optimizer, 12, scheduler=scheduler)
    other, other_optimizer, other_scheduler = fresh()
    part = train(other, x, y, other_optimizer, 6, scheduler=other_scheduler)
    path = tmp_path / "checkpoint.pt"
    save(path, take(other, other_optimizer, part, Place(6), scheduler=other_scheduler))

    last, last_optimizer, last_scheduler = fresh()
    resume = load(path).restore(last, last_optimizer, last_scheduler)
    history = train(last, x, y, last_optimizer, 12, scheduler=last_scheduler, resume=resume)
    assert_same(history, replace(whole, status=history.status, reason=history.reason))
    assert all(map(torch.equal, model.parameters(), last.parameters()))
    assert last_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.0025
    with pytest.raises(InputError, match="a run with a scheduler"):
        load(path).restore(last, last_optimizer)


def test_taking_a_checkpoint_copies(tmp_path: Path) -> None:
    model, optimizer = begin("sequential")
    kept = take(model, optimizer, train(model, *DATA, optimizer, 1), Place(1))
    weight = model.weight.item()
    with torch.no_grad():
        model.weight.add_(1)
    save(tmp_path / "kept.pt", kept)
    assert load(tmp_path / "kept.pt").model["weight"].item() == weight


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A whole checkpoint of a run in shuffled order."""
    kept_at(tmp_path / "checkpoint.pt", "shuffled", 1)
    return tmp_path / "checkpoint.pt"


def test_anybody_can_read_it_without_unpickling_code(whole: Path) -> None:
    content = torch.load(whole, weights_only=True)
    assert content["format"] == "torchgd checkpoint"
    assert content["content"]["model"]["weight"].shape == ()


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def _changed(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["content"]["model"]["weight"] += 1e-9
    torch.save(content, path)


def _without(name: str) -> Callable[[Path], None]:
    """Take one part out of the content, and write a checksum that fits what is left."""

    def spoil(path: Path) -> None:
        whole = torch.load(path, weights_only=True)
        del whole["content"][name]
        torch.save({**whole, "checksum": _checksum(whole["content"])}, path)

    return spoil


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _newer(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({**content, "version": 3}, path)


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("empty", lambda path: path.write_bytes(b""), "not a checkpoint of torchgd, or a broken one"),
    ("text", lambda path: path.write_text("x,y\n1,2\n"), "not a checkpoint of torchgd, or a broken one"),
    ("truncated", lambda path: os.truncate(path, 3000), "not a checkpoint of torchgd, or a broken one"),
    ("the end lost", lambda path: os.truncate(path, path.stat().st_size - 1), "not a checkpoint of torchgd"),
    (
        "a state_dict",
        lambda path: torch.save(nn.Linear(1, 1).state_dict(), path),
        "not a checkpoint of torchgd",
    ),
    ("a whole module", lambda path: torch.save(nn.Linear(1, 1), path), "not a checkpoint of torchgd"),
    (
        "a tensor",
        lambda path: torch.save(torch.ones(3), path),
        "not a checkpoint of torchgd, or a broken one",
    ),
    ("zip", lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), "not a checkpoint of torchgd"),
    ("pickle", lambda path: path.write_bytes(pickle.dumps(Evil(path.parent / "evil"))), "not a checkpoint"),
    ("evil", lambda path: torch.save(Evil(path.parent / "evil"), path), "not a checkpoint of torchgd"),
    ("changed", _changed, "its content does not match its checksum"),
    ("no history", _without("history"), "an incomplete or changed checkpoint"),
    ("no model", _without("model"), "an incomplete or changed checkpoint"),
    ("newer", _newer, r"a checkpoint of format \('torchgd checkpoint', 3\)"),
    ("gone", lambda path: path.unlink(), "cannot be read .No such file or directory"),
    ("a folder", _a_folder, "cannot be read .Is a directory"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_whole_checkpoint_is_refused_in_one_line(
    whole: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(whole)
    with pytest.raises(InputError, match=message) as error:
        load(whole)
    assert "\n" not in str(error.value)
    assert str(whole) in str(error.value)
    assert not (whole.parent / "evil").exists()


@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_changed_byte_is_seen_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: float, bits: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.pt"
    original = tmp_path_factory.getbasetemp() / "original.pt"
    if not original.exists():
        kept_at(original, "shuffled", 1)
    data = bytearray(original.read_bytes())
    data[int(place * len(data))] ^= bits
    path.write_bytes(data)
    before = load(original)
    try:
        after = load(path)
    except InputError:
        return
    assert_same(before.history, after.history)  # padding and times of the archive do not count
    assert before.model == after.model
    assert before.optimizer == after.optimizer


def test_what_weights_only_would_refuse_is_not_written(tmp_path: Path) -> None:
    model, optimizer = begin("sequential")
    history = train(model, *DATA, optimizer, 1)
    with pytest.raises(InputError, match=r"a checkpoint cannot hold .*PosixPath"):
        save(tmp_path / "kept.pt", take(model, optimizer, history, Place(1), settings={"a": tmp_path}))
    assert not list(tmp_path.iterdir())


def test_another_model_is_refused(whole: Path) -> None:
    model = nn.Linear(3, 1)
    with pytest.raises(InputError, match=r"of another model or optimizer .*Missing key") as error:
        load(whole).restore(model, StochasticGradientDescent(model.parameters()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_to_write_leaves_the_old_one_whole(
    whole: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before, kept = whole.read_bytes(), load(whole)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        save(whole, replace(kept, ended=True))
    assert whole.read_bytes() == before
    assert [path.name for path in whole.parent.iterdir()] == [whole.name]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a file system of this size; yields a function that changes its options."""

    def mount(options: str) -> None:
        subprocess.run(
            ["mount", "-o", options, *what, str(folder)], check=True, capture_output=True, timeout=10
        )

    folder.mkdir()
    what = ["-t", "tmpfs", "tmpfs"]
    try:
        mount(f"size={size}")
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this process may not mount a file system")
    what = []
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)


def test_a_full_disk_leaves_the_old_one_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k"):
        path = tmp_path / "disk" / "checkpoint.pt"
        kept, _ = kept_at(path, "shuffled", 1)
        before = path.read_bytes()
        with pytest.raises(OSError, match="No space left"):
            save(path, replace(kept, model={"weight": torch.ones(100_000)}))
        assert path.read_bytes() == before
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        assert_same(load(path).history, kept.history)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".checkpoint.pt.part").symlink_to(outside)
    (folder / "checkpoint.pt").symlink_to(outside)
    kept_at(folder / "checkpoint.pt", "sequential", 1)
    assert outside.read_text() == "mine"
    assert not (folder / "checkpoint.pt").is_symlink()


def _changed_to(part: str, value: object) -> Callable[[Path], None]:
    """Change one entry of the content, ``history.cost`` for one, and write a checksum that fits."""

    def spoil(path: Path) -> None:
        whole = torch.load(path, weights_only=True)
        inside, _, name = part.rpartition(".")
        (whole["content"][inside] if inside else whole["content"])[name] = value
        torch.save({**whole, "checksum": _checksum(whole["content"])}, path)

    return spoil


LIES: list[tuple[str, object]] = [
    ("settings", 5),
    ("settings.overridden", "x"),
    ("ended", "yes"),
    ("model", [1]),
    ("optimizer", None),
    ("scheduler", 3),
    ("history", {}),
    ("history.cost", 1.0),
    ("history.cost", torch.ones(2)),
    ("history.epoch", torch.tensor([0.0, 1.0])),
    ("history.update", torch.tensor([3, 2, 1])),
    ("history.weight", torch.ones(2, 2, 2)),
    ("history.status", "well"),
    ("history.reason", "\x1b]0;owned\x07"),
    ("place", {"epoch": 1}),
    ("place.epoch", "x"),
    ("place.epoch", -1),
    ("place.update", True),
    ("place.generator", torch.ones(3)),
    ("place.generator", torch.zeros(5056, dtype=torch.uint8)),
    ("extra", 1),
]


@pytest.mark.parametrize(("part", "value"), LIES, ids=[f"{part}={value!r:.20}" for part, value in LIES])
def test_a_forged_part_is_refused_in_one_line(whole: Path, part: str, value: object) -> None:
    _changed_to(part, value)(whole)
    with pytest.raises(InputError, match="an incomplete or changed checkpoint") as error:
        load(whole)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("optimizer.param_groups", [{"lr": "x", "params": [0]}]),
        ("optimizer.param_groups", []),
        ("optimizer.state", [1]),
        ("model.weight", torch.ones(3)),
        ("model.\x1b[2J", torch.ones(())),
        ("model.weight", "x"),
    ],
)
def test_a_forged_state_is_refused_in_one_line(whole: Path, part: str, value: object) -> None:
    _changed_to(part, value)(whole)
    model, optimizer = begin("sequential")
    with pytest.raises(InputError, match="the checkpoint is of another model or optimizer") as error:
        load(whole).restore(model, optimizer)
    assert str(error.value).isprintable()


def test_a_file_system_that_refuses_to_sync_folders_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def no_folders(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(handle)

    monkeypatch.setattr(os, "fsync", no_folders)
    write_whole(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
