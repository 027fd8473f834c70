"""Work of our own in threads, each on one core, beside torch's."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

OMP_PAUSE_SOFT = 1
TINY, ONE = 1e-310, 1.0  # whose product a processor may take for 0


def in_threads(tasks: list[Callable[[], Any]]) -> list[Any]:
    """Run tasks, each on one core, in this thread and in others. Were those to stay, they would slow down torch's own."""
    threads = torch.get_num_threads()
    if threads == 1 or len(tasks) == 1:
        with _one_core():
            return [task() for task in tasks]
    results: list[Any] = [None] * len(tasks)
    waiting = deque(range(len(tasks)))

    def work() -> None:
        with _one_core():
            while waiting:
                try:
                    k = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                results[k] = tasks[k]()

    dismiss_waiting_threads()
    with ThreadPoolExecutor(threads - 1, "deepshap") as pool:
        others = [pool.submit(work) for _ in range(min(threads, len(tasks)) - 1)]
        work()
        for other in others:
            other.result()
    torch.set_num_threads(threads)  # new threads of the user's take the number that was set last
    return results


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime that torch has loaded, if it is GNU's."""
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except (OSError, AttributeError):
        return None


def dismiss_waiting_threads() -> None:
    """Let OpenMP's threads go, which wait for torch's next operation by counting, for 10 ms on cores that are needed here.

    They come back with that operation, in a fraction of a millisecond. ``omp_pause_soft`` keeps all settings.
    """
    pause = getattr(_openmp(), "omp_pause_resource_all", None)  # since OpenMP 5.0
    if pause is not None:
        pause(OMP_PAUSE_SOFT)


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread to itself, and let it take numbers below 1e-38 for 0: multipliers fade over many steps."""
    threads, flushes = torch.get_num_threads(), TINY * ONE == 0
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
