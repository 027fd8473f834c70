"""Time deepshap beside its alternatives on recurrent Keras models, and measure how far each misses the model's output.

    python benchmarks/recurrent_keras.py [--repeats 3] [--output benchmarks/results/keras.json]

All methods explain the same 8 examples against the same 100 references. They take turns, so that a machine whose speed
drifts treats them alike; the figures are medians, and the ratio is to TensorFlow's own forward pass and input gradient
(compiled by tf.function) over the same 800 rows. The first call, in which deepshap and tf.function trace the model, is
timed apart. The gap is |sum of attributions - (output - mean reference output)| over |output - mean reference output|, the
worst of the examples; methods that sample have one by construction.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import shap
import tensorflow as tf
from keras import Input, Sequential, layers, utils

import deepshap

EXAMPLES, REFERENCES = 8, 100

# Layers, features, steps.
MODELS: dict[str, tuple[Callable[[], list[Any]], int, int]] = {
    "LSTM 16→64, T=50": (lambda: [layers.LSTM(64)], 16, 50),
    "LSTM 32→128, T=100": (lambda: [layers.LSTM(128)], 32, 100),
    "LSTM 8→32, T=500": (lambda: [layers.LSTM(32)], 8, 500),
    "2-layer bidirectional LSTM 16→64, T=50": (
        lambda: [layers.Bidirectional(layers.LSTM(64, return_sequences=True)), layers.Bidirectional(layers.LSTM(64))],
        16,
        50,
    ),
    "GRU 16→64, T=50": (lambda: [layers.GRU(64)], 16, 50),
    "masked LSTM 16→64, T=50": (lambda: [layers.Masking(), layers.LSTM(64)], 16, 50),
}


def methods(model: Any, x: np.ndarray, background: np.ndarray) -> dict[str, Callable[[], np.ndarray | None]]:
    """Everything that is timed; each returns attributions (examples, steps, features), or None."""
    ours = deepshap.DeepExplainer(model, background, progress=False)
    gradient = shap.GradientExplainer(model, background)
    rows = tf.constant(np.repeat(x, REFERENCES, 0))

    @tf.function
    def native(rows: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            output = tf.reduce_sum(model(rows, training=False))
        return tape.gradient(output, rows)

    def forward_and_gradient() -> None:
        native(rows).numpy()

    return {
        "forward + gradient": forward_and_gradient,
        "deepshap": lambda: ours.shap_values(x)[..., 0],
        "shap.GradientExplainer": lambda: np.asarray(gradient.shap_values(x, nsamples=200))[..., 0],
    }


def measure(name: str, repeats: int) -> list[dict[str, Any]]:
    """One row per method."""
    build, features, steps = MODELS[name]
    utils.set_random_seed(0)
    model = Sequential([Input((steps, features)), *build(), layers.Dense(1)])
    random = np.random.default_rng(0)
    x, background = (random.normal(size=(rows, steps, features)).astype(np.float32) for rows in (EXAMPLES, REFERENCES))
    wanted = (model.predict(x, verbose=0) - model.predict(background, verbose=0).mean(0))[:, 0]
    times: dict[str, list[float]] = {}
    gaps: dict[str, float | None] = {}
    candidates = methods(model, x, background)
    for _ in range(repeats + 1):
        for method, run in candidates.items():
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = run()
            times.setdefault(method, []).append(time.perf_counter() - start)
            gaps[method] = (
                None if values is None else float(np.max(np.abs(values.sum((1, 2)) - wanted) / np.abs(wanted)))
            )
    base = statistics.median(times["forward + gradient"][1:])
    return [
        {
            "model": name,
            "method": method,
            "seconds": statistics.median(later),
            "ratio": statistics.median(later) / base,
            "first": first,
            "gap": gaps[method],
        }
        for method, (first, *later) in times.items()
    ]


def machine() -> dict[str, Any]:
    """Where and with what the figures were made."""
    return {
        "date": date.today().isoformat(),
        "processor": platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "python": platform.python_version(),
        **{package: version(package) for package in ("tensorflow", "keras", "shap", "deepshap")},
    }


def main() -> None:
    """Measure all models, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/keras.json"))
    arguments = parser.parse_args()
    rows = []
    for name in MODELS:
        print(name)
        for row in measure(name, arguments.repeats):
            rows.append(row)
            gap = "" if row["gap"] is None else f"{row['gap']:10.1e}"
            print(f"  {row['method']:24}{row['seconds']:9.3f} s{row['ratio']:7.2f} x{row['first']:9.2f} s first{gap}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figures = {"machine": machine(), "figures": rows}
    arguments.output.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
