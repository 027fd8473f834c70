"""Actors of a Ray cluster that explain the parts of a run; whoever started the run reads and writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..engines.user_rules import adopt, registered
from ..optional import needed
from .batches import Batch
from .rows import Done, RowExplainer
from .workers import IN_FLIGHT, Work

RETRIES = 3  # of a part whose actor died


@contextmanager
def actors(explain: RowExplainer, count: int, address: str) -> Iterator[Work]:
    """Explain in as many actors, which Ray starts anew where one dies; a model on a GPU takes one for each.

    Raises
    ------
    ImportError
        If Ray is missing.
    """
    ray = needed("ray", "a Ray cluster needs ray", "ray")
    started = not ray.is_initialized()
    if started:
        local = {"num_cpus": count, "include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    try:
        whole = ray.put({"explain": explain, "rules": registered()})
        kind = ray.remote(max_restarts=-1, max_task_retries=RETRIES, num_cpus=1, num_gpus=int(explain.on_gpu))(_Actor)
        pool = [kind.remote(whole) for _ in range(count)]
        yield lambda batches: _explained(ray, pool, batches)
        for actor in pool:
            ray.kill(actor)
    finally:
        if started:
            ray.shutdown()


def _explained(ray: Any, pool: list[Any], batches: Iterator[Batch]) -> Iterator[tuple[Batch, Done]]:
    waiting: dict[Any, tuple[Batch, Any]] = {}
    free = pool * IN_FLIGHT
    while True:
        while free and (batch := next(batches, None)) is not None:
            actor = free.pop(0)
            waiting[actor.explain.remote(batch)] = batch, actor
        if not waiting:
            return
        (done, *_), _ = ray.wait(list(waiting))
        batch, actor = waiting.pop(done)
        free.append(actor)
        try:
            found = ray.get(done)
        except ray.exceptions.RayTaskError as error:  # what was raised in the actor, as if it had been here
            raise error.cause from None
        yield batch, found


class _Actor:
    def __init__(self, whole: dict[str, Any]) -> None:
        adopt(whole["rules"])
        self._explainer = whole["explain"]

    def explain(self, batch: Batch) -> Done:
        return self._explainer(batch)
