"""torchgd: a laboratory for gradient descent, native to PyTorch.

The names below are loaded at first use, so that ``torchgd --help`` need not import torch.
No module has the name of a public function: an import of the module would hide the function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchgd.check.function import check_function as check_function
    from torchgd.check.gradient import check_gradient as check_gradient
    from torchgd.check.mistakes import Cause as Cause
    from torchgd.check.report import GradientReport as GradientReport
    from torchgd.compare.comparison import Comparison as Comparison
    from torchgd.compare.comparison import compare_optimizers as compare_optimizers
    from torchgd.compare.contract import Finding as Finding
    from torchgd.compare.contract import check_optimizer as check_optimizer
    from torchgd.convergence.certificate import Certificate as Certificate
    from torchgd.convergence.certificate import stability as stability
    from torchgd.convergence.curvature import line_stability as line_stability
    from torchgd.convergence.curvature import local_limit as local_limit
    from torchgd.convergence.divergence import explain_divergence as explain_divergence
    from torchgd.convergence.linear_certificate import LinearCertificate as LinearCertificate
    from torchgd.convergence.linear_certificate import linear_stability as linear_stability
    from torchgd.convergence.rate import auto_lr as auto_lr
    from torchgd.convergence.sweep import sweep_lr as sweep_lr
    from torchgd.data.dataset import Dataset as Dataset
    from torchgd.data.dataset import course as course
    from torchgd.data.dataset import hubble as hubble
    from torchgd.data.loading import grunfeld as grunfeld
    from torchgd.data.loading import load as load
    from torchgd.epoch.maps import epoch_map as epoch_map
    from torchgd.epoch_maps import EpochMap as EpochMap
    from torchgd.errors import InputError as InputError
    from torchgd.history import History as History
    from torchgd.lessons.lesson import lesson as lesson
    from torchgd.model import LinearModel as LinearModel
    from torchgd.optim import GradientDescent as GradientDescent
    from torchgd.optim import MiniBatchGradientDescent as MiniBatchGradientDescent
    from torchgd.optim import StochasticGradientDescent as StochasticGradientDescent
    from torchgd.plan import Plan as Plan
    from torchgd.runs.logged import train as train

_MODULE_OF = {
    "check_gradient": "check.gradient",
    "check_function": "check.function",
    "Cause": "check.mistakes",
    "GradientReport": "check.report",
    "Comparison": "compare.comparison",
    "compare_optimizers": "compare.comparison",
    "Finding": "compare.contract",
    "check_optimizer": "compare.contract",
    "EpochMap": "epoch_maps",
    "epoch_map": "epoch.maps",
    "Certificate": "convergence.certificate",
    "auto_lr": "convergence.rate",
    "explain_divergence": "convergence.divergence",
    "LinearCertificate": "convergence.linear_certificate",
    "line_stability": "convergence.curvature",
    "linear_stability": "convergence.linear_certificate",
    "local_limit": "convergence.curvature",
    "stability": "convergence.certificate",
    "sweep_lr": "convergence.sweep",
    "GradientDescent": "optim",
    "History": "history",
    "MiniBatchGradientDescent": "optim",
    "StochasticGradientDescent": "optim",
    "train": "runs.logged",
    "Plan": "plan",
    "lesson": "lessons.lesson",
    "Dataset": "data.dataset",
    "InputError": "errors",
    "LinearModel": "model",
    "course": "data.dataset",
    "grunfeld": "data.loading",
    "hubble": "data.dataset",
    "load": "data.loading",
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
