"""Numbers by dotted names, as ``kl.p99``: of CSV, and of what is checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def flat(value: Any, path: str = "", *, without: frozenset[str] = frozenset()) -> Iterator[Any]:
    """Every number, text or None of nested dictionaries and lists, with its name.

    An element of a list is called by what it is of (``confidence_buckets.0.25-0.5.kl.mean``), and
    else by its number. Entries `without` are left out of the outermost dictionary.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if path or key not in without:
                yield from flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from flat(item, f"{path}.{_key(item, number)}")
    else:
        yield path, value


def named_numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """Those of a summary as JSON has it, but of its sequences; a mean also by its own name."""
    found = dict(flat(summary, without=frozenset({"per_context"})))
    means = {
        name.removesuffix(".mean"): value for name, value in found.items() if name.endswith(".mean")
    }
    return means | found


def _key(item: Any, number: int) -> str:
    """What an element of a list is called: by what it is of, and else its number."""
    for key in ("percent", "label", "draft", "name"):
        if isinstance(item, dict) and key in item:
            return f"{item[key]}"
    return str(number)
