"""Linear systems, inverses, factorizations and grouped matrix products."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import UnsupportedOperationError
from .._compat import interception_off
from ..calls import detached, place_of_call
from ..operations import LINEAR, Operation, OperationRecord, primitive
from .arithmetic import det

_RESULTS: Any = torch.return_types


def _inverse_rule(record: OperationRecord, m: Tensor) -> Tensor:
    """Apply A_r^-1 - A^-1 = A^-1 (A - A_r) A_r^-1, averaged with the equation for exchanged sides."""
    (y,), (yr,) = record.outputs, record.reference_outputs
    return -(y.mH @ m @ yr.mH + yr.mH @ m @ y.mH) / 2


@primitive(_inverse_rule, broadcastable=True)
def inverse(A: Tensor) -> Tensor:
    """Return the inverse of a matrix."""
    return torch.linalg.inv(A)


def _cholesky_rule(record: OperationRecord, m: Tensor) -> Tensor:
    """Apply dA = dL M^H + M dL^H, exact at the mean M of both factors because A = L L^H is quadratic in L."""
    (y,), (yr,) = record.outputs, record.reference_outputs
    mean = (y + yr) / 2
    with torch.enable_grad():
        point = (mean @ mean.mH).requires_grad_()
        factor = torch.linalg.cholesky(point)
    return torch.autograd.grad(factor, point, m)[0]


def _matrix_exp_rule(record: OperationRecord, m: Tensor) -> Tensor:
    """Apply exp(A) - exp(B) = integral of exp(s A) (A - B) exp((1 - s) B) over s, averaged with exchanged sides.

    The transpose of the integral is the upper right block of the exponential of [[A^H, m], [0, B^H]].
    """
    (x,), (r,) = record.inputs, record.reference_inputs

    def transposed_integral(a: Tensor, b: Tensor) -> Tensor:
        a, b, middle = torch.broadcast_tensors(a.mH, b.mH, m)
        blocks = torch.cat([torch.cat([a, middle], -1), torch.cat([torch.zeros_like(a), b], -1)], -2)
        return torch.linalg.matrix_exp(blocks)[..., : a.shape[-1], a.shape[-1] :]

    return (transposed_integral(x, r) + transposed_integral(r, x)) / 2


@primitive(_matrix_exp_rule, broadcastable=True)
def matrix_exp(A: Tensor) -> Tensor:
    """Return the exponential of a matrix."""
    return torch.linalg.matrix_exp(A)


@primitive(_cholesky_rule)
def _cholesky(A: Tensor) -> Tensor:
    return torch.linalg.cholesky(A)


def cholesky(input: Tensor, upper: bool = False, *, out: None = None) -> Tensor:
    """Return the triangular factor of a matrix."""
    return _cholesky(input).mH if upper else _cholesky(input)


def _linear_solver(name: str, function: Any) -> Any:
    """Build an operation that solves a system whose matrix does not depend on the explained input."""

    @primitive(lambda record, m: None)
    def solved(*args: Any, **options: Any) -> Tensor:
        return function(*args, **options)

    solved.operation = Operation(LINEAR, function=function)  # type: ignore[attr-defined]
    solved.__name__ = name
    return solved


_solve = _linear_solver("solve", torch.linalg.solve)
_solve_triangular = _linear_solver("solve_triangular", torch.linalg.solve_triangular)
_cholesky_solve = _linear_solver("cholesky_solve", torch.cholesky_solve)
_lu_solve = _linear_solver("lu_solve", torch.linalg.lu_solve)


def solve(A: Tensor, B: Tensor, *, left: bool = True, out: None = None) -> Tensor:
    """Solve A X = B, or X A = B; if A depends on the explained input, multiply by the inverse."""
    if A.grad_fn is None:
        return _solve(A, B, left=left)
    right = _columns(A, B)
    solution = inverse(A) @ right if left else right @ inverse(A)
    return solution.squeeze(-1) if right is not B else solution


def _columns(A: Tensor, B: Tensor) -> Tensor:
    """Return the right sides as columns, also if they are vectors."""
    return B.unsqueeze(-1) if B.dim() == 1 or (B.dim() == A.dim() - 1 and B.shape == A.shape[:-1]) else B


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False, out: None = None
) -> Tensor:
    """Solve with the upper or lower triangle of A."""
    if A.grad_fn is None:
        return _solve_triangular(A, B, upper=upper, left=left, unitriangular=unitriangular)
    triangle = (torch.triu if upper else torch.tril)(A, (1 if upper else -1) if unitriangular else 0)
    if unitriangular:
        triangle = triangle + torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return solve(triangle, B, left=left)


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False, *, out: None = None) -> Tensor:
    """Solve with the matrix whose Cholesky factor is L."""
    if L.grad_fn is None:
        return _cholesky_solve(B, L, upper)
    return cholesky_inverse(L, upper) @ B


def cholesky_inverse(L: Tensor, upper: bool = False, *, out: None = None) -> Tensor:
    """Return the inverse of the matrix whose Cholesky factor is L."""
    return inverse(L.mH @ L if upper else L @ L.mH)


def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Tensor, Tensor]:
    """Solve with a triangle of A, in the older form that also returns a copy of the matrix."""
    matrix, is_upper = (A.mT, not upper) if transpose else (A, upper)
    solution = solve_triangular(matrix, b, upper=is_upper, unitriangular=unitriangular)
    return _RESULTS.triangular_solve((solution, A.clone()))


def lu_solve(*args: Tensor, left: bool = True, adjoint: bool = False, out: None = None) -> Tensor:
    """Solve with a factored matrix, in the order of torch.linalg (LU, pivots, B) or of torch (B, LU, pivots)."""
    LU, pivots, B = args if not args[1].is_floating_point() else (*args[1:], args[0])
    if LU.grad_fn is not None:
        raise UnsupportedOperationError(
            f"lu_solve at {place_of_call()} with a factor that depends on the input: linalg.solve has a rule, and does both."
        )
    return _lu_solve(LU, pivots, B, left=left, adjoint=adjoint)


def matrix_power(input: Tensor, n: int, *, out: None = None) -> Tensor:
    """Return a power of a matrix by repeated squaring; negative powers are those of its inverse."""
    if n == 0:
        return torch.eye(input.shape[-1], dtype=input.dtype, device=input.device).expand(input.shape)
    base = input if n > 0 else inverse(input)
    half = matrix_power(base, abs(n) // 2) if abs(n) > 1 else None
    square = base if half is None else half @ half
    return square @ base if half is not None and n % 2 else square


def logdet(input: Tensor) -> Tensor:
    """Return the logarithm of a determinant."""
    return det(input).log()


def slogdet(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sign of a determinant and the logarithm of its absolute value."""
    determinant = det(A)
    return _RESULTS.linalg_slogdet((determinant.sgn(), determinant.abs().log()))


def pinv(
    A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None, out: None = None
) -> Tensor:
    """Return the pseudoinverse of a matrix of full rank; it is discontinuous where the rank changes."""
    with interception_off():
        rank = torch.linalg.matrix_rank(
            A.detach(), atol=atol, rtol=rcond if rtol is None else rtol, hermitian=hermitian
        )
    if bool((rank < min(A.shape[-2:])).any()):
        raise UnsupportedOperationError(
            f"{place_of_call()}: the pseudoinverse of a matrix that depends on the input and has no full rank has no rule. Add "
            "something to its diagonal."
        )
    if A.shape[-2] == A.shape[-1]:
        return inverse(A)
    return inverse(A.mH @ A) @ A.mH if A.shape[-2] > A.shape[-1] else A.mH @ inverse(A @ A.mH)


def lstsq(A: Tensor, B: Tensor, rcond: Any = None, *, driver: str | None = None) -> tuple[Tensor, ...]:
    """Return the least squares solution, a product with the pseudoinverse."""
    with interception_off():
        native = torch.linalg.lstsq(A.detach(), B.detach(), rcond, driver=driver)
    right = _columns(A, B)
    columns = (torch.linalg.pinv(A) if A.grad_fn is None else pinv(A)) @ right
    residuals = (A @ columns - right).abs().square().sum(-2) if native.residuals.numel() else native.residuals
    solution = columns.squeeze(-1) if right is not B else columns
    if native.singular_values.numel() and A.grad_fn is not None:
        raise UnsupportedOperationError(
            f"lstsq at {place_of_call()} with driver={driver!r} has no rule; 'gelsy' has one."
        )
    return _RESULTS.linalg_lstsq((solution, residuals, native.rank, native.singular_values))


def with_info(function: Callable[..., Tensor], native: Callable[..., Any]) -> Callable[..., Any]:
    """Build the ``_ex`` variant of a function, which also returns whether it succeeded; a failure raises an error."""

    def checked(*args: Any, check_errors: bool = False, out: None = None, **options: Any) -> Any:
        with interception_off():
            info = native(*detached(args), **options).info
        if bool(info.any()):
            raise UnsupportedOperationError(
                f"{native.__name__} at {place_of_call()} fails: the matrix is singular, or not positive definite, and what is "
                "returned then has no rule."
            )
        return getattr(_RESULTS, native.__name__)((function(*args, **options), info))

    return checked


def sparse_mm(mat1: Tensor, mat2: Tensor, reduce: str = "sum") -> Tensor:
    """Return the product of a sparse matrix and a dense one, as a dense one."""
    if reduce != "sum":
        raise UnsupportedOperationError(f"torch.sparse.mm with reduce={reduce!r} has no rule: only the sum has one.")
    return torch.mm(mat1, mat2)


def sparse_addmm(mat: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """Return a dense matrix plus the product of a sparse and a dense one."""
    return beta * mat + alpha * torch.mm(mat1, mat2)


def grouped_mm(
    mat_a: Tensor, mat_b: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """Return matrix products of groups; ``offs`` holds the ends of groups that are concatenated in one matrix."""
    if bias is not None:
        raise UnsupportedOperationError("grouped_mm with a bias has no rule: add the bias to the result.")
    result = torch.bmm(mat_a, mat_b) if offs is None else _multiply_groups(mat_a, mat_b, [0, *offs.tolist()])
    return result if out_dtype is None else result.to(out_dtype)


def _multiply_groups(a: Tensor, b: Tensor, ends: list[int]) -> Tensor:
    """Multiply group by group.

    ``ends`` divides the rows of ``a``, the columns of ``b`` or, if both are matrices, the axis that is summed over.
    """
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
