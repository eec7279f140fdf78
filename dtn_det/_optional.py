"""Imports of optional packages, with an error that names the extra which installs the package."""

from __future__ import annotations

import importlib
from types import ModuleType

EXTRAS: tuple[str, ...] = (
    "cli",
    "det",
    "cls",
    "corruptions",
    "eval",
    "report",
    "export",
    "imagecorruptions",
    "all",
    "dev",
)
"""The extras that `pyproject.toml` declares."""

# Extras that install mmcv. A build of mmcv in isolation, without torch, lacks the compiled operators and reports no
# error.
_WITH_MMCV = ("det", "all")


def require(module: str, extra: str) -> ModuleType:
    """Import a module that an extra of this package installs.

    Args:
        module: Dotted name of the module, such as `mmdet.models`.
        extra: The extra that installs it, one of `EXTRAS`.

    Returns:
        The imported module.

    Raises:
        ImportError: The module is not installed (the message names the extra), or it is installed but cannot be
            imported (the message gives the cause and points to `dtn-det doctor`).
        ValueError: `extra` is not an extra of this package.
    """
    if extra not in EXTRAS:
        raise ValueError(f"expected extra to be one of {', '.join(EXTRAS)}, got {extra!r}")
    top_level = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == top_level:
            option = "--no-build-isolation " if extra in _WITH_MMCV else ""
            raise ImportError(
                f"this part of dtn-det needs `{top_level}`: pip install {option}'dtn-det[{extra}]'", name=top_level
            ) from error
        raise _broken(module, error) from error
    # A compiled package that does not match the installed torch may also fail with OSError or RuntimeError, and
    # MMDetection's check of mmcv's version fails with AssertionError.
    except (ImportError, OSError, RuntimeError, AttributeError, AssertionError) as error:
        raise _broken(module, error) from error


def _broken(module: str, cause: Exception) -> ImportError:
    return ImportError(
        f"`{module}` is installed but does not import ({type(cause).__name__}: {cause}): "
        "run `dtn-det doctor` for the command that mends it",
        name=module,
    )
