"""torchgd: a laboratory for gradient descent, native to PyTorch.

The names below are loaded at first use, so that ``torchgd --help`` need not import torch.
No module has the name of a public function: an import of the module would hide the function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchgd.affine import epoch_map as epoch_map
    from torchgd.certificate import Certificate as Certificate
    from torchgd.certificate import auto_lr as auto_lr
    from torchgd.certificate import stability as stability
    from torchgd.check import check_gradient as check_gradient
    from torchgd.compare import Comparison as Comparison
    from torchgd.compare import compare_optimizers as compare_optimizers
    from torchgd.composition import EpochMap as EpochMap
    from torchgd.contract import Finding as Finding
    from torchgd.contract import check_optimizer as check_optimizer
    from torchgd.curvature import line_stability as line_stability
    from torchgd.curvature import local_limit as local_limit
    from torchgd.data import Dataset as Dataset
    from torchgd.data import course as course
    from torchgd.data import hubble as hubble
    from torchgd.data import load as load
    from torchgd.divergence import explain_divergence as explain_divergence
    from torchgd.errors import InputError as InputError
    from torchgd.function_check import check_function as check_function
    from torchgd.history import History as History
    from torchgd.mistakes import Cause as Cause
    from torchgd.model import LinearModel as LinearModel
    from torchgd.optim import GradientDescent as GradientDescent
    from torchgd.optim import MiniBatchGradientDescent as MiniBatchGradientDescent
    from torchgd.optim import StochasticGradientDescent as StochasticGradientDescent
    from torchgd.report import GradientReport as GradientReport
    from torchgd.sweep import sweep_lr as sweep_lr
    from torchgd.training import train as train

_MODULE_OF = {
    "check_gradient": "check",
    "check_function": "function_check",
    "Cause": "mistakes",
    "GradientReport": "report",
    "Comparison": "compare",
    "compare_optimizers": "compare",
    "Finding": "contract",
    "check_optimizer": "contract",
    "EpochMap": "composition",
    "epoch_map": "affine",
    "Certificate": "certificate",
    "auto_lr": "certificate",
    "explain_divergence": "divergence",
    "line_stability": "curvature",
    "local_limit": "curvature",
    "stability": "certificate",
    "sweep_lr": "sweep",
    "GradientDescent": "optim",
    "History": "history",
    "MiniBatchGradientDescent": "optim",
    "StochasticGradientDescent": "optim",
    "train": "training",
    "Dataset": "data",
    "InputError": "errors",
    "LinearModel": "model",
    "course": "data",
    "hubble": "data",
    "load": "data",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("torchgd")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'torchgd' has no attribute {name!r}")
    return getattr(import_module(f"torchgd.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
