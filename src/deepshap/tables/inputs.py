"""Inputs as users have them, tables among them, as arrays and labels; columns stand in the model's order, by their names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError, check_names, is_whole
from ..explanation.labels import as_labels, first_few
from .columns import as_table, collected, is_frame, joined, matrix


@dataclass(frozen=True)
class Labels:
    """What a table says of the rows, steps and features that it holds; None where it says nothing.

    ``order`` are the places of the features in the user's table, where these had to be put in another order, and
    ``features_at`` is their axis.
    """

    row_ids: Any = None
    step_labels: Any = None
    feature_names: list[str] | None = None
    lengths: np.ndarray | None = None
    time_label: str | None = None
    order: list[int] | None = None
    features_at: int = -1


def plain(
    inputs: Any, what: str, batch_axis: int | Sequence[int] = 0, names: Any = None, complete: bool = False
) -> tuple[Any, Any]:
    """Take the labels off an input (each of several): what remains are tensors and arrays.

    Parameters
    ----------
    inputs : table, array, tensor, or list, tuple or dict of them
        What the user explains, or the background.
    what : str
        Its name in messages.
    batch_axis : int or sequence of int
        Where the model wants the rows; tables that know their axes are turned that way.
    names : list of str, or list or dict of them, optional
        The features in the model's order. Columns that have these names are put into it; columns with other names are refused.
    complete : bool
        Refuse tables in which values are missing or infinite, and name the column.

    Returns
    -------
    tuple
        The inputs in their form and, as a single one, list or dict, their ``Labels``.

    Raises
    ------
    InputError
        If a table is not numeric or has two columns of one name, its names are not those of the model, or the rows of two
        inputs have different ids.
    """
    if isinstance(inputs, Mapping) and not is_dataset(inputs):
        axes, each = _axes(batch_axis, len(inputs)), names_by_input(names, list(inputs))
        both = {
            key: _plain(inputs[key], f"{what}[{key!r}]", axis, each[key], complete)
            for key, axis in zip(inputs, axes, strict=True)
        }
        found: Any = {key: labels for key, (_, labels) in both.items()}
        values: Any = {key: value for key, (value, _) in both.items()}
    elif isinstance(inputs, (list, tuple)) and not hasattr(inputs, "batch_sizes"):
        axes, each = _axes(batch_axis, len(inputs)), names_by_input(names, list(range(len(inputs))))
        pairs = [_plain(value, f"{what}[{i}]", axes[i], each[i], complete) for i, value in enumerate(inputs)]
        values, found = [value for value, _ in pairs], [labels for _, labels in pairs]
    else:
        return _plain(inputs, what, _axes(batch_axis, 1)[0], names if _is_names(names) else None, complete)
    ids = [labels.row_ids for labels in (found.values() if isinstance(found, dict) else found)]
    known = [i for i in ids if i is not None]
    if any(not np.array_equal(known[0], other) for other in known):
        raise InputError(f"the inputs of {what} have different row ids, or in another order: bring their rows in line.")
    return values, found


def _axes(batch_axis: int | Sequence[int], count: int) -> list[int]:
    axes: list[Any] = list(batch_axis) if isinstance(batch_axis, (list, tuple)) else [batch_axis] * count
    fits = len(axes) == count and all(map(is_whole, axes))
    return axes if fits else [0] * count  # others are refused where the inputs are read


def _is_names(names: Any) -> bool:
    """Return whether names are those of one input."""
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def names_by_input(names: Any, keys: list[Any]) -> dict[Any, list[str] | None]:
    """Return the feature names of each input; None where there are none."""
    each = names if isinstance(names, Mapping) else dict(enumerate(names)) if isinstance(names, (list, tuple)) else {}
    return {key: list(each[key]) if key in each and _is_names(list(each[key] or [0])) else None for key in keys}


def _plain(value: Any, what: str, axis: int, names: list[str] | None, complete: bool) -> tuple[Any, Labels]:
    value = collected(value)
    if hasattr(value, "batch_sizes"):  # a PackedSequence
        return value, Labels(lengths=_packed_lengths(value))
    if hasattr(value, "values") and isinstance(getattr(value, "labels", None), Labels):  # Sequences, Wide
        array, labels = value.values, value.labels
    elif is_frame(value):
        array, labels = _of_frame(value, what)
    elif is_xarray(value):
        array, labels = _of_xarray(value, axis, what, names)
    else:
        return value, Labels()
    order = order_of(labels.feature_names, names, what, _choice(value, what))
    if order is not None and names is not None:
        at = array.ndim - 1 - (axis == array.ndim - 1 > 0)
        array, labels = array[..., order], replace(labels, feature_names=list(names), order=order, features_at=at)
    if complete and labels.feature_names is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        row, *_, column = np.argwhere(~np.isfinite(array))[0].tolist()
        where = f", first in row {row}, column" if len(array) > 1 else " in column"
        raise InputError(
            f"{what} has NaN or infinite values{where} {labels.feature_names[column]!r}. Fill or drop them before explaining."
        )
    return np.moveaxis(array, 0, axis), labels


def check_columns_count(table: Any, labels: Any, what: str, row: Sequence[int]) -> None:
    """Raise if a table has more columns than a row of the background, of shape ``row``, has features.

    Raises
    ------
    InputError
        If it has; it names the columns.
    """
    names = labels.feature_names if isinstance(labels, Labels) else None
    if names is not None and len(row) in (1, 2) and len(names) > row[-1]:
        choice = _choice(table, what).format(_listed(names[-row[-1] :]))
        raise InputError(
            f"{what} has {len(names)} columns ({first_few(names)}) for {row[-1]} features: choose the columns, as {choice} does."
        )


def _choice(value: Any, what: str) -> str:
    """Return what takes the features out of a table, ``{}`` standing for the list of them, for messages."""
    name = what if what.partition("[")[0].isidentifier() else "table"
    if not is_frame(value):
        if hasattr(value, "lengths"):
            return "deepshap.sequences(..., features={})"
        return "features={}" if hasattr(value, "row_ids") else f"{name} with {{}} alone"
    return f"{name}.select({{}})" if hasattr(value, "num_rows") else f"{name}[{{}}]"


def order_of(own: list[str] | None, names: list[str] | None, what: str, choice: str = "features=") -> list[int] | None:
    """Return the places of features among a table's columns; None if they are in order, or one of both has no names.

    ``choice`` says how columns are chosen where the table was handed over; ``{}`` in it stands for the list of them.

    Raises
    ------
    InputError
        If the columns have other names.
    """
    if own is None or names is None or own == names:
        return None
    if own == [str(i) for i in range(len(own))] and not set(own) & set(names):
        return None  # columns that pandas numbered
    missing, more = [name for name in names if name not in own], [name for name in own if name not in names]
    if missing:
        raise InputError(
            f"the columns of {what} must be those of the model: {missing[0]!r} is missing. {what} has {len(own)}, "
            f"{first_few(own)}; {len(names)} are expected, {first_few(names)}."
        )
    if more:
        raise InputError(
            f"{what} has {len(own)} columns ({first_few(own)}) for {len(names)} features ({first_few(names)}): {more[0]!r} is "
            f"not among these. Choose the columns: {choice.format(_listed(names))}."
        )
    return [own.index(name) for name in names]


def _listed(names: list[str]) -> str:
    return (
        "[" + ", ".join(json.dumps(name, ensure_ascii=False) for name in names[:6]) + ", ..." * (len(names) > 6) + "]"
    )


def in_own_order(values: Any, labels: Any) -> Any:
    """Return values in the shape of the inputs, without names, with their features in the order of the user's table."""
    if isinstance(labels, Labels):
        return values if labels.order is None else np.take(values, np.argsort(labels.order), labels.features_at)
    keys = list(labels) if isinstance(labels, dict) else range(len(labels))
    found = {key: in_own_order(values[key], labels[key]) for key in keys}
    return found if isinstance(values, dict) else list(found.values())


# ---------------------------------------------------------------------- tables
def _of_frame(frame: Any, what: str) -> tuple[np.ndarray, Labels]:
    index = frame.index if hasattr(frame, "iloc") else None
    if index is not None and all(getattr(dtype, "kind", "O") in "fiub" for dtype in frame.dtypes):
        names = joined(frame.columns)
        check_names(f"the columns of {what}", names)
        kind = None if frame.dtypes.nunique() == 1 and not hasattr(frame.dtypes.iloc[0], "na_value") else np.float64
        values = frame.to_numpy(kind, na_value=np.nan) if kind else frame.to_numpy()
    else:
        table = as_table(frame, what)
        names = table.names
        values = matrix(table, names)
    return values, Labels(row_ids=None if index is None else _index_ids(index), feature_names=names)


def _index_ids(index: Any) -> np.ndarray | None:
    """Return an index as row ids; None if it only counts."""
    if not len(index) or (getattr(index, "start", None) == 0 and getattr(index, "step", None) == 1):
        return None
    levels = [index.get_level_values(level) for level in range(index.nlevels)]
    empty = np.any([np.asarray(level.isna()) for level in levels], axis=0)
    if empty.any():
        raise InputError(f"id empty in row {int(empty.argmax()) + 1} (the index): every row needs one.")
    return as_labels(joined(index) if isinstance(index[0], tuple) else index, "the index")


def _packed_lengths(packed: Any) -> np.ndarray:
    sizes = np.asarray(packed.batch_sizes)
    lengths = (np.arange(sizes[0])[:, None] < sizes).sum(1)
    return lengths if packed.unsorted_indices is None else lengths[np.asarray(packed.unsorted_indices.cpu())]


def is_xarray(value: Any) -> bool:
    """Return whether a value is a DataArray or a Dataset of xarray."""
    return hasattr(value, "dims") and hasattr(value, "coords")


def is_dataset(value: Any) -> bool:
    """Return whether a value is a Dataset of xarray, which is a mapping too."""
    return hasattr(value, "data_vars")


ROW, STEP, FEATURE = "row", "step", "feature"
ROLES = {  # names of dimensions that tell what lies along them, in small letters and in the singular
    **dict.fromkeys(
        ("row", "sample", "batch", "batches", "case", "instance", "example", "observation", "obs", "id"), ROW
    ),
    **dict.fromkeys(("step", "timestep", "time_step", "time", "timestamp", "t", "date", "datetime", "lag"), STEP),
    **dict.fromkeys(("second", "minute", "hour", "day", "week", "month", "quarter", "year"), STEP),
    **dict.fromkeys(("feature", "variable", "channel", "band", "column"), FEATURE),
}


def _of_xarray(value: Any, axis: int, what: str, names: list[str] | None) -> tuple[np.ndarray, Labels]:
    """Return the values of a DataArray with the rows first; the variables of a Dataset are the features.

    The names of dimensions say what lies along them. Without such names they lie as the axes of an array do.
    """
    if is_dataset(value):
        dims = list(dict.fromkeys(dim for variable in value.data_vars.values() for dim in variable.dims))
        if any(set(variable.dims) != set(dims) for variable in value.data_vars.values()) or not dims:
            raise InputError(f"{what}: the variables of a dataset are its features, and need the same dimensions.")
        check_names(f"the variables of {what}", joined(value.data_vars))
        value, axis = value.to_array(FEATURE).transpose(*dims, FEATURE), 0 if len(dims) < 2 else axis
    if not value.ndim:
        raise InputError(f"{what} is a single value without dimensions.")
    roles = _roles(value, axis, what, names)
    value = value.transpose(*roles)
    row_ids, *others = (_coordinate(value, dim) for dim in roles)
    labels: dict[str, Any] = {"row_ids": row_ids}
    for (dim, role), coordinate in zip(list(roles.items())[1:], others, strict=True):
        if role == FEATURE and coordinate is not None:
            labels["feature_names"] = [str(name) for name in coordinate]
        elif role == STEP:
            labels["step_labels"] = coordinate
            labels["time_label"] = None if dim == STEP else str(dim)
    return value.to_numpy(), Labels(**labels)


def _roles(value: Any, axis: int, what: str, names: list[str] | None) -> dict[Any, str]:
    """Return what lies along each dimension, in the order (rows, steps, features) of the arrays that models take.

    Raises
    ------
    InputError
        If names tell of some dimensions what is at odds with their order, and leave open what the others are.
    """
    dims = list(value.dims)
    roles = {dim: role for dim in dims if (role := _role(value, dim, names)) is not None}
    counts = Counter(roles.values())
    known = {dim: role for dim, role in roles.items() if counts[role] == 1}
    in_order = list(dims)
    in_order.insert(0, in_order.pop(axis if -value.ndim <= axis < value.ndim else 0))
    if value.ndim > 3:  # images and the like: of their other dimensions the order alone tells
        in_order.sort(key=lambda dim: known.get(dim) != ROW)
        return dict(zip(in_order, [ROW, *[""] * (value.ndim - 2), FEATURE], strict=True))
    wanted = {1: [ROW], 2: [ROW, FEATURE], 3: [ROW, STEP, FEATURE]}[value.ndim]
    if value.ndim == 2 and STEP in known.values():  # a series in each row, or times that are the rows themselves
        wanted = [STEP, FEATURE] if FEATURE in known.values() else [ROW, STEP]
    known = {dim: role for dim, role in known.items() if role in wanted}
    by_place = dict(zip(in_order, wanted, strict=True))
    if any(by_place[dim] != role for dim, role in known.items()):
        free = [role for role in wanted if role not in known.values()]
        others = [dim for dim in dims if dim not in known]
        if len(free) > 1 or (wanted == [ROW, STEP] and others):
            rename = f"{what if what.isidentifier() else 'data'}.rename({{{str(others[0])!r}: 'row'}})"
            raise InputError(
                f"{what} has the dimensions {', '.join(map(str, dims))}, and which of them holds the rows is not clear. Rename "
                f"them to row, step and feature, as {rename} does."
            )
        by_place = known | dict(zip(others, free, strict=True))
    return {dim: role for role in wanted for dim, of_dim in by_place.items() if of_dim == role}


def _role(value: Any, dim: Any, names: list[str] | None) -> str | None:
    """Return what lies along a dimension, by its name or its coordinate; None if neither tells."""
    name = str(dim).lower()
    coordinate = value.coords[dim].to_numpy() if dim in value.coords else None
    if name in ROLES or name.removesuffix("s") in ROLES:
        return ROLES.get(name) or ROLES[name.removesuffix("s")]
    if coordinate is None:
        return None
    if names is not None and set(map(str, coordinate.tolist())) == set(names):
        return FEATURE
    return STEP if coordinate.dtype.kind in "mM" else None


def _coordinate(value: Any, dim: Any) -> np.ndarray | None:
    return as_labels(value.coords[dim].to_numpy(), str(dim)) if dim in value.coords else None


# ---------------------------------------------------------------------- labels of several inputs
def common_ids(labels: Any) -> Any:
    """Return the row ids of an input, or of the first of several that has some."""
    if isinstance(labels, Labels):
        return labels.row_ids
    each = labels.values() if isinstance(labels, dict) else labels
    return next((one.row_ids for one in each if one.row_ids is not None), None)


def columns_of(labels: Any) -> Any:
    """Return the feature names of an input, or of each of several; None if no table names any."""
    if isinstance(labels, Labels):
        return labels.feature_names
    each = {key: labels[key].feature_names for key in (labels if isinstance(labels, dict) else range(len(labels)))}
    if all(names is None for names in each.values()):
        return None
    return each if isinstance(labels, dict) else list(each.values())


def check_same_order(given: Any, columns: Any) -> None:
    """Raise if names that are given for the features are those of the background's columns in another order."""
    several = isinstance(columns, Mapping) or (isinstance(columns, list) and not _is_names(columns))
    keys: list[Any] = (
        [None] if not several else list(columns) if isinstance(columns, Mapping) else list(range(len(columns)))
    )
    for key in keys:
        own = columns if key is None else columns[key]
        names = (given if key is None else names_by_input(given, keys)[key]) or []
        if own is not None and any(name in own and own.index(name) != at for at, name in enumerate(map(str, names))):
            raise InputError(
                f"feature_names ({first_few(names)}) and the columns of the background ({first_few(own)}) name the features in "
                "another order: bring the columns in the model's order, or leave feature_names out."
            )
