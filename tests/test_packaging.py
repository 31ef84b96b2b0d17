"""What other tools read: the packages that pyproject.toml declares, CITATION.cff, and the pages beside README.md."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def required() -> set[str]:
    """The packages of requirements.txt, in the spelling of the standard."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    return {str(Requirement(line)) for line in lines if line}


def test_pyproject_reads_its_packages_from_requirements():
    assert PROJECT["project"]["dynamic"] == ["dependencies"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert required()  # a line with -r, which setuptools refuses, is no Requirement


def test_readme_and_ci_name_the_python_that_pyproject_requires():
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"Python {oldest} or later" in (ROOT / "README.md").read_text()
    assert f'python-version: "{oldest}"' in (ROOT / ".github/workflows/ci.yml").read_text()


def test_the_citation_has_the_fields_that_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["title"] == PROJECT["project"]["name"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["authors"] == PROJECT["project"]["authors"]


def test_changes_are_listed_by_date_the_newest_first():
    dates = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert dates == sorted(dates, reverse=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for date in dates)


@pytest.mark.slow
def test_an_install_brings_the_packages_and_no_module(tmp_path):
    """pip builds the wheel by setuptools, which it fetches. The folder holds our modules, which it must leave out."""
    folder = tmp_path / "moonwalk"
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in ["pyproject.toml", "requirements.txt", "README.md", "LICENSE", *tracked]:
        if name.endswith((".py", ".toml", ".txt")) or name in ("README.md", "LICENSE"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)

    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, folder]
    run = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution found for setuptools" in run.stderr:
        pytest.skip("no registry from which pip could fetch setuptools")
    assert run.returncode == 0, run.stderr

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        (metadata,) = [name for name in files if name.endswith("dist-info/METADATA")]
        declared = message_from_string(archive.read(metadata).decode()).get_all("Requires-Dist")
    assert not [name for name in files if name.endswith(".py")]
    assert {str(Requirement(line)) for line in declared or []} == required()
