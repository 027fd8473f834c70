"""The site builds without a warning, its links resolve, it fetches nothing from elsewhere, and its search finds pages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import deepshap

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a page links to, what it fetches, and the places that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.fetched, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given[key] for key in ("id", "name") if given.get(key)}
        fetches = tag in ("script", "img", "iframe") or (tag == "link" and given.get("rel") != "canonical")
        for key in ("href", "src"):
            if given.get(key):
                (self.fetched if fetches else self.links).append(given[key])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_leads_somewhere(site, pages):
    for path, page in pages.items():
        for address in page.links + page.fetched:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.relative_to(site)} links to {address}"
            if parts.fragment and target in pages and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[target].places, f"{path.relative_to(site)} links to {address}"


def test_nothing_is_fetched_from_elsewhere(pages):
    elsewhere = {address for page in pages.values() for address in page.fetched if urlsplit(address).netloc}
    assert not elsewhere


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve files without a line for each request."""

    def log_message(self, *_):
        pass


@pytest.fixture(params=["opened from disk", "served"])
def address(request, site):
    """The address of the landing page."""
    if request.param == "opened from disk":
        yield (site / "index.html").as_uri()
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def test_the_search_finds_pages(browser, address):
    page = browser.browser.new_page()
    page.goto(address)
    page.wait_for_selector(".md-search-result__meta", state="attached")
    page.locator("input.md-search__input").press_sequentially("max_memory", delay=200)
    page.wait_for_selector(".md-search-result__article")
    found = page.locator(".md-search-result__link").evaluate_all("links => links.map(link => link.href)")
    page.close()
    assert any("/guide/" in link for link in found)


def test_the_reference_names_everything_public(pages):
    named = set().union(*(page.places for page in pages.values()))
    missing = [name for name in deepshap.__all__ if not {f"deepshap.{name}", f"deepshap.errors.{name}"} & named]
    assert not missing


def test_formulas_are_mathml(site):
    page = (site / "mathematics.html").read_text(encoding="utf-8")
    assert page.count("<math") > 100
    assert "arithmatex" not in page
    assert "\\(" not in page
