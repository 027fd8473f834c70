"""What the classes here derive from: captum's base classes where captum is installed, else stand-ins of the same shape."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any


class Attribution:
    """Holds the explained model as ``forward_func`` and, for layers and neurons, the ``layer``."""

    def __init__(self, forward_func: Callable[..., Any], layer: Any = None, device_ids: Any = None) -> None:
        self.forward_func, self.layer, self.device_ids = forward_func, layer, device_ids

    @classmethod
    def get_name(cls) -> str:
        """Return the class's name in words."""
        return "".join(letter if letter.islower() else f" {letter}" for letter in cls.__name__).strip()


class GradientAttribution(Attribution):
    """Explains the model's inputs."""


class LayerAttribution(Attribution):
    """Explains a layer's values."""


class NeuronAttribution(Attribution):
    """Explains a neuron by the model's inputs."""

    def has_convergence_delta(self) -> bool:
        """Return False: there is no ``compute_convergence_delta``."""
        return False


if not TYPE_CHECKING:
    with suppress(ImportError):
        from captum.attr import GradientAttribution, LayerAttribution, NeuronAttribution

__all__ = ["GradientAttribution", "LayerAttribution", "NeuronAttribution"]
