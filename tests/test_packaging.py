from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MOST_LINES = 450
# In two parts, so that this file does not hold what it looks for.
REGISTRIES = ("pypi" + ".org", "pythonhosted" + ".org", "download.pytorch" + ".org", "conda.anaconda" + ".org")
MACHINE_PATHS = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/")


@pytest.fixture(scope="module")
def tracked(project_root: Path) -> list[Path]:
    if shutil.which("git") is None or not (project_root / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=project_root, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split("\0") if name and (path := project_root / name).is_file()]


@pytest.fixture(scope="module")
def pins(project_root: Path) -> list[Requirement]:
    lines = (project_root / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(pins: list[Requirement], python: str) -> dict[str, Version]:
    """Versions by name for a Python; fails where a package has two."""
    environment = {"python_version": python}
    found: dict[str, Version] = {}
    for pin in pins:
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert normalised(pin.name) not in found, f"{pin.name} has two pins for Python {python}"
            found[normalised(pin.name)] = Version(specifier.version)
    return found


def test_no_registry_and_no_machine_in_the_files(tracked: list[Path], project_root: Path) -> None:
    found = [
        f"{path.relative_to(project_root)}:{number}: {word}"
        for path in tracked
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        for word in (*REGISTRIES, *MACHINE_PATHS)
        if word in line
    ]
    assert found == []


def test_no_file_is_too_long(tracked: list[Path], project_root: Path) -> None:
    lengths = {
        str(path.relative_to(project_root)): len(path.read_text().splitlines())
        for path in tracked
        if path.suffix in (".py", ".sh")
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_satisfy_what_the_package_asks_for(
    pins: list[Requirement], python: str, pyproject: dict[str, Any]
) -> None:
    versions = pinned(pins, python)
    project = pyproject["project"]
    wanted = [Requirement(text) for text in project["dependencies"] + pyproject["build-system"]["requires"]]
    wanted += [Requirement(text) for extra in project["optional-dependencies"].values() for text in extra]
    for requirement in wanted:
        if requirement.name == project["name"]:
            assert requirement.extras <= set(project["optional-dependencies"])
            continue
        assert normalised(requirement.name) in versions, f"{requirement.name} is not pinned"
        assert versions[normalised(requirement.name)] in requirement.specifier


def test_the_environment_is_the_pinned_one(pins: list[Requirement]) -> None:
    if not (Path(sys.prefix) / ".dtn-det" / "package.stamp").exists():
        pytest.skip("this environment was not made by `make setup`")
    versions = pinned(pins, f"{sys.version_info.major}.{sys.version_info.minor}")
    ours = {"dtn-det"}
    # Not all of sys.path: setuptools puts the packages it carries on it.
    site_packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    # A build of torch for another CUDA version brings other versions of CUDA's parts.
    installed = {
        normalised(distribution.metadata["Name"]): Version(Version(distribution.version).public)
        for distribution in metadata.distributions(path=site_packages)
        if not normalised(distribution.metadata["Name"]).startswith(("nvidia-", "cuda-", "triton"))
    }
    differing = {
        name: f"{version}, pinned {versions.get(name, 'nowhere')}"
        for name, version in installed.items()
        if name not in ours and versions.get(name) != version
    }
    assert differing == {}


def test_the_command_starts(pyproject: dict[str, Any]) -> None:
    module, _, function = pyproject["project"]["scripts"]["dtn-det"].partition(":")
    assert callable(getattr(import_module(module), function))


def test_make_help_lists_every_target(project_root: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    makefile = (project_root / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert {"setup", "demo", "test", "test-all", "lint", "format", "typecheck", "bench", "clean", "help"} == set(
        phony.split()
    )
    done = subprocess.run(["make", "-s", "help"], cwd=project_root, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines() if "variables:" not in line} == set(phony.split())


def test_scripts_are_executable_and_parse(tracked: list[Path], project_root: Path) -> None:
    scripts = [path for path in tracked if path.suffix == ".sh" or path == project_root / ".ci" / "run"]
    assert len(scripts) >= 2
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert script.stat().st_mode & 0o100, f"{script.name} is not executable"
