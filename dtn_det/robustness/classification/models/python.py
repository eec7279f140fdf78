"""Load models from the user's own code, named ``python:MODULE:FUNCTION``."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.robustness.classification.models.classifier import Classifier, View


def load_python(source: str) -> Classifier:
    """Load a model by calling a function of the user.

    The function takes no arguments. It returns a torch module that computes logits from images, ``(N, 3, H, W)``
    float32 RGB in [0, 1]. Or it returns a pair: a torch module, and a function that makes the module's input from
    images, ``(N, 3, H, W)`` uint8 RGB on the module's device. The Python module of the function may lie in the current
    folder.

    Args:
        source: ``python:MODULE:FUNCTION``.

    Raises:
        ValueError: There is no such function, it fails, or it returns something else.
    """
    module_name, _, function_name = source.removeprefix("python:").partition(":")
    if not module_name or not function_name:
        raise InputError(f"expected python:MODULE:FUNCTION, got {source!r}: name the function that makes the model")
    function = _function(module_name, function_name)
    try:
        made = function()
    # Third-party code may raise anything.
    except (Exception, SystemExit) as error:
        raise InputError(
            f"expected {source!r} to make a model when it is called without arguments, got {type(error).__name__}: "
            f"{error}: mend it"
        ) from error
    network, prepare = made if isinstance(made, tuple) and len(made) == 2 else (made, _unit_range)
    if not isinstance(network, nn.Module) or not callable(prepare):
        raise InputError(
            f"expected {source!r} to return a torch module, or a module and a function that prepares its input, got "
            f"{type(made).__name__}"
        )
    network.eval()
    return Classifier(
        name=function_name,
        source=source,
        network=network,
        forward=lambda images: network(prepare(images.contiguous())),
        view=View(),
        protocol={"input": "as corrupted", "normalization": getattr(prepare, "__qualname__", type(prepare).__name__)},
    )


def _unit_range(images: Tensor) -> Tensor:
    return images.to(torch.float32) / 255


def _function(module_name: str, function_name: str) -> Any:
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(module_name, error) from error
        raise InputError(
            f"expected a module that can be imported in python:{module_name}:{function_name}, got none of the name "
            f"{error.name!r}: run in its folder or set PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        raise _broken(module_name, error) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove("")
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"expected a function {function_name!r} in the module {module_name!r}, got {function!r}")
    return function


def _broken(module_name: str, error: BaseException) -> InputError:
    return InputError(f"expected the module {module_name!r} to import, got {type(error).__name__}: {error}: mend it")
