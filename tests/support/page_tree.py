"""An HTML page as a tree of elements, as strict as the tests need it: every element is closed where it must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "img", "link"}


@dataclass
class Element:
    """An element with its attributes, its elements and texts in order."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        """This one and all below it, in the order of the page."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child

    def all(self, *tags: str, **attributes: str) -> list[Element]:
        """Those below of some tags that have some attributes; a class is one of its classes."""
        return [one for one in self if one.tag in tags and all(one.has(*pair) for pair in attributes.items())]

    def one(self, *tags: str, **attributes: str) -> Element:
        """The only one."""
        (found,) = self.all(*tags, **attributes)
        return found

    def has(self, name: str, value: str) -> bool:
        own = self.attributes.get(name.rstrip("_").replace("_", "-"))
        return own == value or (name == "class_" and value in (own or "").split())

    @property
    def text(self) -> str:
        """All text in it, with blanks as a reader sees them."""
        return " ".join("".join(self._texts()).split())

    @property
    def own_text(self) -> str:
        """The text at its beginning, before any element in it."""
        return self.children[0].strip() if self.children and isinstance(self.children[0], str) else ""

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._texts()


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute of <{tag}> twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: str) -> Element:
    """The tree of a page.

    Raises:
        AssertionError: An element is not closed, or closed where it was not opened.
    """
    builder = _Builder()
    builder.feed(page)
    builder.close()
    assert len(builder.open) == 1, f"<{builder.open[-1].tag}> is not closed"
    return builder.open[0]


def tags(tree: Element) -> Counter[str]:
    """How many elements of each tag there are."""
    return Counter(one.tag for one in tree)


def grid(table: Element) -> list[list[str]]:
    """The texts of a table's body."""
    return [[cell.own_text for cell in row.all("td", "th")] for row in table.one("tbody").all("tr")]
