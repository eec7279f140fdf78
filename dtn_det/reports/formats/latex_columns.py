r"""How columns are set: numbers by siunitx, with what its parser cannot take aligned by hand.

Plain numbers stand as they are in a column of type ``S``. Those that are bold, underlined or marked are set in math
mode within braces, which ``S`` centres; padded with ``\phantom`` to the width that all numbers of the column have, they
stand in line with the others, whatever the version of siunitx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtn_det.reports.formats.latex_text import breakable, latex_text
from dtn_det.reports.tables.table import Cell, Column, cell_text, interval_text

_BY_HAND = frozenset({"best", "second", "significant", "bound"})
_NOTHING = "{--}"
# Part of the width of the lines that a column of long texts takes.
_TEXT_WIDTH = 0.27
_LONG_TEXT = 20


@dataclass(frozen=True)
class NumberColumn:
    """How the numbers of a column are set.

    Attributes:
        column: The column.
        digits: Most digits before the point.
        decimals: Most digits after it.
        signed: Whether a number has a sign.
        has_interval: Whether intervals follow in a column of their own.
    """

    column: Column
    digits: int
    decimals: int
    signed: bool
    has_interval: bool

    @property
    def specification(self) -> str:
        """Its type in the preamble of a tabular."""
        sign = "+" if self.signed else ""
        return f"S[table-format={sign}{self.digits}.{self.decimals}]"

    def cell(self, cell: Cell) -> str:
        """A number as it stands between two ampersands."""
        text = _text(cell, self.column)
        if not text:
            return _NOTHING
        if not cell.marks & _BY_HAND and not cell.note and not text.startswith("+"):
            return text
        sign = text[0] if text[0] in "+-" else ""
        whole, _, fraction = text.removeprefix(sign).partition(".")
        body = text.removeprefix(sign)
        if "best" in cell.marks:
            body = rf"\mathbf{{{body}}}"
        elif "second" in cell.marks:
            body = rf"\underline{{{body}}}"
        before = _phantom(("+" if self.signed and not sign else "") + "0" * (self.digits - len(whole)))
        bound = r"\llap{$\le$\,}" if "bound" in cell.marks else ""
        star = r"\rlap{$^{*}$}" if "significant" in cell.marks else ""
        point = "." if self.decimals and not fraction else ""
        after = _phantom(point + "0" * (self.decimals - len(fraction)))
        note = rf" {{\scriptsize {latex_text(cell.note)}}}" if cell.note else ""
        return f"{{${before}{bound}{f'{{{sign}}}' if sign else ''}{body}{star}{after}${note}}}"

    def interval(self, cell: Cell) -> str:
        """The interval as it stands in the column that follows."""
        text = interval_text(cell, self.column, minus="-")
        return rf"{{\scriptsize ${text}$}}" if text else ""


@dataclass(frozen=True)
class TextColumn:
    """How the texts of a column are set.

    Attributes:
        is_long: Whether they go on in further lines.
    """

    is_long: bool
    has_interval = False

    @property
    def specification(self) -> str:
        """Its type in the preamble of a tabular."""
        return rf">{{\raggedright\arraybackslash}}p{{{_TEXT_WIDTH}\linewidth}}" if self.is_long else "l"

    def cell(self, cell: Cell) -> str:
        """A text as it stands between two ampersands."""
        text = latex_text(str(cell.value or ""))
        return breakable(text) if self.is_long else text

    def interval(self, cell: Cell) -> str:
        """Nothing: texts have no interval."""
        return ""


def set_column(column: Column, cells: Sequence[Cell]) -> NumberColumn | TextColumn:
    """How a column with these cells is set."""
    if column.align == "left":
        return TextColumn(max((len(str(cell.value or "")) for cell in cells), default=0) > _LONG_TEXT)
    return _number_column(column, cells)


def _number_column(column: Column, cells: Sequence[Cell]) -> NumberColumn:
    texts = [text for cell in cells if (text := _text(cell, column))]
    parts = [text.lstrip("+-").partition(".") for text in texts]
    return NumberColumn(
        column,
        digits=max((len(whole) for whole, _, _ in parts), default=1),
        decimals=max((len(fraction) for _, _, fraction in parts), default=0),
        signed=any(text[0] in "+-" for text in texts),
        has_interval=any(interval_text(cell, column) for cell in cells),
    )


def _text(cell: Cell, column: Column) -> str:
    return cell_text(cell, column, minus="-").removeprefix("≤ ")


def _phantom(text: str) -> str:
    return rf"\phantom{{{text}}}" if text else ""
