"""Models in the forms that people hand over: symbolic tensors, functions, loaded SavedModels."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import keras

from ...errors import InputError
from ..callables import packages


def between(inputs: Any, output: Any) -> Any:
    """The model from symbolic inputs to a symbolic output.

    Raises
    ------
    InputError
        If they are not Keras' symbolic tensors, or nothing connects them.
    """
    if isinstance(output, (tuple, list)) and len(output) == 1:
        (output,) = output
    if isinstance(inputs, (tuple, list)) and len(inputs) == 1:
        (inputs,) = inputs
    if isinstance(output, (tuple, list)):
        raise InputError(f"the output to be explained must be a single tensor, not {len(output)} of them.")
    try:
        if "tf_keras" in packages(output):  # Keras 2
            return import_module("tf_keras").Model(inputs, output)
        return keras.Model(inputs, output)
    except (TypeError, ValueError) as error:
        raise InputError(
            "a model is given as (model, layer), or by Keras' symbolic tensors as (inputs, output), such as "
            f"(model.inputs, model.layers[-1].output). Keras says: {error}"
        ) from error


def served(model: Any) -> Any:
    """The function of a loaded SavedModel that is not callable itself: what it serves.

    Raises
    ------
    InputError
        If it serves nothing.
    """
    signatures = dict(getattr(model, "signatures", {}))
    function = (
        getattr(model, "serve", None) or signatures.get("serving_default") or next(iter(signatures.values()), None)
    )
    if function is None:
        raise InputError("the SavedModel has no function to call; pass one of its functions instead.")
    return function
