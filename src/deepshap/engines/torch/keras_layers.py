"""Keras models under ``KERAS_BACKEND=torch``: modules of torch that keep their layers and their state in Keras' own lists.

What they compute with are functions of torch, so the tracer explains them as they are, but for vectors over their norms, which
Keras composes. Other files ask here what is particular about them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ..callables import is_keras as is_keras
from ._compat import keras_layers, keras_normalize_replaced, keras_variables_written


def call(model: Any, given: Sequence[Tensor], named: dict[str, Tensor] | None, extra: Sequence[Any]) -> Any:
    """Call a Keras model for inference, as ``keras.Model.predict`` does: several inputs are one list, or one dict.

    Models whose ``call`` takes several arguments get them one by one.
    """
    together = _takes_one_argument(model)
    if named is not None:
        return model(named, *extra, training=False) if together else model(*extra, **named, training=False)
    if together and len(given) + len(extra) > 1:
        return model([*given, *extra], training=False)
    return model(*given, *extra, training=False)


def _takes_one_argument(model: Any) -> bool:
    parameters = inspect.signature(model.call).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return len(required) == 1 and all(p.kind is not p.VAR_POSITIONAL for p in parameters)


def named_modules(module: nn.Module, name: str = "", private: bool = False) -> list[tuple[str, nn.Module]]:
    """As torch's ``named_modules``, with the layers of Keras models under Keras' names.

    ``private``: also what Keras keeps for itself, such as the functional model inside of a sequential one.
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    waiting = [(name, module)]
    while waiting:
        name, module = waiting.pop()
        if id(module) in found:
            continue
        found[id(module)] = name, module
        waiting += [(f"{name}.{own}" if name else own, child) for own, child in reversed(_children(module, private))]
    return list(found.values())


def _children(module: nn.Module, private: bool) -> list[tuple[str, nn.Module]]:
    held = list(module.named_children())
    if not is_keras(module):
        return held
    layers = [(layer.name, layer) for layer in keras_layers(module)]
    return [*layers, *(pair for pair in held if private or not pair[0].startswith("_"))]


def written_when_called(module: nn.Module) -> list[Tensor]:
    """What a Keras layer may write to in a call: states that it keeps from call to call, and those of its random generators."""
    if not is_keras(module):
        return []
    return [variable.value for variable in keras_variables_written(module)]


def norms_in_one_step() -> AbstractContextManager[None]:
    """Let Keras call torch's function meanwhile where it divides vectors by their norms: its rule is bounded where one is 0."""
    return keras_normalize_replaced(_normalized)


def _normalized(x: Any, axis: Any = -1, order: int = 2, epsilon: float | None = None) -> Tensor:
    from keras import config, ops

    return F.normalize(ops.convert_to_tensor(x), order, axis, config.epsilon() if epsilon is None else epsilon)


def start_from_states(module: nn.Module) -> None:
    """Let a stateful recurrent layer start every row from the state that it has now. Undone with the module's attributes.

    Raises
    ------
    InputError
        If the rows of the state differ: it belongs to a batch that went before, not to the rows that are explained.
    """
    attributes = module.__dict__
    if not (is_keras(module) and attributes.get("stateful") and attributes.get("states") is not None):
        return
    from keras import tree

    states = tree.map_structure(lambda state: state.value.detach().clone(), attributes["states"])
    if any(bool((state != state[:1]).any()) for state in tree.flatten(states)):
        raise InputError(
            f"the stateful layer {module.name!r} keeps another state for each row of the batch that it saw last. Call "
            "its reset_state() first: then all rows start from zero."
        )

    def initial(batch_size: Any) -> Any:
        return tree.map_structure(lambda state: state[:1].expand(batch_size, *state.shape[1:]), states)

    attributes.update(stateful=False, get_initial_state=initial)
