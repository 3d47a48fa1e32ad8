"""The sentences about a run before its first update, and about its end."""

from __future__ import annotations

from dataclasses import replace

from torchgd.convergence.certificate import Certificate, stability
from torchgd.convergence.divergence import explain_divergence
from torchgd.convergence.rate import with_lr
from torchgd.data.dataset import Dataset
from torchgd.epoch.distributed import ALONE, Group
from torchgd.history import History
from torchgd.moments import Moments, float64
from torchgd.runs.features import FeatureRun
from torchgd.runs.run import Config, with_engine

MUCH_LOWER = 0.5  # of the cost without an intercept
MOST_CERTIFIED = 1_000_000  # samples; for more the certificate takes longer than the run


def prepare(
    config: Config, data: Dataset, group: Group = ALONE
) -> tuple[Config, Certificate | None, list[str]]:
    """The configuration with its learning rate and engine chosen, its certificate, and sentences about it.

    Above a million samples there is no certificate.

    Raises:
        InputError: no learning rate can be chosen for these data, or the engine cannot run them.
    """
    features = config.features(data)
    if features is not None:
        return _prepare_features(config, data, features, group)
    said = []
    if config.lr is None:  # only then are data in files read here
        config, why = with_lr(config, data.x, data.y, config.epochs)
        said.append(why)
    certificate = None
    if len(data) <= MOST_CERTIFIED:
        certificate = stability(data.x, data.y, config.lr, epochs=config.epochs, **config.sampling)
        said.append(certificate.verdict)
        if certificate.converges and (certificate.epochs or 0) > config.epochs:
            left = abs(certificate.factor) ** config.epochs
            asked = f"{config.epochs} epoch{'s' * (config.epochs != 1)}"
            said.append(f"You asked for {asked}, which leave {left:.3g} of the starting error.")
        said += missing_intercept(data)
    return with_engine(config, data, group), certificate, said


def _prepare_features(
    config: Config, data: Dataset, features: FeatureRun, group: Group
) -> tuple[Config, None, list[str]]:
    """What :func:`prepare` gives for several features or a bias."""
    certificate = features.certificate(config.lr, config.sampling, config.epochs)
    said = [certificate.verdict]
    if config.lr is None:
        config = replace(config, lr=certificate.best_lr)
        said.insert(0, f"lr {config.lr:.6g} is the best for these data")
    if certificate.epochs and certificate.epochs > config.epochs and certificate.factor is not None:
        left = certificate.factor**config.epochs
        said.append(f"You asked for {config.epochs} epochs, which leave {left:.3g} of the slow direction.")
    return with_engine(config, data, group), None, said


def missing_intercept(data: Dataset) -> list[str]:
    """A sentence if y = w·x + b fits these data much better than y = w·x, each at its best."""
    x, y = float64(data.x), float64(data.y)
    if len(x) < 4:  # w and b always fit so few samples well
        return []
    through_0, dx, dy = Moments.of([(x, y)]), x - x.mean(), y - y.mean()
    slope = (dx @ dy / (dx @ dx).clamp_min(1e-300)).item()
    alone, both = through_0.cost(through_0.least_squares), (dy - slope * dx).square().mean().item()
    if both > MUCH_LOWER * alone:
        return []
    b = (y.mean() - slope * x.mean()).item()
    costs = f"y = {slope:.4g}·x + {b:.4g} has the cost {both:.4g}, and y = w·x has {alone:.4g} at its best"
    return [f"An intercept is missing: {costs}; give --bias."]


def reason(config: Config, history: History, data: Dataset, certificate: Certificate | None) -> str:
    """Why the run ended with this status; if it diverged, also the cause and what to do."""
    if history.status != "diverged":
        return history.reason
    if len(data) > MOST_CERTIFIED:
        return f"{history.reason}; give a smaller --lr, or --lr auto"
    features = config.features(data)
    if features is not None:
        return f"{history.reason}. {_why_features(config, history, features)}"
    asked = {"epochs": config.epochs, "certificate": certificate, **config.sampling}
    why = explain_divergence(history.weight, data.x, data.y, config.rate, **asked)
    return f"{history.reason}. {why}"


def _why_features(config: Config, history: History, features: FeatureRun) -> str:
    """The growth that was measured, beside the certificate's."""
    certificate = features.certificate(config.rate, config.sampling, config.epochs)
    steps = history.weight.double().diff(dim=0).reshape(len(history.weight) - 1, -1).norm(dim=1)
    steps = steps[steps.isfinite()]
    grew = f"An epoch multiplied the steps by {steps[-1] / steps[-2]:.6g}. " if len(steps) > 1 else ""
    return f"{grew}{certificate.verdict}"
