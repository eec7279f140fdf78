"""What `dtn-det check` found out about one file or folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtn_det.datasets.remarks import Remark


@dataclass(frozen=True)
class CheckResult:
    """One file or folder.

    Attributes:
        path: The file or folder.
        kind: What it is, for programs: ``'coco'``, ``'class_folders'``, ``'corrupted'``, ``'checkpoint'``,
            ``'store'``, or another kind of :class:`dtn_det.datasets.folders.recognise.Recognised`; empty where it
            was not recognised.
        title: What it is, for people.
        facts: Numbers and names that describe it, by what they are called.
        remarks: What a command would leave out, fill in or decide.
        problems: Sentences that a command would stop with.
        fits: Whether it fits the model; None where no model was named or the question makes no sense.
    """

    path: str
    kind: str
    title: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[Remark] = ()
    problems: Sequence[str] = ()
    fits: bool | None = None

    @property
    def is_good(self) -> bool:
        """Whether commands would take it, and the model fits if one was named."""
        return not self.problems and self.fits is not False

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "path": self.path,
            "kind": self.kind,
            "title": self.title,
            "facts": dict(self.facts),
            "remarks": [remark.to_dict() for remark in self.remarks],
            "problems": list(self.problems),
            "fits": self.fits,
        }

    def lines(self) -> list[str]:
        """The result as lines for people."""
        lines = [f"{self.path}: {self.title}"]
        lines += [f"  {name}: {_shown(value)}" for name, value in self.facts.items()]
        lines += [f"  {'warning' if remark.partial else 'note'}: {remark.sentence()}" for remark in self.remarks]
        lines += [f"  problem: {problem}" for problem in self.problems]
        if self.fits is not None:
            lines.append(f"  fits the model: {'yes' if self.fits else 'no'}")
        return lines


_SHOWN = 12


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        if not value:
            return "none"
        more = f", ... ({len(value):,} in all)" if len(value) > _SHOWN else ""
        return ", ".join(map(_shown, value[:_SHOWN])) + more
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
