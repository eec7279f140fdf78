"""Tables as the page's template takes them: texts, and what sorting and filtering need."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

Role = Literal["", "model", "corruption"]

ROLES: tuple[Role, ...] = ("model", "corruption")
"""What tables can be filtered by."""

_FEWEST = 4


@dataclass(frozen=True)
class Badge:
    """A remark of one word behind a text.

    Attributes:
        word: The word.
        whole: All of the remark.
    """

    word: str
    whole: str

    @property
    def rest(self) -> str:
        """What of the remark comes after the word."""
        return self.whole[len(self.word) :] if self.whole.startswith(self.word) else f": {self.whole}"


@dataclass(frozen=True)
class ViewColumn:
    """A column.

    Attributes:
        title: Its header.
        group: Header that it shares with its neighbours, or empty.
        better: ``up`` or ``down`` where its numbers are better at one end, or empty.
        group_tells: Whether the shared header tells which end is better.
        role: What the texts in it are names of, or for a column of numbers, what its header is the name of.
        numeric: Whether it holds numbers.
        head: Whether its cells name their rows.
        about: The whole name where the title is short, or empty.
        width: Characters that it is to hold on one line, 0 for as many as it needs.
        wraps: Whether its texts may take several lines.
        badges: Behind the title.
    """

    title: str
    group: str = ""
    better: str = ""
    group_tells: bool = False
    role: Role = ""
    numeric: bool = True
    head: bool = False
    about: str = ""
    width: int = 0
    wraps: bool = False
    badges: tuple[Badge, ...] = ()


@dataclass(frozen=True)
class ViewCell:
    """A cell.

    Attributes:
        text: What is shown.
        value: What it is sorted by; None for a text or a missing number.
        interval: As text, or empty.
        mark: ``best``, ``second`` or empty.
        significant: Whether a difference is.
        badges: Behind the text.
    """

    text: str
    value: float | None = None
    interval: str = ""
    mark: str = ""
    significant: bool = False
    badges: tuple[Badge, ...] = ()


@dataclass(frozen=True)
class ViewRow:
    """A row.

    Attributes:
        cells: One for each column.
        is_mean: Whether it sums up others.
    """

    cells: tuple[ViewCell, ...]
    is_mean: bool = False


@dataclass(frozen=True)
class View:
    """A table.

    Attributes:
        id: Identity on the page.
        title: What it shows.
        columns: Its columns.
        rows: Its rows.
        badges: Behind the title.
        notes: What must be read with it.
    """

    id: str
    title: str
    columns: tuple[ViewColumn, ...]
    rows: tuple[ViewRow, ...]
    badges: tuple[Badge, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def filters(self) -> tuple[Role, ...]:
        """What it can be filtered by: where there are names enough to search them."""
        return tuple(role for role in ROLES if self._choices(role) >= _FEWEST)

    @property
    def has_intervals(self) -> bool:
        """Whether any number has one."""
        return any(cell.interval for row in self.rows for cell in row.cells)

    @property
    def grouped(self) -> bool:
        """Whether some columns share a header."""
        return any(column.group for column in self.columns)

    @property
    def headers(self) -> tuple[tuple[str, str, tuple[tuple[int, ViewColumn], ...]], ...]:
        """Neighbours with the header that they share, if any: it, which end is better, the columns by their places."""
        found = []
        for group, run in itertools.groupby(enumerate(self.columns), key=lambda place: place[1].group):
            columns = tuple(run)
            found.append((group, columns[0][1].better if columns[0][1].group_tells else "", columns))
        return tuple(found)

    def _choices(self, role: Role) -> int:
        places = [place for place, column in enumerate(self.columns) if column.role == role]
        headers = [place for place in places if self.columns[place].numeric]
        texts = {row.cells[place].text for place in places if place not in headers for row in self.rows}
        return max(len(headers), len(texts))
