"""What several test modules need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import deepshap

if TYPE_CHECKING:
    from cases.of_torch import Case

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
LOW_PRECISION = {torch.float16: 1e-2, torch.bfloat16: 6e-2}


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw a tensor."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def built(model: nn.Module) -> nn.Module:
    """Give a model drawn weights, in float64."""
    model = model.double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(0.7 * drawn(*parameter.shape, seed=seed))
    return model


def values(model: Any, X: Tensor, R: Tensor, *args: Any) -> np.ndarray:
    """Explain through the public interface."""
    return deepshap.DeepExplainer(model, R, progress=False).shap_values(X, additional_forward_args=args or None)


def change(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to the tensor, or each tensor of a list or dict."""
    if isinstance(inputs, dict):
        return {key: function(value) for key, value in inputs.items()}
    return [function(value) for value in inputs] if isinstance(inputs, list) else function(inputs)


def leaves(values: Any) -> list[Any]:
    """Return the arrays of a single result, a list or a dict."""
    if isinstance(values, dict):
        return list(values.values())
    return list(values) if isinstance(values, (list, tuple)) else [values]


def rows_of(inputs: Any, rows: slice) -> Any:
    """Select rows of every input."""
    return change(inputs, lambda value: value[rows])


def rows_of_args(args: tuple[Any, ...], rows: slice) -> tuple[Any, ...]:
    """Select rows of the additional forward arguments."""
    return tuple(a[rows] if isinstance(a, Tensor) else a for a in args)


def explainer_of(case: Case, model: Any, background: Any, **options: Any) -> deepshap.DeepExplainer:
    """Make the explainer of a case as a user does."""
    return deepshap.DeepExplainer(model, background, output=case.output, progress=False, **options)


def explain(case: Case, model: Any, background: Any, X: Any, args: tuple[Any, ...], **options: Any) -> list[Any]:
    """Explain a case. Returns one array (rows, ..., outputs) per input."""
    return leaves(explainer_of(case, model, background, **options).shap_values(X, additional_forward_args=args or None))


def totals(values: list[np.ndarray], X: Any) -> np.ndarray:
    """Sum attributions over all features of all inputs: (rows, ...outputs)."""
    return sum(v.sum(tuple(range(1, x.ndim)), dtype=np.float64) for v, x in zip(values, leaves(X), strict=True))


def pair_outputs(case: Case, model: Any, background: Any, X: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return the model's outputs (rows, ...) on X and (rows, references, ...) on the references of each row."""
    n, b = len(leaves(X)[0]), len(leaves(background)[0])
    references = change(background, lambda r: r.repeat(n, *[1] * (r.dim() - 1)))
    repeated = tuple(a.repeat_interleave(b, 0) if isinstance(a, Tensor) else a for a in args)
    with torch.no_grad():
        outputs = case.call(model, X, args).double().numpy()
        expected = case.call(model, references, repeated).double().numpy()
    return outputs, expected.reshape(n, b, *outputs.shape[1:])


def finite_differences(case: Case, model: Any, point: list[Tensor], args: tuple[Any, ...]) -> tuple[np.ndarray, float]:
    """Return the slopes of the outputs with regard to every element of one row, and the outputs' size."""
    step, sizes = 1e-5, [x.numel() for x in point]
    moves = step * torch.eye(sum(sizes), dtype=torch.float64)
    parts = torch.cat([moves, -moves]).split(sizes, 1)
    moved = [x + part.reshape(-1, *x.shape[1:]) for x, part in zip(point, parts, strict=True)]
    repeated = tuple(a.repeat_interleave(2 * sum(sizes), 0) if isinstance(a, Tensor) else a for a in args)
    with torch.no_grad():
        outputs = case.call(model, case.structured(moved), repeated).double().numpy()
    return (outputs[: sum(sizes)] - outputs[sum(sizes) :]) / (2 * step), float(np.abs(outputs).max())


def assert_close(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-9) -> None:
    """Compare arrays relative to the largest value."""
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * max(np.abs(wanted).max(), 1e-3)


def snapshot(model: Any) -> dict[str, Any]:
    """Return everything about a model and about torch that an explanation must not change."""
    state: dict[str, Any] = {
        "random": torch.get_rng_state().numpy().tobytes(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        state |= {f"{name}.{key}": value for key, value in _module(module)}
    return state


def _module(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for key, value in module.__dict__.items():
        yield key, {k: id(v) for k, v in value.items()} if isinstance(value, dict) else repr(value)
    for key, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            yield f"{key}, value", tensor.detach().numpy().tobytes()
            yield (
                f"{key}, state",
                (tensor.requires_grad, tensor.grad, tensor.is_leaf, len(tensor._backward_hooks or ())),
            )
