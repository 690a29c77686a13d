"""What a release is made of: one version everywhere, every page on the site, workflows that fit."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    newest = re.search(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", text("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None and newest[1] == version
    assert f"\n[{version}]: https://" in text("CHANGELOG.md")
    assert f"\nversion: {version}\n" in text("CITATION.cff")


def test_every_page_has_its_place_on_the_site() -> None:
    nav = text("mkdocs.yml").split("\nnav:\n")[1]
    named = re.findall(r": (\S+\.md)$", nav, re.MULTILINE)
    assert sorted(named) == sorted(["index.md", *(path.name for path in (ROOT / "docs").glob("*.md"))])


def test_the_workflows_use_extras_and_files_that_exist() -> None:
    assert [path.stem for path in WORKFLOWS] == ["newest", "release", "tests"]
    extras = PROJECT["project"]["optional-dependencies"]
    for path in WORKFLOWS:
        steps = path.read_text(encoding="utf-8")
        for named in re.findall(r"install (?:-e )?'\.\[([\w,]+)\]'", steps):
            assert set(named.split(",")) <= set(extras), path
        for script in re.findall(r"run: bash (\S+)", steps):
            assert (ROOT / script).exists(), path


def test_the_supported_pythons_are_those_that_ci_runs() -> None:
    classifiers = " ".join(PROJECT["project"]["classifiers"])
    supported = re.findall(r"Python :: (3\.\d+)", classifiers)
    matrix = re.findall(r"python: \[(.+)\]", text(".github/workflows/tests.yml"))
    assert matrix == [", ".join(f'"{version}"' for version in supported)]
