#!/bin/bash
# tbparse returns the points of a resumed run that SummaryWriter(purge_step=...) took back: two losses for one step.
#
# One would guess: a reader of TensorBoard files shows the curve that TensorBoard shows. A run that was cut at step 9
# and resumed from its checkpoint of step 5 with purge_step=5 has one loss for each step.
# What happens (tbparse 0.0.9, tensorboard 2.21.0): TensorBoard and its EventAccumulator drop the old steps 5 to 9;
# tbparse's table has them twice, the stale value first. pivot=True puts a list of two values into those cells. No warning.
# Who meets it: who plots or averages resumed runs with pandas: the mean of the last steps mixes dead and living ones.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 pandas==3.1.1 tensorboard==2.21.0 tbparse==0.0.9
"$t/venv/bin/python" -W ignore - "$t/run" <<'PY'
import logging
import sys
from importlib.metadata import version
from tbparse import SummaryReader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

logging.disable(logging.WARNING)
print(*(f"{name} {version(name)}" for name in ("torch", "tensorboard", "tbparse", "pandas")), sep=", ")
with SummaryWriter(sys.argv[1], filename_suffix=".first") as writer:
    for step in range(10):
        writer.add_scalar("loss", step, step)
with SummaryWriter(sys.argv[1], purge_step=5, filename_suffix=".second") as writer:
    for step in range(5, 12):
        writer.add_scalar("loss", 100 + step, step)

accumulator = EventAccumulator(sys.argv[1])
accumulator.Reload()
shown = [(e.step, e.value) for e in accumulator.Scalars("loss")]
rows = SummaryReader(sys.argv[1]).scalars
table = list(zip(rows["step"].tolist(), rows["value"].tolist()))
pivot = SummaryReader(sys.argv[1], pivot=True).scalars["loss"].tolist()
print("TensorBoard:", shown)
print("tbparse:    ", table)
print("pivot=True: ", pivot)
stale = [(float(s), float(s)) for s in range(5, 10)]
kept = len(shown) == 12 and len(table) == 17 and set(stale) <= set(table) and not set(stale) & set(shown)
sys.exit(0 if kept else "the behaviour has changed")
PY
