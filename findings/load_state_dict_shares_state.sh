#!/bin/bash
# After b.load_state_dict(a.state_dict()) the two optimizers share their momentum: stepping b changes a.
#
# One would guess: an optimizer's load_state_dict copies, as a module's load_state_dict does. A run may be forked with
# it: one model and optimizer go on, a copy tries another learning rate.
# What happens (torch 2.13.0): tensors that have the right dtype and device already are taken over, not copied, the
# step counter included. Every step of the trial writes into the momentum of the run that it was forked from; the
# model is copied and safe. Going through a file, or copy.deepcopy(a.state_dict()), does copy.
# Who meets it: learning rate finders, population training, "try a step and go back", ensembles from one warm start.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy
"$t/venv/bin/python" - <<'PY'
import copy
import sys
import torch

print("torch", torch.__version__)
x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(-1, 1)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(x) - 3 * x) ** 2).mean().backward()
        optimizer.step()
    return float(model.weight.detach())


def weight_after_ten(make, fork):
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1, dtype=torch.float64)
    optimizer = make(model.parameters())
    train(model, optimizer, 5)
    if fork:
        trial = torch.nn.Linear(1, 1, dtype=torch.float64)
        trial.load_state_dict(model.state_dict())
        other = make(trial.parameters())
        other.load_state_dict(fork(optimizer.state_dict()))
        train(trial, other, 20)
    return train(model, optimizer, 5)


rules = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "SGD(momentum=0.9)": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
}
ok = True
for name, make in rules.items():
    alone, forked, copied = (weight_after_ten(make, f) for f in (None, lambda s: s, copy.deepcopy))
    print(f"{name}, weight after 10 steps: {alone:.6f}, with a trial beside it {forked:.6f}, of a deepcopy {copied:.6f}")
    ok = ok and alone == copied != forked
sys.exit(0 if ok else "the behaviour has changed")
PY
