"""``deepshap explain``: read, explain, write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import click
import numpy as np
import torch

from ..engines.inputs import keyed, tensors_in
from ..errors import DeepShapError, InputError, check_names, needed
from ..evaluation import Faithfulness, faithfulness
from ..explainer import DeepExplainer
from ..explanation.labels import duration, plural, shortened
from ..memory import evenly
from ..outputs import kind_of
from ..results import Explanation
from ..sampling import DeepShap
from ..tables.files import FileOptions
from .data import Data, Source, listed, ordered, read_background, read_data, sizes, taken
from .dial import dial_of, reliability_of, with_options
from .estimate import estimated
from .files import ATTRIBUTIONS, REPORT, check_can_write
from .models import Model, read_model
from .words import Words, words_of

ASKED = 50  # rows about which the model is asked


def run(
    model: str,
    data: Path,
    output: Path,
    report: Path | None,
    background: str,
    seed: int,
    rows: str | None,
    classes: tuple[str, ...],
    class_names: str | None,
    ranked_outputs: int | None,
    feature_names: str | None,
    vocabulary: Path | None,
    raw: Path | None,
    max_memory: str | None,
    quiet: bool,
    traceback: bool,
    target: str | None,
    targets: str | None,
    groups: str | None,
    faithfulness: bool,
    **options: Any,
) -> None:
    """Explain the data and write what was asked for; nothing is written if anything fails."""
    check_beside(report, groups)
    writes = [("--output", output, ATTRIBUTIONS), ("--report", report, REPORT)]
    check_can_write(writes, [data, raw, vocabulary, Path(background)])
    _import_writers(report)
    source = source_of(options, targets, groups)
    all_rows = read_data(data, source)
    chosen = taken(all_rows, rows)
    reference, description = read_background(background, source, all_rows, data, seed)
    loaded = model_of(model, options)
    inputs = cast([*chosen.inputs], loaded, chosen, options["dtype"])
    shown = None if raw is None else _shown(chosen, inputs, taken(_read_raw(raw, source), rows))
    words = words_of(vocabulary, inputs, raw, options)
    reference = cast(reference, loaded, chosen, options["dtype"])
    names: dict[str, Any] = {"classes": classes, "class_names": class_names, "feature_names": feature_names}
    explainer, axes = explainer_of(loaded, chosen, reference, max_memory, quiet, options, words=words, **names)
    asked = {"ranked_outputs": ranked_outputs, "target": target_of(target, classes), **dial_of(options, seed)}
    if not quiet:
        for line in all_rows.said:
            click.echo(line)
        _tell_weights(model, options)

    def explained(count: int | None = None) -> Explanation:
        return _explain(explainer, _placed([one[:count] for one in inputs], axes), chosen[:count], asked)

    with explainer.frozen():
        seconds = None if quiet else estimated(explained, len(chosen))
        if seconds is not None:
            click.echo(f"this will take about {duration(seconds)}; --rows 10 explains the first ten alone")
        explanation = explained()
        if explanation.method == DeepShap.description and not options["no_reliability"]:
            explanation.reliability = reliability_of(explainer, _placed(inputs, axes), _arguments(chosen), asked)
        asking = faithfulness_of(explainer, inputs, axes, chosen, asked, seed) if faithfulness else None
    explanation.background = {"rows": len(reference[0]), "description": description}
    explanation.model = loaded.name
    _describe(explanation, chosen, shown)
    explanation.save(output)
    if report is not None:
        explanation.report(report, groups=chosen.groups, faithfulness=asking)
    if not quiet:
        _tell(explanation, len(reference[0]), output, report)
    if asking is not None:
        click.echo(str(asking))


def _tell_weights(model: str, options: dict[str, Any]) -> None:
    """Print whose weights are taken where no file holds any."""
    if ":" in model and not options["weights"] and not Path(model).exists():
        click.echo(f"the weights are those that {model} gives the model; others come with --weights")


def _tell(explanation: Explanation, references: int, output: Path, report: Path | None) -> None:
    """Print what was done, and where it is."""
    pairs = f"{plural(len(explanation.gap), 'row')} × {plural(references, 'reference')}"
    gap = f"{np.max(explanation.gap):.0e} of the outputs' scale"
    click.echo(f"explained {pairs} in {duration(explanation.compute_time)}; the sums match to {gap}")
    if explanation.explained is not None:
        click.echo(f"explained output: {explanation.explained}")
    click.echo(f"method: {explanation.method}")
    if explanation.reliability is not None:
        click.echo(f"reliability: {with_options(explanation.reliability)}")
    kind = "logits" if explanation.explained or explanation.predictions is None else kind_of(explanation.predictions)
    if kind == "probabilities":
        click.echo("the outputs are probabilities; --target log-odds explains odds, on which evidence adds up")
    elif kind == "unclear":
        click.echo("the output lies between 0 and 1; of a probability --target logits explains what the sigmoid gets")
    click.echo(f"the attributions are in {output}")
    if report is not None:
        click.echo(f"the report is in {report}")


def run_in_parts(folder: Path, shards: dict[str, Any], **given: Any) -> bool:
    """Explain the data part by part into a folder; whether all rows could be explained."""
    from ..dataset.sources import check_apart
    from .shards import read_sharded, run_sharded

    data, background, seed, dtype = (given[name] for name in ("data", "background", "seed", "dtype"))
    report, raw, vocabulary = (given[name] for name in ("report", "raw", "vocabulary"))
    check_apart(folder, data)
    if given["groups"] is not None or given["faithfulness"]:
        raise InputError(
            "--groups and --faithfulness look at all rows together: leave out --shards, or take some --rows."
        )
    check_can_write([("--report", report, REPORT)], [data, raw, vocabulary, Path(background)])
    _import_writers(report)
    source = source_of(given, given["targets"])
    found = read_sharded(data, source, background, seed, raw, given["rows"])
    reference, _ = read_background(background, source, found.sample, data, seed)
    loaded = model_of(given["model"], given)
    inputs = cast([*found.sample.inputs], loaded, found.sample, dtype)
    for one, read in zip(inputs, found.sample.inputs, strict=True):
        if (one.dtype.kind in "iu") != (read.dtype.kind in "iu"):
            raise InputError(f"the data are {read.dtype} and the model takes {one.dtype}: --shards needs them as such.")
    reference = cast(reference, loaded, found.sample, dtype)
    names = {name: given[name] for name in ("classes", "class_names", "feature_names")}
    names["words"] = words_of(vocabulary, inputs, raw, given)
    explainer, axes = explainer_of(loaded, found.sample, reference, given["max_memory"], True, given, **names)
    target = target_of(given["target"], given["classes"])
    dial = dial_of(given, seed)
    if not given["quiet"]:
        for line in found.said:
            click.echo(line)
        _tell_weights(given["model"], given)
    reliability, plain = None, dial.get("effort", 1) == 1 and "tolerance" not in dial and not given["no_reliability"]
    if plain and len(found.spread) and (report is not None or not given["quiet"]):
        some = _placed(cast([*found.spread.inputs], loaded, found.spread, dtype), axes)
        reliability = reliability_of(explainer, some, _arguments(found.spread), dial)
        if not given["quiet"]:
            click.echo(f"reliability: {with_options(reliability)}")
    options = {**shards, **dial, "ranked_outputs": given["ranked_outputs"], "target": target}
    return run_sharded(explainer, found, folder, report, reliability, given["quiet"], **options)


def explainer_of(
    loaded: Model,
    data: Data,
    reference: list[np.ndarray],
    max_memory: str | None,
    quiet: bool,
    options: dict[str, Any],
    *,
    classes: tuple[str, ...],
    class_names: str | None,
    feature_names: str | None,
    words: Words | None,
) -> tuple[DeepExplainer, list[int]]:
    """The explainer that the options ask for, and where the rows lie in each input."""
    names = listed(feature_names, "--feature-names")
    if names is not None and len(data.inputs) > 1:
        raise InputError("--feature-names is for a model of one input.")
    selection = Selection(options["tensor"], classes, listed(class_names, "--class-names"))
    axes = [int(options["time_first"] and one.ndim > 2) for one in reference]
    explainer = DeepExplainer(
        loaded.call,
        _placed(reference, axes),
        output=selection,
        batch_axis=axes,
        max_memory=max_memory,
        max_rows=min([one.most_rows for one in loaded.inputs or [] if one.most_rows], default=None),
        progress=False if quiet else None,
        feature_names=names if names is not None else data.feature_names,
        output_names=selection.names,
        inverse_transform=words if len(axes) == 1 or words is None else [words, *[None] * (len(axes) - 1)],
    )
    return explainer, axes


def source_of(options: dict[str, Any], targets: str | None = None, groups: str | None = None) -> Source:
    """Take the options that say how files are read."""
    return Source(
        options["id_column"],
        options["time_column"],
        listed(options["features"], "--features"),
        options["form"],
        options["arrays"],
        sizes(options["shape"], "--shape"),
        options["lengths"],
        targets,
        groups,
        options["variable"],
        options["value"],
        FileOptions(options["separator"], options["decimal"], options["encoding"], options["header"]),
    )


def model_of(model: str, options: dict[str, Any]) -> Model:
    """Read the model with the options that concern it."""
    names = ("weights", "model_options", "allow_pickle", "device", "dtype")
    return read_model(model, **{name: options[name] for name in names}, batch_axis=int(options["time_first"]))


@runtime_checkable
class Shaped(Protocol):
    """A tensor of any framework."""

    shape: Any


class Selection:
    """Takes the explained tensor, and of it the chosen classes, out of what the model returns."""

    def __init__(self, tensor: str | None, classes: Sequence[str], class_names: list[str] | None) -> None:
        self.tensor = int(tensor) if tensor is not None and tensor.lstrip("-").isdecimal() else tensor
        self.class_names = class_names
        self.indexes = [self._index(name) for name in classes]
        self.names = class_names
        if self.indexes:
            self.names = [class_names[i] if class_names else f"Output {i}" for i in self.indexes]
            check_names("--class", self.names)

    def _index(self, name: str) -> int:
        if self.class_names and name in self.class_names:
            return self.class_names.index(name)
        if name.isdecimal() and (not self.class_names or int(name) < len(self.class_names)):
            return int(name)
        known = (
            f"; they are {', '.join(self.class_names)}" if self.class_names else ": give --class-names, or its index"
        )
        raise InputError(f"--class: there is no class {name!r}{known}.")

    def __call__(self, result: Any) -> Any:
        """Select."""
        result = self._tensor(result)
        outputs = result.shape[-1] if len(result.shape) > 1 else 1
        if self.class_names is not None and len(self.class_names) != outputs:
            raise InputError(f"--class-names: {len(self.class_names)} names for {outputs} outputs of the model.")
        if not self.indexes:
            return result
        if len(result.shape) < 2 or max(self.indexes) >= outputs:
            raise InputError(f"--class {max(self.indexes)}: the model has {outputs} outputs, counted from 0.")
        if isinstance(result, torch.Tensor):
            return result[..., self.indexes]
        from keras import ops

        return ops.take(result, self.indexes, axis=-1)

    def _tensor(self, result: Any) -> Any:
        if self.tensor is not None:
            try:
                if hasattr(result, "shape") and isinstance(self.tensor, str):
                    raise TypeError("a tensor has no parts with names")  # torch would warn of its own reading first
                return keyed(result)[self.tensor]
            except (KeyError, IndexError, TypeError):
                raise InputError(f"--tensor {self.tensor}: the model returns {_outline(result)}.") from None
        found = list(tensors_in(result, Shaped))
        if len(found) != 1:
            raise InputError(f"the model returns {_outline(result)}: choose what to explain with --tensor.")
        return found[0]


def _outline(result: Any) -> str:
    result = keyed(result)
    if isinstance(result, Mapping):
        return f"a dict with the keys {', '.join(map(str, result))}"
    if isinstance(result, (tuple, list)):
        return f"{len(result)} values, 0 to {len(result) - 1}"
    return f"a {type(result).__name__}"


# ---------------------------------------------------------------------- before
def _import_writers(report: Path | None) -> None:
    """Find out before the work whether what writes the files is installed."""
    needed("pyarrow.parquet", "Parquet files need pyarrow")
    if report is not None:
        needed("plotly", "a report needs plotly", "report")
        needed("jinja2", "a report needs jinja2", "report")


def cast(inputs: list[np.ndarray], model: Model, data: Data, dtype: str | None) -> list[np.ndarray]:
    """Give inputs the dtypes that the model takes, and check their number and shapes where the model tells them."""
    if model.inputs is None:
        return inputs if dtype is None else [_as(one, np.dtype(dtype), "the data") for one in inputs]
    expected = model.inputs
    count = len(inputs) + data.passes_lengths
    if count != len(expected):
        raise InputError(
            f"the model takes {len(expected)} inputs ({', '.join(one.name for one in expected)}) and gets {count}"
            + ("; does it want --lengths," if count == len(expected) - 1 and not data.passes_lengths else ";")
            + " or an array for each, --array NAME of an .npz file?"
        )
    found = []
    for one, wanted in zip(inputs, expected, strict=False):
        given, shape, kept = one.shape[1:], wanted.row_shape, str(wanted.dtype).removeprefix("torch.")
        if dtype not in (None, kept):
            raise InputError(f"--dtype {dtype}: an exported program keeps its own, {kept} for {wanted.name}.")
        names = data.feature_names
        if names is not None and shape and shape[-1] not in (None, len(names)):
            raise InputError(f"{wanted.name}: {_too_many(names, shape[-1])}")
        if len(given) != len(shape) or any(size not in (None, has) for size, has in zip(shape, given, strict=True)):
            described = tuple("any" if size is None else size for size in shape)
            raise InputError(
                f"rows of {wanted.name} must have shape {described} for this model, those of the data have {given}; "
                + (
                    "they have different lengths, and this program was exported for one: export it for any number of steps."
                    if data.lengths is not None and len(given) == len(shape)
                    else "--shape can change it."
                )
            )
        found.append(_as(one, np.dtype(kept.replace("bfloat16", "float32")), wanted.name))
    return found


def _as(array: np.ndarray, dtype: np.dtype[Any], name: str) -> np.ndarray:
    if dtype.kind in "iu" and array.dtype.kind == "f" and (array != np.round(array)).any():
        raise InputError(f"{name} must be whole numbers ({dtype}), and the data have fractions.")
    with np.errstate(over="ignore", invalid="ignore"):
        found = array.astype(dtype)
    wrong = (found != array) if dtype.kind in "iu" else np.isinf(found) & np.isfinite(array)
    if wrong.any():
        raise InputError(f"{name}: {array[wrong][0]} is too large for {dtype}, which the model takes.")
    return found


def _placed(inputs: list[np.ndarray], axes: list[int]) -> Any:
    placed = [np.moveaxis(one, 0, axis) for one, axis in zip(inputs, axes, strict=True)]
    return placed if len(placed) > 1 else placed[0]


# ---------------------------------------------------------------------- the run
def target_of(target: str | None, classes: tuple[str, ...]) -> str | None:
    """What --target asks for, which leaves nothing to --class."""
    if target is not None and classes:
        raise InputError("--target and --class both say which output to explain: give one of them.")
    return target


def _arguments(data: Data) -> Any:
    return (data.lengths.astype(np.int64),) if data.passes_lengths and data.lengths is not None else None


def check_beside(report: Path | None, groups: str | None) -> None:
    """Raise if groups are to be compared where nothing shows them."""
    if groups is not None and report is None:
        raise InputError("--groups are compared in the report: give --report too.")


def faithfulness_of(
    explainer: Any, inputs: list[np.ndarray], axes: list[int], data: Data, asked: dict[str, Any], seed: int
) -> Faithfulness:
    """What the model says about explanations of some of the rows, evenly spread."""
    rows = evenly(len(data), ASKED)
    options = {} if asked["target"] is None else {"target": asked["target"]}
    some = data[rows]
    return faithfulness(
        explainer,
        _placed([one[rows] for one in inputs], axes),
        targets=some.targets,
        additional_forward_args=_arguments(some),
        seed=seed,
        **options,
    )


def _explain(explainer: Any, inputs: Any, data: Data, asked: dict[str, Any]) -> Explanation:
    try:
        return explainer(inputs, additional_forward_args=_arguments(data), targets=data.targets, **asked)
    except InputError as error:
        if error.__cause__ is None or isinstance(error.__cause__, DeepShapError):
            raise
        raise InputError(f"{error}{_hint(error, data)}") from error.__cause__


def _hint(error: InputError, data: Data) -> str:
    """What may be the matter where a model fails on the data."""
    names = "" if data.feature_names is None else f" The features are {', '.join(data.feature_names)}."
    wanted = re.search(r"takes (\d+) features", str(error))
    if data.feature_names is not None and wanted is not None and int(wanted[1]) < len(data.feature_names):
        return f" {_too_many(data.feature_names, int(wanted[1]))}"
    if "vocabulary" in str(error):
        return names
    if any(one.dtype.kind in "iub" for one in data.inputs):
        return f"{names} The data are whole numbers; --dtype float32 changes that."
    if not isinstance(error.__cause__, TypeError) or data.passes_lengths:
        return names
    return f"{names} If it takes lengths, give --lengths; if it takes several inputs, --array NAME for each, of an .npz file."


def _too_many(names: Sequence[str], wanted: int) -> str:
    return f"{len(names)} columns ({shortened(names)}) for {wanted} features: choose with --features."


def _read_raw(path: Path, source: Source) -> Data:
    try:
        return read_data(path, source)
    except InputError as error:
        raise InputError(f"--raw, which is read with the options of DATA: {error}") from None


def _shown(data: Data, inputs: list[np.ndarray], raw: Data) -> list[np.ndarray]:
    """The data before scaling, which tables and reports show for the inputs; they must be of the same rows."""
    raw = ordered(raw, data, "--raw")
    theirs, mine = ([one.shape for one in each] for each in (raw.inputs, inputs))
    if theirs != mine:
        raise InputError(
            f"--raw: shapes {theirs} where the data have {mine}: give the same rows, steps and features, before scaling."
        )
    for what, other, own in (("id", raw.row_ids, data.row_ids), ("length", raw.lengths, data.lengths)):
        if other is None or own is None or np.array_equal(other, own):
            continue
        row = np.flatnonzero(other != own)[0]
        raise InputError(
            f"--raw: the {what} of row {row} is {other[row]}, and {own[row]} in the data: give the same rows in their order."
        )
    return raw.inputs


def _describe(explanation: Explanation, data: Data, shown: list[np.ndarray] | None) -> None:
    """Add what the files say of rows and steps."""
    if data.row_ids is not None:
        explanation.row_ids = data.row_ids
    if explanation.players is not None:
        return
    parts = [part for _, part in explanation.items()]
    for part, display in zip(parts, shown or [], strict=False):
        part.display_data = display
    for part in parts:
        if data.step_labels is not None:
            part.step_labels = data.step_labels
            part.time_label = data.time_label
        if data.lengths is not None and part._steps_at is not None:
            _set_lengths(part, data.lengths, data.passes_lengths)


def _set_lengths(part: Any, lengths: np.ndarray, handed: bool) -> None:
    try:
        part.lengths = lengths
    except InputError:
        cure = "though it is handed them" if handed else "if it takes lengths, give --lengths"
        click.echo(
            f"deepshap: warning: rows have different lengths, and the model reads what stands behind the shorter ones; {cure}",
            err=True,
        )
