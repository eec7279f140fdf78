"""The look of each model in all figures of a report: models can be told apart with colours and without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtn_det.system.drawing import COLOURS, GREY, MARKERS, PALE

MOST_HIGHLIGHTED = 8
"""Curves that can be told apart; further models are grey."""
_LINES = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True)
class Mark:
    """The look of a model.

    Attributes:
        colour: A colour of the palette of Okabe and Ito.
        marker: A marker of matplotlib; no two models have colour, marker and filling in common.
        filled: Whether the marker is filled; that of the first of two twins is open.
        line: Style of its line; that of the first of two twins is dashed.
        highlighted: Whether the model has its colour where there is room for a few colours only.
    """

    colour: str
    marker: str
    filled: bool = True
    line: Any = "-"
    highlighted: bool = True

    @property
    def point(self) -> dict[str, Any]:
        """The style of its marker without a line, as matplotlib's lines take it."""
        face = self.colour if self.filled else "white"
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": face,
            "markeredgecolor": self.colour,
            "linestyle": "none",
        }

    @property
    def curve(self) -> dict[str, Any]:
        """The style of its line with markers; grey unless highlighted."""
        if not self.highlighted:
            return {"color": PALE, "linestyle": "-", "linewidth": 0.7, "zorder": 1.5}
        return {**self.point, "linestyle": self.line, "zorder": 2.5}

    @property
    def shade(self) -> str:
        """Its colour where there is room for a few colours only; grey unless highlighted."""
        return self.colour if self.highlighted else GREY


def marks_of(models: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Mapping[str, Mark]:
    """Choose a mark for each model.

    Two twins, models that are compared with each other and with no third one, differ in filling and line; where
    colours are short, they share one. The first models in the report's order are highlighted, twins together.

    Args:
        models: Names of the models in the report's order.
        pairs: First and second model of each comparison.
    """
    times = Counter(name for pair in pairs for name in pair)
    twins = [pair for pair in pairs if all(times[name] == 1 and name in models for name in pair)]
    of = {name: pair for pair in twins for name in pair}
    families = list(dict.fromkeys(of.get(name, (name,)) for name in models))
    shared = len(models) > len(COLOURS)
    found: dict[str, Mark] = {}
    for number, family in enumerate(families):
        highlighted = len(found) + len(family) <= MOST_HIGHLIGHTED or len(models) <= MOST_HIGHLIGHTED
        for place, name in enumerate(family):
            style = number if shared else len(found)
            turn, colour = divmod(style, len(COLOURS))
            twin = len(family) == 2
            found[name] = Mark(
                COLOURS[colour],
                MARKERS[(colour + turn) % len(MARKERS)],
                filled=not twin or place == 1,
                line=_LINES[1 - place] if twin else _LINES[turn % len(_LINES)],
                highlighted=highlighted,
            )
    return {name: found[name] for name in models}
