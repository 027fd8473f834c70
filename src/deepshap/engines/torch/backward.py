"""From a traced run to contributions: multipliers by backward passes, times differences, reduced over the references.

``Traced.contributions`` starts a backward pass with one seed for each explained output and reference. Under ``torch.vmap`` each
linear operation sees them as one more axis, and nodes (``autograd.py``) apply their rules to all of them at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils.checkpoint import CheckpointError

from ...errors import BatchMixingError, NonFiniteError, UnsupportedOperationError
from ..interface import Contributions
from . import kernel_dispatch
from ._compat import HAS_VMAP
from .batch_axes import beside, row_axis
from .operations import Pairs, TraceMismatch
from .tracer import Tracer

# Makes of multipliers and differences, both (examples, references, ...), what is wanted of every pair.
Reduce = Callable[[Tensor, Tensor], Tensor]

OVERWRITTEN = "modified by an inplace operation"  # how torch says so
Backward = Callable[[Tensor], "tuple[Tensor | None, ...]"]  # from a seed at the output to each leaf


def over_references(multipliers: Tensor, differences: Tensor) -> Tensor:
    """Attributions, summed over the references."""
    return (multipliers * differences).sum(1, dtype=torch.float64)


def of_pairs(multipliers: Tensor, differences: Tensor) -> Tensor:
    """Attributions and multipliers of each pair, (2, examples, references, ...)."""
    return torch.stack([multipliers * differences, multipliers]).double()


def row_by_row(multipliers: Tensor, differences: Tensor) -> Tensor:
    """Attributions of rows that each have a reference of their own."""
    return (multipliers * differences)[0].double()


@dataclass
class Traced:
    """A run of the model on pairs, and how to read its backward passes.

    Attributes
    ----------
    output : (rows, outputs).
    leaves, references : what is explained, on the example side and as it was recorded on the reference side.
    axes : where the rows lie in each leaf; among crossed sides they are found by their number.
    around : shapes of what goes around an explained layer, for a single row; None if that is not wanted.
    """

    tracer: Tracer
    output: Tensor
    leaves: list[Tensor]
    references: list[Tensor]
    pairs: Pairs
    axes: list[int]
    around: list[torch.Size] | None = None
    _differences: dict[int, Tensor] = field(default_factory=dict, init=False)

    def contributions(self, columns: np.ndarray, reduce: Reduce, most: int) -> list[np.ndarray]:
        """Multipliers and differences of every pair, reduced, for every leaf and output: (outputs, ...).

        ``columns`` (rows, outputs) names the outputs. A backward pass takes ``most`` multipliers, or a few more: of some of the
        references, and of all outputs if it can, so that rules compute what outputs share once.
        """
        chosen = torch.as_tensor(columns, device=self.output.device)
        windows = self._windows(most // chosen.numel()) if self.pairs.all_pairs else [slice(0, self.pairs.references)]
        widest = max(window.stop - window.start for window in windows)
        at_once = max(1, most // (self.pairs.examples * widest))
        found: list[list[Tensor]] = []
        for w in windows:
            found.append(self._among(w)._of_outputs(chosen, reduce, at_once, last=w is windows[-1]))
            if reduce is over_references:  # one of them is as large as what is returned
                found = [[sum(each[1:], each[0]) for each in zip(*found, strict=True)]]
        whole = [torch.cat(each, 3) if len(each) > 1 else each[0] for each in zip(*found, strict=True)]
        return [v.detach().to("cpu", torch.float64).numpy() for v in whole]

    def _windows(self, width: int) -> list[slice]:
        """Cut the references into parts of about a width, none as many as the examples: sides are told apart by number."""
        n, b = self.pairs.grid
        for count in range(min(b, -(-b // max(1, width))), 1, -1):
            ends = np.linspace(0, b, count + 1).astype(int)
            if n not in np.diff(ends):
                return [slice(int(start), int(end)) for start, end in pairwise(ends)]
        return [slice(0, b)]

    def _among(self, window: slice) -> Traced:
        """The same run beside some of the references."""
        n, b = self.pairs.grid
        count = window.stop - window.start
        self.tracer.reading.references = window if count < b else None
        if count == b:
            return self
        axes = [row_axis(x, r, self.pairs) for x, r in zip(self.leaves, self.references, strict=True)]
        references = [r.narrow(axis, window.start, count) for r, axis in zip(self.references, axes, strict=True)]
        return replace(self, references=references, pairs=Pairs(n, count, all_pairs=True))

    def _of_outputs(self, chosen: Tensor, reduce: Reduce, at_once: int, last: bool) -> list[Tensor]:
        """For every leaf, (outputs, ...); ``last`` says that no further backward pass follows."""
        found: list[list[Tensor]] = []
        for start in range(0, chosen.shape[1], at_once):
            some = chosen[:, start : start + at_once].T.unsqueeze(-1)
            seeds = self.output.new_zeros(len(some), *self.output.shape).scatter_(2, some, 1.0)
            multipliers = self._multipliers(seeds, retain=not last or start + at_once < chosen.shape[1])
            known = [sums.take() for _, sums in self.tracer.context.sums]
            for k in range(len(some)):
                of_output = [None if m is None else m[k] for m in multipliers]
                if known:
                    found.append(
                        [self._summed(i, m, t, k) for i, (m, t) in enumerate(zip(of_output, known, strict=True))]
                    )
                else:
                    found.append([reduce(*pair) for pair in self._of_pairs(of_output)])
        return [torch.stack(each) for each in zip(*found, strict=True)]

    def _multipliers(self, seeds: Tensor, retain: bool) -> list[Tensor | None]:
        """Multipliers of each leaf: (outputs, *its shape), and of crossed sides (outputs, references, *its shape)."""
        if not self.output.requires_grad:
            return [None] * len(self.leaves)
        if not self.pairs.all_pairs:
            return self._gradients(seeds, retain)
        references = self.pairs.references
        found = self._gradients(seeds.repeat_interleave(references, 0), retain)
        return [None if m is None else m.unflatten(0, (len(seeds), references)) for m in found]

    def _gradients(self, seeds: Tensor, retain: bool) -> list[Tensor | None]:
        """Multipliers of each leaf, (seeds, *its shape)."""
        given: list[Tensor] = []
        with torch.enable_grad():
            start = _Start.apply(self.output, given)

        def backward(seed: Tensor) -> tuple[Tensor | None, ...]:
            given[:] = [seed]
            keep = retain or len(seeds) > 1  # should torch be unable to take several at once
            return torch.autograd.grad(start, self.leaves, retain_graph=keep, allow_unused=True)

        try:
            if len(seeds) == 1 and not self.pairs.all_pairs:
                return [None if m is None else m.unsqueeze(0) for m in backward(seeds[0])]
            try:
                return _at_once(backward, seeds)
            except RuntimeError as error:
                if not _only_at_once(error):
                    raise
                if self.pairs.all_pairs:
                    raise TraceMismatch(f"no backward pass for several references at once ({error})") from error
                return self._one_by_one(backward, seeds)
        except CheckpointError as error:
            raise UnsupportedOperationError(
                "the model recomputes activations (torch.utils.checkpoint without use_reentrant), which deepshap cannot "
                "follow: switch checkpointing off for the explanation, as for any evaluation."
            ) from error
        except RuntimeError as error:
            if OVERWRITTEN not in str(error):
                raise
            raise UnsupportedOperationError(
                "the model changes a constant tensor in place after multiplying the signal by it; the multipliers need its "
                f"old value. Write the change out of place. Torch says: {error}"
            ) from error

    def _one_by_one(self, backward: Backward, seeds: Tensor) -> list[Tensor | None]:
        """For the few linear operations whose gradients know no further axis."""
        known: list[list[Tensor | None]] = []
        found = []
        for _, sums in self.tracer.context.sums:
            sums.take()  # of the attempt to take all at once
        self.tracer.selections.forget()
        for step in self.tracer.tape.steps:
            step.selections.clear()
            step.known = None
        for seed in seeds:
            found.append(backward(seed))
            known.append([sums.take() for _, sums in self.tracer.context.sums])
        for (_, sums), each in zip(self.tracer.context.sums, zip(*known, strict=True), strict=True):
            if each[0] is not None:
                sums.add(torch.cat(each))
        return [None if m[0] is None else torch.stack(m) for m in zip(*found, strict=True)]

    def _difference(self, i: int) -> Tensor:
        """Example minus reference, laid out as multipliers; equal infinities, as in masks, do not differ."""
        if i not in self._differences:
            x, r = self.leaves[i].detach(), self.references[i]
            x, r = beside(x, r, self.pairs)
            d = (x - r).masked_fill(x == r, 0)
            self._differences[i] = d if self.pairs.all_pairs else d[0]
        return self._differences[i]

    def _of_grid(self, i: int, values: Tensor) -> Tensor:
        """From the layout of a leaf's multipliers to (examples, references, ...)."""
        if self.pairs.all_pairs:
            return values.movedim(row_axis(self.leaves[i], self.references[i], self.pairs) + 1, 0)
        return values.movedim(self.axes[i], 0).unflatten(0, self.pairs.grid)

    def _summed(self, i: int, m: Tensor | None, known: Tensor | None, k: int) -> Tensor:
        """Contributions of a leaf, summed over references: those that a rule knows already, and those of its multipliers."""
        if m is None and known is not None:
            return known[k]
        x, r, total = self.leaves[i], self.references[i], None
        if m is not None and self.pairs.all_pairs:
            total = kernel_dispatch.contributions(m, x, r, row_axis(x, r, self.pairs))
        if total is None:
            d = self._difference(i)
            total = over_references(*(self._of_grid(i, v) for v in (torch.zeros_like(d) if m is None else m, d)))
        return total if known is None else total + known[k]

    def _of_pairs(self, multipliers: list[Tensor | None]) -> Iterator[tuple[Tensor, Tensor]]:
        """Multipliers and differences of each leaf, and at last of what goes around the layer."""
        differences = [self._difference(i) for i in range(len(self.leaves))]
        both = [(torch.zeros_like(d) if m is None else m, d) for m, d in zip(multipliers, differences, strict=True)]
        for i, (m, d) in enumerate(both[: len(self.axes)]):
            yield self._of_grid(i, m), self._of_grid(i, d)
        if self.around is not None:
            around = self._around([m * d for m, d in both[len(self.axes) :]], differences[0].new_zeros(self.pairs.grid))
            yield torch.ones_like(around), around

    def _around(self, contributions: list[Tensor], total: Tensor) -> Tensor:
        """What goes around the explained layer, (examples, references)."""
        assert self.around is not None
        total = total.double()
        for i, (values, one) in enumerate(zip(contributions, self.around, strict=True), len(self.axes)):
            if self.pairs.all_pairs:
                total = total + self._of_grid(i, values).double().reshape(*self.pairs.grid, -1).sum(2)
            else:
                total = total + _sum_over_rows(values, one, self.pairs.rows).unflatten(0, self.pairs.grid)
        if not bool(torch.isfinite(total).all()):
            raise NonFiniteError(
                "what reaches the output around the explained layer has an infinite influence: most likely a mask with infinity "
                "that differs between example and reference. Pass what it is made of (lengths, masks) as "
                "additional_forward_args, which both share, or mask with a large finite number."
            )
        return total


def _only_at_once(error: RuntimeError) -> bool:
    """Whether a backward pass may have failed because it was asked for several seeds: some code knows no further axis."""
    known = UnsupportedOperationError, torch.OutOfMemoryError, CheckpointError
    return not isinstance(error, known) and OVERWRITTEN not in str(error)


def _at_once(backward: Backward, seeds: Tensor) -> list[Tensor | None]:
    """One backward pass for several seeds, under ``torch.vmap``: each operation sees all seeds as one more axis."""
    if not HAS_VMAP:
        raise RuntimeError("this version of torch does not say what runs under vmap")
    reached: list[bool] = []

    def of_seed(seed: Tensor) -> tuple[Tensor | None, ...]:
        found = backward(seed)
        reached[:] = [m is not None for m in found]
        return seed, *compress(found, reached)  # vmap takes tensors alone, and at least one

    with warnings.catch_warnings():  # that torch itself goes through the seeds one by one for some operations
        warnings.filterwarnings("ignore", "There is a performance drop")
        _, *found = torch.vmap(of_seed)(seeds)
    multipliers = iter(found)
    return [next(multipliers) if there else None for there in reached]


class _Start(Function):
    """A number that stands behind the output, from which a backward pass starts with any seed.

    ``autograd.grad`` of a tensor with its seed compares their shapes, for which torch imports sympy: a third of a second.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, given: list[Tensor]) -> Tensor:
        ctx.given = given
        return output.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.given[0], None


def _sum_over_rows(values: Tensor, one: torch.Size, rows: int) -> Tensor:
    """Sum everything of each row, (rows,); ``one`` is the shape for a single row."""
    if rows == 1:
        return values.double().sum()[None]
    grown = [axis for axis, sizes in enumerate(zip(one, values.shape, strict=True)) if sizes[0] * rows == sizes[1]]
    if len(grown) != 1:
        raise BatchMixingError(
            f"a value that goes around the explained layer has shape {tuple(one)} for one row and {tuple(values.shape)} for "
            f"{rows}: no axis holds the rows, so that there is no attribution per row."
        )
    return values.double().movedim(grown[0], 0).reshape(rows, -1).sum(1)


# ---------------------------------------------------------------------- of a run
def gathered(found: list[np.ndarray], output: Tensor, expected: np.ndarray, reduce: Reduce) -> Contributions:
    """What a run found, with its outputs and those expected."""
    if reduce is not of_pairs:
        return Contributions(found, as_numpy(output), expected)
    both = [np.moveaxis(f, 1, 0) for f in found]  # attributions and multipliers first
    return Contributions([f[0].sum(2) for f in both], as_numpy(output), expected, both)


def adds_up(found: Contributions, columns: np.ndarray, tolerance: float, references: int = 1) -> bool:
    """Whether the contributions of rows, each beside so many references, sum to the differences of their outputs."""
    y, y_r = (np.take_along_axis(v, columns, 1) for v in (found.outputs * references, found.reference_outputs))
    flat = [np.moveaxis(v.reshape(*v.shape[:2], -1), 0, 1) for v in found.values]  # (rows, k, ...)
    total, size = sum(v.sum(2) for v in flat), sum(np.abs(v).sum(2) for v in flat)
    scale = np.maximum(np.maximum(np.abs(y), np.abs(y_r)), size)
    return bool((np.abs(total - (y - y_r)) <= tolerance * scale).all())


def as_numpy(tensor: Tensor) -> np.ndarray:
    """In float64."""
    return tensor.detach().to("cpu", torch.float64).numpy()


def as_array(tensor: Tensor) -> np.ndarray:
    """In its own type, where NumPy has it."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
