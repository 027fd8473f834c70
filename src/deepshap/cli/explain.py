"""``deepshap explain``: read, explain through the data-set runner, write.

Data that fit into memory are read at once; large ones (--shards: Parquet files and arrays) are read part by part, and some of
their rows are drawn for the background. Either way ``explain_dataset`` explains them, into the folder of --shards or into a
temporary one whose parts become the file. Modules that take time to import are imported when the data have been read.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ..errors import DeepShapError, InputError, needed
from ..explanation.labels import duration, first_few, plural
from ..tables import Sequences, Wide, describe
from ..tables.files import FileOptions
from ..tables.parquet import PARQUET
from .data import (
    Data,
    Source,
    read_background,
    read_data,
    reorder_features,
    row_array,
    row_bounds,
    select_rows,
    split_names,
)
from .files import parse_sizes
from .sampling import LOOKED_AT, describe_reliability, sampling_options, to_command_line

if TYPE_CHECKING:
    from ..results import Explanation
    from .models import Model

ASKED = 50  # rows about which the model is asked


def run(folder: Path | None, parts: dict[str, Any], **arguments: Any) -> bool:
    """Explain the data and write what was asked for; return whether all rows could be explained."""
    _import_writers(arguments["report"])
    sampling = sampling_options(arguments, arguments["seed"])
    source, path = make_source(arguments, arguments["targets"], arguments["groups"]), arguments["data"]
    streamed = folder is not None and _is_streamed(path, source)
    rows, chosen, options = _open(source, folder, arguments) if streamed else _read(source, arguments)
    reference, description = read_background(arguments["background"], source, rows, path, arguments["seed"])

    from .models import cast  # imports torch

    loaded = load_model(arguments["model"], arguments)
    inputs = cast([*chosen.inputs], loaded, chosen, arguments["dtype"])
    reference = cast(reference, loaded, chosen, arguments["dtype"])
    words = load_vocabulary(arguments["vocabulary"], inputs)
    explainer, axes = make_explainer(loaded, chosen, reference, arguments, words)
    data = path
    if streamed:
        for array, read in zip(inputs, chosen.inputs, strict=True):
            if (array.dtype.kind in "iu") != (read.dtype.kind in "iu"):
                message = f"the data are {read.dtype} and the model takes {array.dtype}: --shards needs them as such."
                raise InputError(message)
    else:
        data = _rows(chosen, inputs)
        raw = None if arguments["raw"] is None else _rows(chosen, _raw_inputs(chosen, inputs, source, arguments))
        options = {"lengths": _lengths(chosen), "targets": chosen.targets, "raw": raw}
    asked = {**sampling, "ranked_outputs": arguments["ranked_outputs"], "target": arguments["target"]}
    if not arguments["quiet"]:
        _print_sources(rows.said, arguments)
    with tempfile.TemporaryDirectory(prefix="deepshap-") as temporary:
        written = _explain(
            explainer,
            data,
            folder or Path(temporary) / "parts",
            chosen,
            {**options, **parts, **asked},
            arguments["quiet"],
        )
        explanation = None if folder else written[:]
    reliability = None
    if _wants_reliability(arguments, sampling, explanation is not None) and len(chosen):
        reliability = describe_reliability(explainer, _move_rows(inputs, axes), _arguments(chosen), asked)
    if explanation is None:
        return _print_run(written, reliability, arguments)
    explanation.reliability, explanation.model = reliability, loaded.name
    explanation.background = {"rows": len(reference[0]), "description": description}
    explanation.compute_time = written.statistics["seconds"]
    _set_lengths(explanation, chosen)
    asking = _faithfulness(explainer, inputs, axes, chosen, arguments) if arguments["faithfulness"] else None
    explanation.save(arguments["output"])
    if arguments["report"] is not None:
        explanation.report(arguments["report"], groups=chosen.groups, faithfulness=asking)
    if not arguments["quiet"]:
        _print_result(explanation, len(reference[0]), arguments)
    if asking is not None:
        click.echo(str(asking))
    return True


# ---------------------------------------------------------------------- data
def make_source(options: dict[str, Any], targets: str | None = None, groups: str | None = None) -> Source:
    """Return the options that say how files are read."""
    return Source(
        options["id_column"],
        options["time_column"],
        split_names(options["features"], "--features"),
        options["form"],
        options["arrays"],
        parse_sizes(options["shape"], "--shape"),
        options["lengths"],
        targets,
        groups,
        options["variable"],
        options["value"],
        FileOptions(options["separator"], options["decimal"], options["encoding"], options["header"]),
    )


def _is_streamed(path: Path, source: Source) -> bool:
    """Return whether a data set is read part by part."""
    large = path.is_dir() or path.suffix.lower() in (*PARQUET, ".npy")
    return large and source.variable is None and source.form is None


def _read(source: Source, arguments: dict[str, Any]) -> tuple[Data, Data, dict[str, Any]]:
    """Return all rows of a file, and those of --rows."""
    rows = read_data(arguments["data"], source)
    return rows, select_rows(rows, arguments["rows"]), {}


def _open(source: Source, folder: Any, arguments: dict[str, Any]) -> tuple[Data, Data, dict[str, Any]]:
    """Open a data set: rows for the background, rows spread over the data set, and the options of ``explain_dataset``."""
    from ..dataset.sources import check_separate, open_source
    from ..memory import evenly

    path, background = arguments["data"], arguments["background"]
    if background == "mean":
        raise InputError("--background mean reads all data at once: with --shards give a file that holds the mean.")
    check_separate(folder, path)
    lengths: Any = False if source.lengths is None else source.lengths == "table" or source.lengths
    if isinstance(lengths, str) and lengths.endswith(".npy"):
        lengths = row_array(lengths, "--lengths")
    options: dict[str, Any] = {"shape": source.shape, "lengths": lengths}
    table = path.suffix.lower() != ".npy"
    if table:
        options |= {"id": source.id_column, "time": source.time_column, "features": source.features}
    if source.targets is not None:
        columns = table and Path(source.targets).suffix != ".npy"
        named = [name.strip() for name in source.targets.split(",")]
        options["targets"] = named if columns else row_array(source.targets, "--targets")
    if arguments["raw"] is not None:
        raw = arguments["raw"]
        options["raw"] = raw if _is_streamed(raw, source) else _rows(of_raw := read_data(raw, source), of_raw.inputs)
    opened = open_source(path, **options)
    count = opened.rows
    options["rows"] = None if arguments["rows"] is None else row_bounds(arguments["rows"], count)
    wanted = min(int(background), count) if background.isdecimal() else 1
    drawn = np.sort(np.random.default_rng(arguments["seed"]).choice(count, min(max(wanted, 1), count), replace=False))
    first, last = options["rows"] or (0, count)
    read_as = opened.read_as()
    said = [f"{path}: {plural(count, 'row')}", describe({"long": False, **read_as})] if "features" in read_as else []
    spread = opened.take(first + evenly(min(last, count) - first, LOOKED_AT))
    return replace(_to_data(opened.take(drawn)), said=said), _to_data(spread), options


def _to_data(batch: Any) -> Data:
    """Return a batch of rows as ``Data``."""
    X, passes = batch.X, batch.lengths is not None
    if isinstance(X, Sequences):
        data = Data([X.values], X.lengths, X.row_ids, X.step_labels, X.feature_names, time_label=X.time_label)
        return replace(data, passes_lengths=passes)
    if isinstance(X, Wide):
        values = X.values.astype(np.float64)
        return Data([values], batch.lengths, feature_names=X.feature_names, passes_lengths=passes)
    inputs = [np.asarray(array) for array in (X if isinstance(X, list) else [X])]
    return Data(inputs, batch.lengths, passes_lengths=passes)


def _rows(data: Data, inputs: list[np.ndarray]) -> Any:
    """Return rows in memory as ``explain_dataset`` takes them, with their ids and names."""
    first, *others = inputs
    if others:
        return inputs
    if data.step_labels is not None and data.lengths is not None and data.row_ids is not None:
        names = data.feature_names or []
        return Sequences(first, data.lengths, data.row_ids, data.step_labels, names, data.time_label)
    return Wide(first, data.row_ids, data.feature_names)


def _lengths(data: Data) -> Any:
    """Return the lengths that the model gets."""
    return data.lengths if data.passes_lengths and data.lengths is not None else False


def _arguments(data: Data) -> Any:
    return (data.lengths.astype(np.int64),) if data.passes_lengths and data.lengths is not None else None


def _raw_inputs(data: Data, inputs: list[np.ndarray], source: Source, arguments: dict[str, Any]) -> list[np.ndarray]:
    """Return the data before scaling, which must be of the same rows."""
    try:
        raw = select_rows(read_data(arguments["raw"], source), arguments["rows"])
    except InputError as error:
        raise InputError(f"--raw, which is read with the options of DATA: {error}") from None
    raw = reorder_features(raw, data, "--raw")
    raw_shapes, shapes = ([array.shape for array in arrays] for arrays in (raw.inputs, inputs))
    if raw_shapes != shapes:
        raise InputError(
            f"--raw: shapes {raw_shapes} where the data have {shapes}: give the same rows, steps and features, before scaling."
        )
    named: list[tuple[str, Any, Any]] = [("id", raw.row_ids, data.row_ids), ("length", raw.lengths, data.lengths)]
    if raw.step_labels is not None and data.step_labels is not None:
        shape = data.inputs[0].shape[:2]
        raw_times, of_data = (
            np.broadcast_to(labels, shape).astype(str) for labels in (raw.step_labels, data.step_labels)
        )
        named.append(("times", raw_times, of_data))
    for what, of_raw, of_data in named:
        if of_raw is None or of_data is None or np.array_equal(of_raw, of_data):
            continue
        row = np.argwhere(of_raw != of_data)[0][0]
        raise InputError(
            f"--raw: the {what} of row {row} is {of_raw[row]}, and {of_data[row]} in the data: give the same rows in their order."
        )
    return raw.inputs


class Vocabulary:
    """The words of token ids, as an inverse transform."""

    def __init__(self, vocabulary: Path) -> None:
        if not vocabulary.exists():
            raise InputError(f"there is no file {vocabulary}.")
        self.words = np.array(vocabulary.read_text(encoding="utf-8").splitlines())

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Look up."""
        if ids.dtype.kind not in "iu":
            raise InputError(
                "--vocabulary is for token ids, and the data are no whole numbers; --dtype int64 changes that."
            )
        count = len(self.words)
        if not 0 <= ids.min() <= ids.max() < count:
            raise InputError(f"--vocabulary has {count} words, ids 0 to {count - 1}; the data go to {ids.max()}.")
        return self.words[ids]


def load_vocabulary(vocabulary: Path | None, inputs: list[np.ndarray]) -> Vocabulary | None:
    """Return what tables and reports show for token ids, tried on the inputs."""
    if vocabulary is None:
        return None
    words = Vocabulary(vocabulary)
    if inputs[0].size:
        words(inputs[0])
    return words


# ---------------------------------------------------------------------- model
def load_model(model: str, options: dict[str, Any]) -> Model:
    """Read the model with the options that concern it."""
    from .models import read_model

    names = ("weights", "model_options", "allow_pickle", "device", "dtype")
    return read_model(model, **{name: options[name] for name in names}, batch_axis=int(options["time_first"]))


def make_explainer(
    loaded: Model, data: Data, reference: list[np.ndarray], arguments: dict[str, Any], words: Vocabulary | None
) -> tuple[Any, list[int]]:
    """Return the explainer that the options ask for, and where the rows lie in each input."""
    from ..explainer import DeepExplainer
    from .models import Selection

    names = split_names(arguments["feature_names"], "--feature-names")
    if names is not None and len(data.inputs) > 1:
        raise InputError("--feature-names is for a model of one input.")
    if names is not None and data.feature_names is not None and names != data.feature_names:
        raise InputError(
            "--feature-names names the features of an array; those of a table are its columns, "
            f"{first_few(data.feature_names)}."
        )
    selection = Selection(
        arguments["tensor"], arguments["classes"], split_names(arguments["class_names"], "--class-names")
    )
    axes = [int(arguments["time_first"] and array.ndim > 2) for array in reference]
    explainer = DeepExplainer(
        loaded.call,
        _move_rows(reference, axes),
        output=selection,
        batch_axis=axes,
        max_memory=arguments["max_memory"],
        max_rows=min([declared.most_rows for declared in loaded.inputs or [] if declared.most_rows], default=None),
        progress=False,
        feature_names=names if names is not None else data.feature_names,
        output_names=selection.names,
        inverse_transform=words if len(axes) == 1 or words is None else [words, *[None] * (len(axes) - 1)],
    )
    return explainer, axes


def _move_rows(inputs: list[np.ndarray], axes: list[int]) -> Any:
    moved = [np.moveaxis(array, 0, axis) for array, axis in zip(inputs, axes, strict=True)]
    return moved if len(moved) > 1 else moved[0]


# ---------------------------------------------------------------------- the run
def _import_writers(report: Path | None) -> None:
    """Find out before the work whether what writes the files is installed."""
    needed("pyarrow.parquet", "Parquet files need pyarrow")
    if report is not None:
        needed("plotly", "a report needs plotly", "report")
        needed("jinja2", "a report needs jinja2", "report")


def _explain(explainer: Any, data: Any, place: Path, chosen: Data, options: dict[str, Any], quiet: bool) -> Any:
    from ..dataset.run import explain_dataset

    try:
        return explain_dataset(explainer, data, place, progress=False if quiet else None, **options)
    except InputError as error:
        if error.__cause__ is None or isinstance(error.__cause__, DeepShapError):
            raise
        raise InputError(f"{error}{_hint(error, chosen)}") from error.__cause__


def _hint(error: InputError, data: Data) -> str:
    """Return what may be the reason why a model fails on the data."""
    names = "" if data.feature_names is None else f" The features are {', '.join(data.feature_names)}."
    from .models import describe_mismatch

    wanted = re.search(r"takes (\d+) features", str(error))
    if data.feature_names is not None and wanted is not None and int(wanted[1]) < len(data.feature_names):
        return f" {describe_mismatch(data.feature_names, int(wanted[1]))}"
    if "vocabulary" in str(error):
        return names
    if any(array.dtype.kind in "iub" for array in data.inputs):
        return f"{names} The data are whole numbers; --dtype float32 changes that."
    if not isinstance(error.__cause__, TypeError) or data.passes_lengths:
        return names
    return f"{names} If it takes lengths, give --lengths; if it takes several inputs, --array NAME for each, of an .npz file."


def _set_lengths(explanation: Explanation, data: Data) -> None:
    """Treat rows of different lengths as padded, unless the model reads behind the end of the shorter rows."""
    if explanation.players is not None or data.lengths is None or data.passes_lengths:
        return
    for part in (part for _, part in explanation.items() if part._steps_at is not None):
        try:
            part.lengths = data.lengths
        except InputError:
            click.echo(
                "deepshap: warning: rows have different lengths, and the model reads what stands behind the shorter ones; if it "
                "takes lengths, give --lengths",
                err=True,
            )


def _faithfulness(
    explainer: Any, inputs: list[np.ndarray], axes: list[int], data: Data, arguments: dict[str, Any]
) -> Any:
    """Return the faithfulness of the explanations of some rows, evenly spread."""
    from ..evaluation import faithfulness
    from ..memory import evenly

    rows = evenly(len(data), ASKED)
    options: dict[str, Any] = {} if arguments["target"] is None else {"target": arguments["target"]}
    sample = data[rows]
    options |= {"targets": sample.targets, "additional_forward_args": _arguments(sample), "seed": arguments["seed"]}
    return faithfulness(explainer, _move_rows([array[rows] for array in inputs], axes), **options)


def _wants_reliability(arguments: dict[str, Any], sampling: dict[str, Any], to_file: bool) -> bool:
    """Return whether the call reports how far plain Deep SHAP can be trusted."""
    plain = sampling.get("effort", 1) == 1 and "tolerance" not in sampling
    is_reported = to_file or arguments["report"] is not None or not arguments["quiet"]
    return plain and is_reported and not arguments["no_reliability"]


def _print_sources(said: list[str], arguments: dict[str, Any]) -> None:
    """Print how the data were read, and whose weights are taken where no file holds any."""
    for line in said:
        click.echo(line)
    if ":" in arguments["model"] and not arguments["weights"] and not Path(arguments["model"]).exists():
        click.echo(f"the weights are those that {arguments['model']} gives the model; others come with --weights")


def _print_result(explanation: Explanation, references: int, arguments: dict[str, Any]) -> None:
    """Print what was done, and where it is."""
    from ..outputs import kind_of

    pairs = f"{plural(len(explanation.gap), 'row')} × {plural(references, 'reference')}"
    gap = f"{np.max(explanation.gap):.0e} of the outputs' scale"
    click.echo(f"explained {pairs} in {duration(explanation.compute_time)}; the sums match to {gap}")
    if explanation.explained is not None:
        click.echo(f"explained output: {explanation.explained}")
    _print_method(explanation, explanation.reliability)
    kind = "logits" if explanation.explained or explanation.predictions is None else kind_of(explanation.predictions)
    if kind == "probabilities":
        click.echo("the outputs are probabilities; --target log-odds explains odds, on which evidence adds up")
    elif kind == "unclear":
        click.echo("the output lies between 0 and 1; of a probability --target logits explains what the sigmoid gets")
    click.echo(f"the attributions are in {arguments['output']}")
    if arguments["report"] is not None:
        click.echo(f"the report is in {arguments['report']}")


def _print_method(explanation: Explanation, reliability: str | None) -> None:
    click.echo(f"method: {explanation.method}")
    if reliability is not None:
        click.echo(f"reliability: {to_command_line(reliability)}")


def _print_run(written: Any, reliability: str | None, arguments: dict[str, Any]) -> bool:
    """Write the report of a run, and say how it went, at last in one line of JSON; return whether all rows are explained."""
    if len(written) and not arguments["quiet"]:
        _print_method(written[0], reliability)
    if arguments["report"] is not None:
        written.report(arguments["report"], seed=arguments["seed"], reliability=reliability)
        if not arguments["quiet"]:
            click.echo(f"the report is in {arguments['report']}")
    click.echo(json.dumps(written.statistics))
    return not written.errors
