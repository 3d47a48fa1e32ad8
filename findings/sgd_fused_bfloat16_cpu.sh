#!/bin/bash
# torch.optim.SGD(fused=True) on the CPU leaves bfloat16 and float16 parameters where they are.
#
# One would guess: fused=True is the same update in one kernel, a little faster, and equal to the loop up to rounding.
# What happens (torch 2.13.0, CPU): of n elements only the last n mod 16 move; of a layer whose size is a multiple of
# 16 none does. Nothing is raised or warned. float32 and float64 move, and so does fused Adam.
# Who meets it: who trains or tests a small bfloat16 model on a CPU with fused=True: the loss simply stands still.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy
"$t/venv/bin/python" - <<'PY'
import sys
import torch

print("torch", torch.__version__)
seen = {}
for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
    for make in (torch.optim.SGD, torch.optim.Adam):
        p = torch.nn.Parameter(torch.ones(40, dtype=dtype))
        p.grad = torch.ones_like(p)
        make([p], lr=0.5, fused=True).step()
        seen[make.__name__, dtype] = moved = int((p != 1).sum())
        print(f"{make.__name__}(fused=True), {dtype}: {moved} of 40 elements moved")
expected = {key: 8 if key[0] == "SGD" and key[1].itemsize == 2 else 40 for key in seen}
sys.exit(0 if seen == expected else "the behaviour has changed")
PY
