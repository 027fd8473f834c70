"""Time deepshap beside its alternatives on recurrent models, and measure how far each misses the model's output.

    python benchmarks/recurrent.py [--repeats 5] [--output benchmarks/results/recurrent.json]

All methods explain the same 8 examples against the same 100 references. They take turns, so that a machine whose speed
drifts treats them alike; the figures are medians, and the ratio is to torch's own forward pass and input gradient over
the same 800 rows. The gap is |sum of attributions - (output - mean reference output)| over |output - mean reference
output|, the worst of the examples; methods that sample have one by construction.
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
from pathlib import Path
from typing import Any

import numpy as np
import shap
import torch
from torch import Tensor, nn

import deepshap

EXAMPLES, REFERENCES = 8, 100


class LastStep(nn.Module):
    """A recurrent network and a linear read-out of its last step."""

    def __init__(self, layer: type[nn.RNNBase], features: int, units: int, **options: Any) -> None:
        super().__init__()
        self.recurrent = layer(features, units, batch_first=True, **options)
        self.read_out = nn.Linear(units * (2 if options.get("bidirectional") else 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.recurrent(x)[0][:, -1])


MODELS = {
    "LSTM 16→64, T=50": (nn.LSTM, 16, 64, 50, {}),
    "LSTM 32→128, T=100": (nn.LSTM, 32, 128, 100, {}),
    "LSTM 8→32, T=500": (nn.LSTM, 8, 32, 500, {}),
    "2-layer bidirectional LSTM 16→64, T=50": (nn.LSTM, 16, 64, 50, {"num_layers": 2, "bidirectional": True}),
    "GRU 16→64, T=50": (nn.GRU, 16, 64, 50, {}),
}


def methods(model: nn.Module, x: Tensor, background: Tensor) -> dict[str, Callable[[], np.ndarray | None]]:
    """Everything that is timed; each returns attributions (examples, steps, features), or None."""
    ours = deepshap.DeepExplainer(model, background, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deep = shap.DeepExplainer(model, background)
        gradient = shap.GradientExplainer(model, background)

    def native() -> None:
        rows = x.repeat_interleave(REFERENCES, 0).requires_grad_()
        torch.autograd.grad(model(rows).sum(), rows)

    return {
        "forward + gradient": native,
        "deepshap": lambda: ours.shap_values(x)[..., 0],
        "shap.DeepExplainer": lambda: np.asarray(deep.shap_values(x, check_additivity=False))[..., 0],
        "shap.GradientExplainer": lambda: np.asarray(gradient.shap_values(x, nsamples=200))[..., 0],
    }


def measure(name: str, repeats: int) -> list[dict[str, Any]]:
    """One row per method."""
    layer, features, units, steps, options = MODELS[name]
    torch.manual_seed(0)
    model = LastStep(layer, features, units, **options).eval()
    x, background = torch.randn(EXAMPLES, steps, features), torch.randn(REFERENCES, steps, features)
    with torch.no_grad():
        wanted = (model(x) - model(background).mean(0))[:, 0].numpy()
    times: dict[str, list[float]] = {}
    gaps: dict[str, float | None] = {}
    candidates = methods(model, x, background)
    for turn in range(repeats + 1):
        for method, run in candidates.items():
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = run()
            if turn:  # the first warms up
                times.setdefault(method, []).append(time.perf_counter() - start)
            gaps[method] = (
                None if values is None else float(np.max(np.abs(values.sum((1, 2)) - wanted) / np.abs(wanted)))
            )
    base = statistics.median(times["forward + gradient"])
    return [
        {
            "model": name,
            "method": m,
            "seconds": statistics.median(t),
            "ratio": statistics.median(t) / base,
            "gap": gaps[m],
        }
        for m, t in times.items()
    ]


def machine() -> dict[str, Any]:
    """Where and with what the figures were made."""
    return {
        "date": date.today().isoformat(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (torch, shap, deepshap)},
    }


def main() -> None:
    """Measure all models, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/recurrent.json"))
    arguments = parser.parse_args()
    rows = []
    for name in MODELS:
        for row in measure(name, arguments.repeats):
            rows.append(row)
            gap = "" if row["gap"] is None else f"{row['gap']:.1e}"
            print(
                f"{row['model']:40} {row['method']:24} {row['seconds']:8.3f} s  {row['ratio']:6.2f}  {gap:>8}",
                flush=True,
            )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(
        json.dumps({"machine": machine(), "figures": rows}, indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main()
