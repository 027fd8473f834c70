"""From a traced run to contributions: multipliers by backward passes, times differences, reduced over the references.

``Traced.contributions`` starts a backward pass with one seed for each explained output and reference. Under
``torch.vmap`` each linear operation sees them as one more axis, and nodes (``autograd.py``) apply their rules to all of
them at once.
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
from .batch_axes import broadcast_pairs, row_axis
from .operations import Pairs, TraceMismatch
from .tracer import Tracer

# Maps multipliers and differences, both (examples, references, ...), to the result for the pairs.
Reduce = Callable[[Tensor, Tensor], Tensor]

OVERWRITTEN = "modified by an inplace operation"  # torch's error message
Backward = Callable[[Tensor], "tuple[Tensor | None, ...]"]  # from a seed at the output to each leaf


def over_references(multipliers: Tensor, differences: Tensor) -> Tensor:
    """Return attributions, summed over the references."""
    return (multipliers * differences).sum(1, dtype=torch.float64)


def of_pairs(multipliers: Tensor, differences: Tensor) -> Tensor:
    """Return attributions and multipliers of each pair, (2, examples, references, ...)."""
    return torch.stack([multipliers * differences, multipliers]).double()


def row_by_row(multipliers: Tensor, differences: Tensor) -> Tensor:
    """Return attributions of rows that each have a reference of their own."""
    return (multipliers * differences)[0].double()


@dataclass
class Traced:
    """A run of the model on pairs, and how to read its backward passes.

    Attributes
    ----------
    output : (rows, outputs).
    leaves, references : the explained values, on the example side and as recorded on the reference side.
    axes : the batch axis of each leaf; with ``all_pairs`` the batch axes are found by their sizes.
    bypass_shapes : shapes of the values that bypass an explained layer, for a single row; None if they are not needed.
    """

    tracer: Tracer
    output: Tensor
    leaves: list[Tensor]
    references: list[Tensor]
    pairs: Pairs
    axes: list[int]
    bypass_shapes: list[torch.Size] | None = None
    _differences: dict[int, Tensor] = field(default_factory=dict, init=False)

    def contributions(self, columns: np.ndarray, reduce: Reduce, limit: int) -> list[np.ndarray]:
        """Return multipliers and differences of every pair, reduced, for every leaf and output: (outputs, ...).

        ``columns`` (rows, outputs) are the explained outputs. A backward pass takes about ``limit`` multipliers: of some of the
        references, and of all outputs if possible, so that rules compute what outputs share once.
        """
        chosen = torch.as_tensor(columns, device=self.output.device)
        windows = self._windows(limit // chosen.numel()) if self.pairs.all_pairs else [slice(0, self.pairs.references)]
        widest = max(window.stop - window.start for window in windows)
        at_once = max(1, limit // (self.pairs.examples * widest))
        by_window: list[list[Tensor]] = []
        for w in windows:
            by_window.append(self._restricted_to(w)._of_outputs(chosen, reduce, at_once, last=w is windows[-1]))
            if reduce is over_references:  # the result of one window is as large as the sum
                by_window = [[sum(parts[1:], parts[0]) for parts in zip(*by_window, strict=True)]]
        by_leaf = [torch.cat(parts, 3) if len(parts) > 1 else parts[0] for parts in zip(*by_window, strict=True)]
        return [v.detach().to("cpu", torch.float64).numpy() for v in by_leaf]

    def _windows(self, width: int) -> list[slice]:
        """Divide the references into parts of about a width, but not the size of the examples: sizes identify the sides."""
        n, b = self.pairs.grid
        for count in range(min(b, -(-b // max(1, width))), 1, -1):
            ends = np.linspace(0, b, count + 1).astype(int)
            if n not in np.diff(ends):
                return [slice(int(start), int(end)) for start, end in pairwise(ends)]
        return [slice(0, b)]

    def _restricted_to(self, window: slice) -> Traced:
        """Return the run restricted to some of the references."""
        n, b = self.pairs.grid
        count = window.stop - window.start
        self.tracer.options.references = window if count < b else None
        if count == b:
            return self
        axes = [row_axis(x, r, self.pairs) for x, r in zip(self.leaves, self.references, strict=True)]
        references = [r.narrow(axis, window.start, count) for r, axis in zip(self.references, axes, strict=True)]
        return replace(self, references=references, pairs=Pairs(n, count, all_pairs=True))

    def _of_outputs(self, chosen: Tensor, reduce: Reduce, at_once: int, last: bool) -> list[Tensor]:
        """Return the reduced values of every leaf, (outputs, ...); ``last`` says that no further backward pass follows."""
        by_output: list[list[Tensor]] = []
        for start in range(0, chosen.shape[1], at_once):
            outputs = chosen[:, start : start + at_once].T.unsqueeze(-1)
            seeds = self.output.new_zeros(len(outputs), *self.output.shape).scatter_(2, outputs, 1.0)
            multipliers = self._multipliers(seeds, retain=not last or start + at_once < chosen.shape[1])
            sums_by_leaf = [sums.take() for _, sums in self.tracer.context.sums]
            for k in range(len(outputs)):
                of_output = [None if m is None else m[k] for m in multipliers]
                if sums_by_leaf:
                    by_output.append(
                        [
                            self._sum_over_references(i, m, t, k)
                            for i, (m, t) in enumerate(zip(of_output, sums_by_leaf, strict=True))
                        ]
                    )
                else:
                    by_output.append([reduce(*pair) for pair in self._multipliers_and_differences(of_output)])
        return [torch.stack(values) for values in zip(*by_output, strict=True)]

    def _multipliers(self, seeds: Tensor, retain: bool) -> list[Tensor | None]:
        """Return multipliers of each leaf: (outputs, *its shape), and with ``all_pairs`` (outputs, references, *its shape)."""
        if not self.output.requires_grad:
            return [None] * len(self.leaves)
        if not self.pairs.all_pairs:
            return self._gradients(seeds, retain)
        references = self.pairs.references
        multipliers = self._gradients(seeds.repeat_interleave(references, 0), retain)
        return [None if m is None else m.unflatten(0, (len(seeds), references)) for m in multipliers]

    def _gradients(self, seeds: Tensor, retain: bool) -> list[Tensor | None]:
        """Return multipliers of each leaf, (seeds, *its shape)."""
        seed_holder: list[Tensor] = []
        with torch.enable_grad():
            start = _Start.apply(self.output, seed_holder)

        def backward(seed: Tensor) -> tuple[Tensor | None, ...]:
            seed_holder[:] = [seed]
            keep = retain or len(seeds) > 1  # in case torch cannot take several at once
            return torch.autograd.grad(start, self.leaves, retain_graph=keep, allow_unused=True)

        try:
            if len(seeds) == 1 and not self.pairs.all_pairs:
                return [None if m is None else m.unsqueeze(0) for m in backward(seeds[0])]
            try:
                return _vmap_backward(backward, seeds)
            except RuntimeError as error:
                if not _may_need_single_seeds(error):
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
        """Run one backward pass per seed, for the few linear operations whose gradients accept no further axis."""
        known_sums: list[list[Tensor | None]] = []
        gradients = []
        for _, sums in self.tracer.context.sums:
            sums.take()  # left by the failed attempt
        self.tracer.selections.forget()
        for record in self.tracer.tape.records:
            record.selections.clear()
            record.known_multipliers = None
        for seed in seeds:
            gradients.append(backward(seed))
            known_sums.append([sums.take() for _, sums in self.tracer.context.sums])
        for (_, sums), parts in zip(self.tracer.context.sums, zip(*known_sums, strict=True), strict=True):
            if parts[0] is not None:
                sums.add(torch.cat(parts))
        return [None if m[0] is None else torch.stack(m) for m in zip(*gradients, strict=True)]

    def _difference(self, i: int) -> Tensor:
        """Return example minus reference, laid out as multipliers; equal infinities, as in masks, have difference 0."""
        if i not in self._differences:
            x, r = self.leaves[i].detach(), self.references[i]
            x, r = broadcast_pairs(x, r, self.pairs)
            d = (x - r).masked_fill(x == r, 0)
            self._differences[i] = d if self.pairs.all_pairs else d[0]
        return self._differences[i]

    def _to_grid(self, i: int, values: Tensor) -> Tensor:
        """Reshape values laid out as a leaf's multipliers to (examples, references, ...)."""
        if self.pairs.all_pairs:
            return values.movedim(row_axis(self.leaves[i], self.references[i], self.pairs) + 1, 0)
        return values.movedim(self.axes[i], 0).unflatten(0, self.pairs.grid)

    def _sum_over_references(self, i: int, m: Tensor | None, known_sums: Tensor | None, k: int) -> Tensor:
        """Return contributions of a leaf, summed over references, by rules that computed them and by its multipliers."""
        if m is None and known_sums is not None:
            return known_sums[k]
        x, r, total = self.leaves[i], self.references[i], None
        if m is not None and self.pairs.all_pairs:
            total = kernel_dispatch.contributions(m, x, r, row_axis(x, r, self.pairs))
        if total is None:
            d = self._difference(i)
            total = over_references(*(self._to_grid(i, v) for v in (torch.zeros_like(d) if m is None else m, d)))
        return total if known_sums is None else total + known_sums[k]

    def _multipliers_and_differences(self, multipliers: list[Tensor | None]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield multipliers and differences of each leaf, and last those of the values that bypass the layer."""
        differences = [self._difference(i) for i in range(len(self.leaves))]
        pairs = [(torch.zeros_like(d) if m is None else m, d) for m, d in zip(multipliers, differences, strict=True)]
        for i, (m, d) in enumerate(pairs[: len(self.axes)]):
            yield self._to_grid(i, m), self._to_grid(i, d)
        if self.bypass_shapes is not None:
            bypass_shapes = self._bypass_contributions(
                [m * d for m, d in pairs[len(self.axes) :]], differences[0].new_zeros(self.pairs.grid)
            )
            yield torch.ones_like(bypass_shapes), bypass_shapes

    def _bypass_contributions(self, contributions: list[Tensor], total: Tensor) -> Tensor:
        """Return the contributions of the values that bypass the explained layer, (examples, references)."""
        assert self.bypass_shapes is not None
        total = total.double()
        for i, (values, row_shape) in enumerate(zip(contributions, self.bypass_shapes, strict=True), len(self.axes)):
            if self.pairs.all_pairs:
                total = total + self._to_grid(i, values).double().reshape(*self.pairs.grid, -1).sum(2)
            else:
                total = total + _sum_over_rows(values, row_shape, self.pairs.rows).unflatten(0, self.pairs.grid)
        if not bool(torch.isfinite(total).all()):
            raise NonFiniteError(
                "what reaches the output around the explained layer has an infinite influence: most likely a mask with infinity "
                "that differs between example and reference. Pass what it is made of (lengths, masks) as "
                "additional_forward_args, which both share, or mask with a large finite number."
            )
        return total


def _may_need_single_seeds(error: RuntimeError) -> bool:
    """Return whether a backward pass may have failed because it had several seeds: some code accepts no further axis."""
    other_causes = UnsupportedOperationError, torch.OutOfMemoryError, CheckpointError
    return not isinstance(error, other_causes) and OVERWRITTEN not in str(error)


def _vmap_backward(backward: Backward, seeds: Tensor) -> list[Tensor | None]:
    """Run one backward pass for several seeds under ``torch.vmap``: each operation sees the seeds as one more axis."""
    if not HAS_VMAP:
        raise RuntimeError("this version of torch does not say what runs under vmap")
    reached: list[bool] = []

    def run_seed(seed: Tensor) -> tuple[Tensor | None, ...]:
        gradients = backward(seed)
        reached[:] = [m is not None for m in gradients]
        return seed, *compress(gradients, reached)  # vmap accepts only tensors, and at least one

    with warnings.catch_warnings():  # torch itself loops over the seeds for some operations
        warnings.filterwarnings("ignore", "There is a performance drop")
        _, *gradients = torch.vmap(run_seed)(seeds)
    multipliers = iter(gradients)
    return [next(multipliers) if is_reached else None for is_reached in reached]


class _Start(Function):
    """A scalar that depends on the output, from which a backward pass starts with any seed.

    ``autograd.grad`` compares the shapes of a tensor and its seed, for which torch imports sympy: a third of a second.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, seed_holder: list[Tensor]) -> Tensor:
        ctx.seed_holder = seed_holder
        return output.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.seed_holder[0], None


def _sum_over_rows(values: Tensor, row_shape: torch.Size, rows: int) -> Tensor:
    """Return the sum over everything of each row, (rows,); ``row_shape`` is the shape for a single row."""
    if rows == 1:
        return values.double().sum()[None]
    grown = [
        axis for axis, sizes in enumerate(zip(row_shape, values.shape, strict=True)) if sizes[0] * rows == sizes[1]
    ]
    if len(grown) != 1:
        raise BatchMixingError(
            f"a value that goes around the explained layer has shape {tuple(row_shape)} for one row and {tuple(values.shape)} "
            f"for {rows}: no axis holds the rows, so that there is no attribution per row."
        )
    return values.double().movedim(grown[0], 0).reshape(rows, -1).sum(1)


# ---------------------------------------------------------------------- of a run
def as_contributions(values: list[np.ndarray], output: Tensor, expected: np.ndarray, reduce: Reduce) -> Contributions:
    """Return the contributions of a run, with its outputs and the expected outputs."""
    if reduce is not of_pairs:
        return Contributions(values, as_numpy(output), expected)
    pairs = [np.moveaxis(f, 1, 0) for f in values]  # attributions and multipliers first
    return Contributions([f[0].sum(2) for f in pairs], as_numpy(output), expected, pairs)


def adds_up(contributions: Contributions, columns: np.ndarray, tolerance: float, references: int = 1) -> bool:
    """Return whether the contributions of rows, over this number of references, sum to the differences of their outputs."""
    y, y_r = (
        np.take_along_axis(v, columns, 1) for v in (contributions.outputs * references, contributions.reference_outputs)
    )
    flat = [np.moveaxis(v.reshape(*v.shape[:2], -1), 0, 1) for v in contributions.values]  # (rows, k, ...)
    total, size = sum(v.sum(2) for v in flat), sum(np.abs(v).sum(2) for v in flat)
    scale = np.maximum(np.maximum(np.abs(y), np.abs(y_r)), size)
    return bool((np.abs(total - (y - y_r)) <= tolerance * scale).all())


def as_numpy(tensor: Tensor) -> np.ndarray:
    """Return the values in float64."""
    return tensor.detach().to("cpu", torch.float64).numpy()


def as_array(tensor: Tensor) -> np.ndarray:
    """Return the values in their own dtype, if NumPy has it."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
