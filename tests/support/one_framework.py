"""A user's program with one framework, for places where the other is not installed: ``python one_framework.py keras``.

Explains a recurrent model, by shap's door too, and draws pictures where matplotlib is installed. Exits with an error if
anything fails, or if a package named behind the framework was imported.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import shap

import deepshap


def keras_model(x: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return a Keras model and its outputs."""
    import keras

    model = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(8), keras.layers.Dense(2)])
    return model, model.predict(x, verbose=0)


def torch_model(x: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return a PyTorch model and its outputs."""
    import torch
    from torch import nn

    class Forecast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    model = Forecast()
    return model, model(torch.as_tensor(x)).detach().numpy()


def main(framework: str, *absent: str) -> None:
    """Explain, compare, draw."""
    random = np.random.default_rng(0)
    background, x = (random.normal(size=(rows, 6, 3)).astype(np.float32) for rows in (5, 4))
    model, outputs = (keras_model if framework == "keras" else torch_model)(x)

    names = {"feature_names": list("abc"), "output_names": ["no", "yes"]}
    explainer = deepshap.DeepExplainer(model, background, progress=False, **names)
    explanation = explainer(x)
    assert explanation.values.shape == (4, 6, 3, 2)
    assert np.abs(explanation.values.sum((1, 2)) + explanation.base_values - outputs).max() < 1e-5
    assert explainer.shap_values(x, ranked_outputs=1)[1].shape == (4, 1)

    with deepshap.patch_shap():
        patched = shap.DeepExplainer(model, background)
        assert isinstance(patched, deepshap.DeepExplainer)
        assert np.abs(patched.shap_values(x) - explanation.values).max() < 1e-6
        ranked, indexes = patched.shap_values(x, ranked_outputs=1)
        assert ranked.shape == (4, 6, 3, 1)
        assert tuple(indexes.shape) == (4, 1)

    if find_spec("matplotlib"):
        draw(explanation.output("yes"))
    imported = set(absent) & set(sys.modules)
    assert not imported, f"imported without need: {imported}"
    print("done")


def draw(explanation: deepshap.Explanation) -> None:
    """Draw a picture of ours and one of shap's."""
    import matplotlib

    matplotlib.use("Agg")
    from deepshap import plots

    plots.heatmap(explanation[0])
    plots.importance_over_time(explanation)
    shap.plots.beeswarm(explanation.over_time(), show=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
