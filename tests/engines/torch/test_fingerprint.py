"""What a model can reach is read, and told from what it was before."""

from __future__ import annotations

import enum
import functools
import math
import types
from types import SimpleNamespace

import numpy as np
import pytest

from deepshap.fingerprint import MOST_VALUES, fingerprint

SETTINGS = {"rate": 1.0}
package = types.ModuleType("a_package")
package.limit, package.unused = 1.0, 1.0


class Mode(enum.Enum):
    FAST = 1
    SLOW = 2


def read(*roots):
    return fingerprint(roots, lambda _: None, lambda _: None)


def uses_a_global():
    return SETTINGS["rate"]


def uses_a_module():
    return package.limit


def calls_another():
    return uses_a_global()


def nested():
    return [uses_a_module() for _ in range(3)]


def with_defaults(a=[1], *, b={"k": [2]}):  # noqa: B006 (that they stay one object is what is tested)
    return a, b


class Base:
    shared = 1.0

    @property
    def rate(self):
        return SETTINGS["rate"]


class Model(Base):
    def __init__(self):
        self.values, self.mode, self.names = {"a": [1.0, (2, {3})]}, Mode.FAST, ["x", b"y", None, 1 + 2j]
        self.array, self.number, self.function = np.arange(6.0).reshape(2, 3), np.float32(1.5), math.sin
        self.part, self.config = functools.partial(with_defaults, [1]), SimpleNamespace(deep=SimpleNamespace(rate=1.0))
        self.own = self  # a circle
        self.nan = math.nan

    def __call__(self):
        return self.values


def closure():
    box = [1.0]

    def function():
        return box

    return function, box


CHANGES = {
    "nothing": (lambda m: None, False),
    "what nobody names": (lambda m: setattr(package, "unused", object()), False),
    "an attribute": (lambda m: setattr(m, "added", 1), True),
    "a number deep inside": (lambda m: m.values["a"].__setitem__(0, 2.0), True),
    "a set in a tuple": (lambda m: m.values["a"][1][1].add(4), True),
    "a key": (lambda m: m.values.__setitem__("b", m.values.pop("a")), True),
    "an enumeration": (lambda m: setattr(m, "mode", Mode.SLOW), True),
    "a text": (lambda m: m.names.__setitem__(0, "z"), True),
    "bytes": (lambda m: m.names.__setitem__(1, b"z"), True),
    "an entry of an array": (lambda m: m.array.__setitem__((1, 2), 7.0), True),
    "an array's shape": (lambda m: setattr(m, "array", m.array.reshape(3, 2)), True),
    "an array's dtype": (lambda m: setattr(m, "array", m.array.view(np.int64)), True),
    "a number of NumPy": (lambda m: setattr(m, "number", np.float32(2.5)), True),
    "a function": (lambda m: setattr(m, "function", math.cos), True),
    "an argument of a partial": (lambda m: m.part.args[0].append(2), True),
    "a namespace in a namespace": (lambda m: setattr(m.config.deep, "rate", 2.0), True),
    "a class attribute of a base": (lambda m: setattr(Base, "shared", 2.0), True),
    "a method": (lambda m: setattr(Model, "__call__", lambda self: 3), True),
    "a global in a property": (lambda m: SETTINGS.__setitem__("rate", 2.0), True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_of_an_object(name, monkeypatch):
    for target, attribute in ((Base, "shared"), (Model, "__call__"), (package, "unused")):
        monkeypatch.setattr(target, attribute, getattr(target, attribute))
    monkeypatch.setitem(SETTINGS, "rate", 1.0)
    change, differs = CHANGES[name]
    model = Model()
    before = read(model)
    assert before.complete
    change(model)
    assert (read(model) != before) is differs


@pytest.mark.parametrize("function", [uses_a_global, calls_another], ids=lambda f: f.__name__)
def test_global_variables(function, monkeypatch):
    before = read(function)
    assert read(function) == before
    monkeypatch.setitem(SETTINGS, "rate", 2.0)
    assert read(function) != before


@pytest.mark.parametrize("function", [uses_a_module, nested], ids=lambda f: f.__name__)
def test_what_is_named_of_a_module(function, monkeypatch):
    before = read(function)
    monkeypatch.setattr(package, "unused", 2.0)
    assert read(function) == before
    monkeypatch.setattr(package, "limit", 2.0)
    assert read(function) != before


def test_closures_and_defaults():
    function, box = closure()
    before = read(function, with_defaults)
    box[0] = 2.0
    assert read(function, with_defaults) != before
    before = read(with_defaults)
    with_defaults.__kwdefaults__["b"]["k"].append(3)
    assert read(with_defaults) != before
    with_defaults.__kwdefaults__["b"]["k"].pop()


def test_another_function_in_the_place_of_one_that_is_gone():
    """Identities are those of objects that are kept alive."""
    box = SimpleNamespace(f=lambda x: x)
    before = read(box)
    for _ in range(100):
        box.f = lambda x: x
        assert read(box) != before


class Slotted:
    __slots__ = ("x",)


@pytest.mark.parametrize(
    "value", [Slotted(), np.zeros(10**6), np.array([object()]), [[k] for k in range(2 * MOST_VALUES)]],
    ids=["slots", "a large array", "an array of objects", "too much"],
)  # fmt: skip
def test_what_cannot_be_read(value):
    assert not read(SimpleNamespace(value=value)).complete


class Moody:
    """Does not let itself be looked into."""

    __slots__ = ()

    def __getattr__(self, name):
        raise IndexError(name)


class Lazy(types.ModuleType):
    def __getattr__(self, name):
        raise IndexError(name)


def test_nothing_is_set_off_by_reading(monkeypatch):
    assert not read(SimpleNamespace(value=Moody())).complete
    monkeypatch.setitem(globals(), "package", Lazy("lazy"))
    assert read(uses_a_module).complete


def test_the_code_of_installed_packages_is_not_followed():
    def model():
        return pytest.approx, pytest.raises

    found = read(model)
    assert found.complete
    assert len(found.alive) < 10


def test_frameworks_are_asked():
    tensor, layer = SimpleNamespace(version=1), SimpleNamespace(rate=1.0, cache=1.0)

    def of_tensor(value):
        return ("tensor", value.version) if value is tensor else None

    def of_layer(value):
        return {"rate": value.rate} if value is layer else None

    def state():
        return fingerprint([layer, [tensor]], of_tensor, of_layer)

    before = state()
    layer.cache = 2.0
    assert state() == before
    tensor.version = 2
    assert state() != before
    tensor.version, layer.rate = 1, 2.0
    assert state() != before
