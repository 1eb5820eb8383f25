"""Cleaning of text: each step a function from a text to a text, with a count that tests it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import ftfy
import ftfy.badness
from bs4 import BeautifulSoup, NavigableString

Clean = Callable[[str], str]

HTML = re.compile(r"\s*<(?:\?xml|!doctype|html|div)\b", re.IGNORECASE)
"""Text that begins like this is HTML. In other text <host> is no tag, and stays."""
TAG = re.compile(r"</?(?:a|code|div|em|h[1-6]|li|ol|p|pre|span|strong|table|t[drh]|ul)\b[^<>]*>")
NOT_CONTENT = "head, script, style, nav, .navheader, .navfooter, .toc"
# The last byte of a CSI is optional, for one that another escape cuts off.
ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: window titles, links
    r"|[ -/]*[0-Z\\^-~])"  # two characters: reset, character sets
)
# Tabs and line breaks are whitespace, not control characters. Private-use characters mean nothing
# without their font, and zero-width ones make equal words differ.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ue000-\uf8ff]")
BOX = re.compile(r"[\u2500-\u257f]")
BOX_LINE = re.compile(r"^[\u2500-\u257f \t\xa0]*[\u2500-\u257f][\u2500-\u257f \t\xa0]*\n?", re.M)
UNTIDY = re.compile(r"[^\S\n ]|  +|^ | $|\A\n+|\n+\Z|\n{3,}", re.MULTILINE)
# What fix_text does otherwise: straight quotes for “”, ASCII for full-width "，", NFC; the HTML,
# escapes and control characters are other steps here.
REPAIR = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)


def html_to_text(text: str) -> str:
    """The content of HTML, without navigation, with a line for each block."""
    if not HTML.match(text):
        return text
    soup = BeautifulSoup(text, "html.parser")
    for element in soup.select(NOT_CONTENT):
        element.decompose()
    for node in soup.find_all(string=True):
        # Line breaks of the source are spaces, except in <pre>. Comments are other types.
        if type(node) is NavigableString and node.find_parent("pre") is None:
            node.replace_with(re.sub(r"[ \t\n]+", " ", node))
    for element in soup.find_all(["td", "th"]):
        element.append("\t")
    for element in soup.find_all(["br", "tr", "li"]):
        element.append("\n")
    for element in soup.find_all(["div", "p", "pre", "h1", "h2", "h3", "h4", "dt", "dd", "table"]):
        element.insert(0, "\n")
        element.append("\n")
    return soup.get_text()


def without_ansi(text: str) -> str:
    """The text without escape sequences of terminals."""
    return ANSI.sub("", text)


def repaired(text: str) -> str:
    """The text with UTF-8 that was decoded as another encoding decoded again."""
    return ftfy.fix_text(text, REPAIR)


def without_control(text: str) -> str:
    """The text without control, zero-width and private-use characters."""
    return CONTROL.sub("", text)


def without_boxes(text: str) -> str:
    """The text without lines that only draw, and with spaces for the borders of cells."""
    return BOX.sub(" ", BOX_LINE.sub("", text))


def composed(text: str) -> str:
    """The text in NFC: one code point for é, where NFD has two.

    NFKC would also write "，" as "," and "①" as "1": another text, no other encoding of it.
    """
    return unicodedata.normalize("NFC", text)


def tidy(text: str) -> str:
    """The text with single spaces within lines, and at most one empty line."""
    lines = (re.sub(r"[^\S\n]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


@dataclass(frozen=True)
class Step:
    """A step of cleaning, and the count of what it should leave none of."""

    name: str
    apply: Clean
    count: Callable[[str], int]


def matches(pattern: re.Pattern[str]) -> Callable[[str], int]:
    """A function that counts a pattern in a text."""
    return lambda text: len(pattern.findall(text))


# Escapes go before control characters, of which ESC is one. So does repair: wrongly decoded UTF-8
# has control characters that belong to letters. Its count is of suspicious sequences, and ftfy
# leaves those that decode to nothing better, as corners of tables do.
STEPS = [
    Step("HTML to text", html_to_text, matches(TAG)),
    Step("ANSI escapes", without_ansi, matches(re.compile("\x1b"))),
    Step("wrong decoding", repaired, ftfy.badness.badness),
    Step("control characters", without_control, matches(CONTROL)),
    Step("box drawing", without_boxes, matches(BOX)),
    Step("NFC", composed, lambda text: not unicodedata.is_normalized("NFC", text)),
    Step("whitespace", tidy, matches(UNTIDY)),
]


def clean(text: str) -> str:
    """The text after all steps; after a second time the same."""
    for step in STEPS:
        text = step.apply(text)
    return text
