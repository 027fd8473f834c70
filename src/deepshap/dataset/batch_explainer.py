"""Explain batches of columns within pipelines of other libraries: Ray Data, Spark, Daft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError, import_pyarrow, needed
from ..explanation.labels import as_labels
from ..tables import check_columns_exist
from .row_explainer import RowExplainer
from .sources import Batch, read_rows


class BatchExplainer:
    """Maps batches of rows to batches of explained rows: for Ray Data, Spark's ``mapInPandas``, Daft.

    Ray and Daft make one of each actor, which keeps model, background and their activations from batch to batch.

    Parameters
    ----------
    explainer : DeepExplainer or callable
        The explainer, or a function without arguments that makes it, such as one that loads the model onto the GPU of the
        actor. The model must not change from now on.
    id : str
        The column of the rows' ids.
    features : sequence of str, optional
        The columns to explain, by default all others; or one column that holds an array for each row.
    shape : sequence of int, optional
        Shape of one row.
    lengths : str, optional
        The column with the number of valid steps of each row, handed to the model as its last argument.
    targets : str, optional
        The column with the true class or value of each row.
    on_error
        As for ``explain_dataset``.
    **options
        Of ``explainer(X, ...)``.

    Examples
    --------
    >>> frame = pd.DataFrame({"patient": ["ann", "bob"], "signal": list(x[:2].reshape(2, -1).numpy())})
    >>> batch_explainer = deepshap.BatchExplainer(explainer, id="patient", features=["signal"], shape=(5, 3))
    >>> table = batch_explainer(frame)  # in Ray Data: dataset.map_batches(deepshap.BatchExplainer, ...)
    """

    def __init__(
        self,
        explainer: Any,
        id: str,
        features: Sequence[str] | None = None,
        shape: Sequence[int] | None = None,
        lengths: str | None = None,
        targets: str | None = None,
        *,
        on_error: str = "raise",
        **options: Any,
    ) -> None:
        loaded = explainer if hasattr(explainer, "depends_on") else explainer()
        self._explain = RowExplainer(loaded, on_error, options).__enter__()  # for good
        self.id, self.features, self.shape, self.lengths, self.targets = id, features, shape, lengths, targets

    def __call__(self, batch: Any) -> Any:
        """Explain some rows and return their long table, a line per value.

        Parameters
        ----------
        batch : dict of arrays, pandas.DataFrame or pyarrow.Table
            The columns.

        Returns
        -------
        dict of arrays, pandas.DataFrame or pyarrow.Table
            What the batch is; the columns are in docs/a-million-rows.md. The column of the ids keeps its name.
        """
        pa = import_pyarrow()
        if isinstance(batch, pa.Table):
            return self._table(batch)
        if isinstance(batch, Mapping):
            frame = self._table(pa.table({name: _column(value) for name, value in batch.items()})).to_pandas()
            return {name: frame[name].to_numpy() for name in frame}
        needed("pandas", "tables need pandas", "dataset")
        return self._table(pa.Table.from_pandas(batch, preserve_index=False)).to_pandas()

    def _table(self, table: Any) -> Any:
        features = feature_columns(table.column_names, self.id, self.features, self.lengths, self.targets)
        lengths, targets = (None if c is None else table[c].to_numpy() for c in (self.lengths, self.targets))
        rows, ids = read_rows(table, self.id, features, self.shape)
        explained = self._explain.table(Batch(0, rows, ids, lengths, as_labels(targets, "targets")))
        return explained.rename_columns([self.id if name == "row" else name for name in explained.column_names])


def feature_columns(
    columns: Sequence[str], id: str, features: Sequence[str] | None, lengths: str | None, targets: str | None
) -> list[str]:
    """Return the columns of a table to explain.

    Raises
    ------
    InputError
        If a column that is named is not there, or none is left to explain.
    """
    others = [name for name in (id, lengths, targets) if name is not None]
    chosen = [name for name in columns if name not in others] if features is None else list(features)
    check_columns_exist([*others, *chosen], columns, "the table")
    if not chosen:
        raise InputError(f"the table has no columns to explain beside {', '.join(others)}.")
    return chosen


def _column(values: Any) -> Any:
    """Return a column of numbers, texts or arrays, one for each row."""
    array = np.asarray(values)
    return list(array.reshape(len(array), -1)) if array.ndim > 1 else array
