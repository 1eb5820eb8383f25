"""What messages say: to those who type commands and to those who write Python."""

import ast
import re
from pathlib import Path

import kldiv
from kldiv.evaluation.wording import shape_text

EVALUATION = Path(kldiv.__file__).parent / "evaluation"
OF_OTHERS = {"logs.py"}  # names options of llama.cpp


def texts(path):
    """The texts of a file, those with values in them as one; not its docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in joined for part in node.values}
    alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in joined:
        yield "".join(str(getattr(part, "value", "")) for part in node.values)
    for node in nodes:
        if isinstance(node, ast.Constant) and id(node) not in parts | alone:
            yield str(node.value)


def test_an_option_that_a_message_names_has_its_argument_beside_it():
    found = [
        f"{path.name}: {text}"
        for path in sorted(EVALUATION.rglob("*.py"))
        if path.name not in OF_OTHERS
        for text in texts(path)
        if re.search("(?<!-)--[a-z]", text) and not re.search(r"\w=", text)
    ]
    assert found == []


def test_lengths_that_are_not_known_are_left_out():
    assert shape_text([3, 50, 1000]) == "3×50×1,000"
    assert shape_text([1528, None]) == "1,528 rows"
    assert shape_text([None, 49_152]) == "rows of 49,152"
    assert shape_text([None, None]) == ""
