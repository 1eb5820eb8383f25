"""Real texts that packages carry, as they are: readers only, nothing cleaned.

    python_documentation   pydoc_data of the standard library      English      PSF-2.0
    fortunes_zh            Debian package fortunes-zh              Chinese      GPL-2.0-or-later
    debian_reference       Debian packages debian-reference-*      en and zh    GPL-2.0-or-later
    gettext_pairs          jupyterlab-language-pack-zh-CN          en → zh      BSD-3-Clause
    rated_reviews          source archive of vaderSentiment        English      MIT [1]_

What reads one text only is imported by its reader: the scripts that make models and dumps read
Python's documentation, and need no more than kldiv's extra models.

.. [1] C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis
   of Social Media Text" (2014). Sentences of film reviews, each rated by about 15 people.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from packages import package_dir, source_archive

FORTUNES = Path("/usr/share/games/fortunes")
DEBIAN_REFERENCE = Path("/usr/share/debian-reference")
VADER = "vaderSentiment==3.3.2"
VADER_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
VADER_DATA = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"


class Pair(NamedTuple):
    """A text and its translation."""

    english: str
    chinese: str


class RatedReviews(NamedTuple):
    """Sentences of reviews, and the share of raters that found each negative, neutral, positive."""

    sentences: list[str]
    shares: NDArray[np.float64]


def python_documentation() -> dict[str, str]:
    """The topics of Python's own documentation by name."""
    return dict(topics)


def fortunes_zh(name: str = "chinese") -> list[str]:
    """The entries of a file of fortunes-zh, with their ANSI escape codes."""
    return _installed(FORTUNES / name).read_text(encoding="utf-8").split("\n%\n")


def debian_reference(language: str) -> dict[str, str]:
    """The HTML pages of the Debian Reference in "en" or "zh-cn", by chapter."""
    pages = sorted(_installed(DEBIAN_REFERENCE).glob(f"ch*.{language}.html"))
    return {page.name.split(".")[0]: page.read_text(encoding="utf-8") for page in pages}


def debian_reference_pairs() -> list[Pair]:
    """Headings, paragraphs and table cells of the Debian Reference in both languages."""
    pairs: list[Pair] = []
    chinese_pages = debian_reference("zh-cn")
    for chapter, page in debian_reference("en").items():
        english, chinese = (_elements(html) for html in (page, chinese_pages[chapter]))
        if len(english) != len(chinese):
            raise SystemExit(f"{chapter}: {len(english)} English, {len(chinese)} Chinese elements")
        pairs += map(Pair, english, chinese)
    return pairs


def gettext_pairs() -> list[Pair]:
    """The messages of JupyterLab and its extensions, and their translations."""
    import polib

    folder = package_dir("jupyterlab_language_pack_zh_CN") / "locale/zh_CN/LC_MESSAGES"
    return [
        Pair(entry.msgid, entry.msgstr)
        for catalogue in sorted(folder.glob("*.mo"))
        for entry in polib.mofile(str(catalogue))
        if entry.msgstr
    ]


def rated_reviews(downloads: Path) -> RatedReviews:
    """Sentences of film reviews with the shares of their raters' votes."""
    with tarfile.open(source_archive(VADER, VADER_SHA256, downloads)) as archive:
        inner = archive.extractfile(VADER_DATA)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as dataset:
            texts, ratings = (
                _columns(dataset, f"hutto_ICWSM_2014/movieReviewSnippets_{name}.txt")
                for name in ("GroundTruth", "anonDataRatings")
            )
    if texts.keys() != ratings.keys():
        raise SystemExit("movieReviewSnippets: texts and ratings are not of the same sentences")
    votes = [np.sign(json.loads(ratings[key])) for key in texts]
    shares = [[np.mean(vote == sign) for sign in (-1, 0, 1)] for vote in votes]
    return RatedReviews(list(texts.values()), np.array(shares))


def _installed(path: Path) -> Path:
    if not path.exists():
        packages = "fortunes-zh debian-reference-en debian-reference-zh-cn"
        raise SystemExit(f"{path} is missing: apt-get install {packages}")
    return path


def _elements(html: str) -> list[str]:
    from bs4 import BeautifulSoup

    found = BeautifulSoup(html, "html.parser").find_all(["p", "h2", "h3", "h4", "td", "th"])
    return [" ".join(element.get_text().split()) for element in found]


def _columns(archive: tarfile.TarFile, name: str) -> dict[str, str]:
    """The last column of a table by the first."""
    member = archive.extractfile(name)
    assert member is not None
    rows = csv.reader(
        io.StringIO(member.read().decode("utf-8-sig")), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    return {row[0]: row[-1] for row in rows}
