"""Kills training runs with SIGKILL at seeded moments, resumes them, and compares them bit by bit.

    python scripts/kill_and_resume.py --kills 100

For each method, order and engine a run is left to end. Then the same run is begun in another folder, killed
once to three times and resumed as often, and at the end both folders must hold the same: weight,
optimizer, generator state and history in checkpoint.pt, every byte of history.csv, every point of every
curve in one event file, every picture. The processes are real ones, forked with torch already imported, so
that the moments fall into the run; checkpoints are written far more often than usual, so that they also fall
into those. Exit status 0: all the same; 1: one differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torchgd import training
from torchgd.cli import main
from torchgd.history import History
from torchgd.runs import checkpoint, keeper

SAMPLES = 2000
RUNS = {  # a second or two each, in which tens of checkpoints are written
    "gd": "--epochs 4000",
    "sgd": "--epochs 12 --method sgd",
    "sgd shuffled": "--epochs 12 --method sgd --order shuffled",
    "sgd replacement": "--epochs 12 --method sgd --order replacement",
    "sgd autograd": "--epochs 4 --method sgd --order shuffled --gradient autograd",
    "minibatch": "--epochs 150 --method minibatch --batch-size 16",
    "minibatch shuffled": "--epochs 150 --method minibatch --batch-size 16 --order shuffled",
    "minibatch replacement": "--epochs 150 --method minibatch --batch-size 16 --order replacement",
    "scan gd": "--epochs 40000 --engine scan",
    "scan sgd": "--epochs 40000 --engine scan --method sgd",
    "scan sgd shuffled": "--epochs 1500 --engine scan --method sgd --order shuffled",
    "scan sgd float32": "--epochs 1500 --engine scan --method sgd --order shuffled --dtype float32",
    "scan minibatch replacement": "--epochs 1500 --engine scan --method minibatch --batch-size 16 "
    "--order replacement",
}


def begin(data: Path, logdir: Path, options: str) -> int:
    """Start ``torchgd train`` as a process of its own; returns its id."""
    arguments = ["train", str(data), "--logdir", str(logdir), "--name", "run", "--lr", "0.001"]
    arguments += (options if "--engine" in options else f"{options} --engine loop").split()
    if (logdir / "data" / "run").is_dir():
        arguments.append("--resume")
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os._exit(main(arguments))
    return child


def ended(child: int, *, within: float) -> bool:
    """Whether the process ended by itself in so many seconds; if not, it is killed."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a run ended with status {os.waitstatus_to_exitcode(status)}")
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status)


def difference(one: Path, other: Path) -> str | None:
    """What differs first between two runs' folders, or None."""
    names = [  # an older event file is left empty
        sorted("events" if "tfevents" in p.name else p.name for p in folder.iterdir() if p.stat().st_size)
        for folder in (one, other)
    ]
    if names[0] != names[1]:
        return f"files: {names[0]} and {names[1]}"
    for name in ("config.json", "history.csv", "parabola.png", "cost.png"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            return name
    kept = [checkpoint.load(folder / "checkpoint.pt") for folder in (one, other)]
    for part in ("model", "optimizer", "settings", "ended"):
        if getattr(kept[0], part) != getattr(kept[1], part):
            return part
    states = [k.place.generator if k.place.generator is not None else torch.empty(0) for k in kept]
    if (kept[0].place.epoch, kept[0].place.update) != (kept[1].place.epoch, kept[1].place.update):
        return "place"
    if not torch.equal(*states):
        return "generator"
    for field in fields(History):
        a, b = (getattr(k.history, field.name) for k in kept)
        if not (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b):
            return f"history.{field.name}"
    return None if curves(one) == curves(other) else "event file"


def curves(folder: Path) -> dict[str, list[tuple[int, object]]]:
    """Every point of every curve, and every picture, as TensorBoard reads them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    found: dict[str, list[tuple[int, object]]] = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    for tag in events.Tags()["images"]:
        found[tag] = [(event.step, event.encoded_image_string) for event in events.Images(tag)]
    return found


def write_data(path: Path) -> None:
    """Noisy samples of y = 3 x: an optimum that every order of the samples misses by its own bits."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, generator=generator, dtype=torch.float64)
    y = 3 * x + torch.randn(SAMPLES, generator=generator, dtype=torch.float64)
    rows = "".join(f"{a!r},{b!r}\n" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    path.write_text("x,y\n" + rows)


def kill_and_resume(kills: int, seed: int, only: str) -> bool:
    """Print a row for each kind of run; whether all were the same."""
    chance = random.Random(seed)
    kinds = [kind for kind in RUNS if only in kind]
    kinds = sorted(chance.sample(kinds, min(kills, len(kinds))), key=kinds.index)
    same = True
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.csv")
        write_data(data)
        with redirect_stdout(StringIO()):  # import here, once, what a run imports
            main(["train", "--logdir", str(Path(folder, "warm")), "--epochs", "1"])
        print(f"{'run':28}{'seconds':>8}{'kills':>7}{'before a checkpoint':>21}{'the same':>10}")
        left = kills
        for number, kind in enumerate(kinds):
            whole = Path(folder, f"{number}")
            begun = time.monotonic()
            ended(begin(data, whole, RUNS[kind]), within=600)
            seconds = time.monotonic() - begun  # that a whole run takes
            share = left // (len(kinds) - number)
            left -= share
            done = early = runs = equal = 0
            while done < share:
                logdir = Path(folder, f"{number}-{runs}")
                for attempt in range(min(chance.randint(1, 3), share - done)):
                    begun = time.monotonic()
                    if ended(begin(data, logdir, RUNS[kind]), within=chance.uniform(0, seconds)):
                        seconds = seconds if attempt else time.monotonic() - begun
                        break
                    done += 1
                    early += not (logdir / "data" / "run" / "checkpoint.pt").exists()
                ended(begin(data, logdir, RUNS[kind]), within=600)
                runs += 1
                found = difference(whole / "data" / "run", logdir / "data" / "run")
                equal += found is None
                if found:
                    print(f"{kind}: {found} differs")
            same = same and equal == runs
            print(f"{kind:28}{seconds:8.1f}{done:7}{early:21}{f'{equal}/{runs}':>10}", flush=True)
    return same


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the kinds of run whose name holds this")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a fork copies one thread
    keeper.SECONDS_BETWEEN, keeper.SHARE_OF_TIME = 0.02, 0.5
    training.SECONDS_A_REPORT = 0.02
    sys.exit(0 if kill_and_resume(options.kills, options.seed, options.only) else 1)
