"""What the extension reads of Python's objects is what its stub says, by the names there."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import kldiv
from kldiv import _kldiv

STUB = ast.parse(Path(kldiv.__file__).with_name("_kldiv.pyi").read_text(encoding="utf-8"))
FIELDS = {
    record.name: {field.name: ast.unparse(field.returns) for field in record.body[1:]}
    for record in STUB.body
    if isinstance(record, ast.ClassDef) and "Protocol" in map(ast.unparse, record.bases)
}
"""The fields of each record, with their types."""

CASES = [(record, field) for record, fields in FIELDS.items() for field in fields]


OF_RECORDS = {
    "_FlatTopK": {
        "ids": np.array([0, 2]),
        "log_probs": np.array([-0.5, -1.0]),
        "weights": None,
        "offsets": np.array([0, 1, 2]),
        "normalized": True,
        "classes": 3,
    },
    "_SparseLoss": {
        "loss": "kl",
        "rule": "renormalize",
        "temperatures": (1.0, 1.0),
        "temper_after": False,
    },
    "_KeptSets": {
        "ids": None,
        "offsets": None,
        "top_k": 2,
        "top_p": None,
        "min_p": None,
        "return_mass": False,
    },
    "_UldLoss": {
        "spaces": ("logits", "logits"),
        "temperatures": (1.0, 1.0),
        "p_ids": None,
        "q_ids": None,
    },
}
"""Values of fields whose name means something else in other records."""


def objects():
    """One of each record, with what the stub says and nothing else."""
    values = {
        "memory": np.zeros((2, 3)),
        "where": None,
        "weights": np.ones(2),
        "reduction": "none",
        "denominator": None,
        "dtype_name": "float64",
        "space": "logits",
        "class_weights": None,
        "softcap": None,
        "kind": "kl",
        "ignore_index": None,
    }
    return {
        record: SimpleNamespace(
            **{field: {**values, **OF_RECORDS.get(record, {})}.get(field, 1.0) for field in fields}
        )
        for record, fields in FIELDS.items()
    }


def call(record, given):
    """A function that takes one."""
    rows, reducer = given["_Operand"], given["_Reducer"]
    labels = np.zeros(2, np.int64)
    if record == "_CrossEntropy":
        return _kldiv.cross_entropy(rows, labels, None, None, given[record], reducer)
    if record == "_Distillation":
        return _kldiv.distillation(rows, rows, labels, given[record], reducer)
    if record in ("_FlatTopK", "_SparseLoss"):
        return _kldiv.sparse_loss(given["_FlatTopK"], rows, given["_SparseLoss"], reducer)
    if record == "_KeptSets":
        return _kldiv.kept_entropy(rows, given[record], 1.0, reducer)[0]
    if record == "_UldLoss":
        return _kldiv.uld(rows, rows, given[record], reducer)
    return _kldiv.divergence(
        "kl", 0.0, rows, rows, ("logits", "logits"), (1.0, 1.0), reducer, None, None, None
    )


def test_the_stub_has_records():
    known = {"_Operand", "_Reducer", "_CrossEntropy", "_Distillation"}
    assert known | OF_RECORDS.keys() == FIELDS.keys()


@pytest.mark.parametrize("record", FIELDS)
def test_nothing_else_is_read(record):
    assert call(record, objects()).shape == (2,)


@pytest.mark.parametrize(("record", "field"), CASES)
def test_a_field_of_a_wrong_type_is_named(record, field):
    given = objects()
    for wrong in (object(), {}, (1, 2, 3)):
        setattr(given[record], field, wrong)
        with pytest.raises(TypeError, match=rf"\.{field}\nwhile processing '\w+'$"):
            call(record, given)


@pytest.mark.parametrize(("record", "field"), CASES)
def test_a_field_may_be_none_where_the_stub_says_so(record, field):
    given = objects()
    setattr(given[record], field, None)
    if FIELDS[record][field].endswith("| None"):
        call(record, given)
    else:
        with pytest.raises(TypeError, match=rf"\.{field}\n"):
            call(record, given)


@pytest.mark.parametrize(("record", "field"), CASES)
def test_a_missing_field_is_named(record, field):
    given = objects()
    delattr(given[record], field)
    with pytest.raises(AttributeError, match=field):
        call(record, given)


def test_vectors_have_the_types_of_the_stub():
    """Numbers of another type, or not one after the other, are not read as if they were."""
    given = objects()
    for wrong in (np.ones(2, np.float32), np.ones((2, 1)), [1.0, 1.0]):
        given["_Reducer"].weights = wrong
        with pytest.raises(TypeError, match=r"\.weights\n"):
            call("_Reducer", given)
