"""Do standard errors hold what they promise? True values within two of them, and their size over that of real errors.

`python benchmarks/calibration.py` trains small recurrent networks, finds their Shapley values by all coalitions of steps, and
prints a table: for each network and effort the distance to the Shapley values, the share of true values within two standard
errors, and the mean standard error over the mean real error. `--picture FILE` draws the distances against the effort.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import deepshap

STEPS, FEATURES, ROWS, REFERENCES = 8, 2, 6, 50
EFFORTS = (1, 2, 4, 8, 16)


class Network(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent, self.head = kind(FEATURES, 12, batch_first=True), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


TASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x[:, :, 0].sum(1),
    "where the other feature is positive": lambda x: (x[:, :, 0] * (x[:, :, 1] > 0)).sum(1),
    "first times last": lambda x: 2 * x[:, 0, 0] * x[:, -1, 0] + x[:, 3, 1],
    "largest": lambda x: x[:, :, 0].max(1).values,
}


def trained(task: Callable[[Tensor], Tensor], kind: type[nn.RNNBase], steps: int, seed: int = 0) -> nn.Module:
    """A network that has learnt a task for so many steps of Adam, in float64."""
    torch.manual_seed(seed)
    model = Network(kind)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        x = torch.randn(64, STEPS, FEATURES)
        loss = (model(x)[:, 0] - task(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.double().eval()


class Line(NamedTuple):
    """What was found for one network and effort, over all seeds."""

    name: str
    effort: float
    distance: float
    inside: float
    size: float


def measure(name: str, model: nn.Module, efforts: Sequence[float], seeds: int) -> Iterator[Line]:
    """Compare values and standard errors of each effort with the Shapley values of steps."""
    drawn = torch.randn(REFERENCES + ROWS, STEPS, FEATURES, generator=torch.Generator().manual_seed(1)).double()
    explainer = deepshap.DeepExplainer(model, drawn[:REFERENCES], progress=False)
    X = drawn[REFERENCES:]
    with explainer.frozen():
        true = explainer(X, players="steps", effort=2.0**STEPS).values
        for effort in efforts:
            found = [
                explainer(X, players="steps", effort=effort, seed=seed) for seed in range(seeds if effort > 1 else 1)
            ]
            away = np.stack([f.values - true for f in found])
            distance = float(np.sqrt((away**2).mean() / (true**2).mean()))
            if found[0].standard_errors is None:
                yield Line(name, effort, distance, np.nan, np.nan)
                continue
            errors = np.stack([f.standard_errors for f in found])
            inside = float((np.abs(away) <= 2 * errors + 1e-12).mean())
            yield Line(name, effort, distance, inside, float(errors.mean() / max(np.abs(away).mean(), 1e-15)))


def run(quick: bool) -> list[Line]:
    """All networks."""
    lines: list[Line] = []
    for kind in (nn.LSTM,) if quick else (nn.LSTM, nn.GRU):
        for task in list(TASKS)[1:2] if quick else TASKS:
            model = trained(TASKS[task], kind, 60 if quick else 300)
            lines += measure(f"{kind.__name__}, {task}", model, EFFORTS[:3] if quick else EFFORTS, 3 if quick else 5)
    return lines


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw the distance to the Shapley values against the effort, a line for each network."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    for name in dict.fromkeys(line.name for line in lines):
        mine = [line for line in lines if line.name == name]
        ax.plot(
            [line.effort for line in mine], [100 * line.distance for line in mine], marker="o", ms=4, lw=1.4, label=name
        )
    ax.set(xscale="log", yscale="log", xlabel="effort (1 is Deep SHAP)", ylabel="distance to the Shapley values, %")
    ax.set_xticks(EFFORTS, [str(e) for e in EFFORTS])
    ax.minorticks_off()
    ax.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=125)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> list[Line]:
    parser = argparse.ArgumentParser(description="Calibration of standard errors.")
    parser.add_argument("--quick", action="store_true", help="train and explain little, for a test")
    parser.add_argument("--picture", type=Path, help="draw distances here (docs/images/dial.png)")
    options: Any = parser.parse_args(arguments)
    lines = run(options.quick)
    print(
        "| network, task | effort | distance | within two errors | mean error told / real |\n| --- | --- | --- | --- | --- |"
    )
    for line in lines:
        told = "| | |" if np.isnan(line.inside) else f"| {line.inside:.0%} | {line.size:.2f} |"
        print(f"| {line.name} | {line.effort:g} | {line.distance:.3f} {told}")
    known = [line for line in lines if not np.isnan(line.inside)]
    print(
        f"\nall: {np.mean([k.inside for k in known]):.0%} within two, told / real {np.mean([k.size for k in known]):.2f}"
    )
    if options.picture is not None:
        draw(lines, options.picture)
    return lines


if __name__ == "__main__":
    main()
