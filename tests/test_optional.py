from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtn_det._optional import EXTRAS, require


def test_returns_the_module() -> None:
    assert require("json.decoder", "cli").__name__ == "json.decoder"


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.models"])
def test_absent_module_names_the_extra(module: str) -> None:
    with pytest.raises(ImportError, match=r"needs `no_such_package`: pip install 'dtn-det\[cls\]'") as caught:
        require(module, "cls")
    assert caught.value.name == "no_such_package"


def test_detection_is_installed_without_build_isolation() -> None:
    with pytest.raises(ImportError, match=r"pip install --no-build-isolation 'dtn-det\[det\]'"):
        require("no_such_package", "det")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("from json import no_such_name", "ImportError: cannot import name 'no_such_name'"),
        ("raise OSError('libsomething.so: undefined symbol')", "OSError: libsomething.so"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "RuntimeError: operator"),
    ],
)
def test_broken_module_points_to_the_doctor(
    source: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="installed but does not import") as caught:
        require("broken_package", "det")
    assert cause in str(caught.value)
    assert "dtn-det doctor" in str(caught.value)


def test_absent_submodule_of_an_installed_package_is_broken() -> None:
    with pytest.raises(ImportError, match=r"`json\.no_such_part` is installed but does not import"):
        require("json.no_such_part", "cli")


def test_unknown_extra() -> None:
    with pytest.raises(ValueError, match=r"expected extra to be one of cli, det, .* got 'everything'"):
        require("json", "everything")


def test_extras_are_those_of_pyproject(pyproject: dict[str, Any]) -> None:
    assert set(EXTRAS) == set(pyproject["project"]["optional-dependencies"])
