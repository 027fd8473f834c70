"""Explain the parts of a run in actors of a Ray cluster; the process that started the run reads and writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..engines.user_rules import received, with_rules
from ..errors import DeepShapError, InputError, import_ray
from .row_explainer import Part, RowExplainer
from .sources import Batch
from .workers import DEATHS, IMPORTABLE, IN_FLIGHT, Work


@contextmanager
def actors(explain: RowExplainer, count: int, address: str) -> Iterator[Work]:
    """Explain in as many actors, one of which is replaced where it dies; a model on a GPU takes one for each.

    Raises
    ------
    ImportError
        If Ray is missing.
    InputError
        If an actor cannot load the model.
    """
    ray = import_ray()
    started = not ray.is_initialized()
    if started:
        local = {"num_cpus": count, "include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    try:
        reference = ray.put(with_rules(explain))
        kind = ray.remote(num_cpus=1, num_gpus=int(explain.on_gpu))(_Actor)
        pool = _Actors(ray, lambda: kind.remote(reference), count)
        try:
            yield pool.explain
        finally:
            pool.close()
    finally:
        if started:
            ray.shutdown()


class _Actors:
    """Actors, each with a part in hand and one that waits; one that dies is replaced, and its parts done again."""

    def __init__(self, ray: Any, start: Callable[[], Any], count: int) -> None:
        self._ray, self._start = ray, start
        self._all = [start() for _ in range(count)]
        self._free = self._all * IN_FLIGHT
        self._deaths, self._most_deaths = 0, DEATHS * count

    def close(self) -> None:
        for actor in self._all:
            self._ray.kill(actor)

    def explain(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Part]]:
        waiting: dict[Any, tuple[Batch, Any]] = {}
        again: list[Batch] = []
        while True:
            while self._free and (batch := again.pop() if again else next(batches, None)) is not None:
                actor = self._free.pop(0)
                waiting[actor.explain.remote(batch)] = batch, actor
            if not waiting:
                return
            (done, *_), _ = self._ray.wait(list(waiting))
            batch, actor = waiting[done]
            try:
                part = self._ray.get(done)
            except self._ray.exceptions.RayTaskError as error:  # what was raised in the actor, as if it had been here
                raise error.cause from None
            except self._ray.exceptions.RayActorError as error:
                if error.actor_init_failed:
                    why = str(error).rstrip().splitlines()[-1]
                    raise InputError(f"an actor cannot load the model: {why}. {IMPORTABLE}.") from error
                again += self._replace(actor, waiting, error)
                continue
            del waiting[done]
            self._free.append(actor)
            self._deaths = 0
            yield batch, part

    def _replace(self, actor: Any, waiting: dict[Any, tuple[Batch, Any]], error: Exception) -> list[Batch]:
        """Replace an actor that died by another; return its parts."""
        self._deaths += 1
        if self._deaths > self._most_deaths:
            raise DeepShapError(
                f"actors died {self._deaths} times one after the other, as they do where memory runs out: {error}"
            ) from error
        self._ray.kill(actor)
        lost = [reference for reference, (_, candidate) in waiting.items() if candidate is actor]
        new = self._start()
        self._all = [new if candidate is actor else candidate for candidate in self._all]
        self._free = [candidate for candidate in self._free if candidate is not actor] + [new] * IN_FLIGHT
        return [waiting.pop(reference)[0] for reference in lost]


class _Actor:
    def __init__(self, payload: dict[str, Any]) -> None:
        self._explainer = received(payload).__enter__()  # as long as the actor lives

    def explain(self, batch: Batch) -> Part:
        return self._explainer(batch)
