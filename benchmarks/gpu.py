"""Time recurrent models on a GPU beside cuDNN's forward and backward pass over the same rows, for growing numbers of rows.

    python benchmarks/gpu.py [--repeats 20]

The two take turns; figures are medians, written to benchmarks/results/gpu.json with the name of the device. The processor
waits for the device before and after each call and nowhere else.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from problems import LastStep
from processes import write
from torch import Tensor, nn

import deepshap
from deepshap.engines.torch.preserve import full_float32

RESULTS = Path(__file__).parent / "results" / "gpu.json"
MODELS: dict[str, tuple[type[nn.RNNBase], int, int, int, dict[str, Any]]] = {
    "LSTM 16→64, T=50": (nn.LSTM, 16, 64, 50, {}),
    "LSTM 32→128, T=100": (nn.LSTM, 32, 128, 100, {}),
    "2-layer bidirectional LSTM 16→64, T=50": (nn.LSTM, 16, 64, 50, {"num_layers": 2, "bidirectional": True}),
    "GRU 16→64, T=50": (nn.GRU, 16, 64, 50, {}),
}
PAIRS = ((8, 100), (32, 200), (64, 500), (100, 500))
QUICK = ((2, 3),)
INDEXES = 2**31  # numbers of gates; beyond them the LSTM of cuDNN stopped with an illegal memory access in 3 of 6 runs


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device is done."""
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(name: str, examples: int, references: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Both medians, the first call, and the additivity gap."""
    layer, features, units, steps, options = MODELS[name]
    torch.manual_seed(0)
    model = LastStep(layer, features, units, **options).eval().to(device)
    x, background = (torch.randn(rows, steps, features, device=device) for rows in (examples, references))
    explainer = deepshap.DeepExplainer(model, background, progress=False)
    rows = x.repeat_interleave(references, 0).requires_grad_()
    most = INDEXES // (steps * 4 * units)

    def native() -> Tensor:
        model.train()  # cuDNN has no backward pass in eval mode
        with full_float32():
            gradients = [torch.autograd.grad(model(part).sum(), part)[0] for part in rows.split(most)]
        model.eval()
        return torch.cat(gradients)

    def ours() -> Any:
        return explainer.shap_values(x)

    first = timed(ours, device)
    timed(native, device)
    both = [(timed(native, device), timed(ours, device)) for _ in range(repeats)]
    gradient, explained = (statistics.median(times) for times in zip(*both, strict=True))
    figures = {"model": name, "examples": examples, "references": references, "first": first, "gradient": gradient}
    return figures | {"deepshap": explained, "ratio": explained / gradient, "gap": float(np.max(explainer(x).gap))}


def main() -> None:
    """Measure all models, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--device", type=torch.device, default=torch.device("cuda"), help="another than cuda, to try this"
    )
    parser.add_argument("--quick", action="store_true", help="a few pairs, to try this")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device = arguments.device
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU that torch can use; --device cpu --quick tries the program without one.")
    rows = []
    for name in MODELS:
        for examples, references in QUICK if arguments.quick else PAIRS:
            row = measure(name, examples, references, arguments.repeats, device)
            times = (
                f"{row['gradient']:9.4f} s {row['deepshap']:9.4f} s {row['ratio']:6.2f} x, first {row['first']:.1f} s"
            )
            print(f"{name:40} {examples:4} x {references:<5} {times}", flush=True)
            rows.append(row)
    described = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    write(arguments.output, {"device": described, "figures": rows})


if __name__ == "__main__":
    main()
