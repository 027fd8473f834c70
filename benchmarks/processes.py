"""A process for each peer, which it has to itself: what it is asked to do, and how time and memory are measured in it."""

from __future__ import annotations

import ctypes
import gc
import json
import multiprocessing
import os
import platform
import statistics
import threading
import time
import warnings
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from explainers import PEERS
from problems import Case

LONGEST = 600  # seconds until an answer is given up
TURN = 0.1  # seconds, for which a peer explains each time that it is asked
SAMPLED_EVERY = 0.002  # seconds between looks at the memory


# ---------------------------------------------------------------------- from outside
@dataclass(frozen=True)
class Failure:
    """Why a peer has no figure."""

    reason: str


class Worker:
    """A fresh Python process that explains with one peer, one case after the other, and waits in between."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, peer), daemon=True)
        self._process.start()
        other.close()
        self.failure: Failure | None = None

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def load(self, case: Case, **options: Any) -> float | None:
        """Take up a case with a new peer of these options; seconds in which it imports what it needs, torch apart."""
        self.failure = None
        return self._ask("load", case.dumped(), options)

    def use(self, threads: int) -> None:
        """Compute in so many threads from now on."""
        self._ask("use", threads)

    def first(self) -> float | None:
        """Seconds of the first call: prepare, compile what is to be compiled, explain."""
        return self._ask("first")

    def memory(self) -> tuple[float, int, np.ndarray | None] | None:
        """Seconds, peak of the memory beyond that of the warm process in bytes, and attributions, to explain anew."""
        return self._ask("memory")

    def explain(self, seed: int, budget: int | None = None) -> tuple[float, np.ndarray | None] | None:
        """Seconds to explain once more, and attributions (examples, players, outputs)."""
        return self._ask("explain", seed, budget)

    def close(self) -> None:
        """End the process."""
        if self.alive:
            self._pipe.send(None)
            self._process.join(10)
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _ask(self, command: str, *arguments: Any) -> Any:
        """The answer; None where this or an earlier question about the case failed."""
        if self.failure is not None:
            return None
        try:
            self._pipe.send((command, arguments))
            answer = self._pipe.recv() if self._pipe.poll(LONGEST) else self._gone(f"no answer within {LONGEST} s")
        except (EOFError, OSError):
            answer = self._gone("its process died, as it does where memory runs out")
        if not isinstance(answer, Failure):
            return answer
        self.failure = answer
        return None

    def _gone(self, reason: str) -> Failure:
        """What follows the end of the process; a new one is needed for the next case."""
        self._process.kill()
        self._process.join()
        return Failure(reason)


# ---------------------------------------------------------------------- from inside
def _serve(pipe: Any, peer: str) -> None:
    warnings.simplefilter("ignore")
    session = None
    while (question := pipe.recv()) is not None:
        command, arguments = question
        try:
            session = session or _Session(peer)
            answer = getattr(session, command)(*arguments)
        except Exception as error:
            answer = Failure(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}")
        pipe.send(answer)


class _Session:
    def __init__(self, peer: str) -> None:
        self.kind = PEERS[peer]

    def load(self, data: bytes, options: dict[str, Any]) -> float:
        self.new, self.case = lambda: self.kind(**options), Case.loaded(data)
        start = time.perf_counter()
        self.peer = self.new()
        return time.perf_counter() - start

    def use(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def first(self) -> float:
        return self._anew()[0]

    def _anew(self) -> tuple[float, np.ndarray | None]:
        start = time.perf_counter()
        self.peer.prepare(self.case)
        values = self.peer.explain(self.case.x, self.peer.budget)
        return time.perf_counter() - start, values

    def memory(self) -> tuple[float, int, np.ndarray | None]:
        self.peer = self.new()
        _release()
        with _Peak() as peak:
            seconds, values = self._anew()
        return seconds, peak.extra, None if values is None else self.case.by_player(values)

    def explain(self, seed: int, budget: int | None) -> tuple[float, np.ndarray | None]:
        torch.manual_seed(seed)
        np.random.seed(seed)
        seconds, values = self._timed(budget)
        times = [seconds]
        while sum(times) < TURN:  # else a quick one is asked about waking up alone
            times.append(self._timed(budget)[0])
        return statistics.median(times), None if values is None else self.case.by_player(values)

    def _timed(self, budget: int | None) -> tuple[float, np.ndarray | None]:
        start = time.perf_counter()
        values = self.peer.explain(self.case.x, budget or self.peer.budget)
        return time.perf_counter() - start, values


def _release() -> None:
    """Give freed memory back to the system, where that can be asked for."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


class _Peak:
    """Watches this process's memory from a thread; ``extra`` is how much it grew at most, in bytes."""

    def __enter__(self) -> _Peak:
        self._process, self._end = psutil.Process(), threading.Event()
        self._before = self._highest = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    @property
    def extra(self) -> int:
        return self._highest - self._before

    def _watch(self) -> None:
        while not self._end.wait(SAMPLED_EVERY):
            self._look()

    def _look(self) -> None:
        self._highest = max(self._highest, self._process.memory_info().rss)


# ---------------------------------------------------------------------- what goes with the figures
PACKAGES = ("deepshap", "torch", "shap", "captum", "numba", "numpy")


def machine() -> dict[str, Any]:
    """Where, when and with what the figures were made."""
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write figures with what goes with them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **figures}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
