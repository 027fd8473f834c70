"""Linear systems, inverses and products of groups."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UnsupportedOperationError
from ..operations import LINEAR, Operation, Step, primitive


def _inverse_rule(step: Step, m: Tensor) -> Tensor:
    """From A_r^-1 - A^-1 = A^-1 (A - A_r) A_r^-1, and the same with the sides exchanged: the mean of the two."""
    (y,), (yr,) = step.outputs, step.reference_outputs
    return -(y.mH @ m @ yr.mH + yr.mH @ m @ y.mH) / 2


@primitive(_inverse_rule, broadcasts=True)
def inverse(A: Tensor) -> Tensor:
    """The inverse of a matrix."""
    return torch.linalg.inv(A)


def _cholesky_rule(step: Step, m: Tensor) -> Tensor:
    """A = L L^H is quadratic in L, so that dA = dL M^H + M dL^H holds exactly at the mean M of both sides."""
    (y,), (yr,) = step.outputs, step.reference_outputs
    mean = (y + yr) / 2
    with torch.enable_grad():
        point = (mean @ mean.mH).requires_grad_()
        factor = torch.linalg.cholesky(point)
    return torch.autograd.grad(factor, point, m)[0]


@primitive(_cholesky_rule)
def _lower(A: Tensor) -> Tensor:
    return torch.linalg.cholesky(A)


def cholesky(input: Tensor, upper: bool = False, *, out: None = None) -> Tensor:
    """The triangular factor of a matrix."""
    return _lower(input).mH if upper else _lower(input)


def _linear_in(name: str, function: Any) -> Any:
    """Make an operation of a solver for a system whose matrix does not depend on the input."""

    @primitive(lambda step, m: None)
    def solved(*args: Any, **options: Any) -> Tensor:
        return function(*args, **options)

    solved.operation = Operation(LINEAR, function=function)  # type: ignore[attr-defined]
    solved.__name__ = name
    return solved


_solve = _linear_in("solve", torch.linalg.solve)
_solve_triangular = _linear_in("solve_triangular", torch.linalg.solve_triangular)
_cholesky_solve = _linear_in("cholesky_solve", torch.cholesky_solve)


def solve(A: Tensor, B: Tensor, *, left: bool = True, out: None = None) -> Tensor:
    """Solution of A X = B, or of X A = B: a product with the inverse, where the matrix depends on the input."""
    if A.grad_fn is None:
        return _solve(A, B, left=left)
    vector = B.dim() == 1 or (B.dim() == A.dim() - 1 and B.shape == A.shape[:-1])
    right = B.unsqueeze(-1) if vector else B
    found = inverse(A) @ right if left else right @ inverse(A)
    return found.squeeze(-1) if vector else found


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False, out: None = None
) -> Tensor:
    """Solution with the upper or lower triangle of A."""
    if A.grad_fn is None:
        return _solve_triangular(A, B, upper=upper, left=left, unitriangular=unitriangular)
    triangle = (torch.triu if upper else torch.tril)(A, (1 if upper else -1) if unitriangular else 0)
    if unitriangular:
        triangle = triangle + torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return solve(triangle, B, left=left)


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False, *, out: None = None) -> Tensor:
    """Solution with the matrix whose factor is L."""
    if L.grad_fn is None:
        return _cholesky_solve(B, L, upper)
    return inverse(L.mH @ L if upper else L @ L.mH) @ B


def grouped_mm(
    mat_a: Tensor, mat_b: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """Matrix products of groups, whose ends are given where a matrix has all of them one after the other."""
    if bias is not None:
        raise UnsupportedOperationError("grouped_mm with a bias has no rule: add the bias to the result.")
    result = torch.bmm(mat_a, mat_b) if offs is None else _of_groups(mat_a, mat_b, [0, *offs.tolist()])
    return result if out_dtype is None else result.to(out_dtype)


def _of_groups(a: Tensor, b: Tensor, ends: list[int]) -> Tensor:
    """The rows of ``a``, the columns of ``b``, or where both are matrices what is summed over, belong to groups."""
    axes = (-2 if b.dim() == 3 else -1), (-1 if a.dim() == 3 else -2)
    products = [
        torch.matmul(
            *(
                t[k] if t.dim() == 3 else t.narrow(axis, start, end - start)
                for t, axis in zip((a, b), axes, strict=True)
            )
        )
        for k, (start, end) in enumerate(itertools.pairwise(ends))
    ]
    if a.dim() == b.dim():
        return torch.stack(products)
    joined = torch.cat(products, -2 if b.dim() == 3 else -1)
    missing = (a.shape[-2] if b.dim() == 3 else b.shape[-1]) - ends[-1]  # rows, or columns, of no group
    return F.pad(joined, (0, 0, 0, missing) if b.dim() == 3 else (0, missing))
