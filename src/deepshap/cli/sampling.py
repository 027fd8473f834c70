"""Sampling options of ``deepshap explain``: effort, tolerance and players, and how far Deep SHAP can be trusted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DeepShapError, InputError

LOOKED_AT = 4  # rows from which the reliability is told
OPTIONS = {"output_names": "--class-names"} | {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "effort",
        "tolerance",
        "max_effort",
        "players",
        "target",
        "targets",
        "max_memory",
        "features",
        "shape",
        "lengths",
        "variable",
        "value",
        "time",
    )
}
WRITTEN = {"sep": "separator", "skiprows": "header"}  # how a text file is written, by pandas' names
READ = r"(?:read it with )?pandas\.read_csv\(path, (\w+)=(?:'(.*?)'|(.*?))\)"


def sampling_options(options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the options of explainers that differ from their defaults."""
    asked = {name: options[name] for name in ("effort", "tolerance", "max_effort") if options[name] is not None}
    if options["players"] is not None:
        asked["players"] = parse_players(options["players"])
    return {**asked, "seed": seed} if asked else {}


def to_command_line(text: str) -> str:
    """Write options of the command line for Python's parameters in a message: ``--effort 8`` for ``effort=8``."""
    text = re.sub(READ, _file_option, text)
    text = re.sub(rf"\b({'|'.join(OPTIONS)})=(?=[\w'{{])", lambda match: f"{OPTIONS[match[1]]} ", text)
    return re.sub(rf"\b({'|'.join(OPTIONS)})=|\boutput_names\b", lambda match: OPTIONS[match[0].rstrip("=")], text)


def _file_option(match: re.Match[str]) -> str:
    name, value = match[1], match[2] or match[3]
    value = (
        str(int(value) + 1)
        if name == "skiprows" and value.isdecimal()
        else value.replace("...", "").replace("None", "none")
    )
    return f"say --{WRITTEN.get(name, name)} {value}".rstrip()


def parse_players(text: str) -> Any:
    """Read --players: a word, a number of steps, a .npy file of numbers of groups, or names of groups as JSON."""
    if text.endswith(".npy"):
        return np.load(Path(text), allow_pickle=False)
    if text.isdecimal():
        return int(text)
    if not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"--players is no valid JSON: {error}.") from None


def describe_reliability(explainer: Any, inputs: Any, arguments: Any, sampling: dict[str, Any]) -> str:
    """Return a line on how far Deep SHAP is from the Shapley values, or why that is not known."""
    options = {name: sampling[name] for name in ("players", "seed") if name in sampling}
    try:
        return str(explainer.reliability(inputs, rows=LOOKED_AT, additional_forward_args=arguments, **options))
    except DeepShapError as error:
        return f"How far the shares can be trusted is not known: {str(error).splitlines()[0]}"
