"""Models of pytorch-forecasting: explained as it forecasts, in the units of the data."""

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import pytest
from conftest import DAYS
from pytorch_forecasting import (
    DecoderMLP,
    DeepAR,
    NBeats,
    NHiTS,
    RecurrentNetwork,
    TemporalFusionTransformer,
    TimeSeriesDataSet,
)
from pytorch_forecasting.data import EncoderNormalizer, GroupNormalizer
from pytorch_forecasting.metrics import (
    BetaDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    QuantileLoss,
)

from deepshap.errors import InputError
from deepshap.forecasting import explain_forecast

LAGS, AHEAD = 6, 3
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
PLAIN = {"time_varying_unknown_reals": ["y"]}
FULL = {
    "time_varying_unknown_reals": ["y"],
    "time_varying_known_reals": ["t", "f"],
    "static_reals": ["height"],
    "static_categoricals": ["shop"],
    "time_varying_known_categoricals": ["day"],
    "add_relative_time_idx": True,
    "add_target_scales": True,
    "add_encoder_length": True,
}
BY_GROUP = GroupNormalizer(groups=["shop"])
TFT = {"hidden_size": 4, "attention_head_size": 1, "hidden_continuous_size": 4}


def models():
    """Models, anew for each test: losses keep what they were trained on."""
    return {
        "TFT": (
            TemporalFusionTransformer, {**TFT, "loss": QuantileLoss([0.1, 0.5, 0.9])}, BY_GROUP,
            {**FULL, "time_varying_unknown_reals": ["y", "p"]},
        ),
        "TFT, softplus": (
            TemporalFusionTransformer, {**TFT, "loss": QuantileLoss([0.5])},
            GroupNormalizer(groups=["shop"], transformation="softplus"), PLAIN,
        ),
        "TFT, scale of windows": (TemporalFusionTransformer, {**TFT, "loss": QuantileLoss([0.5])}, EncoderNormalizer(), FULL),
        "LSTM": (RecurrentNetwork, {"cell_type": "LSTM", "hidden_size": 4, "rnn_layers": 1}, BY_GROUP, FULL),
        "GRU": (RecurrentNetwork, {"cell_type": "GRU", "hidden_size": 4, "rnn_layers": 2}, EncoderNormalizer(), PLAIN),
        "N-HiTS": (NHiTS, {"hidden_size": 8}, BY_GROUP, {**FULL, "add_relative_time_idx": False}),
        "N-BEATS": (NBeats, {"widths": [8, 8]}, BY_GROUP, PLAIN),
    }  # fmt: skip


@pytest.fixture(scope="module")
def table(waves):
    values, more = waves
    parts = [
        pd.DataFrame(
            {
                "shop": name,
                "t": np.arange(DAYS),
                "y": values[:, k],
                "p": more[:, 0],
                "f": more[:, 1],
                "height": float(k),
            }
        )
        for k, name in enumerate("AB")
    ]
    found = pd.concat(parts, ignore_index=True)
    return found.assign(day=np.where(found["t"] % 7 < 5, "work", "free"), count=(1 + found["t"] % 9).astype(float))


def fitted(kind, options, normalizer, variables, table, target="y"):
    training = TimeSeriesDataSet(
        table[table["t"] < 60], time_idx="t", target=target, group_ids=["shop"], max_encoder_length=LAGS,
        min_encoder_length=LAGS, max_prediction_length=AHEAD, min_prediction_length=AHEAD, target_normalizer=normalizer,
        **variables,
    )  # fmt: skip
    model = kind.from_dataset(training, **options)
    trainer = lightning.Trainer(max_epochs=1, limit_train_batches=1, enable_model_summary=False, **QUIET)
    trainer.fit(model, training.to_dataloader(train=True, batch_size=16, num_workers=0))
    return model, training


def raw(model, training, table, rows=None):
    """What the library forecasts of the last window of each series."""
    last = TimeSeriesDataSet.from_dataset(training, table, predict=True, stop_randomization=True)
    extra = {"n_samples": None} if isinstance(model, DeepAR) else {}
    found = model.predict(last, mode="raw", return_x=True, trainer_kwargs=dict(QUIET), **extra)
    return found.output.prediction.double().numpy(), found.x


@pytest.mark.parametrize("name", models())
def test_what_is_explained_is_what_the_library_predicts(name, table, complete):
    kind, options, normalizer, variables = models()[name]
    model, training = fitted(kind, options, normalizer, variables, table)
    explanation = explain_forecast(model, table, references=20)
    complete(explanation)
    own, _ = raw(model, training, table)
    np.testing.assert_allclose(explanation.outputs, own.reshape(2, -1), rtol=2e-5)
    assert explanation.row_ids.tolist() == ["A", "B"]
    again = explain_forecast(model, table, background=training, references=20)  # now it no longer knows it by itself
    np.testing.assert_array_equal(again["target"].values, explanation["target"].values)


def test_axes_have_lags_times_and_names(table):
    model, _ = fitted(*models()["TFT"], table)
    explanation = explain_forecast(model, table, forecasts=2, references=5)
    future, target = explanation["future_covariates"], explanation["target"]
    assert set(future.feature_names) == {"t", "f", "relative_time_idx"}
    assert (target.lags.tolist(), future.lags.tolist()) == ([-5, -4, -3, -2, -1, 0], [*range(-5, 4)])
    assert target.step_labels[1].tolist() == [*range(61, 67)]
    assert explanation.forecast_times[1, ::3].tolist() == [67, 68, 69]
    assert explanation.row_ids.tolist() == ["A 65", "A 66", "B 65", "B 66"]
    assert explanation.forecast_parameters[:3].tolist() == ["q0.1", "q0.5", "q0.9"]
    of_b = table[table["shop"] == "B"]
    np.testing.assert_allclose(target.display_data[3, :, 0], of_b["y"].to_numpy()[61:67], rtol=1e-6)
    f = future.feature_names.index("f")
    np.testing.assert_allclose(future.display_data[3, :, f], of_b["f"].to_numpy()[61:70], atol=1e-6)
    assert explanation["future_categories"].display_data[3, :, 0].tolist() == of_b["day"].tolist()[61:70]
    assert explanation["static_categories"].display_data.ravel().tolist() == ["A", "A", "B", "B"]
    np.testing.assert_allclose(explanation.targets[3, ::3], of_b["y"].to_numpy()[67:], rtol=1e-6)


def test_linear_forecasters_get_weight_times_distance(table):
    options = {"hidden_size": 4, "n_hidden_layers": 1, "activation_class": "Identity", "norm": False, "dropout": 0.0}
    variables = {"time_varying_unknown_reals": ["y"], "time_varying_known_reals": ["f"]}
    model, training = fitted(DecoderMLP, {**options, "loss": QuantileLoss([0.5])}, BY_GROUP, variables, table)
    explanation = explain_forecast(model, table, references=10_000)
    before, _ = raw(model, training, table)
    early = [one["f"].to_numpy() for _, one in table[table["t"] < 60].groupby("shop")]
    windows = [f[i : i + LAGS + AHEAD] for f in early for i in range(52)]
    means = np.mean(windows, 0)
    last = table["t"] == DAYS - 1
    after, _ = raw(model, training, table.assign(f=table["f"] + 2.0 * last))
    weights = (after - before)[..., 0] / 2
    for row, name in enumerate("AB"):
        value = table[last & (table["shop"] == name)]["f"].item()
        found = explanation["future_covariates"].values[row, -1, 0]
        np.testing.assert_allclose(found, weights[row] * (value - means[-1]), rtol=1e-3, atol=1e-4)
        assert np.abs(found[-1]) > 1e-3


def test_parameters_of_likelihoods_are_outputs(table, complete):
    normal = {"hidden_size": 4, "rnn_layers": 1, "loss": NormalDistributionLoss()}
    model, training = fitted(DeepAR, normal, BY_GROUP, FULL, table)
    explanation = explain_forecast(model, table, references=20)
    complete(explanation)
    assert (explanation.horizons.tolist(), explanation.forecast_parameters.tolist()) == ([1, 1], ["mu", "sigma"])
    own, x = raw(model, training, table)  # the scale of the target, and a distribution at that scale
    center, scale = x["target_scale"].numpy().T
    np.testing.assert_allclose(explanation.outputs[:, 0], own[:, 0, 2] * scale + center, rtol=2e-5)
    np.testing.assert_allclose(explanation.outputs[:, 1], own[:, 0, 3] * scale, rtol=2e-5)
    counts = GroupNormalizer(groups=["shop"], center=False, transformation="softplus")
    options, variables = (
        {**normal, "loss": NegativeBinomialDistributionLoss()},
        {"time_varying_unknown_reals": ["count"]},
    )
    model, training = fitted(DeepAR, options, counts, variables, table, target="count")
    explanation = explain_forecast(model, table, references=20)
    complete(explanation)
    assert explanation.forecast_parameters.tolist() == ["mean", "shape"]
    np.testing.assert_allclose(explanation.outputs, raw(model, training, table)[0][:, 0], rtol=2e-5)


def test_what_cannot_be_explained_is_refused(table):
    model, training = fitted(*models()["N-BEATS"], table)
    with pytest.raises(InputError, match="a TimeSeriesDataSet or a DataFrame"):
        explain_forecast(model, table.to_numpy())
    raw(model, training, table)  # lightning attaches another trainer
    with pytest.raises(InputError, match="background="):
        explain_forecast(model, table)
    with pytest.raises(InputError, match="no option 'futr_df'"):
        explain_forecast(model, table, background=training, futr_df=table)
    shares = table.assign(y=table["y"] / 300)
    beta = {"hidden_size": 4, "rnn_layers": 1, "loss": BetaDistributionLoss()}
    logit = GroupNormalizer(groups=["shop"], transformation="logit")
    model, _ = fitted(DeepAR, beta, logit, PLAIN, shares.assign(y=shares["y"].clip(0.01, 0.99)))
    with pytest.raises(InputError, match="BetaDistributionLoss"):
        explain_forecast(model, shares)
