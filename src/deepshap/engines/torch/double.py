"""Run a model in float64, whatever its dtype: every call takes and returns the wider numbers.

The model itself is unchanged: its tensors are converted where it uses them, so that functions, closures and layers are
those of the user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ._compat import interception_off

CASTS = {torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16}


class InFloat64(TorchFunctionMode):
    """Converts all floating-point numbers of the calls in this context to float64."""

    def __enter__(self) -> Any:
        self._wide: dict[int, tuple[Tensor, Tensor]] = {}  # the model's tensors and their wide copies, by id
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
        return self._widened(function(*args, **kwargs))

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
        """Return the wide copy of a tensor, the same one each time: the model may write to it."""
        if id(tensor) not in self._wide:
            wide = tensor.to(torch.complex128 if _dtype(tensor) == torch.complex64 else torch.float64)
            self._wide[id(tensor)] = tensor, wide
        return self._wide[id(tensor)][1]


def _is_narrow(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize < 8


def _dtype(tensor: Tensor) -> torch.dtype:
    with interception_off():
        return tensor.dtype
