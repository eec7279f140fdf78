"""Text that fits: names of models and captions as the figures' font can show them, in the space there is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from dtn_det._optional import require
from dtn_det.system.drawing import FONT, TEXT

MINUS = "\N{MINUS SIGN}"
_ELLIPSIS = "…"


def printable(text: str) -> str:
    """A name on one line, with the code points of what the font lacks."""
    known = _code_points()
    return "".join(
        sign if sign.isprintable() and ord(sign) in known else sign.encode("unicode_escape").decode()
        for sign in " ".join(text.split())
    )


def width(text: str) -> float:
    """Points that a printable text takes in a figure."""
    textpath = require("matplotlib.textpath", "report")
    return float(textpath.text_to_path.get_text_width_height_descent(text, _font(), ismath=False)[0])


def shorten(text: str, points: float) -> str:
    """A printable text with as much of its middle left out as it takes to fit."""
    if width(text) <= points:
        return text
    for kept in range(len(text) - 1, 1, -1):
        end = kept // 2
        shorter = f"{text[: kept - end].rstrip()}{_ELLIPSIS}{text[len(text) - end :].lstrip()}"
        if width(shorter) <= points:
            return shorter
    return _ELLIPSIS


def fitted(names: Iterable[str], points: float) -> dict[str, str]:
    """Names as a figure shows them, each with its own; those that would look alike are numbered.

    Args:
        names: Any text.
        points: What each may take.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        whole = printable(name)
        label, number = shorten(whole, points), 1
        while label in taken:
            number += 1
            label = f"{shorten(whole, points - width(f' ({number})'))} ({number})"
        taken.add(label)
        found[name] = label
    return found


def wrapped(text: str, points: float) -> str:
    """A printable text in lines that fit, broken between words, or within a word that is too long for a line."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if width(joined) <= points:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for sign in word:
            if lines[-1] and width(lines[-1] + sign) > points:
                lines.append("")
            lines[-1] += sign
    return "\n".join(lines)


@lru_cache(maxsize=1)
def _font() -> Any:
    return require("matplotlib.font_manager", "report").FontProperties(family=FONT, size=TEXT)


@lru_cache(maxsize=1)
def _code_points() -> frozenset[int]:
    manager = require("matplotlib.font_manager", "report")
    return frozenset(manager.get_font(manager.findfont(_font())).get_charmap())
