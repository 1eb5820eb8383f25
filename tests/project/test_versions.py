"""The table of versions is made of what was run, and says nothing that was not."""

import re

import pytest

from versions import matrix, results, table

KEPT = results.read()


def test_the_table_is_made_of_the_results():
    assert table.DOCUMENT.read_text(encoding="utf-8") == table.text(), "run `make test-versions`"


def test_every_case_was_run_and_none_failed():
    assert KEPT.keys() == {case.name for case in matrix.CASES}
    for result in KEPT.values():
        assert result["passed"] > 0
        assert result["failed"] == 0


def exactly(package):
    """The name and version of a requirement of one version."""
    found = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?==([\d.]+)", package)
    return found.groups() if found else None


@pytest.mark.parametrize("case", matrix.CASES, ids=lambda case: case.name)
def test_what_was_installed_is_what_the_case_asks_for(case):
    installed = KEPT[case.name]["versions"]
    for name, version in filter(None, map(exactly, case.packages)):
        # Zeros at the end of a version, and what a builder added, mean nothing.
        found = installed[name].partition("+")[0]
        assert re.fullmatch(re.escape(version) + r"(\.0)*", found), (name, found)


def test_every_oldest_version_is_tested():
    bounds = matrix.requirements(
        "eval", "formats", "report", "cli", "models", "dask", "torch", "jax"
    )
    assert all(bounds.values())
    pinned = {exactly(package) for case in matrix.CASES for package in case.packages}
    names = {(name.partition("[")[0], version) for name, version in bounds.items()}
    assert names <= pinned
