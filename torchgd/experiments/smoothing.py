"""The smoothed cost: the lecture's exponentially weighted mean beside TensorBoard's slider.

    lecture:  c′₀ = c₀,  c′ₜ = β cₜ + (1 − β) c′ₜ₋₁            β is the weight of the *new* value
    slider s: a₋₁ = 0,   aₜ = (1 − s) cₜ + s aₜ₋₁,  c″ₜ = aₜ / (1 − sᵗ⁺¹)

With β = 1 − s they differ only by the start, c′ₜ − c″ₜ = sᵗ⁺¹ (c₀ − c″ₜ): the lecture's mean is biased
towards the first value, the slider's is debiased. In the long run both divide the standard deviation of
independent noise by √((2 − β)/β).

Source: 《PyTorch深度学习实践》, lecture 3 (2020); D. Kingma and J. Ba, Adam, ICLR (2015), for the debiasing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from matplotlib.figure import Figure
from torch import Tensor

from torchgd.data.dataset import hubble
from torchgd.experiments.outcome import Outcome
from torchgd.figures import METHOD_COLOURS, panels
from torchgd.model import LinearModel
from torchgd.optim import StochasticGradientDescent
from torchgd.training import train

BETA = 0.1
EPOCHS = 40


def lecture_mean(costs: Tensor, beta: float) -> Tensor:
    """The lecture's smoothing: c′ₜ = β cₜ + (1 − β) c′ₜ₋₁ from c′₀ = c₀; shape (n,) to (n,).

    Example:
        >>> lecture_mean(torch.tensor([4.0, 0.0, 0.0]), beta=0.5)
        tensor([4., 2., 1.])
    """
    smoothed = [costs[0]]
    for cost in costs[1:]:
        smoothed.append(beta * cost + (1 - beta) * smoothed[-1])
    return torch.stack(smoothed)


def slider_mean(costs: Tensor, slider: float) -> Tensor:
    """TensorBoard's smoothing at this position of its slider, 0 ≤ s < 1; shape (n,) to (n,).

    Example:
        >>> slider_mean(torch.tensor([4.0, 0.0, 0.0]), slider=0.5)
        tensor([4.0000, 1.3333, 0.5714])
    """
    smoothed, last = [], torch.zeros_like(costs[0])
    for count, cost in enumerate(costs, 1):
        last = slider * last + (1 - slider) * cost
        smoothed.append(last / (1 - slider**count))
    return torch.stack(smoothed)


def run(seed: int) -> Outcome:
    """The losses of SGD on Hubble's nebulae, drawn with replacement, smoothed both ways."""
    x, y = hubble()
    model = LinearModel(0.0, dtype=x.dtype)
    generator = torch.Generator().manual_seed(seed)
    optimizer = StochasticGradientDescent(
        model.parameters(), lr=0.01, order="replacement", generator=generator
    )
    raw = train(model, x, y, optimizer, EPOCHS, gradient="hand")
    costs = raw.loss_before
    by_lecture, by_slider = lecture_mean(costs, BETA), slider_mean(costs, 1 - BETA)
    rows = [
        {
            "update": t + 1,
            "loss": costs[t].item(),
            f"lecture, β = {BETA:g}": by_lecture[t].item(),
            f"slider at {1 - BETA:g}": by_slider[t].item(),
            "difference": (by_lecture - by_slider)[t].item(),
        }
        for t in (0, 1, 2, 5, 10, 20, 50, 100, len(costs) - 1)
    ]
    decay = (1 - BETA) ** torch.arange(1, len(costs) + 1, dtype=x.dtype)
    residue = (by_lecture - by_slider - decay * (costs[0] - by_slider)).abs().max() / costs.max()
    half = len(costs) // 2  # by then the cost has settled, and the rest is noise
    calmer = costs[half:].std() / by_lecture[half:].std()
    long_run = ((2 - BETA) / BETA) ** 0.5
    sentence = (
        f"β = {BETA:g} on the new value is the slider at {1 - BETA:g}: they differ by {1 - BETA:g}^t of "
        f"(first loss − slider's mean) at update t, exact to {residue:.0e} of the largest loss: "
        f"{rows[2]['difference']:.3g} at update {rows[2]['update']}, {rows[-1]['difference']:.0e} at update "
        f"{len(costs)}. Both make the noise {calmer:.2f} times smaller (independent noise: "
        f"{long_run:.2f} in the long run)."
    )
    histories = {
        "raw": raw,
        f"lecture-beta-{BETA:g}": replace(raw, loss_before=by_lecture),
        f"slider-{1 - BETA:g}": replace(raw, loss_before=by_slider),
    }
    # A mean rounds three times for each value and forgets at the rate β: 3 ε / β of the largest loss.
    proved = bool(residue < 2 * 3 * torch.finfo(x.dtype).eps / BETA)
    return Outcome(rows, sentence, proved, _picture(costs, by_lecture, by_slider), histories)


def _picture(costs: Tensor, by_lecture: Tensor, by_slider: Tensor) -> Figure:
    figure, row = panels("The first 40 updates", "All updates")
    curves = (
        (by_lecture, "-", METHOD_COLOURS["sgd"], f"lecture: c′ ← β·c + (1 − β)·c′ from c₀, β = {BETA:g}"),
        (
            by_slider,
            "--",
            METHOD_COLOURS["gd"],
            f"slider: a ← (1 − s)·c + s·a, a/(1 − sᵗ) at update t, s = {1 - BETA:g}",
        ),
    )
    for axes, shown in zip(row, (40, len(costs)), strict=True):
        updates = torch.arange(1, shown + 1)
        label = "loss of each sample, before its update"
        axes.plot(updates, costs[:shown], "o-", color="#BBBBBB", linewidth=0.5, markersize=2, label=label)
        for values, style, colour, label in curves:
            axes.plot(updates, values[:shown], style, color=colour, linewidth=2.5, label=label)
        axes.set(xlabel="update", ylabel="squared error, (km/s)²")
    row[1].legend(loc="upper right")
    return figure
