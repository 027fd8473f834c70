"""Interactions of players, by the approximators of shapiq.

A row x, a background and some players make a game: the value of a coalition S is the model's output where the players of S
have their values of x and all others those of a reference, averaged over the references. ``make_game`` gives that game the
interface of shapiq, so that each of shapiq's approximators works on it. ``compute_interactions`` uses them for pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..engines.interface import Engine, Points
from ..errors import InputError, needed, warn_caller
from ..explanation.interactions import Interactions
from .coalitions import batch_size
from .players import Players

UNSURE = 0.5  # relative standard error from which estimates are not to be trusted
PER_EFFORT = 3  # coalitions on all references that take about as long as Deep SHAP
WHY = "Games and interactions need shapiq"
Choose = Callable[[np.ndarray], np.ndarray]  # from outputs (n, outputs) to the explained number (n,)


@cache
def _game_class() -> Any:
    """Return the class of games, made once shapiq is imported."""
    shapiq = needed("shapiq", WHY, "interactions")

    class CoalitionGame(shapiq.Game):  # type: ignore[name-defined]
        """The outputs of a model on coalitions of players, averaged over the background.

        Attributes
        ----------
        base_value : float
            The value of the empty coalition. Values of the game are relative to it, as shapiq's approximators expect.
        """

        def __init__(self, evaluate: Callable[[np.ndarray], np.ndarray], names: Sequence[str]) -> None:
            self._evaluate, self.evaluations = evaluate, 0
            self.base_value = float(evaluate(np.zeros((1, len(names)), bool))[0])
            super().__init__(len(names), normalization_value=self.base_value, player_names=list(names))

        def value_function(self, coalitions: np.ndarray) -> np.ndarray:
            """Return the mean output of each coalition, (n,), from an array (n, players) of booleans."""
            self.evaluations += len(coalitions)
            return self._evaluate(np.asarray(coalitions, bool))

    return CoalitionGame


def player_names(players: Players) -> list[str]:
    """Return a name for each player; cells are numbered."""
    return list(players.names or (f"Cell {k}" for k in range(players.count)))


def make_game(
    engine: Engine,
    row: Points,
    references: Points,
    choose: Choose,
    players: Players,
    *,
    most_rows: int,
    weights: np.ndarray | None = None,
) -> Any:
    """Return the game of a row as a ``shapiq.Game``; its values are evaluated in large batches."""
    count = len(references)

    def evaluate(coalitions: np.ndarray) -> np.ndarray:
        values, size = [], max(1, batch_size(players) // count)
        for start in range(0, len(coalitions), size):
            chunk = coalitions[start : start + size]
            reference = np.tile(np.arange(count), len(chunk))
            inside = players.spread(np.repeat(chunk, count, 0))
            points = row[np.zeros(len(reference), int)].mixed(references[reference], inside)
            with engine.session():
                outputs = choose(engine.outputs(points, most_rows))
            values.append(np.average(outputs.reshape(-1, count), 1, weights))
        return np.concatenate(values)

    return _game_class()(evaluate, player_names(players))


def compute_interactions(
    games: Sequence[Any], outputs: np.ndarray, names: list[str], effort: float, seed: int
) -> Interactions:
    """Return the pairwise interactions of some games, exactly where the effort allows all coalitions.

    Parameters
    ----------
    games : sequence of shapiq.Game
        A game for each row.
    outputs : array of shape (rows,)
        The explained outputs.
    names : list of str
        Names of the players.
    effort : float
        Coalitions, as multiples of the time of Deep SHAP.
    seed : int
        Of the coalitions that are drawn.
    """
    shapiq, count = needed("shapiq", WHY, "interactions"), len(names)
    if count < 2:
        raise InputError("interactions need two players or more.")
    budget, everything = round(PER_EFFORT * effort), 2**count if count < 63 else np.inf
    least = 2 * (1 + count + count * (count - 1) // 2)  # unknowns of a game of pairs, in each of two estimates
    exact = everything <= max(budget, least)
    if not exact and budget < least:
        raise InputError(
            f"effort={effort:g} evaluates {budget} coalitions; the {count * (count - 1) // 2} pairs of {count} players need "
            f"{least} at least: effort={-(-least // PER_EFFORT)}, or fewer players."
        )
    base_values = np.array([game.base_value for game in games])
    if exact:
        values = np.stack([_matrix(shapiq.ExactComputer(game)(index="k-SII", order=2)) for game in games])
        return Interactions(values, names, outputs, base_values, True, int(everything))
    halves = np.empty((2, len(games), count, count))
    for half in range(2):
        for row, game in enumerate(games):
            approximator = shapiq.KernelSHAPIQ(count, max_order=2, index="k-SII", random_state=2 * seed + half)
            halves[half, row] = _matrix(approximator.approximate(budget // 2, game))
    errors = np.abs(halves[0] - halves[1]) / 2
    interactions = Interactions(halves.mean(0), names, outputs, base_values, False, 2 * (budget // 2), errors)
    if interactions.relative_error > UNSURE:
        warn_caller(
            f"the interactions of {count} players have a standard error of {interactions.relative_error:.0%} of their size. "
            "Raise effort=, or take fewer players."
        )
    return interactions


def _matrix(interactions: Any) -> np.ndarray:
    """Return shapiq's values of single players and pairs as a symmetric matrix that sums to the whole game."""
    matrix = interactions.get_n_order_values(2) / 2
    matrix[np.diag_indices(len(matrix))] = interactions.get_n_order_values(1)
    return matrix
