"""What the classes here derive from: captum's base classes where captum is installed, else stand-ins of the same shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any


class Attribution:
    """Holds the explained model as ``forward_func``, and for layers and neurons the ``layer``."""

    def __init__(
        self, forward_func: Callable[..., Any], layer: Any = None, device_ids: list[int] | None = None
    ) -> None:
        self.forward_func, self.layer, self.device_ids = forward_func, layer, device_ids

    @classmethod
    def get_name(cls) -> str:
        """Return the class's name in words."""
        return "".join(letter if letter.islower() else f" {letter}" for letter in cls.__name__).strip()


if TYPE_CHECKING:

    class GradientAttribution(Attribution): ...

    class LayerAttribution(Attribution): ...

    class NeuronAttribution(Attribution): ...

else:
    try:
        from captum.attr import GradientAttribution, LayerAttribution, NeuronAttribution
    except ImportError:
        GradientAttribution, LayerAttribution, NeuronAttribution = (
            type(name, (Attribution,), {"__doc__": Attribution.__doc__})
            for name in ("GradientAttribution", "LayerAttribution", "NeuronAttribution")
        )

__all__ = ["GradientAttribution", "LayerAttribution", "NeuronAttribution"]
