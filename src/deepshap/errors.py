"""Every error that deepshap raises on purpose. Each message says what, where, why and what to do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = str(Path(__file__).parent)

EXHAUSTED = "OutOfMemoryError", "ResourceExhaustedError"  # of devices, which explanations have an answer to


class DeepShapError(Exception):
    """Base class of all deepshap errors."""

    __init__ = Exception.__init__  # by which AutoGraph knows that it may raise the same class with a longer message


class InputError(DeepShapError, ValueError):
    """The model's inputs, the background or an option do not fit."""


class NoExpectedValueError(InputError, AttributeError):
    """An explainer has no single expected value, because each row has one of its own."""


class NoHeadError(InputError):
    """The model does not end in a softmax or sigmoid that can be seen."""


class UnsupportedOperationError(DeepShapError, NotImplementedError):
    """The model calls operations for which no rule is known."""


class ControlFlowError(DeepShapError):
    """The model took another path, or used other indices, for the example than for the reference."""


class BatchMixingError(DeepShapError):
    """The output for one row depends on the other rows of its batch.

    Attributes
    ----------
    certain : bool
        Whether rounding cannot be the reason, so that no other precision is tried.
    """

    certain = False


class NonFiniteError(DeepShapError, ArithmeticError):
    """The model returned NaN or infinity, or a multiplier became so."""


class AdditivityError(DeepShapError, AssertionError):
    """The attributions do not add up to the difference of the model's outputs."""


class MemoryBudgetError(DeepShapError, MemoryError):
    """The memory budget does not hold a single pair of example and reference."""


class UserCodeError(InputError, RuntimeError):
    """A rule or a function that the user gave failed; the original error is its cause."""


class AdditivityWarning(UserWarning):
    """The attributions do not add up, and the caller asked not to be stopped."""


def not_a_multiplier(whose: str, found: str, where: str = "") -> InputError:
    """A user's rule or handler returned something else than multipliers."""
    return InputError(
        f"{whose} returned {found}{where}; a multiplier is a dense tensor of floating-point numbers, where its input is, or None."
    )


@contextmanager
def of_user(what: str) -> Iterator[None]:
    """Say which code of the user's own has failed."""
    try:
        yield
    except (DeepShapError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ in EXHAUSTED:
            raise
        raise UserCodeError(f"{what} failed: {type(error).__name__}: {error}") from error


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that called deepshap."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
