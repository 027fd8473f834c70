"""``Explanation`` and ``JointExplanation``, the results of explainers, with methods for reports, tables and files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MAX_MEGABYTES, InputError, check_options
from ..explanation import html, long_form, storage
from ..explanation.concat import concat_explanations
from ..explanation.core import Attributions
from ..explanation.joint import JointAttributions

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self


OTHER_FORMATS = (
    ".txt",
    ".tsv",
    ".gz",
    ".xlsx",
    ".json",
    ".jsonl",
    ".npy",
    ".npz",
    ".pkl",
    ".pt",
    ".h5",
    ".nc",
    ".feather",
    ".html",
)


class Explanation(Attributions):
    """A ``shap.Explanation``, in every respect, that knows about sequences.

    ``values`` has shape (rows, ..., outputs): the rows, the other axes of the input, the axes of the output (none, if
    the model returns one number per row). ``base_values`` has shape (rows, outputs), ``data`` that of the input. For
    every row and output the values sum to the model's output minus the base value, and so they do after ``over_time``
    and ``over_features``.

    shap's plots want a matrix: one output, one value per row and feature. ::

        explanation = explainer(x)                              # (rows, steps, features, outputs)
        per_feature = explanation.over_time().output(2)         # (rows, features)
        per_step = explanation.over_features().output(2)        # (rows, steps)
        shap.plots.beeswarm(per_feature)
        shap.plots.waterfall(per_step[0])

    What slicing and arithmetic return is an ``Explanation`` again. Names may be assigned: they go to the last axis of
    the input (``feature_names``) and of the output (``output_names``). So may ``row_ids``, ``step_labels``, ``lengths``,
    ``targets``, ``display_data`` (the raw inputs), ``background``, ``model``, ``method``, ``players``, ``converged``,
    ``standard_errors`` and ``replicates``; ``outputs`` and ``gap`` are there to be read. They are kept by slices, copies,
    sums, ``concat`` and files as far as they still hold. ::

        explanation.step_labels = frame.index                   # dates, for tables and pictures
        explanation.to_dataframe()                              # a line per row, step, feature and output
        explanation.save("why.parquet")                         # deepshap.load reads it again

    Examples
    --------
    >>> explanation = explainer(x)
    >>> explanation[0].values.shape, explanation.feature_names
    ((5, 3, 1), ['pulse', 'pressure', 'temperature'])
    """

    @classmethod
    def concat(cls, explanations: Sequence[Explanation]) -> Self:
        """Put the rows of several explanations below each other, with all their fields.

        Parameters
        ----------
        explanations : sequence of Explanation
            Of one model against one background, by one method: all but the rows must be the same, the shape of a row and the
            names above all, and what is known of one must be known of all. Labels of the steps may differ. Computing times
            are added up.

        Returns
        -------
        Explanation
            A JointExplanation of such.

        Raises
        ------
        InputError
            If there are none, they do not fit each other, or one is of a single row without an axis of rows.
        """
        if not isinstance(explanations, Iterable):
            raise InputError(f"concat takes a list of explanations, not a {type(explanations).__name__}.")
        return concat_explanations(list(explanations))

    # ------------------------------------------------------------------ for people
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        max_megabytes: float = MAX_MEGABYTES,
        seed: int = 0,
        groups: Any = None,
        faithfulness: Any = None,
    ) -> Path:
        """Write a report for a browser: one HTML file, which needs no network. Needs the extra `deepshap[report]`.

        Parameters
        ----------
        path, title, max_megabytes, seed, groups, faithfulness
            As for ``deepshap.report.write_report``, which also lists the errors. docs/report.md says what the report shows.

        Returns
        -------
        Path
            The file.
        """
        from ..report import write_report  # which takes time

        beside = {"groups": groups, "faithfulness": faithfulness}
        return write_report(self, path, title=title, max_megabytes=max_megabytes, seed=seed, **beside)

    def __repr__(self) -> str:
        return html.text(self)

    def _repr_html_(self) -> str:
        """Return the summary that notebooks show."""
        return html.summary(self)

    # ------------------------------------------------------------------ tables and files
    def to_dataframe(self, outputs: int | str | Sequence[int | str] | None = None) -> pd.DataFrame:
        """Lay the attributions out in long form: a line for each row, step, feature and output.

        Parameters
        ----------
        outputs : int, str or sequence of them, optional
            Indexes or names of the outputs to take, by default all.

        Returns
        -------
        pandas.DataFrame
            Columns ``row``, ``step``, ``feature`` and ``output``, as far as there are such axes (further ones are numbered),
            with ids, labels and names where they are known; the names of players that are no cells in ``step``, ``window``,
            ``feature`` or ``group``; ``value``, the raw input if it is known; ``input``, what the model got, if that is
            something else; ``attribution``. Padded steps have no lines. A JointExplanation also has the column
            ``input_name``.

        Raises
        ------
        InputError
            If there are no such outputs, or more than one axis of them.
        """
        chosen = self if outputs is None else self.some_outputs(outputs)
        return long_form.to_dataframe(chosen)

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset`` with variables such as ``attribution``, ``value``, ``base_value`` and ``model_output``.

        Returns
        -------
        xarray.Dataset
            The dimensions are row, step, feature and output, with ids, labels and names as coordinates. A list or dict of
            them for a JointExplanation; ``from_xarray`` reads each by itself.

        Raises
        ------
        ImportError
            If xarray is missing.
        """
        return self._each(long_form.to_xarray)

    @classmethod
    def from_xarray(cls, dataset: Any) -> Explanation:
        """Make an explanation of a dataset from ``to_xarray``; of several inputs one at a time.

        ``JointExplanation({name: Explanation.from_xarray(one) for name, one in datasets.items()})`` puts them together.

        Raises
        ------
        InputError
            If it is no such dataset, or a list or dict of those of several inputs.
        """
        return long_form.from_xarray(cls, dataset)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a Parquet file, without pickle; to a name that ends in .csv, the table alone.

        Any reader of Parquet shows the table of ``to_dataframe``; ``deepshap.load`` gives back the whole explanation, bit by
        bit. The file is complete or not there at all.

        Parameters
        ----------
        path : path
            The file to write.

        Raises
        ------
        ImportError
            If pyarrow (for .csv, pandas) is missing.
        InputError
            If ``background`` cannot be written as JSON, the name ends in that of another format, or its folder is missing.
        """
        check_options(path=path)
        suffix = Path(path).suffix.lower()
        if suffix in OTHER_FORMATS:
            raise InputError(
                f"{path}: explanations are written as Parquet, or as CSV without all but the table, not {suffix}."
            )
        if suffix == ".csv":
            with storage.replacing(Path(path)) as temporary:
                self.to_dataframe().to_csv(temporary, index=False)
        else:
            storage.save(self, path)


class JointExplanation(Explanation, JointAttributions):
    """The explanation of a model with several inputs: one ``Explanation`` for each of them.

    ``explanation[0]`` (or ``explanation["name"]``, for inputs by keyword) is the ``Explanation`` of one input, for
    slices, sums and plots. ``values`` and ``data`` are lists (dicts) over the inputs; the values of all inputs together
    sum to the model's output minus ``base_values``. Everything else raises an InputError that says so.

    Parameters
    ----------
    parts : list or dict of Explanation
        One for each input.

    Examples
    --------
    >>> class Both(torch.nn.Module):
    ...     def forward(self, signal, age):
    ...         return signal.sum((1, 2))[:, None] * age
    >>> both = deepshap.DeepExplainer(Both(), [torch.zeros(2, 5, 3), torch.zeros(2, 1)])
    >>> joint = both([torch.ones(4, 5, 3), torch.ones(4, 1)])
    >>> joint[0].values.shape, joint[1].values.shape
    ((4, 5, 3, 1), (4, 1, 1))
    """
