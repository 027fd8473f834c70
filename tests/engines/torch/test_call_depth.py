"""How much of the package one warm call runs through: the files it enters and the types that carry the examples.

The bounds are what the code does today; the Explanation that a call returns is not among the types.
Lower them when a change makes a call simpler; do not raise them.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import deepshap

PACKAGE = str(Path(deepshap.__file__).parent)
NESTED = 4  # containers looked into: a list of tuples in a field, say


class Softmax(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, -1)


class LastStep(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = torch.nn.LSTM(3, 4, batch_first=True)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


def fields(instance):
    names = set(getattr(instance, "__dict__", ()))
    for kind in type(instance).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names.update((slots,) if isinstance(slots, str) else slots)
    if dataclasses.is_dataclass(instance):
        names.update(field.name for field in dataclasses.fields(instance))
    return [field_of(instance, name) for name in names]


def field_of(instance, name):
    try:
        return object.__getattribute__(instance, name)
    except AttributeError:
        return None


def contains(array, examples):
    """Return whether an array begins or ends with the examples' numbers: alone, or beside the references."""
    size = examples.size
    if array.dtype.kind != "f" or array.size < size:
        return False
    flat = array.ravel()
    return np.array_equal(flat[:size], examples.ravel()) or np.array_equal(flat[-size:], examples.ravel())


def holds(value, examples, depth=NESTED):
    """Return whether a value is an array with the examples' numbers, or a container or an object of ours with one."""
    if isinstance(value, torch.Tensor):
        if not value.is_floating_point() or value.numel() < examples.size:
            return False
        return contains(torch.Tensor.detach(value).double().numpy(), examples)
    if isinstance(value, np.ndarray):
        return contains(value, examples)
    if not depth:
        return False
    if type(value) is dict:
        return any(holds(item, examples, depth - 1) for item in value.values())
    items = list(value) if isinstance(value, tuple | list) else []
    if type(value).__module__.startswith("deepshap") and not isinstance(value, type):
        items += fields(value)
    return any(holds(item, examples, depth - 1) for item in items)


def warm_call(model, shape):
    """Return the files of ours that a warm call enters, and the types of ours that hold its examples.

    Functions are recorded in one call and types in the next one, because looking at a tensor runs code of ours too.
    """
    torch.manual_seed(0)
    background, examples = torch.randn(5, *shape), torch.randn(3, *shape)
    numbers = examples.double().numpy()
    explainer = deepshap.DeepExplainer(model, background)
    explainer(examples)
    explainer(examples)
    files, types = set(), set()

    def record_file(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            files.add(frame.f_code.co_filename[len(PACKAGE) + 1 :])

    def record_types(frame, event, result):
        if event not in ("call", "return") or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        for value in [*frame.f_locals.values(), result]:
            kind = type(value)
            if not kind.__module__.startswith("deepshap") or kind.__qualname__ in types:
                continue
            with torch._C.DisableTorchFunction():
                if not isinstance(value, type) and holds(value, numbers):
                    types.add(kind.__qualname__)

    for profile in (record_file, record_types):
        sys.setprofile(profile)
        try:
            explainer(examples)
        finally:
            sys.setprofile(None)
    return files, types


@pytest.mark.parametrize(
    ("model", "shape", "most_files", "most_types"),
    [(Softmax, (4,), 49, 13), (LastStep, (6, 3), 52, 12)],
    ids=["softmax", "lstm"],
)
def test_warm_call_stays_within_its_files_and_types(model, shape, most_files, most_types):
    files, types = warm_call(model(), shape)
    assert {"explainer.py", "engines/torch/tracer.py"} <= files  # the profile saw the call
    assert types  # the examples were seen on their way
    assert len(files) <= most_files, sorted(files)
    assert len(types) <= most_types, sorted(types)
