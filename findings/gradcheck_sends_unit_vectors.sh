#!/bin/bash
# gradcheck passes a backward that throws away every negative incoming gradient.
#
# One would guess: a hand-written backward that passes gradcheck (and gradgradcheck) computes v times the derivative
# for every incoming gradient v.
# What happens (torch 2.13.0): gradcheck builds the Jacobian by sending unit vectors, so it sees v = 0 and v = 1 only.
# A backward that computes relu(v), clip(v, -1, 1) or v * v times the right derivative passes. In use it is wrong: the
# loss -3 sum(x**2) gets a zero gradient, a clipped one, or one of the wrong sign. fast_mode=True sends one random
# positive direction and finds v * v only. A check that f'(-3 v) = -3 f'(v) finds all three.
# Who meets it: who writes a torch.autograd.Function with a clip or a mask on the wrong variable, and trusts gradcheck.
set -euo pipefail
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
python3 -m venv "$t/venv"
"$t/venv/bin/pip" install -q torch==2.13.0 numpy
"$t/venv/bin/python" - <<'PY'
import sys
import torch

print("torch", torch.__version__)


def square(of_v):
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx, v):
            return 2 * ctx.saved_tensors[0] * of_v(v)

    return Square.apply


def passes(check, f, **options):
    return check(f, (x,), raise_exception=False, **options)


x = torch.linspace(0.5, 2, 4, dtype=torch.float64, requires_grad=True)
faulty = {"relu(v)": torch.relu, "clip(v, -1, 1)": lambda v: v.clamp(-1, 1), "v * v": lambda v: v * v}
ok = True
for name, of_v in faulty.items():
    f = square(of_v)
    first, second = passes(torch.autograd.gradcheck, f), passes(torch.autograd.gradgradcheck, f)
    fast = passes(torch.autograd.gradcheck, f, fast_mode=True)
    (grad,) = torch.autograd.grad(-3 * f(x).sum(), x)
    print(f"2 x {name}: gradcheck {first}, gradgradcheck {second}, fast_mode {fast}")
    print(f"  gradient of -3 sum(x**2): {grad.tolist()}, right: {(-6 * x).tolist()}")
    ok = ok and first and second and fast == (name != "v * v") and not torch.allclose(grad, -6 * x)
sys.exit(0 if ok else "the behaviour has changed")
PY
