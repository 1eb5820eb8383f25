"""Files that say what the package says of itself, made of it.

    python tests/derived.py      writes them, as `make derived` does

Stubs of `kldiv.torch`, `kldiv.jax` and `kldiv.dask`: a function that adopts its signature is known
to Python when it runs; editors and type checkers read files, and find the same there. The tables of
divergences in docs/functions.md and its Chinese form: signatures, and the formulas of the
docstrings; their names in the site's reference. The table of their properties in
docs/divergences.md, the columns of positions in docs/evaluation.md, and the estimators in
docs/estimators.md, with what examples/estimators.py measured.
"""

import importlib
import inspect
import json
import math
import re
from pathlib import Path

import kldiv
from kldiv._kldiv import DIVERGENCES, infinite_where
from kldiv.estimators.table import ESTIMATORS, STRAIGHT_THROUGH
from kldiv.evaluation.columns import COLUMNS

ROOT = Path(__file__).parent.parent
HEADERS = {
    "torch": "from typing import Any\n\nfrom torch import Tensor",
    "jax": "from typing import Any\n\nimport jax",
    "dask": "from collections.abc import Callable, Sequence\nfrom typing import Any\n\n"
    "import dask.array as da",
}
SUBMODULES = {"torch": ("estimators",), "jax": ("estimators",)}
"""Public modules of a companion, each with a stub of its own."""
TABLES = {
    "docs/functions.md": ("| divergence | per row |", " with ", "; `{}` = {:g} is `{}`"),
    "docs/zh/functions.md": ("| 散度 | 每行的值 |", "，", "；`{}` = {:g} 时就是 `{}`"),
}
"""The head of the table, the word for "with", and what is said of special values."""
LARGEST = {math.log(2): "ln 2"}
BEGIN, END = "<!-- divergences -->\n", "<!-- end of divergences -->\n"


def stub(companion):
    """The text of a stub."""
    module = importlib.import_module(f"kldiv.{companion}")
    submodules = SUBMODULES.get(companion, ())
    imported = [f"from kldiv.{companion} import {name} as {name}\n" for name in submodules]
    adopted = []
    for name in sorted(module.__all__):
        found = getattr(module, name)
        if hasattr(found, "__signature__") and inspect.isfunction(found):
            adopted.append(_definition(found))
        else:
            imported.append(f"from {found.__module__} import {name} as {name}\n")
    names = "".join(f"    {name!r},\n".replace("'", '"') for name in sorted(module.__all__))
    text = "\n".join(adopted)
    header = HEADERS[companion.partition(".")[0]]
    if not re.search(r"\bAny\b", text):
        header = header.removeprefix("from typing import Any\n\n")
    if re.search(r"\bTopK\b", text):
        imported.append("from kldiv import TopK\n")
    parts = [
        f'"""{inspect.getdoc(module)}\n"""\n\n# Made by `make derived`.\n{header}\n',
        "".join(imported) and "\n" + "".join(sorted(imported)),
        f"\n__all__ = [\n{names}]\n\n",
        text,
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
        # A bar would end the cell; in a docstring it has a backslash already.
        formula = formula.replace(r"\|", "|").replace("|", r"\|")
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


def estimators():
    """docs/estimators.md, with the table of estimators and what was measured of them."""
    yes = {True: "yes", False: "no"}
    known = [
        [
            f"`{one.name}`",
            one.formula,
            yes[one.unbiased_value],
            "yes" if one.non_negative else "no",
            one.gradient,
            one.expected_gradient,
            yes[one.unbiased_gradient],
        ]
        for one in ESTIMATORS.values()
    ]
    through = ESTIMATORS[STRAIGHT_THROUGH.name]
    known.append(
        [
            "any, `straight_through=True`",
            "its own",
            "as its own",
            "as its own",
            through.gradient,
            through.expected_gradient,
            yes[through.unbiased_gradient],
        ]
    )
    kept = json.loads((ROOT / "examples/results/estimators.json").read_text(encoding="utf-8"))
    kept = kept["results"]
    bars = "sampled ± 3σ"
    values = [
        [
            one["weights"],
            one["estimator"],
            f"{one['KL(q‖p)']:.3g}",
            f"{one['bias']:+.1%}" if abs(one["bias"]) > 1e-9 else "0",
            f"{one['σ of a token']:.2g}",
            f"{one['sampled']:.3f} ± {one['3σ']:.3f}",
        ]
        for one in kept["values"]
    ]
    gradients = [
        [
            one["weights"],
            one["gradient"],
            f"{one['length']:.2f}" if one["length"] > 1e-9 else "0",
            "–" if one["cosine"] is None else f"{one['cosine']:.2f}",
            f"{one['error']:.2f}" if one["error"] > 1e-9 else "0",
            f"{one['σ of a token']:.2g}" if "sampled" in one else "–",
            f"{one['sampled']:.3f} ± {one['3σ']:.3f}" if "sampled" in one else "–",
        ]
        for one in kept["gradients"]
    ]
    return filled(
        "docs/estimators.md",
        (
            "estimators",
            "| estimator | value | unbiased | ≥ 0 | gradient | expected | unbiased |",
            known,
        ),
        (
            "measured values",
            f"| q | estimator | KL(q‖p) | bias | σ of one token / KL | {bars}, / KL |",
            values,
        ),
        (
            "measured gradients",
            f"| q | gradient | length | cosine | error | σ of one token | {bars}, along ∇ KL |",
            gradients,
        ),
    )


def teachers():
    """docs/teachers.md, with what was measured of rules, of draws, of files and of students."""
    kept, trained = (
        json.loads((ROOT / f"examples/results/{name}.json").read_text(encoding="utf-8"))["results"]
        for name in ("top_k_rules", "distill_from_file")
    )
    mass = {one["k"]: one["mean"] for one in kept["coverage"]}
    rules = [
        [
            str(one["k"]),
            f"`{one['rule']}`",
            f"{one['bias']:+.1%}",
            f"{one['length']:.2f}",
            "–" if one["cosine"] is None else f"{one['cosine']:.3f}",
            f"{one['error']:.2f}",
            f"{one['error of the mean']:.2f}",
        ]
        for one in kept["rules"]
        if one["student"] == "int4"
    ]
    rules.sort(key=lambda row: int(row[0]))
    sizes = list(mass)
    across = {}
    for student in dict.fromkeys(one["student"] for one in kept["rules"]):
        for one in kept["rules"]:
            if one["student"] == student:
                found = one["pull"] if student == "teacher" else one["error"]
                across.setdefault((student, one["rule"]), []).append(f"{found:.2g}")
    draws = [
        [
            f"{power:g}",
            *(
                f"{one['σ of the gradient']:.2f} ({one['classes']:.0f})"
                for one in kept["draws"]
                if (one["student"], one["power"]) == ("int4", power)
            ),
        ]
        for power in dict.fromkeys(one["power"] for one in kept["draws"])
    ]
    files = [
        [
            one["kept"],
            f"{one['classes']:.1f}",
            *(f"{one[name]:.0f}" for name in ("safetensors", "float16", "Parquet")),
        ]
        for one in kept["bytes"]
    ]
    students = [
        [
            one["learns from"]
            if one["learns from"] == "all classes"
            else f"`{one['learns from']}`",
            f"{one['bytes a position']:,.0f}",
            f"{one['loss']:.2f}",
            f"{one['KL']:.2f} ± {one['±']:.2f}",
            f"{one['perplexity']:,.0f}",
        ]
        for one in trained["students"]
    ]
    columns = " | ".join(f"k = {k}" for k in sizes)
    return filled(
        "docs/teachers.md",
        (
            "mass kept",
            f"| | {columns} |",
            [["mass kept, mean", *(f"{mass[k]:.3f}" for k in sizes)]],
        ),
        (
            "measured rules",
            "| k | rule | value | length | cosine | error | error of the mean |",
            rules,
        ),
        (
            "measured students",
            f"| student | rule | {columns} |",
            [[student, f"`{rule}`", *row] for (student, rule), row in across.items()],
        ),
        ("measured draws", f"| power | {columns} |", draws),
        ("measured files", "| kept | classes | safetensors | float16 | Parquet |", files),
        (
            "trained students",
            "| learns from | bytes a position | loss at the end | held-out KL | perplexity |",
            students,
        ),
    )


def reference(page):
    """A page of the site's reference, with every divergence in its list."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names = "".join(f"   {name}\n" for name in (*DIVERGENCES, "uld"))
    section = re.compile(r"(## Divergences\n.*?:nosignatures:\n\n).*?(?=```)", re.DOTALL)
    return section.sub(lambda found: found[1] + names, text, count=1)


def filled(document, *tables):
    """A document with tables between the comments that have their names."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for name, head, rows in tables:
        lines = [head, "| --- " * (head.count("|") - 1) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(begin)
        made = "".join(f"{line}\n" for line in lines)
        text = before + begin + made + end + rest.partition(end)[2]
    return text


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
        f"python/kldiv/{companion}/{name}.pyi": (lambda module=f"{companion}.{name}": stub(module))
        for companion, names in SUBMODULES.items()
        for name in names
    },
    **{
        document: (lambda document=document: with_table(document))
        for document in (*TABLES, "docs/divergences.md")
    },
    **{
        f"docs/reference/{page}.md": (lambda page=page: reference(f"docs/reference/{page}.md"))
        for page in ("kldiv", *HEADERS)
    },
    "docs/evaluation.md": columns,
    "docs/estimators.md": estimators,
    "docs/teachers.md": teachers,
}
"""By name, with what makes the text."""


if __name__ == "__main__":
    for file, make in FILES.items():
        (ROOT / file).write_text(make(), encoding="utf-8")
