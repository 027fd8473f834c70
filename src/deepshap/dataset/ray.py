"""Explain the rows of a Ray Data pipeline (needs the extra `deepshap[ray]`)."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..engines.user_rules import received, with_rules
from ..errors import InputError, import_pyarrow, import_ray
from .batch_explainer import BatchExplainer, feature_columns
from .folder import check_same, write_atomically
from .row_explainer import RowExplainer
from .run import fingerprint_explainer, plain_or_digest
from .sources import read_rows

__all__ = ["BatchExplainer", "explain"]


def explain(
    ds: Any,
    explainer: Any,
    *,
    id: str,
    features: Sequence[str] | None = None,
    shape: Sequence[int] | None = None,
    lengths: str | None = None,
    targets: str | None = None,
    on_error: str = "raise",
    batch_size: int = 1000,
    concurrency: int | tuple[int, int] = 1,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    checkpoint: str | Path | None = None,
    **options: Any,
) -> Any:
    """Explain the rows of a Ray data set.

    Model and background are put into Ray's object store once, and fetched once by each actor.

    Parameters
    ----------
    ds : ray.data.Dataset
        The rows.
    explainer : DeepExplainer or callable
        The explainer, or a function without arguments that makes it in each actor, as for models on a GPU.
    id, features, shape, lengths, targets, on_error
        As for ``deepshap.BatchExplainer``.
    batch_size : int
        Rows that are explained together.
    concurrency, num_cpus, num_gpus
        Actors, or the least and the most of them, and what each takes, as for ``ray.data.Dataset.map_batches``. They must
        leave some of the cluster's cores to Ray's tasks that read and write.
    checkpoint : path, optional
        A folder that all nodes see, in which Ray notes the rows that are written: the same pipeline started again leaves them
        out. The ids must be unique, and the pipeline one that reads files, explains, and writes files. What the results
        depend on is noted beside them, for which a function that makes the explainer is called here once.
    **options
        Of ``explainer(X, ...)``.

    Returns
    -------
    ray.data.Dataset
        Lazy; its columns are in docs/a-million-rows.md, but that the ids keep their name.

    Raises
    ------
    ImportError
        If Ray is missing.
    InputError
        If there is no such option, or, as far as the columns are known before the pipeline runs, one is missing or holds no
        numbers; if this Ray has no checkpoints, or those in the folder were made otherwise (it says what differs).

    Examples
    --------
    >>> explained = deepshap.ray.explain(ray.data.read_parquet("rows/"), explainer, id="customer", concurrency=8)
    >>> explained.write_parquet("attributions/")
    """
    ray = import_ray()
    load = explainer
    _check_columns(ds.schema(fetch_if_missing=False), id, features, shape, lengths, targets)
    if hasattr(explainer, "depends_on"):
        RowExplainer(explainer, on_error, options)  # an error of the options is one of this call
        load = partial(_fetch, ray.put(with_rules(explainer)))
    arguments = {"explainer": load, "id": id, "features": features, "shape": shape, "lengths": lengths}
    arguments |= {"targets": targets, "on_error": on_error, **options}
    explained = ds.map_batches(
        BatchExplainer,
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=_pool(ray, concurrency, num_cpus, num_gpus),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
    if checkpoint is not None:
        reading = {"id": id, "features": features, "shape": shape, "lengths": lengths, "targets": targets}
        loaded = explainer if hasattr(explainer, "depends_on") else explainer()
        depends = {**fingerprint_explainer(loaded, options), "reading": plain_or_digest(reading)}
        explained.context.checkpoint_config = _checkpoints(Path(checkpoint), id, depends)
    return explained


def _check_columns(
    schema: Any,
    id: str,
    features: Sequence[str] | None,
    shape: Sequence[int] | None,
    lengths: str | None,
    targets: str | None,
) -> None:
    """Raise what can be known to be wrong of the columns, where it is known which there are."""
    if schema is None:
        return
    wanted = feature_columns(schema.names, id, features, lengths, targets)
    columns = schema.base_schema
    if isinstance(columns, import_pyarrow().Schema):
        read_rows(columns.empty_table(), id, wanted, shape)


def _pool(ray: Any, concurrency: int | tuple[int, int], num_cpus: float | None, num_gpus: float | None) -> Any:
    """Return the actors, and warn if they leave no core to the tasks that read and write."""
    least, most = (concurrency, concurrency) if isinstance(concurrency, int) else concurrency
    cores_per_actor = (0 if num_gpus else 1) if num_cpus is None else num_cpus
    cores = ray.cluster_resources().get("CPU", 0) if ray.is_initialized() else math.inf
    if cores_per_actor and least * cores_per_actor >= cores:
        warnings.warn(
            f"deepshap: {least} actors of {cores_per_actor:g} cores take all {cores:g} of the cluster. Nothing reads or writes "
            f"then, and the pipeline waits for more: take fewer, concurrency=, or less for each, "
            f"num_cpus={round(cores / 2 / least, 2):g}.",
            stacklevel=3,
        )
    return ray.data.ActorPoolStrategy(min_size=least, max_size=most)


def _checkpoints(folder: Path, id: str, depends: dict[str, Any]) -> Any:
    """Return Ray's checkpoints in a folder that records what they depend on."""
    try:
        from ray.data.checkpoint import CheckpointConfig
    except ImportError:
        raise InputError(
            "this Ray has no checkpoints: take a newer one, or deepshap.explain_dataset(..., ray=...), which has its own."
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    note, now = folder / "made-of.json", json.loads(json.dumps(depends))
    if note.exists():
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{folder} does not say what its checkpoints are of: take another folder.") from None
        check_same(folder, before, now)
    elif (folder / "rows").exists():
        raise InputError(f"{folder} does not say what its checkpoints are of: take another folder.")
    else:
        write_atomically(note, json.dumps(now, indent=1).encode())
    return CheckpointConfig(id, str(folder.absolute() / "rows"), delete_checkpoint_on_success=False)


def _fetch(reference: Any) -> Any:
    return received(import_ray().get(reference))
