"""Models of neuralforecast: explained as it forecasts, in the units of the data."""

import numpy as np
import pandas as pd
import pytest
from conftest import DATES
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import GMM, DistributionLoss, MQLoss
from neuralforecast.models import (
    GRU,
    LSTM,
    NHITS,
    TCN,
    TFT,
    DeepAR,
    DilatedRNN,
    DLinear,
    Informer,
    PatchTST,
    TiDE,
    TSMixer,
)

from deepshap.errors import InputError, UnsupportedOperationError
from deepshap.forecasting import explain_forecast

LAGS, AHEAD = 6, 3
COMMON = {"h": AHEAD, "input_size": LAGS, "max_steps": 2, "enable_progress_bar": False, "logger": False}
COMMON |= {
    "scaler_type": "standard",
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_model_summary": False,
}
SMALL = {"encoder_hidden_size": 4, "decoder_hidden_size": 4}
COVARIATES = {"hist_exog_list": ["p"], "futr_exog_list": ["f"], "stat_exog_list": ["height"]}
STATIC = pd.DataFrame({"unique_id": ["A", "B"], "height": [0.0, 1.0]})

MODELS = {
    "LSTM": (LSTM, SMALL),
    "LSTM that feeds on itself": (LSTM, {**SMALL, "recurrent": True}),
    "GRU": (GRU, {**SMALL, "scaler_type": "standard"}),
    "GRU that feeds on itself": (GRU, {**SMALL, "recurrent": True, "scaler_type": "identity"}),
    "DilatedRNN": (DilatedRNN, SMALL),
    "TCN": (TCN, SMALL),
    "TFT": (TFT, {"hidden_size": 4, "n_head": 2}),
    "NHITS": (NHITS, {"mlp_units": 3 * [[8, 8]]}),
    "TiDE": (TiDE, {"hidden_size": 8, "decoder_output_dim": 4, "temporal_decoder_dim": 8}),
}


@pytest.fixture(scope="module")
def table(waves):
    values, more = waves
    parts = [
        pd.DataFrame({"unique_id": name, "ds": DATES, "y": values[:, k], "p": more[:, k], "f": more[:, 2]})
        for k, name in enumerate("AB")
    ]
    return pd.concat(parts, ignore_index=True).astype({"y": float, "p": float, "f": float})


def fitted(kind, options, table, static=None, **library):
    found = NeuralForecast([kind(**{**COMMON, **options})], freq="D", **library)
    found.fit(table, static_df=static)
    return found


def known(table, end):
    return table[table["ds"] < DATES[end]]


def coming(table, end):
    return table[(table["ds"] >= DATES[end]) & (table["ds"] < DATES[end] + pd.Timedelta(days=AHEAD))].drop(
        columns=["y", "p"]
    )


@pytest.mark.parametrize("name", MODELS)
def test_what_is_explained_is_what_the_library_predicts(name, table, complete):
    kind, options = MODELS[name]
    lists = {key: value for key, value in COVARIATES.items() if getattr(kind, f"EXOGENOUS_{key[:4].upper()}")}
    library = fitted(kind, {**options, **lists}, table, STATIC)
    explanation = explain_forecast(
        library, known(table, 60), forecasts=2, references=20, futr_df=coming(table, 60), static_df=STATIC
    )
    complete(explanation)
    model = repr(library.models[0])
    own = [library.predict(known(table, end), STATIC, coming(table, end))[model].to_numpy() for end in (59, 60)]
    own = np.stack([one.reshape(2, AHEAD) for one in own], 1).reshape(4, AHEAD)
    np.testing.assert_allclose(explanation.outputs, own, rtol=2e-5)
    assert explanation.row_ids.tolist() == [f"{name} 2020-02-{day}" for name in "AB" for day in (28, 29)]
    assert set(explanation.parts) == {"target", "past_covariates", "future_covariates", "static_covariates"}


def test_axes_have_lags_times_and_names(table):
    lists = {**COVARIATES, "scaler_type": "identity"}
    explanation = explain_forecast(
        fitted(LSTM, {**SMALL, **lists}, table, STATIC), known(table, 60), references=5, futr_df=coming(table, 60),
        static_df=STATIC,
    )  # fmt: skip
    target, future = explanation["target"], explanation["future_covariates"]
    assert (target.feature_names, future.feature_names) == (["y"], ["f"])
    assert (target.lags.tolist(), future.lags.tolist()) == ([-5, -4, -3, -2, -1, 0], [*range(-5, 4)])
    assert future.step_labels[0].astype("M8[D]").tolist() == DATES[54:63].to_numpy().astype("M8[D]").tolist()
    assert explanation.forecast_times[1].astype("M8[D]").tolist() == DATES[60:63].to_numpy().astype("M8[D]").tolist()
    of_b = table[table["unique_id"] == "B"]
    np.testing.assert_allclose(target.data[1, :, 0], of_b["y"].to_numpy()[54:60], rtol=1e-6)
    np.testing.assert_allclose(future.data[1, :, 0], of_b["f"].to_numpy()[54:63], rtol=1e-6)
    assert explanation["static_covariates"].data.tolist() == [[0.0], [1.0]]


def test_linear_forecasters_get_weight_times_distance(table):
    one = known(table, 60)[["unique_id", "ds", "y"]].query("unique_id == 'A'").reset_index(drop=True)
    library = fitted(DLinear, {"moving_avg_window": 3, "scaler_type": "identity"}, one)
    explanation = explain_forecast(library, one, references=1000)
    before = library.predict(one)["DLinear"].to_numpy()
    y = one["y"].to_numpy()
    windows = np.stack([y[i : i + LAGS] for i in range(len(y) - LAGS - AHEAD + 1)])
    for lag in range(LAGS):
        moved = one.copy()
        moved.loc[len(y) - LAGS + lag, "y"] += 8
        weight = (library.predict(moved)["DLinear"].to_numpy() - before) / 8
        expected = weight * (y[len(y) - LAGS + lag] - windows[:, lag].mean())
        np.testing.assert_allclose(explanation["target"].values[0, lag, 0], expected, atol=1e-4)


@pytest.mark.parametrize("scaling", ["standard", "robust", "minmax"])
def test_scalers_of_series_are_undone(scaling, table, complete):
    y = table[["unique_id", "ds", "y"]]
    library = fitted(NHITS, MODELS["NHITS"][1], y, local_scaler_type=scaling)
    given = explain_forecast(library, known(y, 60), references=20)
    complete(given)
    own = library.predict(known(y, 60))["NHITS"].to_numpy().reshape(2, AHEAD)
    np.testing.assert_allclose(given.outputs, own, rtol=2e-5)
    np.testing.assert_allclose(given["target"].display_data[1, :, 0], y["y"].to_numpy()[-10 - LAGS : -10], rtol=1e-5)
    stored = explain_forecast(library, references=20)
    complete(stored)
    np.testing.assert_allclose(stored.outputs, library.predict()["NHITS"].to_numpy().reshape(2, AHEAD), rtol=2e-5)
    assert stored.row_ids.tolist() == ["A", "B"]


@pytest.mark.parametrize("scaling", ["robust", "invariant", "standard", "minmax"])
def test_scalers_of_windows_are_part_of_the_model(scaling, table, complete):
    y = table[["unique_id", "ds", "y"]]
    library = fitted(LSTM, {**SMALL, "scaler_type": scaling}, y)
    given = explain_forecast(library, known(y, 60), references=20)
    complete(given)
    own = library.predict(known(y, 60))["LSTM"].to_numpy().reshape(2, AHEAD)
    np.testing.assert_allclose(given.outputs, own, rtol=2e-5)


def test_quantiles_and_parameters_are_outputs(table, complete):
    y = table[["unique_id", "ds", "y"]]
    quantiles = fitted(LSTM, {**SMALL, "loss": MQLoss(quantiles=[0.1, 0.5, 0.9])}, y)
    found = explain_forecast(quantiles, known(y, 60), references=20)
    complete(found)
    assert found.forecast_parameters[:3].tolist() == ["q0.1", "q0.5", "q0.9"]
    own = quantiles.predict(known(y, 60)).drop(columns=["unique_id", "ds"]).to_numpy().reshape(2, -1)
    np.testing.assert_allclose(found.outputs, own, rtol=2e-5)
    for kind, options in ((LSTM, SMALL), (LSTM, {**SMALL, "recurrent": True}), (DeepAR, {"lstm_hidden_size": 4})):
        loss = DistributionLoss("Normal", return_params=True)
        drawn = fitted(kind, {**options, "loss": loss}, y)
        found = explain_forecast(drawn, known(y, 60), references=20)
        complete(found)
        assert found.forecast_parameters[:2].tolist() == ["loc", "scale"]
        own = drawn.predict(known(y, 60)).filter(regex="loc$|scale$").to_numpy()
        np.testing.assert_allclose(found.outputs, own.reshape(2, -1), rtol=2e-5)


def test_the_library_stays_as_it_was(table):
    y = table[["unique_id", "ds", "y"]]
    library = fitted(TFT, {"hidden_size": 4, "n_head": 2, "loss": DistributionLoss("Normal")}, y)
    library.models[0].loss.return_params = False
    names = list(library.models[0].loss.output_names)
    explain_forecast(library, known(y, 60), references=5)
    model = library.models[0]
    assert (model.loss.return_params, model.loss.output_names) == (False, names)
    assert "_create_windows" not in vars(model)
    assert "sample" not in vars(model.loss)


def test_one_of_several_models_is_chosen(table):
    y = table[["unique_id", "ds", "y"]]
    library = NeuralForecast(
        [NHITS(**COMMON, mlp_units=3 * [[8, 8]]), PatchTST(**COMMON, hidden_size=8, n_heads=2)], freq="D"
    )
    library.fit(y)
    with pytest.raises(InputError, match="say which, alias='NHITS'"):
        explain_forecast(library, y)
    found = explain_forecast(library, y, alias="NHITS", references=5)
    assert found.model == "NHITS"
    np.testing.assert_allclose(found.outputs.ravel(), library.predict(y)["NHITS"], rtol=2e-5)


def test_what_cannot_be_explained_is_refused(table):
    y = table[["unique_id", "ds", "y"]]
    with pytest.raises(InputError, match="not fitted"):
        explain_forecast(NeuralForecast([NHITS(**COMMON)], freq="D"), y)
    library = fitted(NHITS, MODELS["NHITS"][1], y)
    with pytest.raises(InputError, match="fewer than the 6 steps"):
        explain_forecast(library, known(y, 4))
    with pytest.raises(InputError, match="holds a model"):
        explain_forecast(library.models[0], y)
    with pytest.raises(InputError, match=r"pandas\.DataFrame"):
        explain_forecast(library, y["y"].to_numpy())
    with pytest.raises(InputError, match="multivariate"):
        explain_forecast(fitted(TSMixer, {"n_series": 2}, y), y)
    with pytest.raises(InputError, match="mixtures"):
        explain_forecast(fitted(NHITS, {**MODELS["NHITS"][1], "loss": GMM()}, y), y)
    with pytest.raises(InputError, match="no affine scaling"):
        explain_forecast(fitted(NHITS, MODELS["NHITS"][1], y, local_scaler_type="boxcox"), y)
    with pytest.raises(UnsupportedOperationError, match="randint"):  # which it calls when it forecasts
        explain_forecast(fitted(Informer, {"hidden_size": 8, "n_head": 2, "conv_hidden_size": 8}, y), y)
