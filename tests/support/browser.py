"""A headless browser for tests of pages: it collects what goes wrong, and lets nothing pass the network."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
READY = "body[data-ready]"
PATIENCE = 60_000  # milliseconds, on machines that do other things too


class Tabs:
    """Tabs without network, used again: one that has shown a report keeps plotly compiled, which takes longest."""

    def __init__(self, browser: Browser):
        self.browser = browser
        self.free: list[Page] = []

    def taken(self) -> Page:
        if self.free:
            return self.free.pop()
        context = self.browser.new_context(offline=True)
        context.set_default_timeout(PATIENCE)
        return context.new_page()

    def give_back(self, page: Page) -> None:
        page.evaluate("localStorage.clear()")
        page.goto("about:blank")
        self.free.append(page)


@contextmanager
def launched() -> Iterator[Tabs]:
    """Start the Chromium of this machine."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(f"these tests need a browser, one of {', '.join(NAMES)}: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield Tabs(browser)
        browser.close()


class Report:
    """A report in a tab. `problems` are console messages, errors, dialogs and requests."""

    def __init__(self, browser: Tabs, path: Path, width: int = 1400, scheme: Literal["light", "dark"] = "light"):
        self.tabs, self.page = browser, browser.taken()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme)
        self.problems: list[str] = []
        self.url = path.as_uri()
        self.listeners: dict[str, Callable[[Any], object]] = {
            "console": lambda message: self.problems.append(f"console {message.type}: {message.text}"),
            "pageerror": lambda error: self.problems.append(f"error: {error}"),
            "dialog": lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()),
            "request": self._requested,
        }
        for event, listener in self.listeners.items():
            self.page.on(event, listener)

    def _requested(self, request: Any) -> None:
        if request.url.partition("#")[0] != self.url and not request.url.startswith(("data:", "blob:")):
            self.problems.append(f"request: {request.url[:200]}")

    def open(self, address: str = "") -> Report:
        self.page.goto(f"{self.url}{address}")
        self.page.wait_for_selector(READY, state="attached")
        return self

    def choose(self, row: int, output: int | str = 0, part: int = 0) -> None:
        """Go to an example by the address, and wait until its pictures are there; `row` is its place on the page."""
        number = self.evaluate(f"JSON.parse(document.getElementById('meta').textContent).rows[{row}]")
        self.evaluate(f"location.hash = 'example={number}&output={output}&input={part}'")
        shown = f"{row}/" if output == "highest" else f"{row}/{output}/{part}"
        self.page.wait_for_selector(f'body[data-shown^="{shown}"]', state="attached")

    def shown(self) -> tuple[int, int, int]:
        """Place of the chosen example, its output, its input."""
        row, output, part = self.evaluate("document.body.dataset.shown").split("/")
        return int(row), int(output), int(part)

    def wait_for(self, row: int, output: int, part: int = 0) -> None:
        self.page.wait_for_selector(f'body[data-shown="{row}/{output}/{part}"]', state="attached")

    def traces(self, chart: str) -> list[dict[str, Any]]:
        """What a picture shows."""
        return self.evaluate(
            f"""document.getElementById('chart-{chart}').data.map((t) => ({{
              type: t.type, x: t.x && Array.from(t.x), y: t.y && Array.from(t.y), base: t.base,
              z: t.z && Array.from(t.z, (line) => Array.from(line)), features: t.customdata && Array.from(t.customdata),
            }}))"""
        )

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def until(self, expression: str) -> None:
        """Wait until a condition holds. Asked from here: a page that asks itself again needs `eval`, which reports forbid."""
        assert self._comes_true(expression, PATIENCE), f"not true after {PATIENCE} ms: {expression}"

    def double_click_until(self, x: float, y: float, expression: str) -> None:
        """Double-click, again where a busy machine let the two clicks lie too far apart to be a double click."""
        for _ in range(12):
            self.page.mouse.dblclick(x, y)
            if self._comes_true(expression, PATIENCE // 12):
                return
        raise AssertionError(f"not true after 12 double clicks: {expression}")

    def _comes_true(self, expression: str, patience: int) -> bool:
        end = time.monotonic() + patience / 1000
        while not self.evaluate(expression):
            if time.monotonic() > end:
                return False
            self.page.wait_for_timeout(20)
        return True

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def lines(self) -> list[list[str]]:
        """Texts of the table's lines in sight."""
        return self.evaluate(
            "[...document.querySelectorAll('#rows tr[data-row]')].map((r) => [...r.cells].map((c) => c.textContent))"
        )

    def heads(self) -> list[str]:
        return self.evaluate("[...document.querySelectorAll('#rows th')].map((cell) => cell.dataset.key)")

    def column(self, key: str) -> list[str]:
        place = self.heads().index(key)
        return [line[place] for line in self.lines()]

    def close(self) -> None:
        for event, listener in self.listeners.items():
            self.page.remove_listener(event, listener)
        self.tabs.give_back(self.page)


# ---------------------------------------------------------------------- what is shown, and what it should be
def parsed(text: str) -> float:
    return float(text.replace("−", "-").replace("+", "").replace(",", ""))


def assert_shows(text: str, value: float, digits: int = 4) -> None:
    """The text is the value, rounded to that many significant digits."""
    place = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1) if value else 1e-12
    assert abs(parsed(text) - value) <= 0.5 * place * (1 + 1e-6) + 1e-7 * abs(value), (text, value)


def assert_drawn(found, expected) -> None:
    np.testing.assert_allclose(np.array(found, float), expected, rtol=5.1e-4, atol=1e-12)


def assert_sums(found, expected) -> None:
    np.testing.assert_allclose(np.array(found, float), expected, rtol=1e-6, atol=1e-6)
