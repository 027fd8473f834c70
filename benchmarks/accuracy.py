"""Measure how far deepshap and its alternatives are from the exact Shapley values, at several budgets, and how long they take."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from explainers import PEERS, Floor
from peers import Comparison, compare
from problems import ACCURACY, Problem, distance, outputs, shapley_values


def accuracy(problem: Problem, compared: Comparison, peers: list[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Distances to the exact Shapley values, at several budgets; of methods that sample the mean over the rounds."""
    case = problem.make()
    wanted, exact = outputs(case), shapley_values(case)
    candidates = [(peer, budget) for peer in peers for budget in PEERS[peer].budgets]
    compared.start(case, peers)
    for k in range(rounds):
        compared.round(k, candidates)
    for peer, budget in candidates:
        row = {"problem": problem.name, "peer": peer, "budget": budget, **compared.figures((peer, budget), wanted)}
        if "gap" in row:
            row["distance"] = statistics.mean(distance(v, exact) for v in compared.values[peer, budget])
        yield row


def main(arguments: list[str] | None = None) -> None:
    """Measure, print as it goes, and write the figures."""
    peers = tuple(peer for peer in PEERS if peer != Floor.name)
    compare(__doc__, "accuracy", {"accuracy": (accuracy, ACCURACY, peers)}, arguments)


if __name__ == "__main__":
    main()
