"""Plots of explanations of sequences (need matplotlib: the extra `deepshap[plots]`). docs/plots.md shows all of them.

Each function takes an ``Explanation``, draws into the ``ax`` it is given or else into a new figure, and returns the axes. None
calls ``plt.show`` unless you pass ``show=True``, as in shap. Red pushes the output up; blue, hatched, pushes it down.
"""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("pictures need matplotlib: pip install 'deepshap[plots]'") from error

from .comparisons import cohorts, difference, importance_by_group, outliers
from .example import buildup, heatmap, inputs, output_matrix, signal
from .forecasts import forecast, forecasts_over_time, horizons
from .overview import importance, importance_map, importance_over_time, interactions
from .shap_plots import bar, beeswarm, force, scatter, waterfall
from .style import BLUE, RED
from .text_and_image import image, text, text_html

__all__ = [
    "BLUE",
    "RED",
    "bar",
    "beeswarm",
    "buildup",
    "cohorts",
    "difference",
    "force",
    "forecast",
    "forecasts_over_time",
    "heatmap",
    "horizons",
    "image",
    "importance",
    "importance_by_group",
    "importance_map",
    "importance_over_time",
    "inputs",
    "interactions",
    "outliers",
    "output_matrix",
    "scatter",
    "signal",
    "text",
    "text_html",
    "waterfall",
]


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
