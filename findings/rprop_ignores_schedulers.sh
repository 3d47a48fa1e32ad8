#!/bin/bash
# torch.optim.Rprop reads lr at its first step only: a scheduler that takes lr to 0 changes nothing.
#
# One would guess: every torch.optim class follows param_group["lr"], since that is what schedulers write. With lr = 0
# no parameter moves.
# What happens (torch 2.13.0): lr is the first step size of each element and is copied into the state; later values are
# not read. The scheduler's get_last_lr(), and with it every log, shows a rate of 0 while the steps grow by 1.2 each.
# lr = 0 from the start is accepted, and moves too: the smallest step size, 1e-6, lifts it. Nothing warns.
# Who meets it: who compares optimizers under one schedule, freezes a group with lr = 0, or warms up from 0.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy
"$t/venv/bin/python" -W error - <<'PY'
import sys
import torch

print("torch", torch.__version__)


def moves(make, steps=5):
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = make([p])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    seen = []
    for _ in range(steps):
        before, lr = float(p.detach()), scheduler.get_last_lr()[0]
        p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
        seen.append((lr, round(before - float(p.detach()), 9)))
    return seen


sgd = moves(lambda p: torch.optim.SGD(p, lr=0.01))
rprop = moves(lambda p: torch.optim.Rprop(p, lr=0.01))
zero = moves(lambda p: torch.optim.Rprop(p, lr=0.0))
print("(lr shown, distance moved), scheduler to 0 after the first step")
print("SGD:            ", sgd)
print("Rprop:          ", rprop)
print("Rprop(lr=0.0):  ", zero)
grew = all(lr == 0 and moved > 0.01 for lr, moved in rprop[1:])
still = not any(moved for _, moved in sgd[1:])
sys.exit(0 if grew and still and zero[0] == (0.0, 1e-6) else "the behaviour has changed")
PY
