r"""Tables as LaTeX: fragments to be put into a paper, and a document that holds them all.

Columns of numbers have siunitx's type ``S``, which aligns plain numbers. Its parser rejects numbers that are bold,
underlined or marked. These are therefore set in math mode within braces, which ``S`` centres, and padded with
``\phantom`` to the width of the other numbers of the column. This aligns marked and plain numbers in any version of
siunitx.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from dtn_det.reports.labels import ARROWS, one_line
from dtn_det.reports.tables.table import Column, Table, TableCell, TableRow, cell_text, interval_text

_BY_HAND = frozenset({"best", "second", "significant", "bound"})
_NOTHING = "{--}"
# Width of a column of long texts, relative to the width of a line; texts above _LONG_TEXT characters are long.
_TEXT_WIDTH = 0.27
_LONG_TEXT = 20

FOLDER = "tables"
"""The folder in which the document looks for the fragments, relative to itself."""
_MANY_COLUMNS = 12
_PACKAGES = "booktabs,siunitx,graphicx,array"


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers and how LaTeX sets it.

    Attributes:
        digits: Largest number of digits before the point.
        decimals: Largest number of digits after the point.
        signed: Whether some number has a sign.
        has_interval: Whether a column of intervals follows.
    """

    column: Column
    digits: int
    decimals: int
    signed: bool
    has_interval: bool

    @property
    def specification(self) -> str:
        """The type of the column in the preamble of a tabular."""
        sign = "+" if self.signed else ""
        return f"S[table-format={sign}{self.digits}.{self.decimals}]"

    def cell(self, cell: TableCell) -> str:
        """Return the LaTeX of a number, to be put between two ampersands."""
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

    def interval(self, cell: TableCell) -> str:
        """Return the LaTeX of the interval, for the column that follows; empty if the number has no interval."""
        text = interval_text(cell, self.column, minus="-")
        return rf"{{\scriptsize ${text}$}}" if text else ""


@dataclass(frozen=True)
class TextColumn:
    """How LaTeX sets a column of texts.

    Attributes:
        is_long: Whether the texts are broken into several lines.
    """

    is_long: bool
    has_interval = False

    @property
    def specification(self) -> str:
        """The type of the column in the preamble of a tabular."""
        return rf">{{\raggedright\arraybackslash}}p{{{_TEXT_WIDTH}\linewidth}}" if self.is_long else "l"

    def cell(self, cell: TableCell) -> str:
        """Return the LaTeX of a text, to be put between two ampersands."""
        text = latex_text(str(cell.value or ""))
        return breakable(text) if self.is_long else text

    def interval(self, cell: TableCell) -> str:
        """Return an empty text, because texts have no interval."""
        return ""


def set_column(column: Column, cells: Sequence[TableCell]) -> NumberColumn | TextColumn:
    """Choose how LaTeX sets a column with these cells."""
    if column.align == "left":
        return TextColumn(max((len(str(cell.value or "")) for cell in cells), default=0) > _LONG_TEXT)
    return _number_column(column, cells)


def _number_column(column: Column, cells: Sequence[TableCell]) -> NumberColumn:
    texts = [text for cell in cells if (text := _text(cell, column))]
    parts = [text.lstrip("+-").partition(".") for text in texts]
    return NumberColumn(
        column,
        digits=max((len(whole) for whole, _, _ in parts), default=1),
        decimals=max((len(fraction) for _, _, fraction in parts), default=0),
        signed=any(text[0] in "+-" for text in texts),
        has_interval=any(interval_text(cell, column) for cell in cells),
    )


def _text(cell: TableCell, column: Column) -> str:
    return cell_text(cell, column, minus="-").removeprefix("≤ ")


def _phantom(text: str) -> str:
    return rf"\phantom{{{text}}}" if text else ""


_Set = NumberColumn | TextColumn


def latex(table: Table) -> str:
    r"""Return one table with caption, label, notes and footer as LaTeX, to be put into a paper with ``\input``.

    LaTeX shrinks the table if it is wider than the column or too tall for a page. For a table as wide as both columns
    of a paper, replace ``table`` by ``table*``.
    """
    lines = [
        rf"% Needs \usepackage{{{_PACKAGES}}}",
        r"\begin{table}[!htbp]",
        r"\centering",
        rf"\caption{{{latex_text(table.title + (f', {table.note}' if table.note else ''))}.}}",
        rf"\label{{tab:dtn-det-{table.name}}}\par\smallskip",
        r"\small" + (r"\setlength{\tabcolsep}{3pt}" if len(table.columns) > _MANY_COLUMNS else ""),
        r"\sbox0{%",
        *_tabular(table),
        r"}%",
        r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
        r"\ifdim\dimexpr\ht0+\dp0>0.7\textheight\resizebox*{!}{0.7\textheight}{\usebox0}\else\usebox0\fi",
        *_notes(table),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_document(tables: Sequence[Table], title: str = "Robustness report") -> str:
    """Return a document that inputs the fragments ``tables/NAME.tex`` and can be compiled as it is."""
    lines = [
        r"\documentclass{article}",
        r"\usepackage[margin=2cm]{geometry}",
        rf"\usepackage{{{_PACKAGES}}}",
        rf"\title{{{latex_text(title)}}}",
        r"\date{}",
        # Set tables in place: LaTeX would hold back floats without text between them until it has too many.
        r"\makeatletter",
        r"\renewenvironment{table}[1][]{%",
        r"  \par\bigskip\noindent\minipage{\linewidth}\def\@captype{table}}{\endminipage\par}",
        r"\makeatother",
        r"\begin{document}",
        r"\maketitle",
        *(rf"\input{{{FOLDER}/{table.name}}}" for table in tables),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _tabular(table: Table) -> Iterator[str]:
    columns = [
        set_column(column, [row.cells[place] for row in table.rows]) for place, column in enumerate(table.columns)
    ]
    widths = [1 + one.has_interval for one in columns]
    # Leave room for a star between a number and its interval.
    specification = "".join(one.specification + (r"@{\hspace{0.6em}}l" if one.has_interval else "") for one in columns)
    yield rf"\begin{{tabular}}{{l{specification}}}"
    yield r"\toprule"
    yield from _headings(table, widths)
    for group in table.groups:
        yield r"\midrule"
        if group.title:
            yield rf"\multicolumn{{{1 + sum(widths)}}}{{l}}{{\textit{{{latex_text(group.title)}}}}} \\"
        yield from (_row(row, columns) for row in group.rows)
    yield r"\bottomrule"
    yield r"\end{tabular}%"


def _headings(table: Table, widths: Sequence[int]) -> Iterator[str]:
    spans = [(one.span, ARROWS[one.direction] if one.arrow_on_span else "") for one in table.columns]
    if any(span for span, _ in spans):
        yield from _spans(spans, widths)
    lines = [[latex_text(table.label)], [""]]
    for column, width in zip(table.columns, widths, strict=True):
        for line, text in zip(lines, (column.full_heading, column.note), strict=True):
            text = latex_text(text)
            text = rf"\scriptsize {text}" if text and line is lines[1] else text
            line.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}" if width > 1 else f"{{{text}}}")
    yield " & ".join(lines[0]) + r" \\"
    if any(column.note for column in table.columns):
        yield " & ".join(lines[1]) + r" \\"


def _spans(spans: Sequence[tuple[str, str]], widths: Sequence[int]) -> Iterator[str]:
    cells, rules = [""], []
    place = 2
    for (span, arrow), members in groupby(zip(spans, widths, strict=True), key=lambda one: one[0]):
        width = sum(one[1] for one in members)
        text = latex_text(f"{span} {arrow}")
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}" if span else " & " * (width - 1))
        if span:
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    yield " & ".join(cells) + r" \\"
    yield "".join(rules)


def _row(row: TableRow, columns: Sequence[_Set]) -> str:
    label = latex_text(row.label)
    cells = [rf"\textit{{{label}}}" if row.is_mean else label]
    if row.note:
        cells[0] += rf" {{\scriptsize {latex_text(row.note)}}}"
    for cell, column in zip(row.cells, columns, strict=True):
        cells.append(column.cell(cell))
        if column.has_interval:
            cells.append(column.interval(cell))
    return " & ".join(cells) + r" \\"


def _notes(table: Table) -> Iterator[str]:
    r"""Yield the lines of a box as wide as the text; each note and each line of the footer is a paragraph."""
    yield r"\par\medskip"
    yield r"\begin{minipage}{\linewidth}\footnotesize\raggedright"
    yield from (rf"{latex_text(line)}\par" for line in (*table.notes, *table.footer))
    yield r"\end{minipage}"


_ASCII = MappingProxyType(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "%": r"\%",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "|": r"$|$",
        '"': r"\textquotedblright{}",
        "`": r"\textquoteleft{}",
        # At the start of a row, LaTeX would read these characters as an argument of the `\\` that ends the previous
        # row.
        "*": r"{*}",
        "[": r"{[}",
        "]": r"{]}",
    }
)
_ACCENTS = MappingProxyType(
    {
        "\N{COMBINING GRAVE ACCENT}": r"\`",
        "\N{COMBINING ACUTE ACCENT}": r"\'",
        "\N{COMBINING CIRCUMFLEX ACCENT}": r"\^",
        "\N{COMBINING TILDE}": r"\~",
        "\N{COMBINING MACRON}": r"\=",
        "\N{COMBINING BREVE}": r"\u",
        "\N{COMBINING DOT ABOVE}": r"\.",
        "\N{COMBINING DIAERESIS}": r"\"",
        "\N{COMBINING RING ABOVE}": r"\r",
        "\N{COMBINING DOUBLE ACUTE ACCENT}": r"\H",
        "\N{COMBINING CARON}": r"\v",
        "\N{COMBINING CEDILLA}": r"\c",
    }
)
_LETTERS = MappingProxyType(
    {
        "ß": r"\ss{}",
        "æ": r"\ae{}",
        "Æ": r"\AE{}",
        "œ": r"\oe{}",
        "Œ": r"\OE{}",
        "ø": r"\o{}",
        "Ø": r"\O{}",
        "ł": r"\l{}",
        "Ł": r"\L{}",
        "\N{LATIN SMALL LETTER DOTLESS I}": r"\i{}",
        "\N{HYPHEN}": "-",
        "\N{NON-BREAKING HYPHEN}": "-",
        "\N{EN DASH}": r"--",
        "\N{EM DASH}": r"---",
        "\N{MINUS SIGN}": r"$-$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "\N{PLUS-MINUS SIGN}": r"$\pm$",
        "\N{MICRO SIGN}": r"$\mu$",
        "\N{DEGREE SIGN}": r"$^\circ$",
        "\N{MIDDLE DOT}": r"$\cdot$",
        "\N{INFINITY}": r"$\infty$",
        "\N{LESS-THAN OR EQUAL TO}": r"$\le$",
        "\N{GREATER-THAN OR EQUAL TO}": r"$\ge$",
        "\N{NOT EQUAL TO}": r"$\ne$",
        "\N{ALMOST EQUAL TO}": r"$\approx$",
        "\N{LEFTWARDS ARROW}": r"$\leftarrow$",
        "\N{UPWARDS ARROW}": r"$\uparrow$",
        "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
        "\N{DOWNWARDS ARROW}": r"$\downarrow$",
        "\N{DAGGER}": r"$\dagger$",
        "\N{DOUBLE DAGGER}": r"$\ddagger$",
        "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
        "\N{LEFT SINGLE QUOTATION MARK}": r"\textquoteleft{}",
        "\N{RIGHT SINGLE QUOTATION MARK}": r"\textquoteright{}",
        "\N{LEFT DOUBLE QUOTATION MARK}": r"\textquotedblleft{}",
        "\N{RIGHT DOUBLE QUOTATION MARK}": r"\textquotedblright{}",
    }
)
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (\w+)$")
# LaTeX has no command for Greek capitals that look like Latin capitals, nor for omicron.
_GREEK_SMALL = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
    *("xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
_GREEK_CAPITAL = ("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega")
# Characters that the fonts would join with the next one into a single sign, such as `--` into a dash.
_JOINED = re.compile(r"-(?=-)|,(?=,)|'(?=')|[?!](?=`)")
_SPLIT = "\0"
_BREAKS = re.compile(r"(/|\\_|-|,|=|@)")


def latex_text(text: str) -> str:
    """Escape a text, so that LaTeX shows it literally as far as the standard fonts allow.

    Accented Latin letters, Greek letters and common signs are converted. Other letters are reduced to a form that the
    fonts have, for example without their accents. Characters without such a form become their code point, such as
    ``U+4E2D``, so that different names stay different.
    """
    plain = _JOINED.sub(rf"\g<0>{_SPLIT}", unicodedata.normalize("NFC", one_line(text)))
    return "".join("{}" if sign == _SPLIT else _sign(sign) for sign in plain)


def breakable(text: str) -> str:
    """Allow line breaks in a text of :func:`latex_text` after a slash, hyphen, underscore, comma, = or @."""
    return _BREAKS.sub(r"\1\\hspace{0pt}", text)


def _sign(sign: str) -> str:
    if sign in _ASCII:
        return _ASCII[sign]
    if sign.isascii():
        return sign
    return _LETTERS.get(sign) or _greek(sign) or _accented(sign) or _simpler(sign) or f"U+{ord(sign):04X}"


def _greek(sign: str) -> str:
    found = _GREEK.match(unicodedata.name(sign, ""))
    if found is None:
        return ""
    name = found[2].lower().replace("lamda", "lambda")
    name = name.capitalize() if found[1] == "CAPITAL" else name
    return rf"$\{name}$" if name in (*_GREEK_SMALL, *_GREEK_CAPITAL) else ""


def _accented(sign: str) -> str:
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) != 2 or not parts[0].isascii() or not parts[0].isalpha() or parts[1] not in _ACCENTS:
        return ""
    # Under an accent, i and j have no dot.
    base = {"i": r"\i", "j": r"\j"}.get(parts[0], parts[0])
    return rf"{_ACCENTS[parts[1]]}{{{base}}}"


def _simpler(sign: str) -> str:
    """Return the characters that the fonts have for a letter or digit: not full-width, without unknown accents."""
    parts = (part for part in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(part))
    return "".join(_sign(part) if part.isascii() or part != sign else "" for part in parts)
