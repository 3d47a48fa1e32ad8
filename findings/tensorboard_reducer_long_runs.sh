#!/bin/bash
# tensorboard-reducer averages a random quarter of two long runs, and its strict check finds runs of two lengths equal.
#
# One would guess: the mean over runs has a row for every step that all runs logged, and load_tb_events, strict about
# steps by default, refuses a run of 12,000 steps beside one of 40,000.
# What happens (tensorboard-reducer 0.4.0, tensorboard 2.21.0): the events are read through TensorBoard's
# EventAccumulator with its default limit, which keeps a random 10,000 of the points of a tag. Both runs then have
# "10,000 steps", the strict check passes, and the inner join keeps the steps that happen to be in both samples.
# With runs of 9,000 and 9,500 steps the same call raises ValueError. Nothing is said about the points left out.
# Who meets it: who averages long runs over seeds; the last loss, or the best one, may not be in the table.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 pandas==3.1.1 tensorboard==2.21.0 tensorboard-reducer==0.4.0
"$t/venv/bin/python" - "$t" <<'PY'
import sys
from importlib.metadata import version
import tensorboard_reducer
from torch.utils.tensorboard import SummaryWriter

print(*(f"{name} {version(name)}" for name in ("torch", "tensorboard", "tensorboard-reducer", "pandas")), sep=", ")


def mean_of_runs(*lengths):
    folders = [f"{sys.argv[1]}/{lengths}/{i}" for i in range(len(lengths))]
    for folder, n in zip(folders, lengths):
        with SummaryWriter(folder) as writer:
            for step in range(n):
                writer.add_scalar("loss", 1 / (1 + step), step)
    try:
        events = tensorboard_reducer.load_tb_events(folders)
    except ValueError as error:
        print(f"runs of {lengths} steps: ValueError: {str(error).splitlines()[0][:90]}")
        return None
    mean = tensorboard_reducer.reduce_events(events, ["mean"])["mean"]["loss"]
    print(f"runs of {lengths} steps: {len(mean)} rows; steps {list(mean.index[:4])} ... {list(mean.index[-2:])}")
    return len(mean)


short, equal, long = mean_of_runs(9000, 9500), mean_of_runs(9000, 9000), mean_of_runs(12000, 40000)
kept = short is None and equal == 9000 and long is not None and long < 6000
sys.exit(0 if kept else "the behaviour has changed")
PY
