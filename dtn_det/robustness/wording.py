"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "image"), counted(50_000, "image")
    ('1 image', '50,000 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
