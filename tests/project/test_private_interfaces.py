"""Private interfaces of other packages stand in modules called ``_compat``, and versions without one of them can be imported."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "deepshap"
# Adapters of one library each, with tests in an environment of their own.
EXEMPT = {"on_darts.py", "on_neuralforecast.py", "on_pytorch_forecasting.py"}
PUBLIC = {"_asdict", "_exit", "_fields", "_getframe", "_make", "_replace"}  # of named tuples and of Python's library
PACKAGES = {"functorch", "keras", "numba", "shap", "slicer", "tensorflow", "torch"}
INTERNAL_PACKAGES = ("keras.src", "numba.core", "numba.np", "tensorflow._api", "tensorflow.core", "tensorflow.python")
# Attributes of torch and slicer that deepshap has own ones of the same name of, and ways into a package without an underscore.
ALWAYS = {"_base", "_buffers", "_modules", "_objects", "_parameters", "_version"}
FORBIDDEN = {"ctypes", "meta_path", "path_hooks", "path_importer_cache"}
READ_IN = {"__code__": {"engines/callables.py"}}


def is_private(name: str) -> bool:
    """Return whether a name says that it is private, of another package."""
    return name.startswith("_") and not name.startswith(("__", "_deepshap")) and name.strip("_") != ""


def is_private_path(path: str) -> bool:
    """Return whether a dotted path leads into the private parts of another package."""
    first, *rest = path.split(".")
    if first not in PACKAGES | FORBIDDEN or not all(part.isidentifier() for part in rest):
        return False
    internal = any(path == package or path.startswith(f"{package}.") for package in INTERNAL_PACKAGES)
    return internal or first in FORBIDDEN or any(map(is_private, rest))


def own_names(trees: list[ast.Module]) -> set[str]:
    """Return the private names that the package gives to things of its own."""
    found = set[str]()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
            case ast.alias(asname=str(name)):
                found.add(name)
    return found


def private_uses(tree: ast.Module, own: set[str]) -> Iterator[tuple[int, str]]:
    """Yield lines and names where a module uses private parts of other packages."""

    def counts(name: str, of_self: bool = False) -> bool:
        if name in FORBIDDEN or name in READ_IN or (name in ALWAYS and not of_self):
            return True
        return is_private(name) and name not in own | PUBLIC

    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Import(names=names):
                yield from ((line, n.name) for n in names if is_private_path(n.name))
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from ((line, path) for n in names if is_private_path(path := f"{module}.{n.name}"))
            case ast.Attribute(attr=name, value=value):
                if counts(name, isinstance(value, ast.Name) and value.id in ("self", "cls")):
                    yield line, name
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr" | "delattr")) if len(node.args) > 1:
                name_given = node.args[1]
                if isinstance(name_given, ast.Constant) and counts(str(name_given.value)):
                    yield line, str(name_given.value)
            case ast.Constant(value=str(text)) if "." in text and is_private_path(text):
                yield line, text


def found_in(source: str) -> list[str]:
    tree = ast.parse(source)
    return [name for _, name in private_uses(tree, own_names([tree]))]


def test_private_interfaces_are_used_in_compat_modules_alone():
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    own = own_names(list(trees.values()))
    found = [
        f"{name}:{line}: {use}"
        for path, tree in trees.items()
        if path.name != "_compat.py" and path.name not in EXEMPT
        for name in [path.relative_to(SOURCE).as_posix()]
        for line, use in private_uses(tree, own)
        if name not in READ_IN.get(use, set())
    ]
    assert not found, "put into a module called _compat:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch\ntorch._C._is_tracing()", ["_is_tracing", "_C"]),
        ("from torch._functorch import apis", ["torch._functorch.apis"]),
        ("from torch.autograd.graph import _engine_run_backward", ["torch.autograd.graph._engine_run_backward"]),
        ("f.__code__ = g.__code__", ["__code__", "__code__"]),
        ("import sys\nsys.meta_path.append(finder)", ["meta_path"]),
        ("import ctypes", ["ctypes"]),
        ("from keras.src import ops", ["keras.src.ops"]),
        ("find('tensorflow.python.eager.context')", ["tensorflow.python.eager.context"]),
        ("getattr(module, '_backward_hooks', None)", ["_backward_hooks"]),
        ("class A:\n    def f(self):\n        self._version = 1\n        return tensor._version", ["_version"]),
        ("class A:\n    def _f(self, other):\n        return other._f(), named._replace(a=1)", []),
    ],
)
def test_what_counts_as_private(source, names):
    assert found_in(source) == names


def test_no_code_object_is_exchanged():
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Attribute) and node.attr == "__code__" and isinstance(node.ctx, ast.Store))


# ---------------------------------------------------------------------- versions without some of them
# The interface is taken away, from the package itself where that can be done. Then an explanation is right, or refused by name.
PROGRAM = """
import sys
from importlib import import_module
paths = sys.argv[2:]
import deepshap, deepshap.errors
find = deepshap.errors.find
deepshap.errors.find = lambda name: None if any(f"{name}.".startswith(f"{path}.") for path in paths) else find(name)
if sys.argv[1] == "torch":  # TensorFlow and Keras do not work without theirs, so these are hidden from deepshap alone
    for owner, _, name in (path.rpartition(".") for path in paths):
        try:
            delattr(find(owner), name)
        except (AttributeError, TypeError):
            pass  # part of a class in C
import numpy as np
x, background = np.random.default_rng(0).normal(size=(2, 3, 5, 2)).astype(np.float32)
if sys.argv[1] == "torch":
    import torch
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = torch.nn.LSTM(2, 4, batch_first=True), torch.nn.Linear(4, 2)
        def forward(self, x):
            y = self.lstm(x)[0]
            z = y[:, -1].clone()
            z += torch.vmap(lambda row: row.tanh())(y[:, 0])
            return self.head(z)
    model = Model()
    outputs = model(torch.as_tensor(x)).detach().numpy()
else:
    import keras
    model = keras.Sequential([keras.Input((5, 2)), keras.layers.LSTM(4), keras.layers.Dense(2, "softmax")])
    outputs = model.predict(x, verbose=0)
try:
    explanation = deepshap.DeepExplainer(model, background, progress=False)(x)
except deepshap.UnsupportedOperationError as error:
    assert paths[0].rpartition(".")[2] in str(error) or "no rule" in str(error), error
    print("refused")
else:
    assert np.abs(explanation.values.sum((1, 2)) + explanation.base_values - outputs).max() < 1e-5
    print("explained")
"""
REFUSED = {
    "torch": ["torch.Tensor._base", "torch.Tensor._version", "torch._C.DisableTorchFunction"],
    "tensorflow": [
        "tensorflow.python.framework.function_def_to_graph.function_def_to_graph",
        "tensorflow.python.framework.op_def_registry.get",
    ],
}
EXPLAINED = {
    "torch": [
        "torch._C._nn",
        "torch._C._functorch.peek_interpreter_stack",
        "torch._C._functorch._unwrap_batched",
        "torch.utils._python_dispatch._get_current_dispatch_mode_stack",
        "torch._VF._pack_padded_sequence",
        "torch._C._dynamo.eval_frame.get_eval_frame_callback",
    ],
    "tensorflow": [
        "tensorflow.python.eager.context.eager_mode",
        "tensorflow.python.pywrap_tfe.TFE_Py_TapeSetIsStopped",
        "tensorflow.python.trackable.data_structures._DictWrapper",
        "keras.src.utils.tracking.Tracker",
        "keras.src.backend.common.global_state.GLOBAL_STATE_TRACKER",
    ],
}


def without(framework, paths, folder):
    """What becomes of an explanation in a process whose framework lacks these."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, framework, *paths]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.split()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "path"), [(name, path) for name, paths in REFUSED.items() for path in paths])
def test_a_version_without_it_is_refused(framework, path, tmp_path):
    assert without(framework, [path], tmp_path) == "refused"


@pytest.mark.slow
@pytest.mark.parametrize("framework", EXPLAINED)
def test_a_version_without_all_others_is_explained(framework, tmp_path):
    assert without(framework, EXPLAINED[framework], tmp_path) == "explained"


@pytest.mark.long
@pytest.mark.parametrize(("framework", "path"), [(name, path) for name, paths in EXPLAINED.items() for path in paths])
def test_a_version_without_one_of_the_others_is_explained(framework, path, tmp_path):
    assert without(framework, [path], tmp_path) == "explained"
