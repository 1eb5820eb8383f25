"""The site is made without a warning, leads nowhere that is not there, and opens offline."""

import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer.main

import browser
import kldiv
import kldiv.dask
import kldiv.estimators
import kldiv.jax
import kldiv.teachers
import kldiv.torch
from kldiv.cli.app import app

pytest.importorskip("sphinx")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RUSTDOC = "crate"
"""A folder that `make site` brings along, and that takes a compiler."""
SCREENS = {"phone": (390, 800), "desktop": (1280, 900)}
PICTURES = os.environ.get("KLDIV_TEST_PICTURES")
"""A folder to keep the screenshots in, for people to look at."""
LOOKED_AT = (
    "docs/index.html",
    "docs/tutorial.html",
    "docs/functions.html",
    "docs/performance.html",
    "docs/how-to/pytorch.html",
    "docs/reference/kldiv.html",
    "docs/reference/generated/kldiv.jensen_shannon.html",
    "docs/reference/generated/kldiv.TopK.html",
    "README.zh.html",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    options = f"-W --keep-going -q -b html -c docs -d {folder}/doctrees . {folder}/html"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("href"):
            self.loads.append(found["href"])
        elif found.get("src"):
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_links_lead_somewhere(site, pages):
    missing = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.relative_to(site).parts[:1] == (RUSTDOC,):
                continue
            anchor = unquote(parts.fragment)
            anchors = pages[target].anchors if target in pages else {anchor}
            if not target.is_file() or (anchor and anchor not in anchors):
                missing.append((path.name, link))
    assert not missing


def test_nothing_is_loaded_from_elsewhere(pages):
    loaded = {link for page in pages.values() for link in page.loads}
    assert loaded
    assert not [link for link in loaded if urlsplit(link).scheme or urlsplit(link).netloc]


@pytest.mark.parametrize(
    "module",
    [
        *(kldiv, kldiv.torch, kldiv.jax, kldiv.dask, kldiv.estimators, kldiv.teachers),
        *(kldiv.torch.estimators, kldiv.jax.estimators),
    ],
    ids=lambda module: module.__name__,
)
def test_every_public_name_has_a_page(site, module):
    # Modules have pages of lists; a drop-in is torch's; a table of the estimators is no call.
    names = set(module.__all__) - {"estimators", "ESTIMATORS"}
    folder = site / "docs/reference/generated"
    assert not [name for name in names if not (folder / f"{module.__name__}.{name}.html").exists()]


def test_signatures_and_docstrings_are_shown(site):
    for name in ("kldiv.kl", "kldiv.torch.kl", "kldiv.jax.kl", "kldiv.dask.kl"):
        text = (site / f"docs/reference/generated/{name}.html").read_text(encoding="utf-8")
        text = re.sub(r"<[^>]*>", "", text)
        assert "(p, q, *, space='logits', normalize=False, temperature=1.0" in unescape(text)
        assert "Kullback–Leibler divergence of q from p" in text


def test_every_option_of_every_command_is_shown(site):
    page = (site / "docs/reference/commands.html").read_text(encoding="utf-8")
    text = unescape(re.sub(r"<[^>]*>", "", page))
    for name, command in typer.main.get_command(app).commands.items():
        assert f"kldiv {name}" in text
        for one in command.params:
            # A bracket is escaped for the terminal.
            said = one.help.replace(r"\[", "[")
            assert getattr(one, "hidden", False) or said in " ".join(text.split())
            assert all(option in text for option in one.opts if option.startswith("-"))


@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("playwright")
    if browser.EXECUTABLE is None:
        pytest.skip(browser.MISSING)
    with browser.chromium() as visit:
        yield visit


@pytest.mark.parametrize("screen", SCREENS)
def test_pages_open_from_a_disk_and_fit_every_screen(chromium, site, screen):
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    # The first leads to another, and what begins with a line is no page of its own.
    names = [name for name in names if name != "index.html" and name[0] != "_"]
    visit = chromium(site / "docs/index.html", *SCREENS[screen])
    wide = []
    for name in names:
        visit.open(site / name)
        assert visit.said == [], name
        if visit.overflow() > 0:
            wide.append(name)
        if PICTURES and name in LOOKED_AT:
            picture = f"{name.replace('/', '-')}-{screen}.png"
            visit.page.screenshot(path=Path(PICTURES, picture), full_page=True)
    assert all(url.startswith(("file:", "data:")) for url in visit.asked)
    assert not wide


@pytest.mark.parametrize("screen", SCREENS)
def test_the_search_finds_a_function(chromium, site, screen):
    visit = chromium(site / "docs/index.html", *SCREENS[screen])
    page = visit.page
    if screen == "phone":
        page.locator("label.nav-overlay-icon").first.click()
    page.locator("input[name=q]").first.fill("jensen_shannon")
    page.keyboard.press("Enter")
    # Results come one by one: this waits for its own, not for the first.
    page.locator("#search-results a[href*='/kldiv.jensen_shannon.html']").first.click()
    assert visit.said == []
    assert "jensen_shannon" in page.locator("h1").inner_text()


def test_the_first_page_leads_to_the_home_page(chromium, site):
    visit = chromium(site / "index.html")
    visit.page.wait_for_url("**/docs/index.html")
    assert visit.page.locator("h1").inner_text().startswith("kldiv")
