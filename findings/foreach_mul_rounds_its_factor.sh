#!/bin/bash
# foreach=True trains a bfloat16 model with another momentum than foreach=False: torch._foreach_mul_ rounds its factor.
#
# One would guess: torch._foreach_mul_([t], 0.9) is t.mul_(0.9) for many tensors, so that foreach=True and False are the
# same rule. (foreach is what torch.optim takes by itself on a GPU.)
# What happens (torch 2.13.0, CPU): mul_ multiplies by 0.9 and rounds the product; _foreach_mul_ rounds 0.9 to the
# tensor's dtype first. In bfloat16 momentum 0.9 is 0.8984375, and a third of all products differ. On a constant
# gradient of 1 the momentum of torch.optim.SGD settles elsewhere; 0.99 is 0.98828125, 0.999 is 1.
# Who meets it: who compares runs across devices or foreach settings in bfloat16.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy
"$t/venv/bin/python" - <<'PY'
import sys
import torch

print("torch", torch.__version__)
x = torch.linspace(1, 2, 1000).bfloat16()
loop, each = x.clone().mul_(0.9), x.clone()
torch._foreach_mul_([each], 0.9)
rounded = x * torch.tensor(0.9, dtype=torch.bfloat16)
print("elements of 1000 that differ from x.mul_(0.9):", int((each != loop).sum()))
print("equal to a product with", float(torch.tensor(0.9).bfloat16()), "in every element:", torch.equal(each, rounded))


def momentum_after(steps, momentum, foreach):
    p = torch.nn.Parameter(torch.zeros(8, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([p], lr=1e-3, momentum=momentum, foreach=foreach)
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
    return float(optimizer.state[p]["momentum_buffer"][0])


settled = {m: [momentum_after(3000, m, foreach) for foreach in (False, True)] for m in (0.9, 0.98, 0.99)}
for m, (loop_m, foreach_m) in settled.items():
    print(f"momentum {m}, settled: foreach=False {loop_m:g}, foreach=True {foreach_m:g}, exactly {1 / (1 - m):g}")
same = torch.equal(each, rounded) and not torch.equal(each, loop)
sys.exit(0 if same and any(a != b for a, b in settled.values()) else "the behaviour has changed")
PY
