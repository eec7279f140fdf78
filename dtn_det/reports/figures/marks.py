"""Colour, marker and line of each model in all figures of a report. Models differ even without colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtn_det.system.drawing import COLOURS, GREY, MARKERS, PALE

MOST_HIGHLIGHTED = 8
"""Largest number of models whose curves are coloured; the curves of further models are grey."""
_LINES = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True)
class Mark:
    """Colour, marker and line of a model.

    Attributes:
        colour: A colour of the palette of Okabe and Ito.
        marker: A marker of matplotlib; no two models have the same colour, marker and filling.
        filled: Whether the marker is filled; the first model of two twins has an open marker.
        line: Style of the line; the first model of two twins has a dashed line.
        highlighted: Whether the model has its colour in figures with room for few colours; other models are grey there.
    """

    colour: str
    marker: str
    filled: bool = True
    line: Any = "-"
    highlighted: bool = True

    @property
    def point(self) -> dict[str, Any]:
        """Arguments of a matplotlib line that shows the markers only."""
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
        """Arguments of a matplotlib line: with markers if the model is highlighted, else thin and grey."""
        if not self.highlighted:
            return {"color": PALE, "linestyle": "-", "linewidth": 0.7, "zorder": 1.5}
        return {**self.point, "linestyle": self.line, "zorder": 2.5}

    @property
    def shade(self) -> str:
        """The colour of the model in figures with room for few colours; grey unless highlighted."""
        return self.colour if self.highlighted else GREY


def marks_of(models: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Mapping[str, Mark]:
    """Choose a mark for each model.

    Twins are two models that are compared with each other and with no third one. They differ in filling and line, and
    share a colour if there are more models than colours. The first models in the report's order are highlighted; of
    twins, either both or neither.

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
