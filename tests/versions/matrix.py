"""Versions and their tests: the oldest of `pyproject.toml`, the newest, and some between."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

_REQUIREMENT = re.compile(r"([\w-]+)(?:\[([\w,-]+)\])?(?:>=([\d.]+))?")

TOOLS = ("expecttest", "gmpy2", "hypothesis", "mpmath", "pytest", "scipy", "setuptools")
"""What tests of every front end need, in its newest version."""


def requirements(*extras: str) -> dict[str, str]:
    """What extras ask for, and what the package always does, each with its oldest version."""
    found = {}
    for line in [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]:
        name, options, oldest = _REQUIREMENT.match(line).groups()
        if name == "kldiv":
            found |= requirements(*options.split(","))
        else:
            found[name + (f"[{options}]" if options else "")] = oldest
    return found


def at_oldest(*extras: str) -> tuple[str, ...]:
    """Requirements of exactly the oldest versions."""
    return tuple(f"{name}=={version}" for name, version in requirements(*extras).items())


def at_newest(*extras: str) -> tuple[str, ...]:
    """Requirements without a bound, but for those that `pyproject.toml` has above."""
    return (*PROJECT["dependencies"], *(f"kldiv[{extra}]" for extra in extras))


@dataclass(frozen=True)
class Case:
    """An environment, and the tests that are run in it."""

    name: str
    shows: tuple[str, ...]
    """The packages that the case is about."""
    packages: tuple[str, ...]
    """What is installed beside kldiv and `TOOLS`, as pip takes it."""
    tests: tuple[str, ...]


NUMPY = ("tests/python/functional", "tests/python/estimators", "tests/python/test_arrays.py")
TORCH = ("tests/python/torch",)
JAX = ("tests/python/jax",)
EVALUATION = ("tests/python/evaluation", "tests/python/cli", "tests/python/dask")
MODELS = ("tests/python/evaluation/test_models.py", "tests/python/cli/test_models.py")

_FRONT_END = ("ml-dtypes",)
_EVALUATED = ("aiohttp", "matplotlib", "pandas", "playwright")

CASES = (
    Case("numpy-oldest", ("numpy",), at_oldest() + _FRONT_END, NUMPY),
    Case("torch-oldest", ("torch", "numpy"), at_oldest("torch"), TORCH),
    Case("torch-2.9", ("torch", "numpy"), ("torch==2.9.1", *_FRONT_END), TORCH),
    Case("torch-2.12", ("torch", "numpy"), ("torch==2.12.1", *_FRONT_END), TORCH),
    Case("torch-newest", ("torch", "numpy"), at_newest("torch"), TORCH),
    Case("jax-oldest", ("jax", "numpy"), (*at_oldest("jax"), "dask[array]", "optax"), JAX),
    Case("jax-newest", ("jax", "numpy"), (*at_newest("jax"), "dask[array]", "optax"), JAX),
    Case(
        "evaluation-oldest",
        ("polars", "pyarrow", "zarr", "dask", "altair", "typer", "transformers", "torch"),
        (*at_oldest("cli", "dask", "formats", "report", "models"), *_EVALUATED),
        EVALUATION,
    ),
    Case(
        "models-newest",
        ("transformers", "accelerate", "gguf", "torch"),
        (*at_newest("cli", "models"), *_EVALUATED),
        MODELS,
    ),
)
