"""What every model of ``keras_models.py`` is tested for, under whichever backend Keras runs.

As a program, ``KERAS_BACKEND=torch python keras_checks.py FILE`` explains the models under that backend and writes what it
finds to a file; the tests, which run under TensorFlow, read it. Further words are names of models, which alone are explained;
with the word ``all`` every model is examined.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras_models import CASES, REFERENCES, ROWS, Case, kept_states, precision
from planning import chunks_of, with_background

import deepshap

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
FLOAT32 = (  # the operations in single precision are looked at by themselves, in cases/of_tensorflow.py
    "LSTM",
    "GRU, masked",
    "SimpleRNN, relu",
    "single step 100x10",
    "tokens, masked transformer",
    "Conv2D",
    "LayerNormalization",
)
ONE_OF_A_KIND = {  # the others are `wide`
    *("LSTM", "LSTM, bidirectional", "GRU", "GRU, states", "SimpleRNN, masked"),
    *(
        "backwards",
        "masked stack",
    ),
    *("zeros where masked", "RNN of PeepholeCell", "StackedRNNCells", "ConvLSTM2D"),
    *("encoder and decoder", "loop by hand", "stateful LSTM", "single step 10x20"),
    *("tokens, masked transformer", "masked heads", "masked mean", "MultiHeadAttention", "Attention", "attentive LSTM"),
    *("BatchNormalization", "LayerNormalization", "UnitNormalization", "Conv1D", "Conv2DTranspose", "SeparableConv2D"),
    *("residual block", "MaxPooling2D", "GlobalAveragePooling1D", "Softmax over steps", "Dot"),
    *("EinsumDense", "Lambda", "CategoryEncoding", "subclassed"),
    *("two inputs",),
}
COVERED = "activation "  # the functions themselves are cases of every engine


@dataclass
class Findings:
    """What examining a model brought to light; gaps are relative to the outputs', or the attributions', scale."""

    values: list[np.ndarray] = field(default_factory=list)  # float64 attributions, (rows, ..., outputs) per input
    gap: float = np.nan  # sums against outputs, float64
    gap32: float = 0.0  # the same in float32
    chunks: float = np.nan  # attributions in small chunks against those in one
    nothing: float = np.nan  # largest attribution where example and reference coincide
    changed: list[str] = field(default_factory=list)  # what is not as it was
    error: str = ""


def examine(case: Case) -> Findings:
    """Explain a model's rows in the widest dtype, in one chunk and in small ones, and in float32."""
    with precision(case.widest):
        model, background, X = setting(case, case.widest)
        before = snapshot(model)
        explainer = explainer_of(case, model, background)
        whole = leaves(explainer.shap_values(X))
        chunked, nothing = whole, [np.zeros(1)]
        with explainer.frozen():
            if keras.config.backend() != "torch":  # test_cases.py has looked at the chunks of that engine
                with chunks_of(1, 2):
                    chunked = leaves(explainer.shap_values(X))
            if case.kind != "real":
                same = each(X, lambda x: x[:1])
                nothing = leaves(with_background(explainer, same).shap_values(same))
        changed = [name for name, value in snapshot(model).items() if before.get(name) != value]
        found = Findings(
            values=whole,
            gap=gap(case, model, background, X, whole),
            chunks=max(map(distance, chunked, whole)),
            nothing=max(float(np.abs(v).max()) for v in nothing),
            changed=changed,
        )
    if case.name in FLOAT32:
        with precision("float32"):
            model, background, X = setting(case, "float32")
            found.gap32 = gap(case, model, background, X, leaves(explainer_of(case, model, background).shap_values(X)))
    return found


def explain(case: Case) -> Findings:
    """Explain a model's rows in the widest dtype, no more."""
    with precision(case.widest):
        model, background, X = setting(case, case.widest)
        return Findings(values=leaves(explainer_of(case, model, background).shap_values(X)))


def setting(case: Case, dtype: str) -> tuple[Any, Any, Any]:
    """Return model, background and the rows to explain."""
    return case.model(dtype), case.rows(REFERENCES, 1, dtype), case.rows(ROWS, 2, dtype)


def explainer_of(case: Case, model: Any, background: Any) -> Any:
    """Make the explainer as a user does."""
    return deepshap.DeepExplainer(model, background, output=case.output, progress=False)


def gap(case: Case, model: Any, background: Any, X: Any, values: list[np.ndarray]) -> float:
    """How far the sums miss the outputs, relative to the outputs' scale; outputs as Keras itself computes them."""
    outputs, expected = outputs_of(case, model, X), outputs_of(case, model, background).mean(0)
    rows = len(outputs)
    sums = sum(v.reshape(rows, -1, *outputs.shape[1:]).sum(1, dtype=np.float64) for v in values)
    return float(np.abs(sums - (outputs - expected)).max() / max(np.abs(outputs).max(), np.abs(expected).max()))


def outputs_of(case: Case, model: Any, rows: Any) -> np.ndarray:
    """Run the model; a stateful one row by row, since it takes one, and its state is put back after each."""
    states = kept_states(model)
    if not states:
        result = model(rows, training=False)
        return keras.ops.convert_to_numpy(result if case.output is None else result[case.output]).astype(np.float64)
    before = [keras.ops.convert_to_numpy(state) for state in states]
    found = []
    for row in range(len(leaves(rows)[0])):
        result = model(each(rows, lambda x, row=row: x[row : row + 1]), training=False)
        found.append(keras.ops.convert_to_numpy(result if case.output is None else result[case.output]))
        for state, value in zip(states, before, strict=True):
            state.assign(value)
    return np.concatenate(found).astype(np.float64)


def snapshot(model: Any) -> dict[str, Any]:
    """Everything about a model, about Keras and about its backend that an explanation must not change.

    Not among it is what every call of a model adds to: the names that Keras notes in ``_tracked``, and the gradients that
    TensorFlow registers under a new name for each call of a custom one.
    """
    state: dict[str, Any] = {
        "floatx": keras.config.floatx(),
        "policy": keras.config.dtype_policy().name,
        "symbolic": keras.config.is_traceback_filtering_enabled(),
        **_backend_state(),
    }
    for weight in [*model.weights, *kept_states(model), *_seeds(model)]:
        state[f"{weight.path}, value"] = keras.ops.convert_to_numpy(weight).tobytes()
        state[f"{weight.path}, trainable"] = weight.trainable
    for layer in model._flatten_layers():
        state |= {f"{layer.name}.{key}": _outline(value) for key, value in vars(layer).items() if key != "_tracked"}
    return state


def _seeds(model: Any) -> list[Any]:
    return [generator.state for layer in model._flatten_layers() for generator in layer._seed_generators]


def _outline(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    return [id(part) for part in value] if isinstance(value, (list, tuple)) else id(value)


def _backend_state() -> dict[str, Any]:
    if keras.config.backend() == "torch":
        import torch

        return {"random": torch.get_rng_state().numpy().tobytes(), "gradients": torch.is_grad_enabled()}
    import tensorflow as tf
    from tensorflow.python.eager import context
    from tensorflow.python.framework import ops

    registry = ops.gradient_registry._registry
    return {
        "eager": tf.executing_eagerly(),
        "functions run eagerly": tf.config.functions_run_eagerly(),
        "gradients": {name: id(entry["type"]) for name, entry in registry.items() if "CustomGradient" not in name},
        "seed": context.global_seed(),
        "random": getattr(context.context(), "_rng", None) and context.context()._rng.getstate(),
        "jit": tf.config.optimizer.get_jit(),
    }


def leaves(values: Any) -> list[Any]:
    """The arrays of a single input, or of several."""
    return list(values) if isinstance(values, (list, tuple)) else [values]


def each(rows: Any, function: Any) -> Any:
    """Apply a function to the rows of every input."""
    return [function(x) for x in rows] if isinstance(rows, list) else function(rows)


def confirm(explainer: deepshap.DeepExplainer, model: Any, x: np.ndarray, references: np.ndarray) -> None:
    """Attributions are those of a new explainer, and add up to the model as it is now."""
    explanation, expected = explainer(x), model(references).numpy().mean(0)
    np.testing.assert_allclose(explanation.values.sum((1, 2)), model(x).numpy() - expected, atol=1e-5)
    fresh = deepshap.DeepExplainer(model, references, progress=False)
    np.testing.assert_allclose(explanation.values, fresh.shap_values(x), atol=1e-6)
    np.testing.assert_allclose(explainer.expected_value, expected, atol=1e-6)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-3))


def main(file: str, *names: str) -> None:
    """Explain the models of these names, or examine all of them, and write the findings."""
    import torch
    from keras.src.backend.common import dtypes

    torch.set_num_threads(1)
    found = {}
    for case in CASES if names == ("all",) else (case for case in CASES if case.name in names):
        # Keras computes products of float64 tensors in float32 under torch; then gaps would say nothing of ours.
        with mock.patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, float64="float64"):
            try:
                found[case.name] = (examine if names == ("all",) else explain)(case)
            except Exception as error:
                found[case.name] = Findings(error=f"{type(error).__name__}: {error}")
    Path(file).write_bytes(pickle.dumps({name: vars(findings) for name, findings in found.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
