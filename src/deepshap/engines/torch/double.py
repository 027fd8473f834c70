"""A model computed in float64, whatever it computes in: every call takes and returns the wider numbers.

The model itself is not touched: what it holds is widened where it is used, so that functions, closures and layers are
those of the user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .names import resolve
from .tree import tensors

# What subtract a mean inside: how their operand is rounded moves them, and not only how their result is.
CENTRED = {"layer_norm", "group_norm", "instance_norm", "batch_norm", "var", "std", "var_mean", "std_mean"}
CASTS = {torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16}


class InFloat64(TorchFunctionMode):
    """Widens all floating-point numbers of the calls that are made inside of it.

    Parameters
    ----------
    dtype : to which results are rounded nevertheless; None for float64.
    grid : a factor that puts the rounded numbers elsewhere: what outputs differ by from one to another, rounding makes.
    """

    def __init__(self, dtype: torch.dtype | None = None, grid: float = 1.0) -> None:
        super().__init__()
        self._dtype, self._grid = dtype, grid

    @property
    def rounds(self) -> bool:
        """Whether results are rounded."""
        return self._dtype is not None

    def __enter__(self) -> Any:
        self._wide: dict[int, tuple[Tensor, Tensor]] = {}  # what the model holds, by its identity: itself, and widened
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.set_default_dtype(self._default)
        self._wide.clear()
        super().__exit__(*error)

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        function = torch.Tensor.double if function in CASTS else function
        args, kwargs = self._widened(args), self._widened(kwargs or {})
        spelling = None if self._dtype is None else resolve(function)
        if spelling is not None and spelling.name in CENTRED and args:
            args = (self._rounded(args[0]), *args[1:])
        result = self._widened(function(*args, **kwargs))
        if self._dtype is None or not isinstance(result, Tensor):
            return result
        if spelling is not None and spelling.inplace:
            return result.copy_(self._rounded(result))
        given = {id(t) for t in tensors((args, kwargs))}
        return result if id(result) in given or result._is_view() else self._rounded(result)

    def _widened(self, tree: Any) -> Any:
        if isinstance(tree, torch.dtype):
            return torch.float64 if _is_narrow(tree) else torch.complex128 if tree == torch.complex64 else tree
        if isinstance(tree, Tensor):
            return self._wide_of(tree) if _is_narrow(_dtype(tree)) or _dtype(tree) == torch.complex64 else tree
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            return type(tree)(*map(self._widened, tree))
        if type(tree) in (tuple, list):
            return type(tree)(map(self._widened, tree))
        return {k: self._widened(v) for k, v in tree.items()} if type(tree) is dict else tree

    def _wide_of(self, tensor: Tensor) -> Tensor:
        """The same values, and the same tensor each time: the model may write to it."""
        if id(tensor) not in self._wide:
            wide = tensor.to(torch.complex128 if _dtype(tensor) == torch.complex64 else torch.float64)
            self._wide[id(tensor)] = tensor, self._rounded(wide)
        return self._wide[id(tensor)][1]

    def _rounded(self, tensor: Tensor) -> Tensor:
        if self._dtype is None or tensor.dtype != torch.float64:
            return tensor
        scaled = tensor.mul(self._grid)
        if self._dtype != torch.float64:
            return scaled.to(self._dtype).double().div(self._grid)
        rounded = (
            (3 * scaled).sub_(3 * scaled - scaled).div_(self._grid)
        )  # to a bit less (Veltkamp 1968): others than they were
        return torch.where(rounded.isfinite(), rounded, tensor)


def _is_narrow(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize < 8


def _dtype(tensor: Tensor) -> torch.dtype:
    with torch._C.DisableTorchFunction():
        return tensor.dtype
