#!/bin/bash
# heavyball keeps float32 state for a bfloat16 model, until the run is resumed: then all of it is bfloat16.
#
# One would guess: load_state_dict restores the state as it was saved. heavyball stores the momentum of a bfloat16
# model in float32 on purpose (storage_dtype="float32" is its default).
# What happens (heavyball 3.2.1, torch 2.13.0): torch.optim.Optimizer.load_state_dict casts floating state to the dtype
# of its parameter, in nested dicts too, and heavyball does not undo it. The momentum, and for SOAP the bases of its
# preconditioner, lose 16 bits and stay bfloat16 from then on. Nothing is raised.
# Who meets it: who resumes a bfloat16 run. It is not the run that was cut, and its second moments stop moving early.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy heavyball==3.2.1
"$t/venv/bin/python" -W ignore - <<'PY'
import copy
import sys
from collections import Counter
from importlib.metadata import version
import heavyball
import torch

print("torch", torch.__version__, "heavyball", version("heavyball"))
heavyball.utils.compile_mode = None


def dtypes(value):
    if isinstance(value, torch.Tensor):
        return Counter([str(value.dtype)]) if value.is_floating_point() else Counter()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(dtypes, value), Counter()) if isinstance(value, (list, tuple)) else Counter()


def states(make, dtype):
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.ones(4, 4, dtype=dtype))
    optimizer = make([p], lr=0.01)
    for _ in range(3):
        p.grad = torch.randn_like(p)
        optimizer.step()
    resumed = make([torch.nn.Parameter(p.detach().clone())], lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return [dict(sum((dtypes(s) for s in o.state.values()), Counter())) for o in (optimizer, resumed)]


ok = True
for make in (heavyball.SGD, heavyball.AdamW, heavyball.SOAP):
    for dtype, after in ((torch.float32, "torch.float32"), (torch.bfloat16, "torch.bfloat16")):
        before, resumed = states(make, dtype)
        print(f"{make.__name__}, {dtype} model: state {before}, resumed {resumed}")
        ok = ok and set(before) == {"torch.float32"} and set(resumed) == {after}
sys.exit(0 if ok else "the behaviour has changed")
PY
