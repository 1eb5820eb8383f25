"""The stubs of `kldiv.torch` and `kldiv.jax`, made of the functions themselves.

    python tests/stubs.py      writes them

A function that adopts its signature is known to Python when it runs. Editors and type checkers
read files, and find the same there.
"""

import importlib
import inspect
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "python" / "kldiv"
HEADERS = {
    "torch": "from torch import Tensor",
    "jax": "from typing import Any\n\nimport jax",
}


def stub(companion):
    """The text of a stub."""
    module = importlib.import_module(f"kldiv.{companion}")
    imported, adopted = [], []
    for name in sorted(module.__all__):
        found = getattr(module, name)
        if hasattr(found, "__signature__") and inspect.isfunction(found):
            adopted.append(_definition(found))
        else:
            imported.append(f"from {found.__module__} import {name} as {name}\n")
    names = "".join(f"    {name!r},\n".replace("'", '"') for name in sorted(module.__all__))
    parts = [
        f'"""{inspect.getdoc(module)}\n"""\n\n# Made by `make stubs`.\n{HEADERS[companion]}\n',
        "".join(imported) and "\n" + "".join(sorted(imported)),
        f"\n__all__ = [\n{names}]\n\n",
        "\n".join(adopted),
    ]
    return "".join(parts)


def _definition(function):
    """One function, a parameter a line, with the first line of its docstring."""
    lines, keyword_only = [], False
    for one in function.__signature__.parameters.values():
        if one.kind is one.KEYWORD_ONLY and not keyword_only:
            lines.append("*")
            keyword_only = True
        default = "" if one.default is one.empty else f" = {one.default!r}".replace("'", '"')
        lines.append(f"{one.name}: {one.annotation}{default}")
    body = "".join(f"    {line},\n" for line in lines)
    summary = inspect.getdoc(function).partition("\n\n")[0].replace("\n", " ")
    returns = function.__signature__.return_annotation
    return f'def {function.__name__}(\n{body}) -> {returns}:\n    r"""{summary}"""\n'


def path(companion):
    """Where a stub is."""
    return PACKAGE / companion / "__init__.pyi"


if __name__ == "__main__":
    for each in HEADERS:
        path(each).write_text(stub(each), encoding="utf-8")
