"""Which models are compared with each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dtn_det.errors import ReportError

# What stands for the norm in a model's name: `ln` and `dtn` as words, or `dtn` added to the name of the twin.
_NORM = re.compile(r"(?<![a-z0-9])(dtn|ln|layernorm|layer-norm)(?![a-z0-9])[-_ ]?", re.IGNORECASE)


def find_pairs(names: Sequence[str], baseline: str | None = None) -> tuple[tuple[str, str], ...]:
    """Pairs of models to compare: first and second of each difference.

    Twins whose names differ in the norm alone (`ln` and `dtn`, `swin-t` and `dtn-swin-t`) make a pair, DTN second.
    Without any, each model is compared with the baseline, or else with the first.

    Args:
        names: Of all models.
        baseline: Which of them the others are measured against, if any.
    """
    twins: dict[str, dict[str, list[str]]] = {}
    for name in names:
        norms = {match[1].lower() for match in _NORM.finditer(name)}
        rest = _NORM.sub("", name).strip("-_ /").lower()
        twins.setdefault(rest, {}).setdefault("dtn" if "dtn" in norms else "ln", []).append(name)
    found = tuple(
        (one["ln"][0], one["dtn"][0])
        for one in twins.values()
        if len(one.get("ln", ())) == 1 and len(one.get("dtn", ())) == 1
    )
    if found:
        return found
    first = baseline if baseline is not None else names[0]
    return tuple((first, name) for name in names if name != first)


def in_order(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The names with the first of each pair before its second, and otherwise as they are."""
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(first for first, second in pairs if second == name))
        found[name] = None
    return list(found)


def parse_pairs(texts: Sequence[str], names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs as a user gives them: ``FIRST:SECOND``.

    Raises:
        ReportError: No such pair of models.
    """
    found = []
    for text in texts:
        # Names may hold a colon themselves, as those of timm do.
        splits = [(text[:place], text[place + 1 :]) for place, sign in enumerate(text) if sign == ":"]
        known = [pair for pair in splits if pair[0] in names and pair[1] in names and pair[0] != pair[1]]
        if len(known) != 1:
            raise ReportError(f"expected --pairs FIRST:SECOND with two models out of {', '.join(names)}, got {text!r}")
        found.append(known[0])
    return tuple(found)
