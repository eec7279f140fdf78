"""The norm that a checkpoint was trained with, read from the config in the checkpoint without running the config."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from dtn_det.layers.token_norms.factory import token_norm_class


def trained_options(content: Mapping[str, Any]) -> dict[str, object] | None:
    """Return the norm options that a checkpoint's config sets.

    Args:
        content: A training checkpoint of MMEngine, with its config as text under ``meta``.

    Returns:
        The options in the form of :meth:`dtn_det.layers.TokenNorm.options`. Options that the model chooses, because the
        config does not set them, are left out. None if the checkpoint has no config, or the config has no norms of this
        package.
    """
    meta = content.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        return None
    for settings in _mappings(config_value(text, "model")):
        if settings.get("dtn_stages") == []:  # the LayerNorm twin
            continue
        if "dtn_cfg" in settings or str(settings.get("type", "")).rpartition(".")[2].startswith("DTN"):
            return _options({"type": "DTN", **(settings.get("dtn_cfg") or {})})
        if settings.get("type") == "ConvertedModel":
            norm = settings.get("norm_cfg")
            norm = {"type": norm} if isinstance(norm, str) else norm
            if isinstance(norm, Mapping) and norm.get("type") not in (None, "LN"):
                return _options(norm)
    return None


def config_value(text: str, name: str) -> Any:
    """Return the value of a variable in a config's text, which MMEngine writes as literals and calls of ``dict``.

    Returns:
        The value; parts that are neither literals nor calls of ``dict`` become None. None if the text has no such
        variable or is no config.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = None
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            found = _value(node.value)
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _value(word.value) for word in node.keywords if word.arg is not None}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: _value(value) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return None


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a config and all configs nested in it, each before those that it contains."""
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _mappings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _mappings(inner)


def _options(settings: Mapping[str, Any]) -> dict[str, object] | None:
    try:
        norm = token_norm_class(str(settings["type"]))
    except ValueError:
        return None
    found: dict[str, object] = {"norm": norm.__name__}
    # The host model chooses these options if the config does not set them, so their values are unknown here.
    of_host = {"eps", "num_groups"}
    parameters = inspect.signature(norm).parameters
    for name in norm.decisive:
        if settings.get(name) is not None and not (name == "num_groups" and not isinstance(settings[name], int)):
            found[name] = settings[name]
        elif name not in of_host:
            found[name] = parameters[name].default
    if norm.__name__ == "DTN" and settings.get("init") == "layernorm":
        # This `init` turns off both options, whatever their values in the config.
        found |= {"head_rms": False, "unbiased": False}
    return found
