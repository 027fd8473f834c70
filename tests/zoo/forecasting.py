"""Networks of forecasting libraries and of tsai, without the code that trains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from case import Case, normal
from torch import nn


class Given(nn.Module):
    """Calls a network with what a function makes of the series."""

    def __init__(self, network: nn.Module, made: Callable[..., Any], taken: Callable[[Any], Any] = lambda y: y) -> None:
        super().__init__()
        self.network, self.made, self.taken = network, made, taken

    def forward(self, *series: Any) -> Any:
        return self.taken(self.network(*self.made(*series)))


DARTS: dict[str, Any] = {"input_chunk_length": 12, "output_chunk_length": 2, "nr_params": 1}


def darts(module: str, kind: str, **options: Any) -> Callable[[], Case]:
    """A module of darts, fed a series of three parts."""

    def build() -> Case:
        found = import_module(f"darts.models.forecasting.{module}")
        forecasting = import_module("darts.models.forecasting.pl_forecasting_module")
        shape = {"past_target": (12, 3), "past_covariates": None, "future_target": (2, 3)}
        network = getattr(found, kind)(train_sample_shape=shape, **{**DARTS, **options})
        fed = Given(network, lambda x: (forecasting.PLModuleInput(past_target=x),), lambda y: y.prediction)
        return Case(fed, normal(12, 3))

    return build


def neuralforecast(name: str, single: bool = False, **options: Any) -> Callable[[], Case]:
    """A model of neuralforecast, fed windows of one series."""

    def build() -> Case:
        model = getattr(import_module("neuralforecast.models"), name)(h=2, input_size=12, **options)

        def windows(x: Any) -> Any:
            mask = torch.ones_like(x)
            return ({"insample_y": x, "insample_mask": mask, "futr_exog": None, "hist_exog": None, "stat_exog": None},)

        return Case(Given(model, windows), normal(12, 1), single=single)

    return build


def several_series(name: str, **options: Any) -> Callable[[], Case]:
    """As ``neuralforecast``, of three series at once."""
    return lambda: replace(neuralforecast(name, n_series=3, **options)(), inputs=normal(12, 3))


class DeepAR(nn.Module):
    """DeepAR of GluonTS: two parameters of its distribution at each step."""

    def __init__(self) -> None:
        super().__init__()
        module = import_module("gluonts.torch.model.deepar.module")
        self.network = module.DeepARModel("D", 8, 2, hidden_size=6, num_layers=1, lags_seq=[1, 2])

    def forward(self, x: Any) -> Any:
        times = torch.zeros_like(x).unsqueeze(-1)
        category, real = torch.zeros(len(x), 1, dtype=torch.long), torch.zeros_like(x[:, :1])
        found = self.network.unroll_lagged_rnn(category, real, times, x, torch.ones_like(x), times[:, :1])
        return torch.stack(found[0][:2], -1)


def gluonts(module: str, name: str, observed: bool, **options: Any) -> Callable[[], Case]:
    """A network of GluonTS: the location of its forecast."""

    def build() -> Case:
        network = getattr(import_module(f"gluonts.torch.model.{module}.module"), name)(prediction_length=2, **options)
        made = (lambda x: (x, torch.ones_like(x))) if observed else (lambda x: (x,))
        return Case(Given(network, made, lambda y: y[0][1]), normal(12))

    return build


def tft() -> Case:
    """The temporal fusion transformer of pytorch-forecasting."""
    from pytorch_forecasting import TemporalFusionTransformer
    from pytorch_forecasting.data.encoders import TorchNormalizer
    from pytorch_forecasting.metrics import QuantileLoss

    model = TemporalFusionTransformer(
        loss=QuantileLoss([0.5]),
        hidden_size=8,
        attention_head_size=2,
        hidden_continuous_size=4,
        max_encoder_length=8,
        x_reals=["a", "b"],
        time_varying_reals_encoder=["a", "b"],
        time_varying_reals_decoder=["a"],
        static_reals=[],
        output_size=1,
        dropout=0.0,
        output_transformer=TorchNormalizer(method="identity"),
    )

    def batch(past: Any, future: Any) -> Any:
        lengths = {"encoder_lengths": torch.full((len(past),), 8), "decoder_lengths": torch.full((len(past),), 2)}
        scale = torch.tensor([[0.0, 1.0]], dtype=past.dtype).expand(len(past), -1)
        empty = {
            f"{side}_cat": torch.zeros(len(past), n, 0, dtype=torch.long)
            for side, n in (("encoder", 8), ("decoder", 2))
        }
        return ({"encoder_cont": past, "decoder_cont": future, "target_scale": scale, **lengths, **empty},)

    return Case(Given(model, batch, lambda y: y["prediction"]), (normal(8, 2), normal(2, 2)), single=True)


def chronos_bolt() -> Case:
    """A pretrained family's network, with random weights."""
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    config = T5Config(
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        vocab_size=2,
        is_encoder_decoder=True,
        decoder_start_token_id=0,
        pad_token_id=0,
        feed_forward_proj="relu",
    )
    config.chronos_config = {
        "context_length": 16,
        "prediction_length": 2,
        "input_patch_size": 4,
        "input_patch_stride": 4,
        "quantiles": [0.1, 0.5, 0.9],
        "use_reg_token": True,
    }
    config.reg_token_id = 1
    return Case(Given(ChronosBoltModelForForecasting(config), lambda x: (x,), lambda y: y.quantile_preds), normal(16))


def tsai(module: str, name: str, *shape: Any, **options: Any) -> Callable[[], Case]:
    """A classifier of series of three variables and twenty steps."""
    return lambda: Case(getattr(import_module(f"tsai.models.{module}"), name)(*shape, **options), normal(3, 20))


RNN = {"input_size": 3, "hidden_dim": 6, "num_layers": 1, "target_size": 3}
BLOCKS = {
    "dropout": 0.0,
    "num_blocks": 1,
    "num_layers": 2,
    "batch_norm": False,
    "activation": "ReLU",
    "input_dim": 3,
    "output_dim": 3,
}
LINEAR = {"future_cov_dim": 0, "static_cov_dim": 0, "input_dim": 3, "output_dim": 3}
UNITS = {"encoder_hidden_size": 8, "decoder_hidden_size": 8}

MODELS = {
    "darts": {
        "RNNModel, LSTM": darts("rnn_model", "_RNNModule", name="LSTM", dropout=0.0, **RNN),
        "BlockRNN, GRU": darts("block_rnn_model", "_BlockRNNModule", name="GRU", dropout=0.0, future_cov_dim=0, **RNN),
        "TCN": darts(
            "tcn_model",
            "_TCNModule",
            input_size=3,
            kernel_size=3,
            num_filters=4,
            num_layers=None,
            dilation_base=2,
            weight_norm=True,
            dropout=0.0,
            target_size=3,
            target_length=2,
        ),
        "N-BEATS": darts(
            "nbeats",
            "_NBEATSModule",
            generic_architecture=True,
            num_stacks=2,
            layer_widths=[8, 8],
            expansion_coefficient_dim=3,
            trend_polynomial_degree=2,
            **BLOCKS,
        ),
        "N-HiTS": darts(
            "nhits",
            "_NHiTSModule",
            num_stacks=2,
            layer_widths=[8, 8],
            pooling_kernel_sizes=((2,), (2,)),
            n_freq_downsample=((2,), (1,)),
            MaxPool1d=True,
            **BLOCKS,
        ),
        "DLinear": darts("dlinear", "_DLinearModule", shared_weights=False, kernel_size=5, const_init=False, **LINEAR),
        "TiDE": darts(
            "tide_model",
            "_TideModule",
            num_encoder_layers=1,
            num_decoder_layers=1,
            decoder_output_dim=4,
            hidden_size=8,
            temporal_decoder_hidden=4,
            temporal_width_past=0,
            temporal_width_future=0,
            use_layer_norm=True,
            dropout=0.0,
            **LINEAR,
        ),
        "Transformer": darts(
            "transformer_model",
            "_TransformerModule",
            input_size=3,
            output_size=3,
            d_model=8,
            nhead=2,
            num_encoder_layers=1,
            num_decoder_layers=1,
            dim_feedforward=8,
            activation="relu",
            dropout=0.0,
        ),
        "TSMixer": darts(
            "tsmixer_model",
            "_TSMixerModule",
            past_cov_dim=0,
            hidden_size=8,
            ff_size=8,
            num_blocks=1,
            activation="ReLU",
            norm_type="LayerNorm",
            dropout=0.0,
            normalize_before=False,
            **LINEAR,
        ),
    },
    "neuralforecast": {
        "LSTM": neuralforecast("LSTM", **UNITS),
        "GRU": neuralforecast("GRU", **UNITS),
        "RNN, recurrent": neuralforecast("RNN", recurrent=True, **UNITS),
        "DilatedRNN": neuralforecast("DilatedRNN", **UNITS),
        "TCN": neuralforecast("TCN", **UNITS),
        "TFT": neuralforecast("TFT", single=True, hidden_size=8, n_head=2),
        "N-HiTS": neuralforecast("NHITS", mlp_units=3 * [[8, 8]]),
        "N-BEATS": neuralforecast("NBEATS", mlp_units=3 * [[8, 8]]),
        "PatchTST": neuralforecast(
            "PatchTST", hidden_size=8, n_heads=2, linear_hidden_size=8, encoder_layers=1, patch_len=4, stride=2
        ),
        "TiDE": neuralforecast("TiDE", hidden_size=8, decoder_output_dim=4, temporal_decoder_dim=4),
        "BiTCN": neuralforecast("BiTCN", hidden_size=8),
        "Autoformer": neuralforecast("Autoformer", hidden_size=8, n_head=2, conv_hidden_size=8),
        "Informer": neuralforecast("Informer", hidden_size=8, n_head=2, conv_hidden_size=8),
        "FEDformer": neuralforecast("FEDformer", single=True, hidden_size=8, n_head=8, conv_hidden_size=8, modes=3),
        "TimesNet": neuralforecast(
            "TimesNet", hidden_size=8, conv_hidden_size=8, top_k=2, num_kernels=2, encoder_layers=1
        ),
        "KAN": neuralforecast("KAN", hidden_size=8),
        "xLSTM": neuralforecast("xLSTM", encoder_hidden_size=8, decoder_hidden_size=8, encoder_n_blocks=1),
        "iTransformer": several_series("iTransformer", hidden_size=8, n_heads=2, d_ff=8, e_layers=1),
        "TSMixer": several_series("TSMixer", ff_dim=8, n_block=1),
        "SOFTS": several_series("SOFTS", hidden_size=8, d_core=8, d_ff=8, e_layers=1),
    },
    "pytorch-forecasting": {"TFT": tft},
    "gluonts": {
        "DeepAR": lambda: Case(DeepAR(), normal(10)),
        "SimpleFeedForward": gluonts(
            "simple_feedforward", "SimpleFeedForwardModel", False, context_length=12, hidden_dimensions=[8]
        ),
        "PatchTST": gluonts(
            "patch_tst",
            "PatchTSTModel",
            True,
            context_length=12,
            patch_len=4,
            stride=2,
            padding_patch="end",
            d_model=8,
            nhead=2,
            dim_feedforward=8,
            num_feat_dynamic_real=0,
            dropout=0.0,
            activation="relu",
            norm_first=False,
            num_encoder_layers=1,
            scaling="std",
        ),
        "LagTST": gluonts(
            "lag_tst",
            "LagTSTModel",
            True,
            context_length=10,
            freq="D",
            d_model=8,
            nhead=2,
            dim_feedforward=8,
            dropout=0.0,
            activation="relu",
            norm_first=False,
            num_encoder_layers=1,
            scaling="mean",
            lags_seq=[1, 2],
        ),
    },
    "chronos-forecasting": {"Chronos-Bolt": chronos_bolt},
    "tsai": {
        "LSTM": tsai("RNN", "LSTM", 3, 2),
        "GRU": tsai("RNN", "GRU", 3, 2, bidirectional=True),
        "LSTM-FCN": tsai("RNN_FCN", "LSTM_FCN", 3, 2, 20),
        "InceptionTime": tsai("InceptionTime", "InceptionTime", 3, 2, nf=4),
        "ResNet": tsai("ResNet", "ResNet", 3, 2),
        "TCN": tsai("TCN", "TCN", 3, 2, layers=[4, 4]),
        "TST": tsai("TST", "TST", 3, 2, 20, d_model=8, n_heads=2, d_ff=8, n_layers=1),
        "XceptionTime": tsai("XceptionTime", "XceptionTime", 3, 2, nf=4),
        "OmniScaleCNN": tsai("OmniScaleCNN", "OmniScaleCNN", 3, 2, 20, layers=[16, 32]),
        "gMLP": tsai("gMLP", "gMLP", 3, 2, 20, patch_size=1, d_model=8, d_ffn=8, depth=1),
        "mWDN": tsai("mWDN", "mWDN", 3, 2, 20, levels=2),
    },
}
