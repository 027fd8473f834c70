"""Random generators go on, after a run, where they were before it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from deepshap.engines.snapshot import generators_kept


@pytest.fixture(autouse=True)
def generator():
    before = np.random.get_bit_generator(), np.random.get_state()
    yield
    np.random.set_bit_generator(before[0])
    np.random.set_state(before[1])


def drawn() -> list[float]:
    return [random.random(), *np.random.randn(3), np.random.rand()]


def after(start, between) -> list[float]:
    random.seed(0)
    np.random.seed(0)
    start()
    between()
    return drawn()


def kept(draw):
    """As a run that draws."""

    def run() -> None:
        with generators_kept():
            draw()

    return run


@pytest.mark.parametrize("start", [0, 1, 2, 3, 700], ids=lambda n: f"{n} before")
@pytest.mark.parametrize("draws", [0, 1, 2, 1000], ids=lambda n: f"{n} within")
def test_normal_numbers(start, draws):
    """They are made in pairs, of which the second waits."""

    def begin() -> None:
        np.random.randn(start)

    def draw() -> None:
        np.random.randn(draws)
        random.random()

    def twice() -> None:
        kept(draw)()
        kept(draw)()

    assert after(begin, twice) == after(begin, lambda: None)


def test_what_is_drawn_between_runs_stays_drawn():
    def between() -> None:
        for _ in range(3):
            kept(np.random.rand)()
            np.random.rand()

    assert after(lambda: None, between) == after(lambda: np.random.rand(3), lambda: None)


def test_a_number_that_waits_since_the_last_run():
    """Key and position are then as they were when none waited."""

    def begin() -> None:
        np.random.randn(2)
        kept(np.random.randn)()
        np.random.seed(0)
        np.random.randn(1)

    assert after(begin, kept(np.random.randn)) == after(lambda: np.random.randn(1), lambda: None)


@pytest.mark.filterwarnings("ignore:get_state and legacy")
@pytest.mark.parametrize("other", [np.random.PCG64, np.random.MT19937])
def test_another_generator_of_numpy(other):
    def begin() -> None:
        np.random.set_bit_generator(other(1))

    assert after(begin, kept(np.random.rand)) == after(begin, lambda: None)
