"""Names and inverse transforms of several inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError


def names_of_inputs(names: Any, keys: Sequence[Any]) -> list[Any]:
    """Return names for each input, from a list or dict over the inputs."""
    return per_input(names, keys, "feature_names of several inputs: give a list of names")


def per_input(given: Any, keys: Sequence[Any], message: str) -> list[Any]:
    """Return what is given for each of several inputs, in a list or dict over them; None where nothing is."""
    if given is None:
        return [None] * len(keys)
    if isinstance(given, Mapping) and set(given) <= set(keys):
        return [given.get(key) for key in keys]
    if isinstance(given, (list, tuple)) and len(given) == len(keys) and not any(isinstance(one, str) for one in given):
        return list(given)
    raise InputError(f"{message} for each of the inputs {list(keys)}.")


# ---------------------------------------------------------------------- raw inputs
def check_transforms(inverse: Any) -> None:
    """Raise unless inverse transforms are functions, or a list or dict of them and None."""
    each = (
        inverse.values()
        if isinstance(inverse, Mapping)
        else inverse
        if isinstance(inverse, (list, tuple))
        else [inverse]
    )
    wrong = [one for one in each if one is not None and not callable(one)]
    if wrong:
        raise InputError(
            f"inverse_transform must be a function, such as scaler.inverse_transform, or one for each input, not {wrong[0]!r}."
        )


def unscaled(data: np.ndarray, inverse: Callable[[Any], Any]) -> np.ndarray:
    """Apply an inverse transform, of arrays (n, features), to the last axis of the data.

    Raises
    ------
    InputError
        If it fails, or does not return as many real numbers or words.
    """
    flat = data.reshape(-1, data.shape[-1])
    try:
        raw = np.asarray(inverse(flat.copy()))
    except Exception as error:
        raise InputError(f"inverse_transform fails on shape {flat.shape}: {type(error).__name__}: {error}") from error
    if raw.shape != flat.shape:
        raise InputError(
            f"inverse_transform returned shape {raw.shape} for {flat.shape}: it must map (n, features) to (n, features)."
        )
    shown = raw.dtype.kind in "fiubU"  # ids of tokens have been words
    if not shown or (raw.dtype.kind == "f" and raw.size and np.isnan(raw).all()):
        found = "NaN alone" if shown else f"values of dtype {raw.dtype}"
        raise InputError(f"inverse_transform returned {found}: it must return the inputs as they were before scaling.")
    return raw.reshape(data.shape)
