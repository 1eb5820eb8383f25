"""The site, which `make site` makes of the documents, of the docstrings and of the crate.

Sources are read where they lie in the repository, so that a link is good there and in the site:
what it leads to is a page, or a file that the site brings along. Nothing is fetched, neither when
the site is made nor when it is read, and it can be read from a disk.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import kldiv

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs/_ext"))

project = "kldiv"
author = "The kldiv contributors"
version = release = kldiv.__version__
project_copyright = f"{author}, MIT or Apache 2.0"

root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/*/*.md",
    "docs/reference/generated/*.rst",
    "examples/README.md",
    "python/kldiv/demo/README.md",
]
exclude_patterns = [".*", "target", "dist", "site", "benches", "src", "tests", "examples/output"]

extensions = [
    "commands",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.napoleon",
]

# Links to headings, as GitHub makes their names.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

templates_path = [str(ROOT / "docs/_templates")]
extlinks = {
    "doi": ("https://doi.org/%s", "doi:%s"),
    "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s"),
}
# References stand at the end of a docstring, whether its text has their numbers or not.
suppress_warnings = ["ref.footnote"]
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Two hyphens begin an option, also in the text of a command's help.
smartquotes = False
# In a docstring a name between single backticks is one of the package, an option, or foreign.
default_role = "py:obj"

html_theme = "furo"
html_title = "kldiv"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]
html_copy_source = False
html_show_sourcelink = False
# Summaries of what was found are read from the pages, which a browser refuses of files on a disk.
html_show_search_summary = False


def with_signature(
    _app: Any, what: str, _name: str, found: Any, _options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Show a function's signature without annotations, which its text has."""
    if not inspect.isfunction(found) or signature is None:
        return None
    parameters = list(inspect.signature(found).parameters.values())
    if what == "method":
        del parameters[0]
    bare = inspect.Signature([one.replace(annotation=one.empty) for one in parameters])
    return str(bare), returns


def with_names_on_one_line(
    _app: Any, _what: str, _name: str, _found: Any, _options: Any, lines: list[str]
) -> None:
    """Join lists of parameters that go on, to ``a, b,`` and ``c, d``, on the next line."""
    for place in reversed(range(len(lines) - 1)):
        if re.fullmatch(r"(?:\w+, )*\w+,", lines[place]) and re.fullmatch(
            r"[\w, ]+", lines[place + 1]
        ):
            lines[place : place + 2] = [f"{lines[place]} {lines[place + 1]}"]


def setup(app: Any) -> None:
    """Tell Sphinx of what is above."""
    app.connect("autodoc-process-signature", with_signature)
    # Before napoleon, which reads sections line by line.
    app.connect("autodoc-process-docstring", with_names_on_one_line, priority=400)
