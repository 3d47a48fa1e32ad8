"""Check the autograd Functions of public packages beside `torch.autograd.gradcheck`; print a Markdown table.

    python scripts/check_packages.py > scripts/check_packages.md

installs the pinned packages without their dependencies into a temporary folder and runs on the CPU.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch

from torchgd.check.function import check_function

PINNED = (
    "entmax==1.3",
    "pytorch-revgrad==0.2.0",
    "snntorch==1.0.0",
    "norse==1.1.0",
    "spikingjelly==2.0.0",
)


def _x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


_ALPHA = torch.tensor(4.0, dtype=torch.float64)
# (package, module, Function, its inputs)
ROWS: tuple[tuple[str, str, str, Callable[[], tuple[Any, ...]]], ...] = (
    ("entmax", "entmax.activations", "SparsemaxFunction", lambda: (_x(3, 4), -1)),
    ("entmax", "entmax.activations", "Entmax15Function", lambda: (_x(3, 4), -1)),
    ("entmax", "entmax.root_finding", "EntmaxBisectFunction", lambda: (_x(3, 4), 1.5)),
    ("entmax", "entmax.root_finding", "SparsemaxBisectFunction", lambda: (_x(3, 4),)),
    ("pytorch-revgrad", "pytorch_revgrad.functional", "RevGrad", lambda: (_x(5), torch.tensor(1.0))),
    *(
        ("snntorch", "snntorch.surrogate", name, lambda extra=extra: (_x(6), *extra))
        for name, extra in (
            ("StraightThroughEstimator", ()),
            ("Triangular", (1.0,)),
            ("FastSigmoid", (25.0,)),
            ("ATan", (2.0,)),
            ("Heaviside", ()),
            ("Sigmoid", (25.0,)),
            ("LeakySpikeOperator", (0.1,)),
            ("SparseFastSigmoid", (25.0, 1.0)),
        )
    ),
    *(
        ("norse", "norse.torch.functional.threshold", name, lambda: (_x(6), 1.0))
        for name in ("HeaviErfc", "HeaviTanh", "Logistic", "HeaviCirc", "CircDist", "Triangle")
    ),
    ("norse", "norse.torch.functional.superspike", "SuperSpike", lambda: (_x(6), 100.0)),
    *(
        ("spikingjelly", "spikingjelly.activation_based.surrogate", name, lambda extra=extra: (_x(6), *extra))
        for name, extra in (
            ("piecewise_quadratic", (1.0,)),
            ("piecewise_exp", (1.0,)),
            ("sigmoid", (4.0,)),
            ("soft_sign", (2.0,)),
            ("super_spike", (1.0,)),
            ("atan", (2.0,)),
            ("erf", (2.0,)),
            ("piecewise_leaky_relu", (1.0, 0.01)),
        )
    ),
)  # fmt: skip


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:  # norse itself wants more than is installed; its functions are loaded by then
        return importlib.import_module(module)


def by_gradcheck(function: Any, inputs: Callable[[], tuple[Any, ...]]) -> str:
    torch.manual_seed(0)
    leaves = tuple(v.requires_grad_() if isinstance(v, torch.Tensor) else v for v in inputs())
    try:
        torch.autograd.gradcheck(function.apply, leaves)
    except Exception as error:
        return "fails" if type(error).__name__ == "GradcheckError" else type(error).__name__
    return "passes"


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder]
        subprocess.run([*pip, *PINNED], check=True, stdout=sys.stderr)
        sys.path.append(folder)
        print("| package | Function | gradcheck | torchgd | what torchgd says |\n" + "| --- " * 5 + "|")
        for package, module, name, inputs in ROWS:
            version = next(pin for pin in PINNED if pin.startswith(package))
            torch.manual_seed(0)
            try:
                function = getattr(_load(module), name)
                report = check_function(function, *inputs())
                cause, said = report.cause.value, report.message
            except Exception as error:
                cause, said = "not checked", f"{type(error).__name__}: {error}".splitlines()[0]
            theirs = "" if cause == "not checked" else by_gradcheck(function, inputs)
            print(f"| {version} | {name} | {theirs} | {cause} | {said} |", flush=True)


if __name__ == "__main__":
    main()
