#!/bin/bash
# schedulefree's RAdamScheduleFree turns the parameters to NaN when lr is a tensor; its two siblings do not.
#
# One would guess: lr=torch.tensor(0.01), as torch.optim takes it (and wants it under torch.compile), trains as 0.01
# does. AdamWScheduleFree and SGDScheduleFree of the same package do so.
# What happens (schedulefree 1.4.1, torch 2.13.0): every parameter is NaN at once, without error or warning.
# The first steps of RAdam have a rate of 0. With a number the weight of the average is then 0/0, a ZeroDivisionError,
# which the class catches and reads as 0; with a tensor 0/0 is NaN, and nothing is caught.
# Who meets it: who hands one lr tensor to all optimizers, to change it without recompiling.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy schedulefree==1.4.1
"$t/venv/bin/python" -W error - <<'PY'
import sys
from importlib.metadata import version
import schedulefree
import torch

print("torch", torch.__version__, "schedulefree", version("schedulefree"))


def train(make, lr, steps):
    p = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    optimizer = make([p], lr=lr)
    optimizer.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (p**2).sum().backward()
        optimizer.step()
    return p.detach()


ok = True
for name in ("SGDScheduleFree", "AdamWScheduleFree", "RAdamScheduleFree"):
    for steps in (1, 12):
        number, tensor = (train(getattr(schedulefree, name), lr, steps) for lr in (0.01, torch.tensor(0.01).double()))
        print(f"{name}, {steps} steps: lr a number {number.tolist()}, lr a tensor {tensor.tolist()}")
        same = torch.allclose(number, tensor)
        ok = ok and bool(number.isfinite().all()) and (tensor.isnan().all() if name[0] == "R" else same)
sys.exit(0 if ok else "the behaviour has changed")
PY
