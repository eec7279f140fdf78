"""Remarks: what a reader left out, filled in or decided. Each is shown to the user once and kept in the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_SHOWN = 3
_FORMS = re.compile(r"\{([^{}|]*)\|([^{}|]*)\}")


@dataclass(frozen=True)
class Remark:
    """Something that a reader of data left out, filled in or decided.

    Attributes:
        kind: Short identifier for programs, such as ``'other_files'``.
        what: The sentence for users that follows the count, such as ``'files with endings that are not read were passed
            over'``; its words are singular or plural to fit the count, see :func:`agreeing`.
        count: Number of cases, at least 1.
        examples: A few of the files or objects concerned.
        partial: True if results will cover only a part of the data set, so that they are marked as partial.
    """

    kind: str
    what: str
    where: str
    count: int = 1
    examples: Sequence[str] = ()
    partial: bool = False

    def sentence(self) -> str:
        """Return one line for the terminal and for reports."""
        shown = ", ".join(self.examples[:_SHOWN]) + (", ..." if self.count > _SHOWN else "")
        return f"{self.where}: {self.count:,} {self.what}{f' ({shown})' if self.examples else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Return the remark as a dictionary that can be written as JSON, with the first three examples."""
        return {**asdict(self), "examples": list(self.examples[:_SHOWN])}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Remark:
        """Read a remark that :meth:`to_dict` wrote."""
        return cls(**{**values, "examples": tuple(values.get("examples", ()))})


def agreeing(count: int, text: str) -> str:
    """Choose the singular or plural form of the words in a sentence.

    Args:
        text: The sentence, with both forms of each word that depends on the number, written ``{singular|plural}``.

    >>> agreeing(1, "{image was|images were} left out"), agreeing(2, "{image was|images were} left out")
    ('image was left out', 'images were left out')
    """
    return _FORMS.sub(lambda forms: forms[1 if count == 1 else 2], text)


def counted(count: int, noun: str) -> str:
    """Return a number of things with their noun.

    >>> counted(1, "image"), counted(50_000, "image")
    ('1 image', '50,000 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def tell(remarks: Iterable[Remark], say: Callable[[str], None]) -> None:
    """Print each remark once, in a line that begins with ``note:``, or ``warning:`` if it makes results partial."""
    for sentence in dict.fromkeys(
        f"{'warning' if remark.partial else 'note'}: {remark.sentence()}" for remark in remarks
    ):
        say(sentence)


def counted_remark(path: Path, kind: str, what: str, examples: Sequence[str]) -> Remark:
    """Return a remark about objects in a file, all listed in ``examples``; ``what`` is a text for :func:`agreeing`."""
    return Remark(kind, agreeing(len(examples), what), str(path), len(examples), tuple(map(str, examples[:3])))
