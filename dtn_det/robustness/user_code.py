"""Import the functions that users name as ``python:MODULE:FUNCTION``."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

from dtn_det.errors import InputError

PYTHON = "python:"


def call_factory(function: Callable[[], Any], source: str, what: str) -> Any:
    """Return what a function of the user makes when it is called without arguments.

    Args:
        source: The text that names the function.
        what: What the function should make, such as ``'a model'``.

    Raises:
        InputError: The function fails.
    """
    try:
        return function()
    # Third-party code may raise anything.
    except (Exception, SystemExit) as error:
        raise InputError(
            f"expected {source!r} to make {what} when it is called without arguments, got {type(error).__name__}: "
            f"{error}: mend it"
        ) from error


def import_callable(source: str) -> tuple[str, Any]:
    """Import the function that a text of the form ``python:MODULE:FUNCTION`` names.

    The module may lie in the current folder.

    Returns:
        The name of the function, and the function or another object that can be called.

    Raises:
        InputError: The text has another form, the module cannot be imported, or it has no such function.
    """
    module_name, _, name = source.removeprefix(PYTHON).partition(":")
    if not module_name or not name:
        raise InputError(f"expected python:MODULE:FUNCTION, got {source!r}: name the function that makes the model")
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(module_name, error) from error
        raise InputError(
            f"expected a module that can be imported in python:{module_name}:{name}, got none of the name "
            f"{error.name!r}: run in its folder or set PYTHONPATH"
        ) from error
    # Third-party code may raise anything.
    except (Exception, SystemExit) as error:
        raise _broken(module_name, error) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove("")
    found = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"expected a function {name!r} in the module {module_name!r}, got {found!r}")
    return name, found


def _broken(module_name: str, error: BaseException) -> InputError:
    return InputError(f"expected the module {module_name!r} to import, got {type(error).__name__}: {error}: mend it")
