"""The directive ``command``: what ``kldiv NAME --help`` says, as a page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import typer.main
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from kldiv.cli.app import app


def described(name: str) -> Iterator[str]:
    """Lay out a command in Markdown: its usage, its help, its arguments and its options."""
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if not one.opts[0].startswith("-")]
    usage = " ".join(_argument(one) for one in arguments)
    yield from ("```text", f"kldiv {name} {usage} [OPTIONS]".replace("  ", " "), "```", "")
    yield from (_as_it_stands(textwrap.dedent(command.help or "")), "")
    if not shown:
        return
    yield from ("| | |", "| --- | --- |")
    for one in shown:
        text = _as_it_stands(" ".join((one.help or "").split()))
        yield f"| {_names(one)} | {text} |"


def _as_it_stands(text: str) -> str:
    """Text of a terminal, where only brackets are escaped, as Markdown that shows it."""
    return re.sub(r"([*_`<|\[\]])", r"\\\1", text.replace(r"\[", "["))


def _argument(one: Any) -> str:
    name = one.metavar or one.name.upper()
    return name if one.required else f"[{name}]"


def _names(one: Any) -> str:
    if not one.opts[0].startswith("-"):
        return f"`{one.metavar or one.name.upper()}`"
    value = "" if one.is_flag else f" {one.metavar or 'VALUE'}"
    return ", ".join(f"`{option}{value}`".replace("|", r"\|") for option in one.opts)


class Command(SphinxDirective):
    """``command:: NAME``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse what the package says."""
        return self.parse_text_to_nodes("\n".join(described(self.arguments[0])))


def setup(app: Any) -> dict[str, Any]:
    """Tell Sphinx of it."""
    app.add_directive("command", Command)
    return {"parallel_read_safe": True}
