"""Converts texts to ASCII that pdflatex sets with its standard fonts and without packages."""

from __future__ import annotations

import re
import unicodedata
from types import MappingProxyType

from dtn_det.reports.labels import one_line

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
        # At the start of a row, LaTeX would take these for an argument of the `\\` that ends the row before.
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
    # Under an accent, i and j lose their dot.
    base = {"i": r"\i", "j": r"\j"}.get(parts[0], parts[0])
    return rf"{_ACCENTS[parts[1]]}{{{base}}}"


def _simpler(sign: str) -> str:
    """Return a letter or digit in the form that the fonts have: not full-width, without unknown accents."""
    parts = (part for part in unicodedata.normalize("NFKD", sign) if not unicodedata.combining(part))
    return "".join(_sign(part) if part.isascii() or part != sign else "" for part in parts)
