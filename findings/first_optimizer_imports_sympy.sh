#!/bin/bash
# Making the first optimizer, or running one operation under a TorchDispatchMode, imports torch._dynamo and sympy.
#
# One would guess: the compiler is imported by who compiles. torch.optim.SGD([p], lr=0.1) is a small Python object, and
# a TorchDispatchMode that hands every call on is a few lines.
# What happens (torch 2.13.0): both load torch._dynamo and with it all of sympy: over 700 modules, after import torch
# is done, inside the first constructor or the first operation. Entering the mode loads nothing; a second use is free.
# Who meets it: who times the first step, starts many short processes, measures memory per process, or forks workers
# (fork after making an optimizer, or each worker pays for itself).
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy
cat > "$t/count.py" <<'PY'
import sys
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class HandOn(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def loaded():
    return len(sys.modules), "torch._dynamo" in sys.modules, "sympy" in sys.modules


p = torch.nn.Parameter(torch.ones(3))
before = loaded()
if sys.argv[1] == "optimizer":
    torch.optim.SGD([p], lr=0.1)
elif sys.argv[1] == "mode":
    with HandOn():
        p + 1
else:
    (p**2).sum().backward()
after = loaded()
print(f"{sys.argv[1]}: (modules, torch._dynamo, sympy) {before} -> {after}")
heavy = before[1:] == (False, False) and after[1:] == (True, True) and after[0] - before[0] > 700
sys.exit(0 if heavy == (sys.argv[1] != "autograd") else "the behaviour has changed")
PY
"$t/venv/bin/python" -c 'import torch; print("torch", torch.__version__)'
for what in autograd optimizer mode; do "$t/venv/bin/python" "$t/count.py" "$what"; done
