"""What stands beside the code for those who use it and change it says what is so."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import kldiv

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def loaded(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_hooks_are_the_parts_of_make_lint():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    parts = re.search(r"^lint: (.*)$", makefile, re.MULTILINE)[1].split()
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == [f"make {part}" for part in parts]
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert not hook["pass_filenames"]
        assert re.search(rf"^{hook['id']}:", makefile, re.MULTILINE)
        assert any(re.search(hook["files"], name) for name in kinds_of_files())


def kinds_of_files():
    """One name of each kind of file that hooks look at, of those that are there."""
    names = ("src/lib.rs", "src/python/mod.rs", "Cargo.toml", "python/kldiv/_kldiv.pyi")
    assert all((ROOT / name).exists() for name in names)
    return names


@pytest.mark.parametrize("path", [path for path in FORMS if path.name != "config.yml"])
def test_issue_forms_ask_for_the_build(path):
    form = loaded(path)
    assert form.keys() <= {"name", "description", "labels", "body"}
    assert form["name"]
    assert form["description"]
    fields = {field["id"]: field for field in form["body"] if field["type"] != "markdown"}
    assert fields["build"]["attributes"]["label"] == "kldiv.build_info()"
    (command,) = re.findall(r'python -c "(.*?)"', fields["build"]["attributes"]["description"])
    exec(command, {})
    assert all(field["type"] == "textarea" for field in fields.values())


def test_the_citation_is_of_this_version():
    citation = loaded("CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == kldiv.__version__
    assert " OR ".join(citation["license"]) == project["license"]
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
