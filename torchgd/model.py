"""The smallest model there is: y = w·x, one weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearModel(nn.Module):
    """The proportional law y = w·x as a module with a single weight and no bias.

    Args:
        weight: the weight before training, w₀; a number or a tensor of shape ().
        device: where the weight lives.
        dtype: its dtype; PyTorch's default dtype (float32 unless set) if not given.

    Shape:
        x of any shape, the prediction of the same shape; ``weight`` is a parameter of
        shape (), in units of y/x.

    Example:
        >>> model = LinearModel(1.0, dtype=torch.float64)
        >>> model(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
        tensor([1., 2., 4.], dtype=torch.float64, grad_fn=<MulBackward0>)

    Source: 《PyTorch深度学习实践》, lecture 2, linear model (2020).
    """

    weight: nn.Parameter

    def __init__(
        self,
        weight: float | Tensor = 1.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dtype is None:
            dtype = weight.dtype if isinstance(weight, Tensor) else torch.get_default_dtype()
        value = torch.as_tensor(weight, device=device, dtype=dtype).detach().clone()
        self.weight = nn.Parameter(value.reshape(()))

    def forward(self, x: Tensor) -> Tensor:
        """Predict ŷ = w·x."""
        return self.weight * x

    def extra_repr(self) -> str:
        return f"weight={self.weight.item():.6g}" if self.weight.device.type != "meta" else "weight=?"
