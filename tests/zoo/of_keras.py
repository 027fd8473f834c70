"""Models of Keras on TensorFlow: texts, images and series. Each is built in float64, and what belongs to it imported then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from case import PAIRS, ROWS, Case

LENGTH = 6
TEXT = {"vocabulary_size": 30, "num_layers": 1, "hidden_dim": 16, "intermediate_dim": 20}
HEADS = {**TEXT, "num_heads": 2}
GROUPED = {**TEXT, "num_query_heads": 4, "num_key_value_heads": 2}


@dataclass
class KerasCase(Case):
    """A model of Keras; a dict goes to its inputs by name."""

    compiled = True

    def prepared(self) -> Case:
        """With weights that are not zero."""
        random = np.random.default_rng(0)
        self.outputs(self.inputs)  # makes the weights of models that have none yet
        for variable in self.model.trainable_variables:
            variable.assign(variable + 0.02 * random.normal(size=variable.shape))
        return self

    def outputs(self, inputs: Any) -> Any:
        """Run the model."""
        return self.model(inputs, training=False)

    def values(self) -> np.ndarray:
        """Outputs of all rows, (rows, outputs)."""
        return np.asarray(self.outputs(self.inputs)).reshape(ROWS, -1)

    def gradient(self) -> Callable[[], Any]:
        """Forward and backward pass, compiled by tf.function."""
        tf = import_module("tensorflow")
        rows = tf.nest.map_structure(lambda v: tf.constant(v[PAIRS]), self.inputs)
        floats = [v for v in tf.nest.flatten(rows) if v.dtype.is_floating]
        wanted = floats or [v.value for v in self.model.trainable_variables]

        @tf.function
        def gradient() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(floats)
                found = tf.reduce_sum(self.outputs(rows))
            return [g for g in tape.gradient(found, wanted) if g is not None]

        gradient()
        return gradient


def keras(given: str = "float64") -> Any:
    """Keras, whose layers compute in float64; what its inputs are otherwise."""
    found = import_module("keras")
    found.utils.set_random_seed(0)
    found.config.set_floatx(given)
    found.config.set_dtype_policy("float64")
    return found


def ids() -> np.ndarray:
    """Rows of token ids; 0 to 2 are left to padding and the like."""
    return np.random.default_rng(0).integers(3, 20, (ROWS, LENGTH)).astype(np.int32)


def reals(*shape: int) -> np.ndarray:
    """Rows of random numbers."""
    return np.random.default_rng(0).normal(size=(ROWS, *shape))


def text(name: str, *names: str, **options: Any) -> Callable[[], Case]:
    """A backbone of keras-hub over token ids, the mean of its steps, and a read-out; names of its inputs beside the ids."""

    def build() -> Case:
        K = keras()
        backbone = getattr(import_module("keras_hub").models, f"{name}Backbone")(**options)
        tokens = K.Input((LENGTH,), dtype="int32")
        given = {key: K.ops.zeros_like(tokens) if "segment" in key else K.ops.ones_like(tokens) for key in names}
        found = backbone({"token_ids": tokens, **given})
        found = found.get("sequence_output") if isinstance(found, dict) else found
        steps = K.layers.GlobalAveragePooling1D()(found)
        return KerasCase(K.Model(tokens, K.layers.Dense(2)(steps)), ids())

    return build


def between(name: str, **options: Any) -> Callable[[], Case]:
    """An encoder and a decoder of keras-hub: what is explained are the encoder's token ids."""

    def build() -> Case:
        K = keras("float32")  # T5 mixes integers where floats are double
        backbone = getattr(import_module("keras_hub").models, f"{name}Backbone")(**options)
        tokens = K.Input((LENGTH,), dtype="int32")
        ones, said = K.ops.ones_like(tokens), K.ops.ones_like(tokens) * 5
        given = {"encoder_token_ids": tokens, "encoder_padding_mask": ones}
        found = backbone({**given, "decoder_token_ids": said, "decoder_padding_mask": ones})["decoder_sequence_output"]
        return KerasCase(K.Model(tokens, K.layers.Dense(2)(found[:, -1])), ids())

    return build


def classifier() -> Case:
    """BERT's classifier as it comes, with texts of different lengths."""
    keras()
    models = import_module("keras_hub").models
    model = models.BertTextClassifier(models.BertBackbone(**HEADS), num_classes=3)
    lengths = np.array([6, 4, 6, 4, 6, 4, 6])
    within = np.arange(LENGTH) < lengths[:, None]
    tokens = np.where(within, ids(), 0).astype(np.int32)
    given = {"token_ids": tokens, "padding_mask": within.astype(np.int32), "segment_ids": np.zeros_like(tokens)}
    return KerasCase(model, given)


def image(name: str, size: int = 32, **options: Any) -> Callable[[], Case]:
    """A classifier of keras.applications."""

    def build() -> Case:
        made = getattr(keras().applications, name)
        model = made(weights=None, input_shape=(size, size, 3), classes=3, classifier_activation=None, **options)
        return KerasCase(model, reals(size, size, 3))

    return build


def vision() -> Case:
    """The transformer of keras-hub for images."""
    K = keras()
    made = import_module("keras_hub").models.ViTBackbone
    shape = 16, 16, 3
    backbone = made(image_shape=shape, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16)
    images = K.Input(shape)
    return KerasCase(K.Model(images, K.layers.Dense(2)(backbone(images)[:, 0])), reals(*shape))


def tcn(**options: Any) -> Callable[[], Case]:
    """A model of dilated convolutions."""

    def build() -> Case:
        K = keras()
        layer = import_module("tcn").TCN(nb_filters=6, dilations=(1, 2, 4), **options)
        return KerasCase(K.Sequential([K.Input((12, 3)), layer, K.layers.Dense(2)]), reals(12, 3))

    return build


def network(module: str, name: str, *shape: int, **options: Any) -> Callable[[], Case]:
    """A network of aeon or sktime for series of a shape (steps, channels), and a read-out."""

    def build() -> Case:
        K = keras()
        first, last = getattr(import_module(module), name)(**options).build_network(shape)
        return KerasCase(K.Model(first, K.layers.Dense(2)(last)), reals(*shape))

    return build


MASKED, SEGMENTED = ("padding_mask",), ("padding_mask", "segment_ids")
AEON, SKTIME = "aeon.networks", "sktime.networks"
MODELS: dict[str, dict[str, Callable[[], Case]]] = {
    "keras-hub, text": {
        "BERT": text("Bert", *SEGMENTED, **HEADS),
        "BERT, classifier": classifier,
        "DistilBERT": text("DistilBert", *MASKED, **HEADS),
        "RoBERTa": text("Roberta", *MASKED, **HEADS),
        "ALBERT": text("Albert", *SEGMENTED, **HEADS, embedding_dim=8),
        "DeBERTa": text("DebertaV3", *MASKED, **HEADS, bucket_size=4),
        "FNet": text("FNet", "segment_ids", **TEXT),
        "RoFormer": text("RoformerV2", "segment_ids", **HEADS, head_size=8),
        "GPT-2": text("GPT2", *MASKED, **HEADS),
        "OPT": text("OPT", *MASKED, **HEADS),
        "BLOOM": text("Bloom", *MASKED, **HEADS),
        "Falcon": text("Falcon", *MASKED, **TEXT, num_attention_heads=2),
        "GPT-NeoX": text("GPTNeoX", *MASKED, **HEADS),
        "Llama": text("Llama", *MASKED, **GROUPED),
        "Mistral": text("Mistral", *MASKED, **GROUPED),
        "Gemma": text("Gemma", *MASKED, **GROUPED, head_dim=4),
        "Qwen3": text("Qwen3", *MASKED, **GROUPED, head_dim=4),
        "T5": between("T5", **HEADS),
        "BART": between("Bart", **HEADS),
    },
    "keras-hub, experts": {
        "Mixtral": text("Mixtral", *MASKED, **GROUPED, num_experts=4),
        "Qwen-MoE": text(
            "QwenMoe",
            *MASKED,
            **GROUPED,
            num_experts=4,
            top_k=2,
            moe_intermediate_dim=12,
            shared_expert_intermediate_dim=12,
        ),
        "Qwen3-MoE": text(
            "Qwen3Moe", *MASKED, **GROUPED, head_dim=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_dim=12
        ),
    },
    "keras-hub, images": {"ViT": vision},
    "keras.applications": {
        "ResNet-50": image("ResNet50"),
        "MobileNetV2": image("MobileNetV2"),
        "MobileNetV3": image("MobileNetV3Small", include_preprocessing=False),
        "EfficientNetV2-B0": image("EfficientNetV2B0", include_preprocessing=False),
    },
    "keras-tcn": {
        "TCN": tcn(),
        "TCN, batch norm": tcn(use_batch_norm=True),
        "TCN, layer norm": tcn(use_layer_norm=True),
    },
    "aeon": {
        "InceptionTime": network(AEON, "InceptionNetwork", 12, 3, n_filters=4, depth=3, kernel_size=6),
        "ResNet": network(AEON, "ResNetNetwork", 12, 3, n_filters=[4, 6, 6]),
        "FCN": network(AEON, "FCNNetwork", 12, 3, n_filters=[4, 6, 4]),
        "Encoder": network(AEON, "EncoderNetwork", 12, 3, n_filters=[4, 6, 8], fc_units=6),
        "LITE": network(AEON, "LITENetwork", 12, 3, n_filters=4, kernel_size=6),
        "DisjointCNN": network(AEON, "DisjointCNNNetwork", 16, 3, n_filters=4),
        "TCN": network(AEON, "TCNNetwork", 12, 3, n_blocks=[4, 4]),
        "MLP": network(AEON, "MLPNetwork", 12, 3, n_units=8),
        "GRU": network(AEON, "RecurrentNetwork", 12, 3, rnn_type="gru", n_units=6, bidirectional=True),
    },
    "sktime": {
        "LSTM-FCN": network(SKTIME + ".lstmfcn", "LSTMFCNNetwork", 12, 3, lstm_size=4, filter_sizes=(4, 6, 4)),
        "LSTM-FCN, attention": network(
            SKTIME + ".lstmfcn", "LSTMFCNNetwork", 12, 3, lstm_size=4, filter_sizes=(4, 6, 4), attention=True
        ),
        "TapNet": network(SKTIME + ".tapnet", "TapNetNetwork", 16, 3),
        "InceptionTime": network(
            SKTIME + ".inceptiontime", "InceptionTimeNetwork", 12, 3, n_filters=4, depth=3, kernel_size=6
        ),
        "CNN": network(SKTIME + ".cnn", "CNNNetwork", 16, 3),
        "SimpleRNN": network(SKTIME + ".rnn", "RNNNetwork", 12, 3, units=6),
    },
}
