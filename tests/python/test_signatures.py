"""A function has one signature in all front ends, and everyone can see it."""

import importlib
import inspect
import os
import subprocess
import sys
import typing

import pytest

import derived
import kldiv
import kldiv.dask
import kldiv.jax
import kldiv.torch
from kldiv import _signatures
from kldiv._kldiv import DIVERGENCES

COMPANIONS = ["torch", "jax", "dask"]
FUNCTIONS = [name for name in kldiv.functional.__all__ if name not in _signatures.NUMPY_ONLY]
CASES = [(companion, name) for companion in COMPANIONS for name in FUNCTIONS]


def parameters(function):
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


@pytest.mark.parametrize(("companion", "name"), CASES)
def test_parameters_are_those_of_numpy(companion, name):
    found = parameters(getattr(getattr(kldiv, companion), name))
    wanted = [one for one in parameters(getattr(kldiv, name)) if one[0] not in _signatures.WITHOUT]
    assert (found == wanted) is ((companion, name) not in _signatures.OWN)


@pytest.mark.parametrize("companion", ["torch", "jax"])
@pytest.mark.parametrize("name", kldiv.estimators.ESTIMATORS)
def test_estimators_have_the_parameters_of_numpy(companion, name):
    module = getattr(kldiv, companion).estimators
    found = getattr(module, name)
    assert parameters(found) == parameters(getattr(kldiv.estimators, name))
    assert found.__module__ == module.__name__
    assert set(module.__all__) == {*kldiv.estimators.ESTIMATORS}
    assert "return" in typing.get_type_hints(found)


@pytest.mark.parametrize("companion", COMPANIONS)
def test_companions_have_nothing_else_of_their_own(companion):
    """Beside what only one of them has."""
    more = {
        "torch": {
            "kl_div",
            "distillation_loss",
            "KLDivLoss",
            "CrossEntropyLoss",
            "DistillationLoss",
            "TopKTensors",
            "top_k_tensors",
        },
        "dask": {"LazyComparison", "compare", "value_and_grad"},
    }
    assert set(getattr(kldiv, companion).__all__) - more.get(companion, set()) == set(FUNCTIONS)


@pytest.mark.parametrize("name", kldiv.functional.__all__)
def test_what_is_shown_is_a_function_of_values(name):
    function = getattr(kldiv, name)
    shown = str(inspect.signature(function))
    assert "Request" not in shown
    assert "Request" not in str(function.__annotations__)
    # The names of types mean something where the function says it is from.
    assert "return" in typing.get_type_hints(function)


@pytest.mark.parametrize(("companion", "name"), CASES)
def test_a_companion_says_where_it_is_from(companion, name):
    function = getattr(getattr(kldiv, companion), name)
    assert function.__name__ == function.__qualname__ == name
    assert function.__module__.startswith(f"kldiv.{companion}")
    assert "return" in typing.get_type_hints(function)
    assert inspect.signature(function).return_annotation in ("Tensor", "jax.Array", "da.Array")


@pytest.mark.parametrize("companion", COMPANIONS)
def test_arguments_that_do_not_fit_are_refused_by_name(companion):
    module = getattr(kldiv, companion)
    for call, message in [
        (lambda: module.kl([0.0]), r"^kl\(\) missing .*'q'"),
        (lambda: module.kl([0.0], [0.0], beta=0.5), r"^kl\(\) got an unexpected .*'beta'"),
        (lambda: module.renyi([0.0], [0.0]), r"^renyi\(\) missing .*'alpha'"),
        (lambda: module.entropy([0.0], q=[0.0]), r"^entropy\(\) got an unexpected .*'q'"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()


@pytest.mark.parametrize("file", derived.FILES)
def test_derived_files_say_the_same(file):
    written = (derived.ROOT / file).read_text(encoding="utf-8")
    assert written == derived.FILES[file](), "run `make derived`"


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_parameter_is_that_of_the_table(name):
    described = DIVERGENCES[name].parameter
    common = {one.name for one in inspect.signature(kldiv.kl).parameters.values()}
    own = {
        one.name: None if one.default is one.empty else one.default
        for one in inspect.signature(getattr(kldiv, name)).parameters.values()
        if one.name not in common
    }
    if name == "jensen_shannon":
        # What it is at the ends of its parameter is a rule of names: `at_endpoints`.
        assert own.pop("endpoints") == "formula"
    assert own == ({} if described is None else {described.name: described.default})


def test_type_checkers_see_every_public_name(tmp_path):
    """And the options of each: one that is none is an error, the only one."""
    modules = {"kldiv": kldiv, "kldiv.torch": kldiv.torch, "kldiv.jax": kldiv.jax}
    refused = dict.fromkeys(modules, "kl")
    for module in [*modules]:
        name = f"{module}.estimators"
        modules[name], refused[name] = importlib.import_module(name), "k3"
    lines = [
        f"from {module} import {name} as {module.replace('.', '_')}_{name}"
        for module, found in modules.items()
        for name in found.__all__
    ]
    lines += [
        f"{module.replace('.', '_')}_{name}([], [], sapce=0)" for module, name in refused.items()
    ]
    lines += ["import kldiv.torch as kt", "kt.estimators.k1"]
    lines += ["from kldiv import *", *kldiv.__all__]
    (tmp_path / "caller.py").write_text("\n".join(lines), encoding="utf-8")
    # Without what kldiv imports, which takes mypy ten times as long.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-site-packages",
        "--disable-error-code=import",
    ]
    done = subprocess.run(
        [*command, "--follow-imports=silent", "--cache-dir", tmp_path, "caller.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(derived.ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(modules), done.stdout + done.stderr
    assert all('"sapce"' in line for line in errors), done.stdout
