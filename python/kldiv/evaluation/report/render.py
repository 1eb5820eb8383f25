"""Templates: what they are given, and how they are escaped."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from kldiv.evaluation.report.colours import ROLES
from kldiv.evaluation.report.letters import visible
from kldiv.evaluation.report.words import Words


def render(template: str, words: Words, **values: Any) -> str:
    """A page of a template, in UTF-8 whatever file names hold.

    All values are escaped but `Figure.svg`, whose text vl-convert escapes, and their letters are
    seen, whatever they would do to the text around them.
    """
    found = _environment().get_template(template).render(words=words, **values)
    # Names of files may hold bytes that are no UTF-8, which Python keeps as lone surrogates.
    return found.encode("utf-8", "backslashreplace").decode()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kldiv.evaluation.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"colours": ROLES, "asset": _asset, "digest": _digest}
    return environment


def _seen(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> Markup:
    """The text of a style or script of this package, which goes into the page as it is."""
    loader = _environment().loader
    assert loader is not None
    return Markup(loader.get_source(_environment(), name)[0].strip())


def _digest(text: str) -> str:
    """A script's digest, by which a content security policy knows it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
