"""A report of an explanation: one HTML file that needs nothing else (needs plotly: the extra `deepshap[report]`).

``explanation.report("report.html")`` writes it. What it shows, and what it leaves out of very large explanations, is
described in docs/report.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import MAX_MEGABYTES, PAGES, InputError, check_options
from ..explanation.core import Attributions
from ..explanation.storage import check_folder


def write_report(
    explanation: Attributions,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    max_megabytes: float = MAX_MEGABYTES,
    seed: int = 0,
    groups: Any = None,
    faithfulness: Any = None,
) -> Path:
    """Write an explanation as a page that can be searched, zoomed and sent to others.

    Parameters
    ----------
    explanation : Explanation
        Of a table (rows, features), a text (rows, steps) or sequences (rows, steps, features), with or without outputs; a
        JointAttributions of several of them. ``targets``, ``row_ids``, ``step_labels``, ``lengths``, ``display_data``,
        ``model`` and ``background`` are shown where they are set.
    path : str or path
        The file to write, whose name ends in .html or .htm; an existing one is replaced.
    title : str, optional
        Heading of the page, by default the name of the model.
    max_megabytes : float
        The file will not be larger. Global importance is always taken over all rows. If not all rows fit, those with the
        worst predictions, those with the largest attributions, and rows drawn at random are kept in equal parts, and the
        page says so; if not all outputs fit, those that are true or highest most often.
    seed : int
        Of that draw, and of the points of values and attributions.
    groups : sequence, optional
        A label of each row, (rows,): the page shows any two groups side by side. Right and wrong predictions, true and
        predicted classes are groups anyway.
    faithfulness : Faithfulness, optional
        What ``deepshap.faithfulness`` found of the model: a section of the page.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    InputError
        If the explanation is none of these, holds NaN or infinity, if not even one row fits into the file, if its name
        ends otherwise or its folder is missing, or if ``groups`` or ``faithfulness`` are something else.
    ImportError
        If plotly is missing.

    Examples
    --------
    >>> path = deepshap.report.write_report(explanation, "why.html", title="Six patients")
    """
    from .page import render

    if not isinstance(explanation, Attributions):
        raise InputError(
            f"a report is made of a deepshap.Explanation, what explainer(x) returns, not of {type(explanation).__name__}; "
            "of arrays make one: deepshap.Explanation(values, base_values, data)."
        )
    check_options(path=path, title=title, max_megabytes=max_megabytes, seed=seed)
    if Path(path).suffix.lower() not in PAGES:
        raise InputError(f"{path}: a report is a page of HTML, whose name ends in .html.")
    check_folder(Path(path))
    page = render(explanation, title, max_megabytes, seed, groups, faithfulness)
    Path(path).write_bytes(page)
    return Path(path)
