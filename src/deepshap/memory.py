"""Memory: how many examples and references are run at a time, so that a chunk fits into the budget.

The engine measures the bytes that a reference, an example and a pair of them take (``Footprint``). ``plan_for`` chooses the
sizes of chunks from these; ``chunks`` cuts a comparison accordingly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil

from .engines.interface import Comparison, Footprint, Plan
from .errors import InputError, MemoryBudgetError

MOST_PAIRS = 2**14  # larger chunks are not faster, only larger
LEAST_PAIRS = 64  # that are worth compiling at a time
SHARE_OF_FREE_MEMORY = 0.25
DEFAULT_BUDGET = 2 * 2**30
MOST_BYTES = 2**62  # what arrays of whole numbers count
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory_budget(asked: int | str | None, free: int | None = None) -> int:
    """Return the bytes that a run may use: those that the user asks for, else a share of the free memory."""
    if asked is None:
        return min(DEFAULT_BUDGET, int(SHARE_OF_FREE_MEMORY * (free or psutil.virtual_memory().available)))
    if isinstance(asked, str):
        text = asked.strip().upper().removesuffix("B").removesuffix("I").strip()
        number = text.rstrip("KMGT ")
        try:
            asked = int(float(number) * UNITS[text[len(number) :].strip()])
        except (ValueError, KeyError, OverflowError):
            raise InputError(f"max_memory={asked!r} is not a size such as '500 MB' or '2 GiB'.") from None
    if isinstance(asked, bool) or not isinstance(asked, (int, float, np.number)) or not 0 < asked < np.inf:
        raise InputError(f"max_memory must be a positive number of bytes, or a size such as '500 MB', not {asked!r}.")
    return min(int(asked), MOST_BYTES)


def plan_for(
    footprint: Footprint,
    examples: int,
    references: int,
    memory: int = DEFAULT_BUDGET,
    most_rows: int = MOST_PAIRS,
    compiler: int = 0,
) -> Plan:
    """Return how many examples and references to run at a time, and multipliers beside them.

    ``memory`` is the budget in bytes and ``most_rows`` what the model takes in one call. ``compiler`` are the bytes that the
    engine's compiler takes for itself, if it has one. Compiled code is several times as fast and takes twice as much, so it
    gets chunks that leave room for that, but for very small ones.
    """
    available = memory - compiler
    if compiler and available >= LEAST_PAIRS * sum(footprint.compiled):
        return replace(_planned(footprint.compiled, examples, references, available, most_rows), memory=memory)
    return _planned(footprint, examples, references, memory, most_rows)


def _planned(footprint: Footprint, examples: int, references: int, budget: int, most: int) -> Plan:
    if sum(footprint) > budget:
        raise MemoryBudgetError(
            f"one pair of example and reference takes about {_size(sum(footprint))}, the budget is {_size(budget)}. "
            "Raise max_memory, or shorten the sequences."
        )
    count, block = _chunk(footprint, examples, references, budget, most)
    spare = budget - block * footprint.reference - count * footprint.example
    aligned = min(budget // sum(footprint), most)
    return Plan(count, block, aligned, min(spare // footprint.pair, MOST_PAIRS), budget)


def _chunk(footprint: Footprint, examples: int, references: int, budget: int, most: int) -> tuple[int, int]:
    """Return the sizes with the fewest chunks, and among these with the most references, whose activations are kept."""
    everything = examples * (footprint.example + references * footprint.pair) + references * footprint.reference
    if everything <= budget and examples * references <= most:
        return examples, references
    counts = np.arange(
        1, min(examples, most, (budget - footprint.reference) // (footprint.example + footprint.pair)) + 1
    )
    fitting = (budget - counts * footprint.example) // (footprint.reference + counts * footprint.pair)
    blocks = np.minimum(np.minimum(fitting, most // counts), references)
    chunks = -(-examples // counts) * -(-references // blocks)
    best = np.lexsort((-counts, -blocks, chunks))[0]
    return int(counts[best]), int(blocks[best])


def _size(count: float) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**19 else f"{count / 2**10:.1f} KiB"


def chunks(comparison: Comparison, plan: Plan) -> Iterator[tuple[slice, slice]]:
    """Yield chunks of a comparison; blocks of references outermost, so that each is run only once."""
    count = len(comparison.examples)
    if not comparison.all_pairs:
        yield from ((at, slice(None)) for at in slices(count, plan.aligned))
        return
    for block in slices(len(comparison.references), plan.references):
        yield from ((at, block) for at in slices(count, plan.examples, block.stop - block.start))


def slices(count: int, size: int, references: int = 0) -> Iterator[slice]:
    """Cut rows into parts of a size, none as many as the references: engines tell the two sides apart by number."""
    start = 0
    while start < count:
        part = min(size, count - start)
        part = -(-part // 2) if part == references else part
        yield slice(start, start + part)
        start += part


def evenly(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` of ``count`` numbers of rows, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
