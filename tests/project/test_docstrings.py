"""Each public name has an example, and each example runs and prints what it says."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import deepshap
from deepshap import forecasting, plots, report, sampling


class Model(nn.Module):
    """A recurrent network of one output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Picture(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh().sum((1, 2, 3))[:, None]


def is_documented(value: Any) -> bool:
    return (inspect.isclass(value) and not issubclass(value, BaseException)) or inspect.isfunction(value)


DOCUMENTED = {
    **{f"deepshap.{name}": getattr(deepshap, name) for name in deepshap.__all__},
    **{f"plots.{name}": getattr(plots, name) for name in plots.__all__},
    **{f"captum.{name}": getattr(deepshap.captum, name) for name in deepshap.captum.__all__},
    **{
        f"DeepExplainer.{name}": getattr(deepshap.DeepExplainer, name)
        for name in ("game", "interactions", "register_custom_handler")
    },
    **{f"datasets.{name}": getattr(deepshap.datasets, name) for name in ("japanese_vowels", "seattle_weather")},
    **{f"sampling.{name}": getattr(sampling, name) for name in ("AllCoalitions", "DeepShap", "Players")},
    "report.write_report": report.write_report,
    "forecasting.explain_forecast": forecasting.explain_forecast,
}
DOCUMENTED = {name: value for name, value in DOCUMENTED.items() if is_documented(value)}


@pytest.fixture
def names(tmp_path, monkeypatch) -> dict[str, Any]:
    """What the examples call by name: a recurrent model over 5 steps of 3 features, and its explanation of 6 rows."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model, background, x = Model(), torch.randn(20, 5, 3), torch.randn(6, 5, 3)
    features = ["pulse", "pressure", "temperature"]
    explainer = deepshap.DeepExplainer(model, background, feature_names=features, progress=False)
    known = {name: getattr(deepshap, name) for name in deepshap.__all__}
    known |= {"deepshap": deepshap, "np": np, "pd": pd, "torch": torch}
    return known | {
        "model": model,
        "background": background,
        "x": x,
        "explainer": explainer,
        "explanation": explainer(x),
    }


def explained(name: str) -> Any:
    """The explanation that a plot of something else than sequences takes; None for the others."""
    if name == "plots.image":
        return deepshap.DeepExplainer(Picture(), torch.zeros(2, 3, 8, 8))(torch.randn(2, 3, 8, 8))
    if name in ("plots.text", "plots.text_html"):
        words = deepshap.DeepExplainer(
            nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 1)), torch.zeros(1, 5).long()
        )
        explanation = words(torch.randint(9, (2, 5)))
        explanation.display_data = np.array([["a", "b", "c", "d", "e"], ["f", "g", "h", "i", "j"]])
        return explanation
    if name in ("plots.forecast", "plots.horizons", "plots.forecasts_over_time"):
        series = pd.DataFrame({"sales": np.arange(40.0)}, index=pd.date_range("2024-01-01", periods=40))
        model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
        return forecasting.explain_forecast(model, series, lags=3, background=series[:20], forecasts=5)
    return None


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_example_runs(name, names):
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(DOCUMENTED[name]) or "")
    assert examples, f"{name} has no example"
    if (explanation := explained(name)) is not None:
        names["explanation"] = explanation
    test = doctest.DocTest(examples, names, name, None, None, None)
    printed: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    results = doctest.DocTestRunner(verbose=False, optionflags=flags).run(test, out=printed.append)
    assert results.failed == 0, "".join(printed)
    assert results.attempted == len(examples)
