"""Forecasters of one's own in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError


class OfTorch(nn.Module):
    """A forecaster in the units of the data."""

    def __init__(self, model: Callable[..., Any], scale: np.ndarray, shift: np.ndarray) -> None:
        super().__init__()
        self.model = model
        kind = _like(model)
        self.scale, self.shift = (torch.as_tensor(array.reshape(-1)).to(kind) for array in (scale, shift))

    def forward(self, **inputs: Tensor) -> Tensor:
        """Forecast (rows, outputs)."""
        return self.model(*(value.to(self.scale) for value in inputs.values())).flatten(1) * self.scale + self.shift


def run(model: Callable[..., Any], values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the model's own output, in evaluation mode as it forecasts; the mode is restored."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes, kind = [module.training for module in modules], _like(model)
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            forecast = model(*(torch.as_tensor(value).to(kind) for value in values))
        if not isinstance(forecast, Tensor):
            raise InputError(
                f"the model returns a {type(forecast).__name__} for windows that are tensors of torch; a forecaster of one's own "
                "must return a tensor, made by torch's operations."
            )
        return forecast.cpu().numpy()
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def dtype_of(model: Any) -> np.dtype[Any]:
    """Return the precision in which a model reads numbers."""
    return _like(model).cpu().numpy().dtype


def _like(model: Any) -> Tensor:
    """Return a number in the model's precision, on its device."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return torch.zeros_like(
        next((p.detach().reshape(-1)[:1] for p in parameters if p.is_floating_point()), torch.zeros(1))
    )
