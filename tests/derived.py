"""Files that say what the package says of itself, made of it.

    python tests/derived.py      writes them, as `make derived` does

Stubs of `kldiv.torch`, `kldiv.jax` and `kldiv.dask`: a function that adopts its signature is known
to Python when it runs; editors and type checkers read files, and find the same there. The tables of
divergences of both READMEs: signatures, and the formulas of the docstrings. The table of their
properties in docs/divergences.md, and the columns of positions in docs/evaluation.md.
"""

import importlib
import inspect
import math
from pathlib import Path

import kldiv
from kldiv._kldiv import DIVERGENCES, infinite_where
from kldiv.evaluation.columns import COLUMNS

ROOT = Path(__file__).parent.parent
HEADERS = {
    "torch": "from typing import Any\n\nfrom torch import Tensor",
    "jax": "from typing import Any\n\nimport jax",
    "dask": "from typing import Any\n\nimport dask.array as da",
}
TABLES = {
    "README.md": ("| divergence | per row |", " with ", "; `{}` = {:g} is `{}`"),
    "README.zh.md": ("| 散度 | 每行的值 |", "，", "；`{}` = {:g} 时就是 `{}`"),
}
"""The head of the table, the word for "with", and what is said of special values."""
LARGEST = {math.log(2): "ln 2"}
BEGIN, END = "<!-- divergences -->\n", "<!-- end of divergences -->\n"


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
        f'"""{inspect.getdoc(module)}\n"""\n\n# Made by `make derived`.\n{HEADERS[companion]}\n',
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


def table(document):
    """The table of divergences of a document, markers included."""
    head, comma, remark = TABLES[document]
    lines = [head, "| --- | --- |"]
    for name, described in DIVERGENCES.items():
        summary = inspect.getdoc(getattr(kldiv, name)).partition("\n\n")[0].replace("\n", " ")
        formula = (
            summary.partition(", ")[2].removesuffix(".").replace("``", "`").replace(" with ", comma)
        )
        # A bar would end the cell.
        formula = formula.replace("|", r"\|")
        call = f"{name}(p, q)"
        if (parameter := described.parameter) is not None:
            default = "" if parameter.default is None else f"={parameter.default:g}"
            call = f"{name}(p, q, *, {parameter.name}{default})"
            formula += "".join(remark.format(parameter.name, *one) for one in described.special)
        lines.append(f"| `{call}` | {formula} |")
    return BEGIN + "".join(f"{line}\n" for line in lines) + END


def properties():
    """The table of the properties of divergences, markers included."""
    lines = [
        "| divergence | parameter | largest | with p and q exchanged | infinite where "
        "| f-divergence | near p = q | gradient |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in DIVERGENCES.items():
        parameter, value = "", 0.0
        if (described := one.parameter) is not None:
            value = 0.3 if described.default is None else described.default
            default = "" if described.default is None else f" = {described.default:g}"
            parameter = f"`{described.name}`{default}, {described.domain}"
        exchanged = "another number"
        if one.symmetric:
            exchanged = "the same"
        elif one.symmetric_at is not None:
            exchanged = f"the same at {described.name} = {one.symmetric_at:g}"
        elif one.exchanged is not None:
            exchanged = f"`{one.exchanged}`"
        largest = "∞" if one.bound is None else LARGEST.get(one.bound, f"{one.bound:g}")
        infinite = " or ".join(
            where
            for where, holds in zip(
                ("p > 0 = q", "q > 0 = p"), infinite_where(name, value), strict=True
            )
            if holds
        )
        cells = (
            f"`{name}`",
            parameter,
            largest,
            exchanged,
            infinite or "nowhere",
            "yes" if one.f_divergence else "no",
            "first order" if one.kinked else "second order",
            "of constant weights" if one.detached else "of the value",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return BEGIN + "".join(f"{line}\n" for line in lines) + END


def columns():
    """docs/evaluation.md, with the columns of the table of positions."""
    lines = ["| column | |", "| --- | --- |"]
    lines += [f"| `{name}` | {one.meaning} |" for name, one in COLUMNS.items()]
    text = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition("<!-- columns -->\n")
    end = "<!-- end of columns -->\n"
    return before + begin + "".join(f"{line}\n" for line in lines) + end + rest.partition(end)[2]


def with_table(document):
    """A document, with the table as it should be."""
    made = table(document) if document in TABLES else properties()
    before, _, rest = (ROOT / document).read_text(encoding="utf-8").partition(BEGIN)
    return before + made + rest.partition(END)[2]


FILES = {
    **{
        f"python/kldiv/{companion}/__init__.pyi": (lambda companion=companion: stub(companion))
        for companion in HEADERS
    },
    **{
        document: (lambda document=document: with_table(document))
        for document in (*TABLES, "docs/divergences.md")
    },
    "docs/evaluation.md": columns,
}
"""By name, with what makes the text."""


if __name__ == "__main__":
    for file, make in FILES.items():
        (ROOT / file).write_text(make(), encoding="utf-8")
