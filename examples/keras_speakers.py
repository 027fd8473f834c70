"""Who speaks, and by which moment of the recording: sequences of different lengths in Keras.

`python examples/keras_speakers.py` trains a bidirectional LSTM in Keras to tell nine speakers apart by recordings of 7 to
29 frames, padded with zeros and masked by `keras.layers.Masking`. It explains the score of the speaker that the model
names for each test recording, and draws which frame decided.

References are of other lengths than the recording. `within` cuts both to the recording's length first, so that frames
behind its end are attributed exactly nothing.

Needs the extra `deepshap[keras,plots]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops

import deepshap
from deepshap import plots
from deepshap.datasets import JapaneseVowels, Utterances, japanese_vowels

SPEAKERS = [f"speaker {number}" for number in range(1, 10)]
COEFFICIENTS = [f"coefficient {number}" for number in range(1, 13)]


def train(data: Utterances, epochs: int, seed: int) -> keras.Model:
    """Train a new classifier of recordings (N, 29, 12); it returns scores (N, 9)."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(data.signal.shape[1:]),
            layers.Masking(),
            layers.Bidirectional(layers.LSTM(16)),
            layers.Dropout(0.2),
            layers.Dense(len(SPEAKERS)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(data.signal, data.speaker, batch_size=32, epochs=epochs, verbose=0)
    return model


def within(model: keras.Model) -> Any:
    """Return the model of recordings and their lengths, which cuts off and masks what lies behind a length."""

    def scores(signal: Any, lengths: Any) -> Any:
        kept = ops.arange(signal.shape[1], dtype="int64")[None, :] < ops.cast(lengths, "int64")[:, None]
        return model(signal * ops.cast(kept, signal.dtype)[..., None])

    return scores


def explain(model: keras.Model, data: Utterances, background: Utterances) -> deepshap.Explanation:
    """Explain all scores of all recordings: values (N, 29, 12, 9)."""
    explainer = deepshap.DeepExplainer(
        within(model), background.signal, feature_names=COEFFICIENTS, output_names=SPEAKERS
    )
    explanation = explainer(data.signal, additional_forward_args=data.lengths)
    explanation.lengths = data.lengths
    explanation.step_labels = np.arange(data.signal.shape[1]) * JapaneseVowels.FRAME_SHIFT_MS
    explanation.targets = data.speaker
    return explanation


def rows_of(data: Utterances, rows: np.ndarray | slice) -> Utterances:
    """Select recordings."""
    return Utterances(data.signal[rows], data.lengths[rows], data.speaker[rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, explain, report, draw."""
    options = _options(arguments)
    data = japanese_vowels()
    model = train(data.train, options.epochs, options.seed)
    test = rows_of(data.test, slice(None, None, options.every))
    chosen = np.random.default_rng(options.seed).choice(len(data.train), options.background, replace=False)

    explanation = explain(model, test, rows_of(data.train, chosen))
    report(model, test, explanation)

    options.output.mkdir(parents=True, exist_ok=True)
    longest = int(np.argmax(test.lengths))
    named = explanation.output(SPEAKERS[int(test.speaker[longest])])
    for name, draw in {
        "recording": lambda: plots.heatmap(named[longest], time_label="ms"),
        "moments": lambda: plots.importance_over_time(named, align="relative"),
    }.items():
        figure = draw().figure
        figure.savefig(options.output / f"{name}.png", dpi=150)
        plt.close(figure)
    print(f"pictures are in {options.output}")


def report(model: keras.Model, test: Utterances, explanation: deepshap.Explanation) -> None:
    """Print how good the model is, and that the sums and the padding are right."""
    scores = model.predict(test.signal, verbose=0)
    print(f"recordings whose speaker is named right: {(scores.argmax(1) == test.speaker).mean():.1%} of {len(test)}")
    gap = np.abs(explanation.values.sum((1, 2), dtype=np.float64) + explanation.base_values - scores).max()
    print(f"largest additivity gap: {gap:.1e}")
    behind = np.arange(test.signal.shape[1]) >= test.lengths[:, None]
    print(f"largest attribution behind the end of a recording: {np.abs(explanation.values[behind]).max()}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="By which moment of a recording is a speaker known?")
    parser.add_argument("--output", type=Path, default=Path("keras-speakers-output"), help="where the pictures go")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training and of the background")
    parser.add_argument("--epochs", type=int, default=20, help="how long to train")
    parser.add_argument("--background", type=int, default=50, help="number of reference recordings")
    parser.add_argument("--every", type=int, default=1, help="explain only every so manieth recording")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
