"""Measure deepshap beside TensorFlow's own forward pass and input gradient, and what first calls take.

In one process, by processor time of one thread, so that other programs change little. A first call is that of the first
explainer of a new model; the second one is the first call of another explainer of that model. Operations are those of
TensorFlow in the model's graph and in the bodies of its loops.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import Input, Model, layers, utils

import deepshap

RESULTS = Path(__file__).parent / "results" / "gradients_keras.json"
EXAMPLES, REFERENCES = 8, 100


def encoder(blocks: int) -> Callable[[Any], Any]:
    """Blocks of self-attention and two dense layers, and the mean of the steps."""

    def build(x: Any) -> Any:
        for _ in range(blocks):
            x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 16)(x, x))
            x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(64, activation="relu")(x)))
        return layers.GlobalAveragePooling1D()(x)

    return build


def convolutions(x: Any) -> Any:
    """Three causal convolutions, and the last step."""
    for dilation in (1, 2, 4):
        x = layers.Conv1D(32, 3, padding="causal", dilation_rate=dilation, activation="relu")(x)
    return x[:, -1]


def perceptron(x: Any) -> Any:
    """Two dense layers over all steps."""
    return layers.Dense(128, activation="relu")(layers.Dense(128, activation="relu")(layers.Flatten()(x)))


SEQUENCE = 50, 16
MODELS: dict[str, Callable[[Any], Any]] = {
    "LSTM 16→64, T=50": lambda x: layers.LSTM(64)(x),
    "GRU 16→64, T=50": lambda x: layers.GRU(64)(x),
    "bidirectional LSTM 16→64, T=50": lambda x: layers.Bidirectional(layers.LSTM(64))(x),
    "GRU 16→64 and attention, T=50": lambda x: layers.GlobalAveragePooling1D()(
        layers.Attention()([states := layers.GRU(64, return_sequences=True)(x), states])
    ),
    "1-D convolutions 16→32, T=50": convolutions,
    "transformer encoder, 1 block, T=50": encoder(1),
    "transformer encoder, 4 blocks, T=50": encoder(4),
    "dense 800→128→128": perceptron,
    "masked LSTM 16→64, T≤50": lambda x: layers.LSTM(64)(layers.Masking()(x)),
    "masked bidirectional LSTM 16→64, T≤50": lambda x: layers.Bidirectional(layers.LSTM(64))(layers.Masking()(x)),
}


def seconds(call: Callable[[], Any]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def operations(model: Any) -> int:
    """How many operations the model's graph has, those in loops included."""
    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec([None, *SEQUENCE]))
    graph = traced.graph.as_graph_def()
    return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)


def measured(name: str, rounds: int) -> dict[str, Any]:
    """The figures of one model."""
    utils.set_random_seed(0)
    given = Input(SEQUENCE)
    model = Model(given, layers.Dense(1)(MODELS[name](given)))
    drawn = np.random.default_rng(0).normal(size=(EXAMPLES + REFERENCES, *SEQUENCE)).astype(np.float32)
    if "masked" in name:
        lengths = np.random.default_rng(1).integers(25, 51, len(drawn))
        drawn[np.arange(SEQUENCE[0]) >= lengths[:, None]] = 0
    x, references = drawn[:EXAMPLES], drawn[EXAMPLES:]
    rows = tf.constant(np.repeat(x, REFERENCES, 0))

    @tf.function
    def gradient() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            output = tf.reduce_sum(model(rows, training=False))
        return tape.gradient(output, rows)

    first, second = (deepshap.DeepExplainer(model, references, progress=False) for _ in range(2))
    figures: dict[str, Any] = {"model": name, "operations": operations(model)}
    figures |= {"first": seconds(lambda: first(x)), "second": seconds(lambda: second(x))}
    for _ in range(12):  # until XLA and kernels are compiled
        first(x)
        gradient()
    figures["gradient"] = statistics.median(seconds(lambda: gradient().numpy()) for _ in range(rounds))
    figures["default"] = statistics.median(seconds(lambda: first(x)) for _ in range(rounds))
    with first.frozen():
        first(x)
        figures["frozen"] = statistics.median(seconds(lambda: first(x)) for _ in range(rounds))
    return figures


def main() -> None:
    """Measure all models, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="models, by a regular expression; results are not kept")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    found = []
    print("| 8 x 100 pairs | operations | first call | of another explainer | gradient | default | frozen |")
    for name in MODELS:
        if re.search(options.only, name):
            found.append(row := measured(name, options.rounds))
            ratios = (f"{row[form] / row['gradient']:.2f}" for form in ("default", "frozen"))
            times = (f"{row[form]:.2f} s" for form in ("first", "second"))
            print(
                "|",
                " | ".join([name, str(row["operations"]), *times, f"{row['gradient']:.3f} s", *ratios]),
                "|",
                flush=True,
            )
    if not options.only:
        known = {package: version(package) for package in ("tensorflow", "keras", "deepshap")}
        text = json.dumps(
            {"machine": {"date": date.today().isoformat(), **known}, "figures": found}, indent=1, ensure_ascii=False
        )
        RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
