"""Rules of the package's structure: which modules and folders there are, what imports what, and unique names."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = (
    "_optional",
    "errors",
    "system",
    "_registry",
    "layers",
    "conversion",
    "corruptions",
    "datasets",
    "corrupted_folders",
    "checkpoints",
    "backbones",
    "training",
    "sequence",
    "metrics",
    "cost",
    "timm",
    "robustness",
    "export",
    "inspection",
    "looks",
    "reports",
    "check",
    "doctor",
    "demo",
    "cli",
    "__main__",
)
"""All folders and modules of the package, from the ground up: each imports from those before it alone."""

MODULES = {"__init__", "__main__", "_optional", "_registry", "errors", "export", "timm"}
"""The only modules that lie beside the folders."""


@pytest.fixture(scope="module")
def modules(project_root: Path) -> dict[str, ast.Module]:
    """The syntax trees of the package's modules, by path within the package."""
    package = project_root / "dtn_det"
    return {str(path.relative_to(package)): ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}


def floor(path: str) -> str:
    """The folder of a module, or its own name where it lies beside the folders."""
    return path.split("/")[0].removesuffix(".py")


def imported_at_once(nodes: list[ast.stmt]) -> Iterator[str]:
    """The folders and modules of the package that a module imports when it is imported itself."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "dtn_det":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").startswith("dtn_det."):
                yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("dtn_det."))
        elif isinstance(node, ast.If):
            yield from () if "TYPE_CHECKING" in ast.dump(node.test) else imported_at_once(node.body)
            yield from imported_at_once(node.orelse)
        elif isinstance(node, ast.Try):
            yield from imported_at_once([*node.body, *(one for handler in node.handlers for one in handler.body)])
        elif isinstance(node, ast.ClassDef | ast.With):
            yield from imported_at_once(node.body)


def test_no_module_or_folder_beside_the_listed_ones(modules: dict[str, ast.Module]) -> None:
    assert {floor(path) for path in modules} == {"__init__", *FLOORS}
    assert {path.removesuffix(".py") for path in modules if "/" not in path} == MODULES


def test_no_import_goes_upwards(modules: dict[str, ast.Module]) -> None:
    upwards = {}
    for path, tree in modules.items():
        if path == "__init__.py":
            continue
        allowed = FLOORS[: FLOORS.index(floor(path)) + 1]
        if wrong := {name for name in imported_at_once(tree.body) if name not in allowed}:
            upwards[path] = wrong
    assert upwards == {}


def test_no_string_names_a_module_upwards(modules: dict[str, ast.Module]) -> None:
    """A name that is imported later is an import all the same; the registry alone may name what lies above it."""
    upwards = {}
    for path, tree in modules.items():
        if path in ("__init__.py", "_registry.py"):
            continue
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        named = {found[1] for text in texts if (found := re.fullmatch(r"dtn_det\.(\w+)[\w.]*", text))}
        if wrong := named & set(FLOORS[FLOORS.index(floor(path)) + 1 :]):
            upwards[path] = wrong
    assert upwards == {}


def test_the_package_itself_imports_the_registry_alone(modules: dict[str, ast.Module]) -> None:
    assert set(imported_at_once(modules["__init__.py"].body)) == {"_registry"}


def test_a_class_name_is_unique(modules: dict[str, ast.Module]) -> None:
    places = defaultdict(list)
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_module_hides_a_name_that_its_folder_exports(modules: dict[str, ast.Module]) -> None:
    """Importing a module for the first time sets its name in the folder, in place of a function of this name."""
    hidden = {
        f"{folder}.{one.name}"
        for path, tree in modules.items()
        if (folder := path.removesuffix("/__init__.py")) != path
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for one in node.names
        if f"{folder}/{one.name}.py" in modules
        and node.module not in ("__future__", f"dtn_det.{folder.replace('/', '.')}.{one.name}")
    }
    assert hidden == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import dtn_det.cli.main", ["cli"]),
        ("from dtn_det.reports import write", ["reports"]),
        ("from dtn_det import export, layers", ["export", "layers"]),
        ("if TYPE_CHECKING:\n    from dtn_det.cli import main\nelse:\n    import dtn_det.layers", ["layers"]),
        ("try:\n    import dtn_det.demo\nexcept ImportError:\n    import dtn_det.doctor", ["demo", "doctor"]),
        ("def later():\n    import dtn_det.cli", []),
        ("import torch\nfrom . import near", []),
    ],
)
def test_imports_are_found(source: str, expected: list[str]) -> None:
    assert list(imported_at_once(ast.parse(source).body)) == expected


def names_of(tree: ast.Module) -> set[str]:
    """All names that a module defines or imports, those within its classes too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(name.asname or name.name).split(".")[0] for name in node.names}
    return found


def leads_somewhere(parts: list[str], modules: dict[str, ast.Module]) -> bool:
    """Return True if the parts behind `dtn_det` are a folder, a module, or a module and a name in it."""
    for length in range(len(parts), -1, -1):
        folder = "/".join(parts[:length])
        for path in (f"{folder}.py", f"{folder}/__init__.py" if folder else "__init__.py"):
            if path in modules:
                return length == len(parts) or parts[length] in names_of(modules[path])
    return False


def test_dotted_names_lead_somewhere(modules: dict[str, ast.Module], project_root: Path) -> None:
    """In code, docstrings and documents, which nobody imports; `dtn_det.__file__` and parts of names are left out."""
    dotted = re.compile(r"(?<![\w./-])dtn_det((?:\.[A-Za-z]\w*)+)(?![\w{])")
    files = [
        *(project_root / folder for folder in ("README.md", "setup.py", "pyproject.toml")),
        *(
            path
            for folder in ("dtn_det", "tests", "tools", "configs", "benchmarks", "docs")
            for path in (project_root / folder).rglob("*")
            if path.suffix in (".py", ".md", ".sh")
        ),
    ]
    lost = {
        f"{path.relative_to(project_root)}: {found[0]}"
        for path in files
        for found in dotted.finditer(path.read_text())
        if not leads_somewhere(found[1][1:].split("."), modules)
    }
    assert lost == set()
