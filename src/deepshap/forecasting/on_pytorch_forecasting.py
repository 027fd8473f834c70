"""Fitted models of pytorch-forecasting: windows and normalizers as its data sets keep them, its network as the function."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_forecasting import DeepAR, TimeSeriesDataSet
from pytorch_forecasting.data import EncoderNormalizer
from pytorch_forecasting.metrics import (
    DistributionLoss,
    MultiLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    QuantileLoss,
)
from pytorch_forecasting.models.base import BaseModel
from torch import Tensor, nn

from ..errors import InputError
from ..memory import evenly
from .units import without_inference
from .windows import ForecastRequest, Input, Outputs, Windows, ids_of

SCALE = "target_scale"  # the input that tells centre and scale of a window, where these come from the window itself
TRAINER: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def forecaster(model: Any, series: Any, request: ForecastRequest) -> PyTorchForecaster:
    """Return the adapter of a model.

    Raises
    ------
    InputError
        If it is of the new kind, with a data module, or has several targets.
    """
    if not isinstance(model, BaseModel):
        raise InputError(
            f"explain_forecast takes models of pytorch-forecasting that read a TimeSeriesDataSet, not {type(model).__name__}."
        )
    if isinstance(model.loss, MultiLoss):
        raise InputError("models of several targets are not supported: explain one model for each of them.")
    return PyTorchForecaster(model, series, request)


class PyTorchForecaster:
    """See ``windows.Forecaster``."""

    def __init__(self, model: Any, series: Any, request: ForecastRequest) -> None:
        request.read_options("pytorch_forecasting")
        self.model, self.request, self.name = model, request, type(model).__name__
        self.training = self._background()
        self.data = self._data(self.training if series is None else series, request.forecasts == 1)
        self.horizon = 1 if isinstance(model, DeepAR) else self.data.max_prediction_length
        self.outputs = Outputs(self.horizon, list(self.data.target_names), _parameters(model))
        normalizer = self.data.target_normalizer
        self.own_scale = isinstance(normalizer, EncoderNormalizer)
        normal = isinstance(model.loss, NormalDistributionLoss)
        if normal and getattr(normalizer, "transformation", None) is not None:
            raise InputError(
                "mean and spread of a normal distribution have no form behind a transformation of the target."
            )

    # ------------------------------------------------------------------ the interface
    def windows(self) -> Windows:
        """Return the windows to explain."""
        chosen = self._chosen()
        extra = {"n_samples": None} if isinstance(self.model, DeepAR) else {}
        raw = self.model.predict(chosen, mode="raw", return_x=True, trainer_kwargs=dict(TRAINER), **extra)
        index, x = chosen.decoded_index, {k: v.cpu() if isinstance(v, Tensor) else v for k, v in raw.x.items()}
        first = index["time_idx_first"].to_numpy()
        length = self.data.max_encoder_length + self.data.max_prediction_length
        times = first[:, None] + np.arange(length)
        inputs = {kind: self._input(kind, x, times) for kind in self.kinds}
        predicted = _parameter_forecasts(self.model, raw.output.prediction, x["target_scale"])[:, : self.horizon]
        names = index[list(self.data.group_ids)].astype(str).agg(" ".join, axis=1).to_numpy()
        start = self.data.max_encoder_length
        ids = ids_of(names, times[:, start - 1], len(set(names)) > 1, self.request.forecasts > 1)
        actual = x["decoder_target"][:, : self.horizon, None].expand(predicted.shape)
        return Windows(
            inputs,
            ids,
            times[:, start : start + self.horizon],
            predicted.reshape(len(predicted), -1).double().numpy(),
            actual.reshape(len(predicted), -1).double().numpy(),
            () if self.own_scale else (x["target_scale"].numpy(),),
        )

    def references(self, most: int) -> Mapping[str, np.ndarray]:
        """Return windows of the training data."""
        full = self._full(self.training)
        x = _batch(self._subset(self.training, full[evenly(len(full), most)]))
        return {kind: self._values(kind, x) for kind in self.kinds}

    @cached_property
    def function(self) -> nn.Module:
        """The explained function."""
        return _Function(self)

    # ------------------------------------------------------------------ data sets
    def _background(self) -> Any:
        dataset = self.request.background
        if dataset is None:
            loader = getattr(getattr(self.model, "_trainer", None), "train_dataloader", None)
            dataset = getattr(loader, "dataset", None)
        if dataset is None:
            raise InputError(
                "the model no longer knows what it was trained on: give background=, the TimeSeriesDataSet."
            )
        return self._data(dataset, False)

    def _data(self, source: Any, last: bool) -> Any:
        """Return a data set whose windows are not of random lengths."""
        if isinstance(source, pd.DataFrame):
            parameters = self.model.dataset_parameters
            return TimeSeriesDataSet.from_parameters(parameters, source, predict=last, stop_randomization=True)
        if not isinstance(source, TimeSeriesDataSet):
            raise InputError(f"series must be a TimeSeriesDataSet or a DataFrame, not a {type(source).__name__}.")
        calm = copy.copy(source)
        calm.randomize_length = None
        return calm

    def _full(self, data: Any) -> np.ndarray:
        """Return the numbers of the windows of full length."""
        index = data.index
        length = data.max_encoder_length + data.max_prediction_length
        full = np.flatnonzero(index["sequence_length"].to_numpy() == length)
        if not len(full):
            raise InputError(f"no series has {length} steps, which {self.name} reads and forecasts.")
        return full

    def _chosen(self) -> Any:
        """Return the last windows of each series."""
        full = self._full(self.data)
        index = self.data.decoded_index.iloc[full].assign(place=full)
        rows: list[int] = []
        for name, part in index.sort_values("time_idx_last").groupby(list(self.data.group_ids)):
            ends = self.request.ends(len(part) - 1)
            if ends[0] < 0:
                raise InputError(f"series {' '.join(map(str, name))} has {len(part)} windows, fewer than are asked.")
            rows += part["place"].to_numpy()[ends].tolist()
        return self._subset(self.data, np.asarray(rows))

    @staticmethod
    def _subset(data: Any, rows: np.ndarray) -> Any:
        selection = copy.copy(data)
        selection.index = data.index.iloc[rows]
        return selection

    # ------------------------------------------------------------------ inputs
    @cached_property
    def variables(self) -> dict[str, list[str]]:
        """Names of variables by the kinds of inputs; ``*_categories`` are whole numbers."""
        data = self.data
        reals, flat, targets = data.reals, data.flat_categoricals, data.target_names
        static, known_reals = set(data._static_reals), set(data._time_varying_known_reals)
        static_categoricals = set(data._static_categoricals)
        known_categoricals = set(data._time_varying_known_categoricals)
        groups = data._variable_groups
        static_categoricals |= {name for group in static_categoricals & set(groups) for name in groups[group]}
        known_categoricals |= {name for group in known_categoricals & set(groups) for name in groups[group]}
        names_by_kind = {
            "target": [n for n in reals if n in targets],
            "past_covariates": [n for n in reals if n not in static | known_reals | set(targets)],
            "future_covariates": [n for n in reals if n in known_reals],
            "static_covariates": [n for n in reals if n in static],
            "past_categories": [n for n in flat if n not in static_categoricals | known_categoricals],
            "future_categories": [n for n in flat if n in known_categoricals],
            "static_categories": [n for n in flat if n in static_categoricals],
        }
        return {kind: names for kind, names in names_by_kind.items() if names}

    @property
    def kinds(self) -> list[str]:
        """The kinds of inputs that the model has."""
        return [*self.variables, *([SCALE] if self.own_scale else [])]

    def _values(self, kind: str, x: Mapping[str, Tensor]) -> np.ndarray:
        """Return one kind of input of all rows, as the model reads it."""
        if kind == SCALE:
            return x[SCALE].numpy()
        side, names = ("cat", self.data.flat_categoricals) if kind.endswith("categories") else ("cont", self.data.reals)
        places = [names.index(name) for name in self.variables[kind]]
        encoded = x[f"encoder_{side}"][..., places]
        if kind.startswith("static"):
            return encoded[:, 0].numpy()
        parts = [encoded, x[f"decoder_{side}"][..., places]] if kind.startswith("future") else [encoded]
        return torch.cat(parts, 1).numpy()

    def _input(self, kind: str, x: Mapping[str, Tensor], times: np.ndarray) -> Input:
        values = self._values(kind, x)
        if kind == SCALE:
            return Input(values, values, ["center", "scale"])
        names = self.variables[kind]
        shown = x["encoder_target"].numpy()[..., None] if kind == "target" else self._shown(kind, values)
        if values.ndim == 2:
            return Input(values, shown, names)
        return Input(
            values, shown, names, times[:, : values.shape[1]], max(0, values.shape[1] - self.data.max_encoder_length)
        )

    def _shown(self, kind: str, values: np.ndarray) -> np.ndarray:
        """Return values before scaling; words for the numbers of categories."""
        columns = []
        for i, name in enumerate(self.variables[kind]):
            column = values[..., i]
            if kind.endswith("categories"):
                columns.append(
                    self.data.transform_values(name, column.reshape(-1), inverse=True).reshape(column.shape).astype(str)
                )
            else:
                scaler = self.data.scalers.get(name)
                inverse = getattr(scaler, "inverse_transform", None) if hasattr(scaler, "mean_") else None
                columns.append(
                    column if inverse is None else np.asarray(inverse(column.reshape(-1, 1))).reshape(column.shape)
                )
        return np.stack(columns, -1)


class _Function(nn.Module):
    """The network, with its inputs put together as the library does."""

    def __init__(self, adapter: PyTorchForecaster) -> None:
        super().__init__()
        data, self.horizon = adapter.data, adapter.horizon
        self.model, self.variables = without_inference(adapter.model), adapter.variables
        self.names = {"cont": list(data.reals), "cat": list(data.flat_categoricals)}
        self.encoder_length, self.decoder_length = data.max_encoder_length, data.max_prediction_length

    def forward(self, *scale: Tensor, **inputs: Tensor) -> Tensor:
        """Forecast (rows, outputs)."""
        target_scale = scale[0] if scale else inputs[SCALE]
        x: dict[str, Any] = {SCALE: target_scale}
        rows = len(target_scale)
        for side in ("cont", "cat"):
            table = self._all_steps(side, inputs, rows)
            x |= {
                f"encoder_{side}": table[:, : self.encoder_length],
                f"decoder_{side}": table[:, self.encoder_length :],
            }
        x["encoder_lengths"] = torch.full((rows,), self.encoder_length)
        x["decoder_lengths"] = torch.full((rows,), self.decoder_length)
        forecast = _parameter_forecasts(self.model, self.model(x).prediction, target_scale)
        return forecast[:, : self.horizon].flatten(1)

    def _all_steps(self, side: str, inputs: Mapping[str, Tensor], rows: int) -> Tensor:
        """Return all variables of a side over all steps, in the order of the library."""
        columns: dict[str, Tensor] = {}
        for kind, names in self.variables.items():
            if kind.endswith("categories") == (side == "cat"):
                for i, name in enumerate(names):
                    columns[name] = self._column(inputs[kind][..., i], rows)
        if not columns:
            return torch.zeros(
                rows, self.encoder_length + self.decoder_length, 0, dtype=torch.long if side == "cat" else torch.float32
            )
        return torch.stack([columns[name] for name in self.names[side]], -1)

    def _column(self, values: Tensor, rows: int) -> Tensor:
        """Return a variable over all steps; 0 where it is not known beforehand."""
        length = self.encoder_length + self.decoder_length
        if values.dim() == 1:
            return values[:, None].expand(rows, length)
        return torch.cat([values, values.new_zeros(rows, length - values.shape[1])], 1)


# ---------------------------------------------------------------------- helpers
def _batch(data: Any) -> Mapping[str, Tensor]:
    """Return all windows of a data set, as its loader makes them."""
    x, _ = data._collate_fn([data[i] for i in range(len(data))])
    return x


def _parameters(model: Any) -> tuple[str, ...]:
    """Return the names of what is forecast for each step.

    Raises
    ------
    InputError
        If the loss is a distribution whose parameters are not known here.
    """
    loss = model.loss
    if isinstance(loss, QuantileLoss):
        return tuple(f"q{quantile:g}" for quantile in loss.quantiles)
    if isinstance(loss, NormalDistributionLoss):
        return ("mu", "sigma")
    if isinstance(loss, NegativeBinomialDistributionLoss):
        return ("mean", "shape")
    if isinstance(loss, DistributionLoss):
        raise InputError(f"parameters of {type(loss).__name__} have no form in the units of the data.")
    return ("forecast",)


def _parameter_forecasts(model: Any, prediction: Tensor, scale: Tensor) -> Tensor:
    """Return a network's forecasts of each step, (rows, steps, parameters), in the units of the data."""
    if isinstance(model.loss, NormalDistributionLoss):  # its location and scale are told beside those of the target
        return (
            prediction[..., 2:] * scale[:, None, 1:]
            + torch.stack([scale[:, 0], torch.zeros_like(scale[:, 0])], -1)[:, None]
        )
    return prediction if prediction.dim() == 3 else prediction[..., None]
