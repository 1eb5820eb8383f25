"""The page in a real browser, without a network: what it shows, at every width and scheme."""

import itertools
import math
import os
from pathlib import Path

import polars as pl
import pytest
from tables_of_positions import table

import browser
from kldiv.evaluation import Evaluation
from kldiv.evaluation.report.history import Entry, baseline_of, history_page
from kldiv.evaluation.report.words import LANGUAGES
from kldiv.evaluation.results import read_results

pytest.importorskip("playwright")
pytestmark = [
    pytest.mark.costly,
    pytest.mark.skipif(browser.EXECUTABLE is None, reason=browser.MISSING),
]

EVIL = "<script>document.title='甲'<script>"
SCREENS = {"phone": (375, 800), "desktop": (1280, 900)}
PICTURES = os.environ.get("KLDIV_TEST_PICTURES")
"""A folder to keep the screenshots in, for people to look at."""


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as visit:
        yield visit


def evaluation(*names, **options):
    tables = [table(candidate=name, noise=1 + place, **options) for place, name in enumerate(names)]
    return Evaluation(pl.concat(tables), {"reference": {"file": "p"}})


def bounded():
    frame = table(candidate="q").select(
        "candidate", "sequence", "position", "top1_p", "top1_q", "kl"
    )
    return Evaluation(frame.rename({"kl": "kl_lower"}), {})


def few():
    place = {"candidate": "q", "sequence": [0, 0, 0], "position": [0, 1, 2]}
    return Evaluation(pl.DataFrame(place | {"kl": [math.inf, math.nan, 0.0]}), {})


PAGES = {
    "one": lambda: evaluation("q"),
    "three": lambda: evaluation(EVIL, "q/int4", "q/a rather long name of a model, Q4_K_M.gguf"),
    "bounds": bounded,
    "few": few,
}


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_pages_open_offline_and_fit_every_screen(chromium, tmp_path, name, lang):
    path = tmp_path / "page.html"
    result = PAGES[name]()
    result.to_html(path, lang=lang, bootstrap=50)
    expected = [result.summary(one, bootstrap=0).kl.mean for one in result.candidates]
    for screen, scheme in itertools.product(SCREENS, ("light", "dark")):
        visit = chromium(path, *SCREENS[screen], scheme)
        visit.check()
        assert visit.overflow() == 0
        assert visit.page.title() != "甲"
        shown = visit.page.evaluate(
            "[...document.querySelectorAll('#headline tr:first-child [data-value]')]"
            ".map((cell) => Number(cell.dataset.value))"
        )
        assert shown == expected
        # Text is darker than its ground, or the other way round.
        colours = visit.page.evaluate(
            "['color', 'backgroundColor'].map((one) => getComputedStyle(document.body)[one])"
        )
        ink, paper = map(lightness, colours)
        assert (ink < paper) == (scheme == "light")
        for axis in visit.page.query_selector_all(".plot text")[:3]:
            drawn = axis.evaluate("(one) => getComputedStyle(one).fill")
            assert abs(lightness(drawn) - paper) > 200
        if PICTURES:
            picture = Path(PICTURES) / f"{name}-{lang}-{screen}-{scheme}.png"
            visit.page.screenshot(path=picture, full_page=True)
        visit.page.context.close()


def lightness(colour):
    """Of ``rgb(r, g, b)``."""
    return sum(map(int, colour[4:-1].split(",")))


def test_paper_has_what_is_folded_on_a_screen(chromium, tmp_path):
    path = tmp_path / "page.html"
    evaluation("q").to_html(path, bootstrap=50)
    visit = chromium(path, scheme="dark")
    depth = visit.page.locator("#depth tbody tr").first
    assert not depth.is_visible()
    visit.page.emulate_media(media="print")
    assert depth.bounding_box()["height"] > 10
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    pdf = visit.page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    if PICTURES:
        (Path(PICTURES) / "page.pdf").write_bytes(pdf)


def entries(folder):
    found = []
    for number, noise in enumerate((1.0, 1.1, 3.0)):
        result = Evaluation(
            table(candidate=f"build {number}", noise=noise), {"reference": {"file": "p"}}
        )
        path = folder / f"{number}.json"
        path.write_text(result.to_json(bootstrap=0), encoding="utf-8")
        date = f"2026-11-0{number + 1}T00:00:00Z"
        found += [Entry(one, path.name, date) for one in read_results(path)]
    return found


def test_history_sorts_and_takes_any_baseline(chromium, tmp_path):
    found = entries(tmp_path)
    page = tmp_path / "history.html"
    page.write_text(history_page("results", found, baseline_of(found, None)), encoding="utf-8")
    visit = chromium(page)
    visit.check()
    assert visit.overflow() == 0

    def column(name):
        return visit.page.locator(f'tbody [data-column="{name}"]').all_inner_texts()

    # All columns of short names are on a desktop, and the whole chart is on a phone.
    [box] = visit.page.locator(".scroll").all()
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0
    phone = chromium(page, 375, 800)
    assert phone.overflow() == 0
    [chart] = phone.page.locator(".plot.wide").all()
    assert chart.evaluate("box => box.scrollWidth - box.clientWidth") == 0
    # What is beyond the edge of a table is seen to be.
    [box] = phone.page.locator(".scroll").all()
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") > 0
    assert "linear-gradient" in box.evaluate("box => getComputedStyle(box).backgroundImage")

    assert column("model") == ["build 0", "build 1", "build 2"]
    assert column("drift")[0] == "baseline"
    written = column("drift")
    visit.page.get_by_role("button", name="mean KL").click()
    visit.page.get_by_role("button", name="mean KL").click()
    means = [float(one.partition("±")[0]) for one in column("mean")]
    assert means == sorted(means, reverse=True)
    # A baseline chosen in the page gives what it would have been written with.
    other = tmp_path / "other.html"
    other.write_text(history_page("results", found, found[2]), encoding="utf-8")
    visit.page.select_option("select", label="2.json: build 2")
    visit.page.get_by_role("button", name="file").click()
    again = chromium(other)
    expected = again.page.locator('tbody [data-column="drift"]').all_inner_texts()
    assert column("drift") == expected
    visit.page.select_option("select", label="0.json: build 0")
    assert column("drift") == written
    visit.check()
    if PICTURES:
        visit.page.screenshot(path=Path(PICTURES) / "history.png", full_page=True)
