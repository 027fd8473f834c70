"""Values at positions that scores choose, explained from the formulas of docs/mathematics.md.

One pair of points after the other, with loops over cells, in NumPy. Nothing here knows of the engines.
"""

from __future__ import annotations

import numpy as np

ROWS, REFERENCES, SIZE = 3, 4, 5
RNG = np.random.default_rng(0)
VALUES, SCORES = (RNG.normal(size=(ROWS + REFERENCES, SIZE)) for _ in range(2))
WEIGHTS = RNG.normal(size=(SIZE, SIZE))
TIED = np.array(
    [
        [0.0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1],
        [1, 1, 1, 1, 1],
        [0, 0, 1, 1, 0],
        [1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1],
        [0, 2, 2, 0, 0],
    ]
)


def at_choice(v: np.ndarray, v_r: np.ndarray, s: np.ndarray, s_r: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Contributions of values and scores to the value at the place of rank k of the scores, from the greatest on."""
    order, order_r = (np.argsort(-scores, kind="stable") for scores in (s, s_r))
    i, j, of_values, of_scores = order[k], order_r[k], np.zeros(SIZE), np.zeros(SIZE)
    for choice in (i, j):
        of_values[choice] += (v[choice] - v_r[choice]) / 2
    effect = ((v[i] - v[j]) + (v_r[i] - v_r[j])) / 2
    drive = np.zeros(SIZE)
    for level in (k, k + 1):  # the sets of the greatest ones, without and with that of rank k
        inside, inside_r = set(order[:level]), set(order_r[:level])
        for q in inside - inside_r:
            drive[q] = max(s[q] - s_r[q], 0)
        for q in inside_r - inside:
            drive[q] = max(s_r[q] - s[q], 0)
    if i != j:
        of_scores = effect * drive / drive.sum()
    return of_values, of_scores


def averaged(k: int) -> list[np.ndarray]:
    """The oracle over the whole background."""
    pairs = [[at_choice(*pair, k) for pair in references_of(row)] for row in range(ROWS)]
    return [np.array([[pair[side] for pair in row] for row in pairs]).mean(1) for side in (0, 1)]


def references_of(row: int):
    """A row beside each reference."""
    v, s = VALUES, SCORES
    return [(v[row], v[b], s[row], s[b]) for b in range(ROWS, ROWS + REFERENCES)]
