#!/bin/bash
# 109 classes of pytorch-optimizer take a misspelt option without a word and train with the default.
#
# One would guess: AdamP(params, weight_decy=0.5) is a TypeError, as it is for every class of torch.optim.
# What happens (pytorch-optimizer 4.1.0): most classes take **kwargs and read nothing from it. A misspelt option, or one
# of torch.optim that the class does not have, is dropped: the run is bit for bit the run without it, and the option
# does not show in optimizer.defaults either. Only seven names refuse it.
# Who meets it: who sweeps over optimizers with one table of options: the column "weight_decay" may be all one value.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy pytorch-optimizer==4.1.0
"$t/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version
import pytorch_optimizer
import torch

print("torch", torch.__version__, "pytorch-optimizer", version("pytorch-optimizer"))


def made(name, **options):
    p = torch.nn.Parameter(torch.ones(4, 4))
    try:
        return pytorch_optimizer.load_optimizer(name)([p], lr=0.1, **options)
    except Exception as error:
        return type(error).__name__


def trained(**options):
    p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = pytorch_optimizer.AdamP([p], lr=0.1, **options)
    for _ in range(20):
        optimizer.zero_grad()
        (p**2).sum().backward()
        optimizer.step()
    return p.tolist()


constructible = [n for n in sorted(pytorch_optimizer.get_supported_optimizers()) if not isinstance(made(n), str)]
answers = {name: made(name, weight_decy=0.5) for name in constructible}
refused = [name for name, answer in answers.items() if answer == "TypeError"]
print(f"weight_decy=0.5: taken by {len(answers) - len(refused)} of {len(answers)} names, refused by {refused}")
plain, misspelt, right = trained(), trained(weight_decy=0.5), trained(weight_decay=0.5)
print("AdamP, 20 steps:", plain, "with weight_decy:", misspelt, "with weight_decay:", right)
ok = len(answers) - len(refused) > 100 and plain == misspelt != right
sys.exit(0 if ok else "the behaviour has changed")
PY
