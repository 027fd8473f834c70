"""Players: which cells of a row's inputs enter coalitions together, and receive one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InputError
from ..explanation.labels import as_array

ALLOWED = (
    "'cells', 'steps', 'features', a window (a whole number of steps), an integer array of one row's shape, or a mapping "
    "from names to features"
)
Names = Sequence[Any] | None


@dataclass(frozen=True)
class Players:
    """A partition of the cells of a row.

    Parameters
    ----------
    cells : tuple of array
        For each input the number of each cell's player, of a row's shape.
    names : tuple of str or None
        Names of the players; None where each cell is one.
    kind : str or None
        What they are, in a word or two; None for cells.

    Examples
    --------
    >>> from deepshap.sampling import Players
    >>> players = Players((np.array([0, 0, 1]),), ("wind", "rain"), "groups")
    >>> players.summed([np.array([[[1.0], [2.0], [5.0]]])]).tolist()  # one row, three cells, one output
    [[[3.0], [5.0]]]
    """

    cells: tuple[np.ndarray, ...]
    names: tuple[str, ...] | None = None
    kind: str | None = None

    @property
    def are_cells(self) -> bool:
        """Whether each cell is a player."""
        return self.kind is None

    @cached_property
    def flat(self) -> np.ndarray:
        """Numbers of the players of all cells of all inputs, (cells,)."""
        return np.concatenate([c.ravel() for c in self.cells])

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return int(self.flat.max(initial=-1)) + 1

    def summed(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Return the contributions of cells, summed over each player.

        Parameters
        ----------
        values : sequence of array
            Contributions (n, ..., k) for each input.

        Returns
        -------
        array
            (n, players, k); of cells as players, their contributions in order.
        """
        flat = np.concatenate([v.reshape(len(v), -1, v.shape[-1]) for v in values], 1)
        if self.are_cells:
            return flat
        totals = np.zeros((len(flat), self.count, flat.shape[-1]))
        np.add.at(totals.swapaxes(0, 1), self.flat, flat.swapaxes(0, 1))
        return totals

    def spread(self, members: np.ndarray) -> list[np.ndarray]:
        """Return which cells take part, from the players that do.

        Parameters
        ----------
        members : array
            Whether each player takes part, (n, players).

        Returns
        -------
        list of array
            (n, ...) for each input.
        """
        return [members[:, c] for c in self.cells]

    def split_by_input(self, values: np.ndarray) -> list[np.ndarray]:
        """Return values of players that are cells in the shapes of the inputs.

        Parameters
        ----------
        values : array
            (n, players, k).

        Returns
        -------
        list of array
            (n, ..., k) for each input; values of other players as they are, in a list.
        """
        if not self.are_cells:
            return [values]
        parts, start = [], 0
        for c in self.cells:
            parts.append(values[:, start : start + c.size].reshape(len(values), *c.shape, values.shape[-1]))
            start += c.size
        return parts

    def means(self, data: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean of each player's cells.

        Parameters
        ----------
        data : sequence of array
            Values of the cells, (n, ...) for each input.

        Returns
        -------
        array
            (n, players).
        """
        sizes = np.bincount(self.flat, minlength=self.count)
        return self.summed([np.asarray(d, np.float64)[..., None] for d in data])[..., 0] / sizes


def parse_players(spec: Any, shapes: Sequence[tuple[int, ...]], keys: Sequence[Any], names: Sequence[Names]) -> Players:
    """Return the players that the argument ``players=`` describes.

    Parameters
    ----------
    spec : str, int, array, mapping, or list or dict of arrays
        "cells", "steps", "features"; a number of steps; for each cell the number of its player, of one row's shape (for
        several inputs a list or dict of such arrays); or a mapping from names to features, by name or number, or to boolean
        arrays of a row's shape (for several inputs to a mapping from inputs to these).
    shapes : sequence of tuple
        Shape of a row of each input.
    keys : sequence
        How each input is called.
    names : sequence
        Feature names of each input, or None.

    Raises
    ------
    InputError
        If it is none of these, or does not fit the inputs.
    """
    shapes = [tuple(shape) for shape in shapes]
    if isinstance(spec, str):
        kinds = {"cells": _cells, "steps": _steps, "features": _features}
        if spec not in kinds:
            raise InputError(f"players={spec!r} is none of {ALLOWED}.")
        return kinds[spec](shapes, keys, names)
    if isinstance(spec, (int, np.integer)) and not isinstance(spec, bool):
        return _windows(int(spec), shapes, keys, names)
    if isinstance(spec, Mapping) and not _are_arrays(spec, keys):
        return _groups(spec, shapes, keys, names)
    if not hasattr(spec, "__len__"):
        raise InputError(f"players={spec!r} is none of {ALLOWED}.")
    return _parse_numbers(spec, shapes, keys)


def _cells(shapes: Sequence[tuple[int, ...]], keys: Sequence[Any], names: Sequence[Names]) -> Players:
    arrays, start = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        arrays.append(np.arange(start, start + size).reshape(shape))
        start += size
    return Players(tuple(arrays))


def _steps(shapes: Sequence[tuple[int, ...]], keys: Sequence[Any], names: Sequence[Names]) -> Players:
    return _windows(1, shapes, keys, names)


def _windows(length: int, shapes: Sequence[tuple[int, ...]], keys: Sequence[Any], names: Sequence[Names]) -> Players:
    """Return a player for each window of steps, shared by all sequences, and one for each input without steps."""
    if length < 1:
        raise InputError(f"players={length}: a window has at least one step.")
    sequences = [len(shape) >= 2 or (len(shape) == 1 and len(shapes) == 1) for shape in shapes]
    if not any(sequences):
        raise InputError("players by steps are for sequences, rows of shape (steps, features); there is no such input.")
    longest = max(shape[0] for shape, is_one in zip(shapes, sequences, strict=True) if is_one)
    if length > longest:
        raise InputError(
            f"players={length}: a window of {length} steps is longer than the sequences, which have {longest}."
        )
    count = -(-longest // length)
    player_names, arrays = _window_names(longest, length), []
    for shape, key, is_one in zip(shapes, keys, sequences, strict=True):
        if is_one:
            steps = np.arange(shape[0]) // length
            arrays.append(np.broadcast_to(steps.reshape(-1, *[1] * (len(shape) - 1)), shape).copy())
        else:
            arrays.append(np.full(shape, count + len(player_names) - -(-longest // length)))
            player_names.append(str(key))
    return Players(tuple(arrays), tuple(player_names), "steps" if length == 1 else f"window of {length} steps")


def _window_names(steps: int, length: int) -> list[str]:
    if length == 1:
        return [f"Step {step}" for step in range(steps)]
    starts = range(0, steps, length)
    return [f"Steps {start} to {min(start + length, steps) - 1}" for start in starts]


def _features(shapes: Sequence[tuple[int, ...]], keys: Sequence[Any], names: Sequence[Names]) -> Players:
    """Return a player for each feature of each input, over all steps."""
    arrays: list[np.ndarray] = []
    player_names: list[str] = []
    for shape, key, input_names in zip(shapes, keys, names, strict=True):
        size = shape[-1] if shape else 1
        arrays.append(np.broadcast_to((np.arange(size) + len(player_names)).reshape(shape[-1:]), shape).copy())
        feature_names = input_names if input_names is not None else [f"Feature {i}" for i in range(size)]
        player_names += [
            f"{key}, {name}" if len(shapes) > 1 and input_names is None else str(name) for name in feature_names
        ]
    return Players(tuple(arrays), tuple(player_names), "features")


def _parse_numbers(spec: Any, shapes: Sequence[tuple[int, ...]], keys: Sequence[Any]) -> Players:
    """Return the players that an array of numbers for each input describes, in the order of the numbers."""
    arrays = [spec[key] for key in keys] if isinstance(spec, Mapping) else spec if len(shapes) > 1 else [spec]
    if not isinstance(arrays, (list, tuple)) or len(arrays) != len(shapes):
        raise InputError(f"players: give one array of numbers for each of the inputs {list(keys)}.")
    arrays = [as_array(a, "players") for a in arrays]
    for array, shape, key in zip(arrays, shapes, keys, strict=True):
        if array.dtype.kind not in "iu" or array.shape != shape:
            of_input = f" of {key}" if len(keys) > 1 else ""
            raise InputError(
                f"players{of_input} must be whole numbers of one row's shape {shape}, not {array.dtype} of shape "
                f"{array.shape}; players are one of {ALLOWED}."
            )
    numbers = np.unique(np.concatenate([a.ravel() for a in arrays]))
    if (numbers < 0).any():
        raise InputError(f"players: {numbers[0]} is below 0; each cell has a player, and its number.")
    names = tuple(f"Group {number}" for number in numbers)
    return Players(tuple(np.searchsorted(numbers, a) for a in arrays), names, "groups")


def _groups(
    spec: Mapping[str, Any], shapes: Sequence[tuple[int, ...]], keys: Sequence[Any], names: Sequence[Names]
) -> Players:
    """Return the named groups; the cells that belong to none of them are one more player, "others"."""
    if not spec:
        raise InputError("players={} names no groups.")
    arrays = [np.full(shape, -1) for shape in shapes]
    for number, (name, members) in enumerate(spec.items()):
        of_inputs = members if isinstance(members, Mapping) else {keys[0]: members}
        if not isinstance(members, Mapping) and len(shapes) > 1:
            raise InputError(
                f"players[{name!r}]: of several inputs say which, a mapping from {list(keys)} to features."
            )
        for key, part in of_inputs.items():
            if key not in keys:
                raise InputError(f"players[{name!r}] names the input {key!r}; the inputs are {list(keys)}.")
            at = list(keys).index(key)
            mask = _mask(part, shapes[at], names[at], f"players[{name!r}]")
            if (arrays[at][mask] >= 0).any():
                raise InputError(f"players[{name!r}] shares cells with another group: each cell belongs to one.")
            arrays[at][mask] = number
        if not any((a == number).any() for a in arrays):
            raise InputError(f"players[{name!r}] is empty.")
    player_names = [str(name) for name in spec]
    if any((a < 0).any() for a in arrays):
        player_names.append("others")
    return Players(tuple(np.where(a < 0, len(spec), a) for a in arrays), tuple(player_names), "groups")


def _mask(members: Any, shape: tuple[int, ...], names: Names, what: str) -> np.ndarray:
    """Return the cells of these features, or of a boolean array."""
    if isinstance(members, np.ndarray) and members.dtype == bool:
        if members.shape != shape:
            raise InputError(f"{what} has shape {members.shape}; a row has shape {shape}.")
        return members
    listed = list(members) if isinstance(members, (list, tuple, set, np.ndarray, range)) else [members]
    mask = np.zeros(shape, bool)
    for member in listed:
        column = _feature(member, shape[-1] if shape else 1, names, what)
        mask[(..., column) if shape else ...] = True
    return mask


def _feature(member: Any, size: int, names: Names, what: str) -> int:
    feature_names = [] if names is None else list(names)
    if member in feature_names:
        return feature_names.index(member)
    if isinstance(member, (int, np.integer)) and not isinstance(member, bool) and -size <= member < size:
        return int(member) % size
    listed = f" named {feature_names}" if feature_names else ""
    raise InputError(f"{what} names the feature {member!r}, which is not among {size} features{listed}.")


def _are_arrays(spec: Mapping[Any, Any], keys: Sequence[Any]) -> bool:
    """Return whether a mapping holds an array of numbers for each input."""
    return set(spec) == set(keys) and all(np.asarray(v).dtype.kind in "iu" and np.ndim(v) > 0 for v in spec.values())
