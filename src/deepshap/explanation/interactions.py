"""Pairwise Shapley interaction values: how a row's output divides among players and pairs of players.

The Shapley interaction index of two players (Grabisch & Roubens 1999) is what they add together beyond what each adds alone,
averaged over the coalitions of the others as the Shapley value averages gains. ``Interactions.values`` follows shap's tree
explainer (Lundberg et al. 2020): half of the index stands at (i, j), half at (j, i), and (i, i) holds the rest of the Shapley
value of i. So rows sum to Shapley values, and a whole matrix to the output minus the base value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import needed
from .labels import plural

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Interactions:
    """Pairwise Shapley interaction values.

    Attributes
    ----------
    values : array of shape (rows, players, players)
        Symmetric; the pair (i, j) has half of its interaction at each of its two places, the diagonal the main effects. Rows of
        a matrix sum to Shapley values.
    names : list of str
        Names of the players.
    outputs, base_values : array of shape (rows,)
        The explained output, and its mean over the background.
    exact : bool
        Whether all coalitions were evaluated.
    coalitions : int
        How many coalitions were evaluated for each row.
    errors : array of shape (rows, players, players), optional
        Standard errors of the values, where these are estimated.
    """

    values: np.ndarray
    names: list[str]
    outputs: np.ndarray
    base_values: np.ndarray
    exact: bool
    coalitions: int
    errors: np.ndarray | None = None

    @property
    def shapley_values(self) -> np.ndarray:
        """The Shapley values, (rows, players)."""
        return self.values.sum(2)

    @property
    def relative_error(self) -> float:
        """The size of the standard errors relative to that of the interactions of pairs; 0 where these are exact."""
        pairs = ~np.eye(len(self.names), dtype=bool)
        size = float(np.linalg.norm(self.values[:, pairs]))
        return 0.0 if self.errors is None or size == 0 else float(np.linalg.norm(self.errors[:, pairs])) / size

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        how = "all" if self.exact else f"estimated (standard error {self.relative_error:.0%}) from"
        of_all = np.abs(self.values).mean(0)
        np.fill_diagonal(of_all, 0)
        i, j = np.unravel_index(of_all.argmax(), of_all.shape)
        return (
            f"Interactions of {plural(len(self.names), 'player')} in {plural(len(self), 'row')}, {how} "
            f"{self.coalitions:,} coalitions; strongest pair: {self.names[i]} with {self.names[j]}"
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with a line for each row and pair: row, first, second, value. A pair has its whole interaction.

        Main effects are the pairs of a player with itself. The values of a row sum to its output minus its base value.
        """
        pandas = needed("pandas", "tables need pandas")
        i, j = np.triu_indices(len(self.names))
        values = self.values[:, i, j] * np.where(i == j, 1, 2)
        names = np.array(self.names, dtype=object)
        rows = np.repeat(np.arange(len(self)), len(i))
        first, second = np.tile(names[i], len(self)), np.tile(names[j], len(self))
        return pandas.DataFrame({"row": rows, "first": first, "second": second, "value": values.ravel()})
