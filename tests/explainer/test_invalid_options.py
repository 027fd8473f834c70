"""Each public option gets invalid values of many kinds: deepshap raises an InputError, and no other exception."""

from __future__ import annotations

import contextlib
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import deepshap
from deepshap import captum, plots

NONSENSE: dict[str, Any] = {
    "text": "x",
    "nothing": "",
    "number": 7,
    "below": -1,
    "zero": 0,
    "fraction": 1.5,
    "nan": float("nan"),
    "yes": True,
    "list": ["x"],
    "empty": [],
    "dict": {"a": 1},
    "none": None,
    "object": object(),
    "bytes": b"x",
    "array": np.zeros(3),
    "tensor": torch.zeros(2, 2),
    "set": {1},
    "function": lambda *_: None,
}
COUNT, FLAG, TEXT = {"number"}, {"yes"}, {"text", "nothing"}
# What each option takes of these, by its name; other names stand below their function.
TAKES: dict[str, set[str]] = {
    "max_memory": {"none"},
    "max_rows": {"none", *COUNT},
    "progress": {"none", *FLAG},
    "output": {"none"},
    "batch_axis": {"zero"},
    "feature_names": {"none"},
    "output_names": {"none"},
    "inverse_transform": {"none"},
    "combine_mult_and_diffref": {"none"},
    "ranked_outputs": {"none"},
    "check_additivity": FLAG,
    "target": {"below", "zero", "none"},
    "targets": {"none"},
    "additional_forward_args": {"none", "empty"},
    "effort": {"number", "fraction"},
    "tolerance": {"none"},
    "max_effort": {"none"},
    "players": {"dict"},
    "method": {"none"},
    "seed": {"number", "zero"},
    "references": COUNT,
    "points": COUNT,
    "noise": {"number", "zero", "fraction"},
    "max_display": COUNT,
    "robust": FLAG,
    "unit": TEXT,
    "title": {"none", *TEXT},
    "time_label": {"none", *TEXT},
    "ax": {"none"},
    "align": set(),
    "channels": {"none"},
    "max_megabytes": {"number"},
    "id": {"none"},
    "time": {"none"},
    "variable": {"none"},
    "value": {"none"},
    "features": {"none"},
    "steps": {"none", *COUNT},
    "pad": {"number", "below", "zero", "fraction", "nan", "yes"},
    "rows_per_part": COUNT,
    "multiply_by_inputs": FLAG,
    "return_convergence_delta": FLAG,
    "attribute_to_layer_input": FLAG,
    "attribute_to_neuron_input": FLAG,
    "custom_attribution_func": {"none"},
    "grad_kwargs": {"none"},
}


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.RNN(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


MODEL = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
R, X = torch.randn(5, 3), torch.randn(4, 3)
EXPLAINER = deepshap.DeepExplainer(MODEL, R)
FOUND = EXPLAINER(X)
SERIES = deepshap.DeepExplainer(Reader(), torch.randn(3, 5, 3))(torch.randn(6, 5, 3))[..., 0]
IMAGES = deepshap.DeepExplainer(nn.Flatten(), torch.zeros(1, 1, 3, 3))(torch.randn(2, 1, 3, 3))[..., 0]
WORDS = SERIES[0].over_features()
WORDS.display_data = np.array(list("abcde"))
FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(8, 3)), columns=list("abc")).assign(id=list("uuuuuvvv"))

Case = tuple[
    Callable[..., Any], dict[str, Any], dict[str, set[str]]
]  # what is called, how, and what options take there


def pictures() -> dict[str, Case]:
    """Each with what it draws, and what else it must be given."""
    rows = {"rows": [0, 1]}
    given: dict[str, tuple[Any, dict[str, Any]]] = {
        **dict.fromkeys(("heatmap", "signal", "buildup"), (SERIES[0], {})),
        **dict.fromkeys(("beeswarm", "importance", "importance_map", "importance_over_time", "outliers"), (SERIES, {})),
        **dict.fromkeys(("cohorts", "difference"), (SERIES, rows)),
        **dict.fromkeys(("text", "text_html"), (WORDS, {})),
        "importance_by_group": (SERIES, {"groups": list("aabbab")}),
        "scatter": (SERIES, {"feature": 0}),
        "image": (IMAGES[0], {}),
    }
    places = {"step": {"none", "zero", "below"}, "feature": {"none", "zero", "below", "yes"}}
    groups = {"rows": {"zero", "below"}, "others": {"zero", "below", "none"}}
    own = {"outliers": {"rows": COUNT}, "cohorts": groups, "difference": groups}
    return {
        f"plots.{name}": (getattr(plots, name), {"explanation": data, **options}, {**places, **own.get(name, {})})
        for name, (data, options) in given.items()
    }


def of_captum() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name in captum.__all__:
        kind = getattr(captum, name)
        made = {"model": MODEL, **({} if name in ("DeepLift", "DeepLiftShap") else {"layer": MODEL[0]})}
        options = {"inputs": X, "baselines": R if name.endswith("Shap") else torch.zeros(1, 3)}
        options |= {"neuron_selector": 0} if name.startswith("Neuron") else {"target": 0}
        plain = {"number", "below", "zero", "fraction", "yes", "none"}
        takes = {"target": {"below", "zero", "yes"}, "neuron_selector": {"below", "zero"}, "eps": set(NONSENSE)}
        takes |= {} if name.endswith("Shap") else {"baselines": plain}
        cases[f"captum.{name}.attribute"] = (kind(**made).attribute, options, takes)
        cases[f"captum.{name}"] = (
            lambda kind=kind, options=options, **given: kind(**given).attribute(**options),
            made,
            takes,
        )
    return cases


CASES: dict[str, Case] = {
    "DeepExplainer": (
        lambda *given, **options: deepshap.DeepExplainer(*given, **options)(X),
        {"model": MODEL, "data": R},
        {},
    ),
    "shap_values": (EXPLAINER.shap_values, {"X": X}, {}),
    "explainer": (EXPLAINER.__call__, {"X": X}, {}),
    "explainer of a target": (EXPLAINER.__call__, {"X": X, "target": "predicted"}, {"ranked_outputs": {"none"}}),
    "reliability": (EXPLAINER.reliability, {"X": X}, {"rows": COUNT}),
    "faithfulness": (
        deepshap.faithfulness,
        {"explainer": EXPLAINER, "X": X},
        {"players": set(), "target": {"below", "zero"}},
    ),
    "check": (deepshap.check, {"model": MODEL, "example": X}, {}),
    "sequences": (deepshap.sequences, {"frame": FRAME, "id": "id"}, {"id": set()}),
    "status": (deepshap.status, {"folder": None}, {"folder": {"nothing"}}),  # the folder at hand, which is empty
    "percentile": (
        FOUND.percentile,
        {"q": 50},
        {"q": {"number", "zero", "fraction"}, "axis": {"zero", "below", "none"}},
    ),
    "hstack": (FOUND.hstack, {"other": FOUND}, {}),
    "concat": (FOUND.concat, {"explanations": [FOUND]}, {}),
    **pictures(),
    **of_captum(),
}
CLASSES = {
    "DeepExplainer": deepshap.DeepExplainer,
    **{f"captum.{name}": getattr(captum, name) for name in captum.__all__},
}
PAIRS = [
    (name, option)
    for name, (function, _, takes) in CASES.items()
    for option in inspect.signature(CLASSES.get(name, function)).parameters
    if option not in ("names", "per")
]


def taken(function: Callable[..., Any], given: dict[str, Any], option: str) -> set[str]:
    """The nonsense that goes through; whatever is raised in words that are not ours comes through as well."""
    found = set()
    for kind, value in NONSENSE.items():
        with contextlib.suppress(deepshap.DeepShapError):
            function(**{**given, option: value})
            found.add(kind)
    plt.close("all")
    return found


@pytest.mark.parametrize(("name", "option"), PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_nonsense_is_refused(name, option, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    function, given, takes = CASES[name]
    assert taken(function, given, option) == takes.get(option, TAKES.get(option, set()))


def test_targets_have_a_row_each_whether_they_are_asked_for_or_not():
    for options in ({}, {"target": "predicted"}, {"ranked_outputs": 1}):
        for call in (EXPLAINER.shap_values, EXPLAINER):
            with pytest.raises(deepshap.InputError, match="targets"):
                call(X, targets=[0, 1], **options)
            call(X, targets=[0, 1, 0, 1], **options)


def test_a_column_of_times_may_be_called_0():
    frame = pd.DataFrame({"id": ["u", "u"], 0: [2, 1], "a": [1.0, 3.0]})
    assert deepshap.sequences(frame, "id", 0).values[0, :, 0].tolist() == [3.0, 1.0]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("explainer", ["x", None, MODEL]),
        ("data", [7, object(), (1, "x")]),
        ("folder", [None, 7, b"x"]),
        ("features", [7, {"a": 1}]),
        ("shape", [7, "x", [1.5], [0]]),
        ("lengths", [7, "x", [1, 2]]),
        ("rows", [7, (1,), (0, "x"), (-1, 2)]),
        ("rows_per_part", [0, True, "x", 1.5]),
        ("workers", [0, True, "x"]),
        ("form", [7, "x", np.zeros(2)]),
        ("dtype", [7, "x", np.zeros(2)]),
        ("on_error", [7, "x", np.zeros(2)]),
        ("progress", [1, "x"]),
    ],
)
def test_nonsense_for_data_sets(option, values, tmp_path):
    for value in values:
        given = {"explainer": EXPLAINER, "data": X.numpy(), "folder": tmp_path / "run", option: value}
        with pytest.raises(deepshap.InputError):
            deepshap.explain_dataset(**given)


@pytest.mark.parametrize(
    ("option", "value"), [("path", 7), ("path", None), ("title", 7), ("max_megabytes", "x"), ("seed", -1)]
)
def test_nonsense_for_reports_and_files(option, value, tmp_path):
    with pytest.raises(deepshap.InputError, match=option):
        FOUND.report(**{"path": tmp_path / "page.html", option: value})
    if option == "path":
        for function in (FOUND.save, deepshap.load):
            with pytest.raises(deepshap.InputError):
                function(value)


def test_explanations_need_a_folder_and_reports_a_name_of_html(tmp_path):
    for name in ("missing/why.parquet", "missing/why.csv"):
        with pytest.raises(deepshap.InputError, match=r"why.* cannot be written: there is no folder .*missing"):
            FOUND.save(tmp_path / name)
    with pytest.raises(deepshap.InputError, match="there is no folder"):
        FOUND.report(tmp_path / "missing" / "why.html")
    for name in ("why.pdf", "why"):
        with pytest.raises(deepshap.InputError, match=r"whose name ends in \.html"):
            FOUND.report(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_explainers_are_saved_to_paths_and_to_open_files(tmp_path):
    path = tmp_path / "explainer.bin"
    EXPLAINER.save(str(path))
    np.testing.assert_array_equal(deepshap.DeepExplainer.load(path)(X).values, FOUND.values)
    with open(path, "wb") as file:
        EXPLAINER.save(file)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(deepshap.DeepExplainer.load(file)(X).values, FOUND.values)
    with open(path, encoding="latin1") as text:
        for given in (text, 7, None):
            with pytest.raises(deepshap.InputError, match="open\\(path, 'rb'\\)"):
                deepshap.DeepExplainer.load(given)
    with pytest.raises(deepshap.InputError, match="open\\(path, 'wb'\\)"):
        EXPLAINER.save(7)


@pytest.mark.parametrize("content", [b"", b"nothing that was pickled", pickle.dumps([1, 2])])
def test_a_file_that_is_no_explainer(content, tmp_path):
    path = tmp_path / "explainer.bin"
    path.write_bytes(content)
    with pytest.raises(deepshap.InputError, match=r"explainer\.bin holds .*explainer that DeepExplainer\.save wrote"):
        deepshap.DeepExplainer.load(path)
