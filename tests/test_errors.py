"""The errors of the package have one home."""

import ast
import pickle
from pathlib import Path

import pytest

import dtn_det
from dtn_det import errors

_PACKAGE = Path(dtn_det.__file__).parent


def _raised_classes() -> list[type]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def test_every_other_error_class_is_private() -> None:
    elsewhere = [
        f"{path.relative_to(_PACKAGE)}: {node.name}"
        for path in sorted(_PACKAGE.rglob("*.py"))
        if path != _PACKAGE / "errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).rpartition(".")[2].endswith(("Error", "Exception")) for base in node.bases)
        and not node.name.startswith("_")
    ]
    assert elsewhere == []


@pytest.mark.parametrize("kind", _raised_classes())
def test_a_users_mistake_is_an_input_error_and_a_value_error(kind: type) -> None:
    assert issubclass(kind, errors.DtnDetError)
    assert kind is errors.DtnDetError or issubclass(kind, errors.InputError | ValueError)


@pytest.mark.parametrize(
    "error",
    [
        errors.ClassCountError("weights.pth", 10, 1000),
        errors.MisfitError("expected others", 10),
        errors.CheckpointNotFoundError("expected a file"),
        errors.AnnotationError(Path("val.json"), "a box", "none", "annotation 1 of image 2"),
        errors.CellError("expected cells", {"missing": (("fog", 1),)}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_whole_out_of_worker_processes(error: errors.InputError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
