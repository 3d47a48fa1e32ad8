"""A run with several features or a bias: its model, its rows, and its weights by the columns' names."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from torchgd.convergence.linear_certificate import LinearCertificate, linear_stability
from torchgd.data.dataset import Dataset
from torchgd.data.mapped import MappedVector
from torchgd.errors import InputError
from torchgd.features import standardization


class FeatureRun:
    """What a run of y = w·x (+ b) trains on: nn.Linear, and the features, standardised if asked.

    Args:
        data: the samples; x of shape (n,) is one feature.
        bias, standardize: as the configuration says.

    Attributes:
        rows: the samples to train on, x of shape (n, d) and y of shape (n, 1).
        names: of the features.

    Raises:
        InputError: a feature to be standardised does not vary, or the data are in files.

    Example:
        >>> from torchgd import course
        >>> run = FeatureRun(course(), bias=True, standardize=False)
        >>> run.weights(run.model(0.5))
        {'x (hours of study)': 0.5, 'bias': 0.0}
    """

    def __init__(self, data: Dataset, *, bias: bool, standardize: bool) -> None:
        if isinstance(data.inputs, MappedVector):
            raise InputError("a bias is for data in memory; save x and y as a CSV or .npz file")
        self.names = data.features or (data.x_label,)
        self.bias = bias
        x = data.x if data.features else data.x[:, None]
        self.shift, self.scale = torch.zeros_like(x[0]), torch.ones_like(x[0])
        if standardize:
            self.shift, self.scale = standardization(x, bias=bias)
            flat = [name for name, size in zip(self.names, self.scale.tolist(), strict=True) if not size]
            if flat:
                what = f"{flat[0]} is the same in every row, so it cannot be standardised"
                raise InputError(f"{what}; leave it out of --x, or leave out --standardize")
        self._x, self._data = x, data

    @cached_property
    def rows(self) -> Dataset:
        """The samples to train on, made at first use: many ask for the weights or the names alone."""
        return Dataset((self._x - self.shift) / self.scale, self._data.y[:, None], self._data.name)

    def model(self, weight: float) -> nn.Linear:
        """The model before training: every weight is w0, and the bias is 0."""
        x = self._x
        model = nn.Linear(x.shape[1], 1, bias=self.bias, device=x.device, dtype=x.dtype)
        with torch.no_grad():
            model.weight.fill_(weight)
            if self.bias:
                model.bias.zero_()
        return model

    def certificate(self, lr: float | None, sampling: dict[str, Any], epochs: int) -> LinearCertificate:
        """The certificate of this run, or of the best lr if none is given."""
        asked = {name: value for name, value in sampling.items() if name != "seed"}
        x, y = self.rows
        return linear_stability(x, y, lr, bias=self.bias, names=self.names, epochs=epochs, **asked)

    def weights(self, model: nn.Module) -> dict[str, float]:
        """The weights in the data's own units, by the columns' names; the bias comes last."""
        weight, *bias = (parameter.detach() for parameter in model.parameters())
        own: Tensor = weight[0] / self.scale
        found = dict(zip(self.names, own.tolist(), strict=True))
        if self.bias:
            found["bias"] = (bias[0][0] - (own * self.shift).sum()).item()
        return found
