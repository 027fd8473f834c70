"""Measure deepshap beside what forecasting libraries and text users call: darts, neuralforecast, shap's PartitionExplainer.

Runs in the environment of the forecasting libraries (.venv-forecasting, which ``make bench`` makes). Each method explains the
same rows of the same fitted model: ten forecasts of three days from ten days of Seattle's highest temperature, or eight
sentences of twelve words. Times are medians of three calls after a first one, in one thread. Gaps are |sum of attributions -
change of the output|, relative to the largest change. Distances are to the Shapley values of all coalitions, relative to their
length, against the same references.
"""

from __future__ import annotations

import json
import logging
import re
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import deepshap
from deepshap.datasets import seattle_weather
from deepshap.forecasting import explain_forecast

RESULTS = Path(__file__).parent / "results" / "forecasters.json"
LAGS, HORIZON, FORECASTS, REFERENCES = 10, 3, 10, 30
VOCABULARY, WORDS = 200, 12  # word 0 is the mask
ROUNDS = 3
ALL_COALITIONS = 1e6  # an effort that tries them all
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "enable_model_summary": False}


Values = tuple[
    np.ndarray, np.ndarray
]  # attributions (rows, players, outputs); outputs minus base values (rows, outputs)


def measured(call: Callable[[], Values], exact: np.ndarray) -> dict[str, float]:
    """Call once to warm up and then in rounds; return the median time, the gap, and the distance to the exact values."""
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        values, differences = call()
        seconds.append(time.perf_counter() - start)
    gap = np.abs(values.sum(1) - differences).max() / np.abs(differences).max()
    distance = np.linalg.norm(values - exact) / np.linalg.norm(exact)
    return {"seconds": statistics.median(seconds[1:]), "gap": float(gap), "distance": float(distance)}


def of(explanation: Any) -> Values:
    """Return the values of an explanation by players, and the differences of its outputs."""
    values = explanation.values.reshape(len(explanation.values), -1, explanation.values.shape[-1])
    return values, explanation.outputs - explanation.base_values


# ---------------------------------------------------------------------- darts
def temperatures() -> tuple[np.ndarray, pd.DatetimeIndex]:
    """Return Seattle's highest temperatures, standardized, and their days."""
    weather = seattle_weather()
    standardized = (weather.temp_max - weather.temp_max.mean()) / weather.temp_max.std()
    return standardized.astype(np.float32), pd.DatetimeIndex(weather.date)


def darts_models() -> dict[str, Any]:
    """Return four models that read ten days and forecast three, without quantiles."""
    from darts.models import BlockRNNModel, TCNModel, TFTModel, TiDEModel

    common = {
        "input_chunk_length": LAGS, "output_chunk_length": HORIZON, "n_epochs": 3, "random_state": 0, "pl_trainer_kwargs": QUIET
    }  # fmt: skip
    return {
        "darts LSTM": BlockRNNModel(model="LSTM", hidden_dim=25, **common),
        "darts TCN": TCNModel(kernel_size=2, num_filters=8, **common),
        "darts TiDE": TiDEModel(hidden_size=32, **common),
        "darts TFT": TFTModel(hidden_size=8, add_relative_index=True, likelihood=None, loss_fn=nn.MSELoss(), **common),
    }


def beside_darts(name: str, model: Any) -> dict[str, Any]:
    """Explain a model by deepshap, and by darts' own ShapExplainer, which tries random orders of the lags."""
    from darts import TimeSeries
    from darts.explainability import ShapExplainer

    values, days = temperatures()
    series = TimeSeries.from_series(pd.Series(values, index=days))
    train, rest = series[:1096], series[-(LAGS + FORECASTS - 1) :]
    references = train[: LAGS + HORIZON + REFERENCES - 1]
    model.fit(train)

    def deep(effort: float = 1) -> Values:
        options = {"forecasts": FORECASTS, "references": REFERENCES, "effort": effort, "progress": False}
        return of(explain_forecast(model, rest, background=references, **options)["target"])

    exact, outputs = deep(ALL_COALITIONS)
    same = references[:-HORIZON]  # darts' windows reach to the end of the series
    explainer = ShapExplainer(model, same, shap_method="permutation", batch_size=4096, test_stationarity=False)

    def by_darts() -> Values:
        result = explainer.explain(rest)
        parts = [result.get_shap_explanation_object(horizon=h + 1) for h in range(HORIZON)]
        return np.stack([part.values[:, :LAGS] for part in parts], -1), outputs

    methods = {"deepshap": deep, "deepshap, effort=16": partial(deep, 16), "ShapExplainer": by_darts}
    return {method: measured(call, exact) for method, call in methods.items()}


# ---------------------------------------------------------------------- neuralforecast
def beside_neuralforecast() -> dict[str, Any]:
    """Explain an LSTM by deepshap, and by NeuralForecast.explain, which calls captum with a baseline of zeros."""
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import LSTM

    values, days = temperatures()
    ends = range(len(days) - FORECASTS, len(days))
    frames = [pd.DataFrame({"unique_id": f"to day {end}", "ds": days[:end], "y": values[:end]}) for end in ends]
    model = LSTM(
        h=HORIZON, input_size=LAGS, encoder_hidden_size=25, decoder_hidden_size=25, encoder_n_layers=1, max_steps=100,
        loss=MSE(), scaler_type="identity", alias="LSTM", **QUIET,
    )  # fmt: skip
    fitted = NeuralForecast([model], freq="D")
    fitted.fit(pd.concat(frames))
    zeros = pd.DataFrame({"unique_id": "zeros", "ds": days[: LAGS + HORIZON], "y": np.zeros(LAGS + HORIZON)})

    def deep(effort: float = 1) -> Values:
        return of(explain_forecast(fitted, background=zeros, effort=effort, progress=False)["target"])

    exact, outputs = deep(ALL_COALITIONS)

    def by_captum(name: str) -> Values:
        _, explained = fitted.explain(explainer=name, verbose=False)
        insample = explained["LSTM"]["insample"]  # (series, horizons, 1, outputs, lags, (value, mask))
        return insample[:, :, 0, 0, :, 0].swapaxes(1, 2).numpy(), outputs

    methods = {"deepshap": deep, "deepshap, effort=16": partial(deep, 16)}
    methods |= {name: partial(by_captum, name) for name in ("IntegratedGradients", "ShapleyValueSampling")}
    return {method: measured(call, exact) for method, call in methods.items()}


# ---------------------------------------------------------------------- text
class Reader(nn.Module):
    """An LSTM over words, whose last state gives a score."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm, self.score = (
            nn.Embedding(VOCABULARY, 16),
            nn.LSTM(16, 32, batch_first=True),
            nn.Linear(32, 1),
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.score(self.lstm(self.words(ids))[0][:, -1])


def sentences(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return ids of words and the score of each sentence: words count for or against, and word 1 negates the next one."""
    ids = random.integers(1, VOCABULARY, (count, WORDS))
    ids[random.random(ids.shape) < 0.15] = 1
    weights = np.random.default_rng(7).normal(size=VOCABULARY)
    weights[:2] = 0
    signs = np.ones(ids.shape)
    signs[:, 1:][ids[:, :-1] == 1] = -1
    return ids, np.tanh((weights[ids] * signs).sum(1) / 2)


def beside_partition() -> dict[str, Any]:
    """Explain a score of sentences by deepshap, and by shap's PartitionExplainer, against a sentence of masks."""
    import shap

    torch.manual_seed(0)
    model, random = Reader(), np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(300):
        ids, scores = sentences(256, random)
        loss = (model(torch.as_tensor(ids))[:, 0] - torch.as_tensor(scores, dtype=torch.float32)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    rows = torch.as_tensor(sentences(8, random)[0])
    explainer = deepshap.DeepExplainer(model, torch.zeros((1, WORDS), dtype=torch.long), progress=False)

    def deep(effort: float = 1) -> Values:
        return of(explainer(rows, effort=effort))

    exact, outputs = deep(ALL_COALITIONS)

    @torch.no_grad()
    def score(texts: Any) -> np.ndarray:
        ids = [[0 if word == "mask" else int(word) for word in re.findall(r"mask|\d+", text)] for text in texts]
        return model(torch.tensor(ids))[:, 0].numpy()

    texts = [" ".join(map(str, row)) for row in rows.tolist()]
    masker = shap.maskers.Text(r"\s", mask_token="mask", collapse_mask_token=False)
    partition = shap.PartitionExplainer(score, masker)

    def by_shap() -> Values:
        return np.stack(partition(texts, silent=True).values)[:, :, None], outputs

    methods = {"deepshap": deep, "deepshap, effort=16": partial(deep, 16), "shap.PartitionExplainer": by_shap}
    return {method: measured(call, exact) for method, call in methods.items()}


def main() -> None:
    """Measure, and write the figures."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    results = {name: beside_darts(name, model) for name, model in darts_models().items()}
    results["neuralforecast LSTM"] = beside_neuralforecast()
    results["words, LSTM"] = beside_partition()
    packages = {name: version(name) for name in ("darts", "neuralforecast", "shap", "captum")}
    RESULTS.write_text(
        json.dumps({"date": f"{date.today()}", "packages": packages, "results": results}, indent=1) + "\n"
    )
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
