"""Models of darts: explained as darts forecasts, in the units of the data."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DATES
from darts import TimeSeries
from darts.dataprocessing import Pipeline
from darts.dataprocessing.transformers import BoxCox, Diff, InvertibleMapper, Scaler
from darts.models import (
    BlockRNNModel,
    DLinearModel,
    GlobalNaiveSeasonal,
    LinearRegressionModel,
    NBEATSModel,
    NHiTSModel,
    NLinearModel,
    RNNModel,
    TCNModel,
    TFTModel,
    TiDEModel,
    TransformerModel,
    TSMixerModel,
)
from darts.utils.likelihood_models import GaussianLikelihood, PoissonLikelihood, QuantileRegression

from deepshap.errors import InputError
from deepshap.forecasting import explain_forecast

LAGS, AHEAD = 6, 3
QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "logger": False, "enable_model_summary": False}
COMMON = {"input_chunk_length": LAGS, "output_chunk_length": AHEAD, "n_epochs": 1, "random_state": 0}
COMMON["pl_trainer_kwargs"] = {**QUIET, "enable_checkpointing": False}
MSE = {"loss_fn": torch.nn.MSELoss(), "likelihood": None}

# Class, options, and which covariates it takes: past, future, static.
MODELS = {
    "LSTM": (BlockRNNModel, {"model": "LSTM", "hidden_dim": 4}, "p"),
    "GRU": (BlockRNNModel, {"model": "GRU", "hidden_dim": 4, "n_rnn_layers": 2}, "p"),
    "RNNModel": (RNNModel, {"model": "LSTM", "hidden_dim": 4, "training_length": 9}, "f"),
    "TCN": (TCNModel, {"num_filters": 3, "kernel_size": 3}, "p"),
    "N-BEATS": (NBEATSModel, {"num_stacks": 1, "num_blocks": 1, "num_layers": 2, "layer_widths": 8}, "p"),
    "N-HiTS": (NHiTSModel, {"num_stacks": 2, "num_blocks": 1, "num_layers": 2, "layer_widths": 8}, "p"),
    "Transformer": (
        TransformerModel,
        {"d_model": 8, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 8},
        "p",
    ),
    "TFT": (TFTModel, {"hidden_size": 4, "lstm_layers": 1, "num_attention_heads": 2, **MSE}, "pfs"),
    "DLinear": (DLinearModel, {"kernel_size": 3}, "pfs"),
    "NLinear": (NLinearModel, {}, "pfs"),
    "TiDE": (TiDEModel, {"hidden_size": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}, "pfs"),
    "TSMixer": (TSMixerModel, {"hidden_size": 8, "ff_size": 8, "num_blocks": 1}, "pfs"),
}


def timeseries(values, names):
    return TimeSeries.from_times_and_values(DATES, values, columns=names)


@pytest.fixture(scope="module")
def series(waves):
    return timeseries(waves[0], ["a", "b"])


@pytest.fixture(scope="module")
def covariates(waves):
    return {
        "past_covariates": timeseries(waves[1][:, :2], ["p", "q"]),
        "future_covariates": timeseries(waves[1][:, 2:], ["f"]),
    }


def fitted(kind, options, series, **covariates):
    options = {**COMMON, **options}
    if kind is RNNModel:
        options.pop("output_chunk_length")
    model = kind(**options)
    model.fit(series, **covariates)
    return model


@pytest.mark.parametrize("horizon", [AHEAD, AHEAD + 2], ids=["direct", "feeding on itself"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_explained_is_what_darts_predicts(name, horizon, series, covariates, complete):
    kind, options, takes = MODELS[name]
    given = {key: value for key, value in covariates.items() if key[0] in takes}
    if "s" in takes:
        static = pd.DataFrame({"lat": [1.0, 2.0], "height": [3.0, 5.0]}, dtype="float32")
        series = series.with_static_covariates(static)
    model = fitted(kind, options, series, **given)
    known = series[:-10]
    explanation = explain_forecast(model, known, horizon=horizon, forecasts=2, references=20, **given)
    complete(explanation)
    own = [model.predict(horizon, one, **given, verbose=False).values().ravel() for one in (known[:-1], known)]
    np.testing.assert_allclose(explanation.outputs, own, rtol=1e-5)
    assert list(explanation.parts) == ["target", *given, *(["static_covariates"] if "s" in takes else [])]


def test_axes_have_lags_times_and_names(series, covariates):
    model = fitted(*MODELS["TiDE"][:2], series, **covariates)
    explanation = explain_forecast(model, series[:-10], forecasts=2, references=10, **covariates)
    target, future = explanation["target"], explanation["future_covariates"]
    assert target.feature_names == ["a", "b"]
    assert target.lags.tolist() == [-5, -4, -3, -2, -1, 0]
    assert future.lags.tolist() == [*range(-5, 4)]
    np.testing.assert_array_equal(target.step_labels[1].astype("M8[D]"), DATES[54:60].to_numpy().astype("M8[D]"))
    np.testing.assert_array_equal(future.step_labels[1].astype("M8[D]"), DATES[54:63].to_numpy().astype("M8[D]"))
    assert explanation.forecast_times[1].astype("M8[D]").astype(str).tolist()[::2] == [
        "2020-03-01",
        "2020-03-02",
        "2020-03-03",
    ]
    assert explanation.horizons.tolist() == [1, 1, 2, 2, 3, 3]
    assert explanation.forecast_series.tolist() == ["a", "b"] * 3
    assert explanation.row_ids.tolist() == ["2020-02-28", "2020-02-29"]
    np.testing.assert_array_equal(explanation.targets[0], [*series.values()[59], *[np.nan] * 4])
    assert np.isnan(explanation.targets[1]).all()
    np.testing.assert_array_equal(target.data[1], series.values()[54:60])
    assert explanation.forecast("b")["target"].values.shape == (2, LAGS, 2, AHEAD)


def test_steps_that_a_model_leaves_out_are_in_no_lag_and_no_horizon(series, covariates):
    model = fitted(TiDEModel, {**MODELS["TiDE"][1], "output_chunk_shift": 2}, series, **covariates)
    scaler = Scaler().fit(series)
    explanation = explain_forecast(
        model, series[:-10], data_transformers={"series": scaler}, background=series, forecasts=2, references=10,
        **{f"background_{kind}": one for kind, one in covariates.items()}, **covariates,
    )  # fmt: skip
    future, shown = explanation["future_covariates"], "M8[D]"
    assert explanation["target"].lags.tolist() == [-5, -4, -3, -2, -1, 0]
    assert future.lags.tolist() == [-5, -4, -3, -2, -1, 0, 3, 4, 5]
    assert explanation.horizons.tolist() == [3, 3, 4, 4, 5, 5]
    days = DATES.to_numpy().astype(shown)
    np.testing.assert_array_equal(future.step_labels[1].astype(shown), days[[*range(54, 60), 62, 63, 64]])
    np.testing.assert_array_equal(explanation.forecast_times[1].astype(shown), days[[62, 62, 63, 63, 64, 64]])
    np.testing.assert_array_equal(future.data[1, :, 0], covariates["future_covariates"].values()[future_days(60, 2), 0])
    own = model.predict(AHEAD, scaler.transform(series[:-10]), **covariates, verbose=False)
    np.testing.assert_allclose(explanation.outputs[1], scaler.inverse_transform(own).values().ravel(), rtol=1e-5)
    assert own.start_time() == DATES[62]
    with pytest.raises(InputError, match="leave the Diff out"):
        explain_forecast(model, series[:-10], data_transformers={"series": Diff().fit(series)}, **covariates)


def future_days(last, gap):
    return [*range(last - LAGS, last), *range(last + gap, last + gap + AHEAD)]


def test_a_seasonal_forecast_is_the_value_of_that_lag(series):
    model = GlobalNaiveSeasonal(LAGS, AHEAD, pl_trainer_kwargs=QUIET).fit(series)
    explanation = explain_forecast(model, series, background=series)
    base = explanation.base_values[0].reshape(AHEAD, 2)
    found = explanation["target"].values[0].reshape(LAGS, 2, AHEAD, 2)
    wanted = np.zeros_like(found)
    wanted[0, [0, 1], :, [0, 1]] = (series.values()[-LAGS] - base).T
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_linear_forecasters_get_weight_times_distance_in_units_of_the_data(waves):
    raw = timeseries(waves[0][:, :1], ["a"])
    scaler = Scaler()
    model = fitted(DLinearModel, {"kernel_size": 3}, scaler.fit_transform(raw))
    known = raw[:-AHEAD]
    explanation = explain_forecast(model, known, data_transformers={"series": scaler}, references=1000, background=raw)

    def predicted(values):
        changed = timeseries(values, ["a"])[:-AHEAD]
        return scaler.inverse_transform(model.predict(AHEAD, scaler.transform(changed), verbose=False)).values()[:, 0]

    before = predicted(waves[0][:, :1])
    windows = np.stack([waves[0][i : i + LAGS, 0] for i in range(len(waves[0]) - LAGS - AHEAD + 1)])
    last = len(waves[0]) - AHEAD
    for lag in range(LAGS):
        moved = waves[0][:, :1].copy()
        moved[last - LAGS + lag] += 8
        weight = (predicted(moved) - before) / 8
        distance = waves[0][last - LAGS + lag, 0] - windows[:, lag].mean()
        np.testing.assert_allclose(explanation["target"].values[0, lag, 0], weight * distance, atol=3e-4)
    np.testing.assert_allclose(explanation.outputs[0], before, rtol=1e-5)


def test_the_scale_of_a_series_is_that_of_its_forecast(waves, complete):
    both = [timeseries(waves[0][:, [k]], ["y"]) for k in (0, 1)]
    scaler = Scaler()
    model = fitted(BlockRNNModel, {"model": "LSTM", "hidden_dim": 4}, scaler.fit_transform(both))
    explanation = explain_forecast(model, both, background=both, data_transformers={"series": scaler}, references=30)
    complete(explanation)
    assert explanation.row_ids.tolist() == ["series 0", "series 1"]
    own = scaler.inverse_transform(model.predict(AHEAD, scaler.transform(both), verbose=False))
    np.testing.assert_allclose(explanation.outputs, [one.values()[:, 0] for one in own], rtol=1e-5)
    scaled = explain_forecast(model, scaler.transform(both), background=scaler.transform(both), references=30)
    spans = [np.ptp(waves[0][:, k]) for k in (0, 1)]  # which the scaler divides by
    for row, span in enumerate(spans):
        np.testing.assert_allclose(
            explanation["target"].values[row], scaled["target"].values[row] * span, atol=2e-5 * span
        )
    np.testing.assert_allclose(explanation["target"].display_data[1, :, 0], waves[0][-LAGS:, 1], rtol=1e-6)


def test_logarithms_are_part_of_what_is_explained(waves):
    """Of an exponential behind a linear forecaster each lag has its share of the exponent's difference."""
    raw = timeseries(waves[0][:, 1:], ["y"])
    logs = InvertibleMapper(np.log, lambda x: np.exp(x))
    model = fitted(NLinearModel, {}, logs.transform(raw))
    explanation = explain_forecast(
        model, raw[:-AHEAD], background=raw, data_transformers={"series": logs}, references=1000
    )

    def exponents(window):
        series = TimeSeries.from_times_and_values(DATES[: len(window)], np.log(window)[:, None], columns=["y"])
        return model.predict(AHEAD, series, verbose=False).values()[:, 0].astype(float)

    y = waves[0][:, 1]
    windows = [y[i : i + LAGS] for i in range(len(y) - LAGS - AHEAD + 1)]
    x = y[-AHEAD - LAGS : -AHEAD]
    weights = []
    for lag in range(LAGS):
        moved = x.astype(float).copy()
        moved[lag] *= np.e
        weights.append(exponents(moved.astype(np.float32)) - exponents(x))
    weights, top = np.stack(weights), exponents(x)
    expected = np.zeros((LAGS, AHEAD))
    for window in windows:
        low = exponents(window)
        slope = np.exp(top) if np.array_equal(window, x) else (np.exp(top) - np.exp(low)) / (top - low)
        expected += slope * weights * np.log(x / window)[:, None] / len(windows)
    np.testing.assert_allclose(explanation["target"].values[0, :, 0], expected, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("transform", [BoxCox(lmbda=0.3), Pipeline([InvertibleMapper(np.log1p, np.expm1), Scaler()])])
def test_other_transforms(transform, waves, complete):
    raw = timeseries(waves[0], ["a", "b"])
    model = fitted(*MODELS["LSTM"][:2], transform.fit_transform(raw))
    explanation = explain_forecast(model, raw, background=raw, data_transformers={"series": transform}, references=20)
    complete(explanation)
    own = transform.inverse_transform(model.predict(AHEAD, transform.transform(raw), verbose=False))
    np.testing.assert_allclose(explanation.outputs[0], own.values().ravel(), rtol=1e-5)


DIFFERENCES = {
    "one step": Diff(),
    "a lag beyond the horizon": Diff(7),
    "several lags, gaps kept": Diff([1, 2], dropna=False),
    "of logarithms": Pipeline([InvertibleMapper(np.log, np.exp), Diff(2)]),
    "scaled": Pipeline([Diff(), Scaler()]),
    "of scaled differences, gaps kept": Pipeline([Diff(), Scaler(), Diff(3, dropna=False)]),
    "of one series of two": Diff(columns=["b"]),
}


@pytest.mark.parametrize("stamps", [DATES, pd.RangeIndex(5, 5 + len(DATES))], ids=["dates", "numbers"])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_go_on_from_the_last_known_values(name, stamps, waves, complete):
    transform = DIFFERENCES[name]
    raw = TimeSeries.from_times_and_values(stamps, waves[0].astype(float), columns=["a", "b"])
    changed = transform.fit_transform(raw)
    trained = changed[int(np.isnan(changed.values()).any(1).sum()) :].astype(np.float32)
    model = fitted(*MODELS["LSTM"][:2], trained)
    explanation = explain_forecast(
        model, raw, background=raw, data_transformers={"series": transform}, references=20, horizon=5, forecasts=3
    )
    complete(explanation)
    for output, gone in zip(explanation.outputs, (2, 1, 0), strict=True):
        ahead = model.predict(5, trained[: len(trained) - gone], verbose=False).astype(float)
        own = transform.inverse_transform(changed[: len(changed) - gone].append(ahead)).values()[-5:]
        np.testing.assert_allclose(output, own.ravel(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(explanation["target"].display_data[-1], raw.values()[-LAGS:], rtol=1e-6)


@pytest.mark.parametrize("lag", [1, 2])
def test_what_differences_get_is_summed_over_the_horizons(lag, waves, complete):
    both = [timeseries(waves[0][:, [k]], ["y"]) for k in (0, 1)]
    diff = Diff(lag)
    changed = diff.fit_transform(both)
    model = fitted(BlockRNNModel, {"model": "LSTM", "hidden_dim": 4}, changed)
    summed = explain_forecast(model, both, background=both, data_transformers={"series": diff}, references=30)
    plain = explain_forecast(model, changed, background=changed, references=30)
    complete(summed)
    weights = np.array([[h >= g and (h - g) % lag == 0 for h in range(AHEAD)] for g in range(AHEAD)], float)
    starts = np.stack([[one.values()[-lag:, 0][h % lag] for h in range(AHEAD)] for one in both])
    np.testing.assert_allclose(summed["target"].values, plain["target"].values @ weights, atol=1e-4)
    np.testing.assert_allclose(summed.outputs, starts + plain.outputs @ weights, rtol=1e-5)
    bases = np.broadcast_to(plain["target"].base_values, plain.outputs.shape)
    np.testing.assert_allclose(summed["target"].base_values, starts + bases @ weights, rtol=1e-5)


def test_differences_that_cannot_be_summed_are_refused(series):
    diff = Diff()
    changed = diff.fit_transform(series)
    quantiles = QuantileRegression([0.1, 0.5, 0.9])
    model = fitted(BlockRNNModel, {"model": "LSTM", "hidden_dim": 4, "likelihood": quantiles}, changed)
    with pytest.raises(InputError, match="the transform Diff"):
        explain_forecast(model, series, background=series, data_transformers={"series": diff})
    model, ends = fitted(*MODELS["LSTM"][:2], changed), {"data_transformers": {"series": diff}, "background": series}
    with pytest.raises(InputError, match="begin at time"):
        explain_forecast(model, series[9:], **ends)
    gap = series.values().copy()
    gap[9, 0] = np.nan
    with pytest.raises(InputError, match="predicts nan"):
        explain_forecast(model, timeseries(gap, ["a", "b"]), **ends)


LIKELIHOODS = {
    "quantiles": (QuantileRegression([0.1, 0.5, 0.9]), ["q0.1", "q0.5", "q0.9"], [0, 0, 0]),
    "normal": (GaussianLikelihood(), ["mu", "sigma"], [0, 1]),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_quantiles_and_parameters_are_outputs(name, series, complete):
    likelihood, names, spreads = LIKELIHOODS[name]
    scaler = Scaler()
    scaled = scaler.fit_transform(series)
    model = fitted(BlockRNNModel, {"model": "LSTM", "hidden_dim": 4, "likelihood": likelihood}, scaled)
    explanation = explain_forecast(
        model, series, background=series, data_transformers={"series": scaler}, references=20
    )
    complete(explanation)
    assert explanation.forecast_parameters[: len(names)].tolist() == names
    own = model.predict(AHEAD, scaled, predict_likelihood_parameters=True, verbose=False).values()
    spans, lows = np.ptp(series.values(), 0)[:, None], series.values().min(0)[:, None]
    expected = own.reshape(AHEAD, 2, -1) * spans + lows * (1 - np.array(spreads))
    np.testing.assert_allclose(explanation.outputs[0], expected.ravel(), rtol=1e-4)


def test_what_is_drawn_at_random_is_refused(series):
    scaler = Scaler()
    scaled = scaler.fit_transform(series)
    poisson = fitted(BlockRNNModel, {"model": "LSTM", "hidden_dim": 4, "likelihood": PoissonLikelihood()}, scaled)
    with pytest.raises(InputError, match="poisson"):
        explain_forecast(poisson, series, background=series, data_transformers={"series": scaler})
    with pytest.raises(InputError, match="draws at random"):
        explain_forecast(poisson, scaled, horizon=AHEAD + 1)


def test_the_model_stays_as_it_was(series):
    model = fitted(
        *MODELS["TFT"][:2], series, future_covariates=timeseries(np.ones((len(series), 1), "float32"), ["f"])
    )
    before = model.predict(AHEAD, series[:-5], verbose=False).values()
    state = {name: value.clone() for name, value in model.model.state_dict().items()}
    explain_forecast(model, series[:-5], references=5)
    assert all(torch.equal(state[name], value) for name, value in model.model.state_dict().items())
    np.testing.assert_array_equal(model.predict(AHEAD, series[:-5], verbose=False).values(), before)


def test_what_cannot_be_explained_is_refused(series, waves):
    with pytest.raises(InputError, match="not fitted"):
        explain_forecast(BlockRNNModel(model="LSTM", **COMMON), series)
    with pytest.raises(InputError, match="none of them"):
        explain_forecast(LinearRegressionModel(lags=3).fit(series), series)
    model = fitted(*MODELS["LSTM"][:2], series)
    with pytest.raises(InputError, match="too short"):
        explain_forecast(model, series[:8], forecasts=4)
    with pytest.raises(InputError, match="no option 'static_df'"):
        explain_forecast(model, series, static_df=1)
    bent = InvertibleMapper(lambda x: x, lambda x: np.sort(x, axis=0))
    with pytest.raises(InputError, match="inverse_fn"):
        explain_forecast(model, series, data_transformers={"series": bent})
    several = fitted(*MODELS["LSTM"][:2], [series, series])
    with pytest.raises(InputError, match="background="):
        explain_forecast(several, series)


def test_dropout_that_is_left_on_is_no_forecast(series, monkeypatch):
    """What darts predicts and what is explained differ then, and that is an error."""
    model = fitted(*MODELS["LSTM"][:2], series)
    own = model.predict

    def noisy(*arguments, **options):
        return [one + 0.1 for one in own(*arguments, **options)]

    monkeypatch.setattr(model, "predict", noisy)
    with pytest.raises(InputError, match="what would be explained is not what the library forecasts"):
        explain_forecast(model, series)
