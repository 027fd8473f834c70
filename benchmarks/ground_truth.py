"""Which cells of a sequence matter, where that is known: what each method finds of them.

    python benchmarks/ground_truth.py            all figures, in benchmarks/results/ground_truth.json
    python benchmarks/ground_truth.py --quick    does it run at all?

Tasks whose salient cells are known by the way their data are made (``truths.py``), a network trained on each, and methods in
the way that they are usually called: those with one baseline get the mean of the training rows, those with a background get
some of the rows. No times are taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import torch
from processes import write
from sklearn.metrics import auc, precision_recall_curve
from torch import Tensor
from truths import FULL, QUICK, TASKS, Case, Size

import deepshap

RESULTS = Path(__file__).parent / "results" / "ground_truth.json"
SEEDS = 3
MEASURES = ("AUPRC", "AUP", "AUR")
Method = Callable[[Case, int], np.ndarray]


# ---------------------------------------------------------------------- methods: values (rows, steps, features)
def integrated_gradients(case: Case, seed: int) -> np.ndarray:
    return _plain(captum.attr.IntegratedGradients(case.model).attribute(case.x, case.mean, n_steps=50))


def gradient_shap(case: Case, seed: int) -> np.ndarray:
    """200 random points for each row."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    return _plain(captum.attr.GradientShap(case.model).attribute(case.x, case.background, n_samples=200))


def deep_lift(case: Case, seed: int) -> np.ndarray:
    """As captum has it: the ordinary gradient in recurrent layers."""
    return _plain(captum.attr.DeepLift(case.model).attribute(case.x, case.mean))


def occlusion(case: Case, seed: int) -> np.ndarray:
    """One cell after the other."""
    found = captum.attr.Occlusion(case.model).attribute(case.x, (1, 1), baselines=case.mean, perturbations_per_eval=50)
    return _plain(found)


def time_shap(case: Case, seed: int) -> np.ndarray:
    """Kernel SHAP over events, without pruning (Bento et al. 2021); each cell has the value of its event."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    events = torch.arange(case.x.shape[1])[None, :, None].expand(1, *case.x.shape[1:])
    method = captum.attr.KernelShap(case.model)
    return _plain(method.attribute(case.x, case.mean, feature_mask=events, n_samples=256, perturbations_per_eval=256))


def deep_shap(effort: float = 1, players: str = "cells", one_reference: bool = False) -> Method:
    """Deep SHAP, or values nearer to the Shapley values; those of steps are those of all their cells."""

    def values(case: Case, seed: int) -> np.ndarray:
        references = case.mean if one_reference else case.background
        explainer = deepshap.DeepExplainer(case.model, references, progress=False)
        found = explainer.shap_values(case.x, effort=effort, players=players, seed=seed)[..., 0]
        return found if players == "cells" else np.broadcast_to(found[:, :, None], case.x.shape)

    return values


METHODS: dict[str, Method] = {
    "captum.IntegratedGradients": integrated_gradients,
    "captum.GradientShap": gradient_shap,
    "captum.DeepLift": deep_lift,
    "captum.Occlusion": occlusion,
    "TimeSHAP": time_shap,
    "deepshap, steps, effort=8": deep_shap(8, "steps"),
    "deepshap, mean as reference": deep_shap(one_reference=True),
    "deepshap": deep_shap(),
    "deepshap, effort=8": deep_shap(8),
    "deepshap, effort=32": deep_shap(32),
}


def _plain(values: Tensor) -> np.ndarray:
    return values.detach().double().numpy()


# ---------------------------------------------------------------------- measures
def measures(values: np.ndarray, salient: np.ndarray) -> dict[str, float]:
    """How well absolute values find the salient cells, all rows together; both of shape (rows, steps, features).

    Each row's absolute values are brought to the range from 0 to 1. AUP and AUR are the areas under precision and recall as
    functions of the threshold (Crabbé & van der Schaar 2021), AUPRC that under precision as a function of recall. Only the
    last knows nothing of the values' sizes, but of their order.
    """
    size = np.abs(values).reshape(len(values), -1)
    size = size - size.min(1, keepdims=True)
    size = size / size.max(1, keepdims=True)
    precision, recall, thresholds = precision_recall_curve(salient.ravel(), size.ravel())
    areas = auc(recall, precision), auc(thresholds, precision[:-1]), auc(thresholds, recall[:-1])
    return dict(zip(MEASURES, map(float, areas), strict=True))


def figures(size: Size, seeds: int) -> dict[str, Any]:
    """The measures of all methods on all tasks and how good the networks are, a list of all seeds' for each."""
    models: dict[str, list[float]] = {}
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for task, make in TASKS.items():
        for seed in range(seeds):
            case = make(np.random.default_rng(seed), size)
            if case.score is not None:
                models.setdefault(task, []).append(case.score)
            for method, explain in METHODS.items():
                found.setdefault((task, method), []).append(measures(explain(case, seed), case.salient))
                values = (f"{name} {value:.3f}" for name, value in found[task, method][-1].items())
                print(f"{task}, {seed}: {method:30}", *values, flush=True)
    rows = [
        {"task": task, "method": method, **{name: [one[name] for one in of_seeds] for name in MEASURES}}
        for (task, method), of_seeds in found.items()
    ]
    return {"rows": size.explained, "references": size.references, "seeds": seeds, "models": models, "found": rows}


def main(arguments: list[str] | None = None) -> None:
    """Make, train, explain, print as it goes, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="tiny tasks, hardly trained, one seed; results are not kept"
    )
    parser.add_argument("--output", type=Path, help="where to write the figures; of a full run benchmarks/results")
    options = parser.parse_args(arguments)
    made = figures(QUICK, 1) if options.quick else figures(FULL, SEEDS)
    if options.output or not options.quick:
        write(options.output or RESULTS, made)


if __name__ == "__main__":
    main()
