"""Private interfaces of Keras, on any backend: why each is needed, and what happens without it.

All exist from Keras 3.0 to 3.15.
"""

from __future__ import annotations

from typing import Any


def inner_layers(layer: Any) -> list[Any]:
    """Return the layers that a Keras layer holds. Public for models alone, which is what is read without ``_layers``."""
    return list(getattr(layer, "_layers", ()) or getattr(layer, "layers", ()))


def all_layers(model: Any) -> list[Any]:
    """Return a Keras model and all layers in it, each once."""
    layers: dict[int, Any] = {}
    waiting = [model]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in layers:
            layers[id(layer)] = layer
            waiting.extend(reversed(inner_layers(layer)))
    return list(layers.values())


def variables_written(layer: Any) -> list[Any]:
    """Return the variables that a layer may write to in a call, and those of its random generators.

    Without the private lists: the variables that are not trained, which hold those of inner layers too.
    """
    generators = [generator.state for generator in getattr(layer, "_seed_generators", ())]
    untrained = getattr(layer, "_non_trainable_variables", None)
    return [*(layer.non_trainable_variables if untrained is None else untrained), *generators]


def operation_of(tensor: Any) -> Any:
    """Return the operation that made a symbolic tensor of a model. Without ``_keras_history``: None, and heads are not seen."""
    return getattr(getattr(tensor, "_keras_history", None), "operation", None)


def structure_of_outputs(model: Any) -> Any:
    """Return how the outputs of a Keras model are nested. Without ``_outputs_struct``: None."""
    return getattr(model, "_outputs_struct", None)
