"""Explain the parts of a run in this process or in several, each of which gets model and background once."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import cloudpickle
import psutil

from ..engines.user_rules import received, with_rules
from ..errors import DeepShapError, InputError, needed
from .row_explainer import Part, RowExplainer, format_error
from .sources import Batch

IN_FLIGHT = 2  # parts for each worker: one that it works on, one that waits
DEATHS = 3  # of workers, without a part that was done in between
IMPORTABLE = "What it is made of must be importable there, as it is where it stands in a module"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


class Work(Protocol):
    """Explains batches, in any order."""

    def __call__(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Part]]:
        """Yield each batch with its explained part."""


def in_this_process(explain: RowExplainer) -> Work:
    """Explain in this process."""
    return lambda batches: ((batch, explain(batch)) for batch in batches)


@contextmanager
def processes(explain: RowExplainer, count: int) -> Iterator[Work]:
    """Explain in as many processes, which share the machine's cores between them.

    A process that dies is replaced, and its part done again.

    Raises
    ------
    InputError
        If the model cannot be sent to another process.
    ImportError
        If loky is missing.
    """
    loky = needed("loky", "several workers need loky", "dataset")
    with tempfile.TemporaryDirectory(prefix="deepshap-") as folder:
        file = Path(folder) / "explainer"
        dump(explain, file, count)
        threads = str(max(1, cores() // count))

        def start() -> Any:
            return loky.ProcessPoolExecutor(
                count, initializer=_initialize, initargs=(str(file), os.getpid()), env=dict.fromkeys(THREADS, threads)
            )

        pool = _Pool(start, count * IN_FLIGHT)
        try:
            yield pool.explain
            pool.close(kill=False)
        finally:
            pool.close()


class _Pool:
    """An executor that is started anew when one of its processes died."""

    def __init__(self, start: Callable[[], Any], most: int) -> None:
        self._start, self._most, self._executor = start, most, start()

    def close(self, *, kill: bool = True) -> None:
        """Stop the processes, at once or after they have cleaned up."""
        self._executor.shutdown(wait=True, kill_workers=kill)

    def explain(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Part]]:
        waiting: dict[Future[Part], Batch] = {}
        deaths = 0
        while True:
            while len(waiting) < self._most and (batch := next(batches, None)) is not None:
                waiting[self._executor.submit(_explain, batch)] = batch
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            broken = [future for future in done if isinstance(future.exception(), BrokenProcessPool)]
            for future in done.difference(broken):
                deaths = 0
                yield waiting.pop(future), future.result()
            if broken:
                deaths += 1
                if deaths > DEATHS:
                    raise DeepShapError(
                        f"worker processes died {deaths} times one after the other, as they do where memory runs out: take "
                        "fewer workers, fewer rows_per_part, or a smaller max_memory."
                    ) from broken[0].exception()
                waiting = self._restart(list(waiting.values()))

    def _restart(self, batches: list[Batch]) -> dict[Future[Part], Batch]:
        self.close()
        self._executor = self._start()
        return {self._executor.submit(_explain, batch): batch for batch in batches}


def cores() -> int:
    """Return the number of cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------------- the model, once for all
def dump(explain: RowExplainer, file: Path, sharers: int = 1) -> None:
    """Write what explains to a file that other processes map into their memory, weights and all."""
    payload = with_rules((explain, sharers))
    try:
        if "torch" in sys.modules:
            import torch

            torch.save(payload, file, pickle_module=cloudpickle)
        else:
            file.write_bytes(cloudpickle.dumps(payload))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"the model cannot be sent to other processes: {type(error).__name__}: {error}") from error


def load_explainer(file: Path) -> RowExplainer:
    """Return what ``dump`` wrote; torch's tensors stay in the file until they are read."""
    import zipfile

    if zipfile.is_zipfile(file):
        import torch

        payload = torch.load(file, weights_only=False, mmap=True, map_location=None)
    else:
        payload = pickle.loads(file.read_bytes())
    explain: RowExplainer
    explain, sharers = received(payload)
    explain.share_memory_among(sharers)
    return explain.__enter__()  # as long as the process lives


# ---------------------------------------------------------------------- in a worker
_explainer: RowExplainer | str = "not loaded"  # or why it cannot be


def _initialize(file: str, parent: int) -> None:
    """Get ready, and end with the process that started this one."""
    global _explainer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with, args=(psutil.Process(parent),), daemon=True).start()
    try:
        _explainer = load_explainer(Path(file))
    except Exception as error:  # the process lives, so that somebody learns why
        _explainer = format_error(error)


def _end_with(parent: psutil.Process) -> None:
    parent.wait()
    os._exit(1)


def _explain(batch: Batch) -> Part:
    if isinstance(_explainer, str):
        raise InputError(f"a worker process cannot load the model: {_explainer}. {IMPORTABLE}; or take workers=1.")
    return _explainer(batch)
