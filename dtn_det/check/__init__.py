"""The entry to `dtn-det check`: find out what kind of file or folder a path is, and call the check for that kind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det.checkpoints.files import CHECKPOINT_SUFFIXES, INDEX_END, holds_weights
from dtn_det.checkpoints.formats import other_format
from dtn_det.datasets.folders.image_files import is_image_name
from dtn_det.datasets.remarks import Remark

if TYPE_CHECKING:
    from dtn_det.check.model import Target

# Suffixes of files that are not checked as checkpoints. `other_format` recognises web pages and archives too, because
# failed downloads leave such files under the names of checkpoints.
_TEXTS = (".json", ".html", ".htm", ".xml", ".svg", ".zip", ".gz", ".tgz")
# The largest number of values that the terminal shows for one fact, such as the names of the classes.
_SHOWN = 12


@dataclass(frozen=True)
class CheckResult:
    """The result of the check of one file or folder.

    Attributes:
        path: The file or folder.
        kind: Its kind, for programs: ``'coco'``, ``'class_folders'``, ``'corrupted'``, ``'checkpoint'``,
            ``'store'``, another kind of :class:`dtn_det.datasets.folders.recognise.Recognised`, or a key of
            :data:`dtn_det.check.artefacts.PARTS`; empty if the file or folder was not recognised.
        title: Its kind, for users.
        facts: Numbers and names that describe the file or folder, each by its label.
        remarks: What a command would leave out, fill in or decide.
        problems: Messages with which a command would stop.
        fits: True if the file or folder fits the model; None if no model was named, or if this kind is not compared
            with models.
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
        """True if commands would accept the file or folder, and it fits the model or was not compared with one."""
        return not self.problems and self.fits is not False

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary that can be written as JSON."""
        remarks = [remark.to_dict() for remark in self.remarks]
        return {**vars(self), "facts": dict(self.facts), "remarks": remarks, "problems": list(self.problems)}

    def lines(self) -> list[str]:
        """Return the result as lines for the terminal."""
        lines = [f"{self.path}: {self.title}"]
        lines += [f"  {name}: {_shown(value)}" for name, value in self.facts.items()]
        lines += [f"  {'warning' if remark.partial else 'note'}: {remark.sentence()}" for remark in self.remarks]
        lines += [f"  problem: {problem}" for problem in self.problems]
        if self.fits is not None:
            lines.append(f"  fits the model: {'yes' if self.fits else 'no'}")
        return lines


def inspect_paths(paths: Sequence[Path], target: Target | None = None, classes: str | None = None) -> list[CheckResult]:
    """Check each path by :func:`inspect_path`; for a path that cannot be read, the result says so."""
    results = []
    if target is not None:
        target = replace(target, beside=tuple(str(path) for path in paths if _is_checkpoint(path)))
    for path in paths:
        try:
            results += inspect_path(path, target, classes)
        except OSError as error:
            title = "a path that cannot be read" if os.path.lexists(path) else "a path at which nothing is"
            results.append(CheckResult(str(path), "", title, problems=(str(error),)))
    return results


def inspect_path(path: Path, target: Target | None = None, classes: str | None = None) -> list[CheckResult]:
    """Find out what a file or folder is, what a command would leave out, and whether it fits a model.

    Nothing is run, and nothing is written.

    Args:
        path: A folder of images, a COCO data set, an annotation file, a checkpoint, the folder of a checkpoint, or a
            store.
        target: Model with which the file or folder is compared; None for no comparison.
        classes: How the classes of folders are numbered: one of
            :data:`dtn_det.datasets.folders.label_maps.CLASSES`, or None to decide by the folders' names.

    Returns:
        One result, and one more for each annotation file of a COCO data set or for the last checkpoint of a work_dir.

    Raises:
        FileNotFoundError: There is no such file or folder.
        OSError: The file or folder cannot be read.
    """
    # Checks are imported only where they are needed, because importing torch takes longer than checking a folder.
    from dtn_det.check.artefacts import check_artefact

    if (found := check_artefact(path, target)) is not None:
        return found
    if _is_checkpoint(path):
        from dtn_det.check.checkpoints import check_checkpoint

        return [check_checkpoint(path, target)]
    if path.is_dir() or (path.is_file() and path.suffix == ".parquet"):
        from dtn_det.check.folders import check_folder

        return check_folder(path, classes, target)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file or folder, got {path}: there is no such thing; check the path")
    if path.suffix.lower() == ".json":
        from dtn_det.check.annotations import check_annotations

        return [check_annotations(path, target)]
    if is_image_name(path.name):
        problem = (
            f"expected a folder of images, got the single image {path}: name its folder, {path.resolve().parent}, or "
            f"see the image under every corruption with `dtn-det corrupt {path} --grid grid.png`"
        )
        return [CheckResult(str(path), "image", "an image", problems=(problem,))]
    expected = f"a JSON file of annotations, or a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)})"
    problem = f"expected {expected}, got {path}: name the folder of images, or rename the file to what it is"
    return [CheckResult(str(path), "", "a file of another kind", problems=(problem,))]


def _is_checkpoint(path: Path) -> bool:
    if path.is_dir():
        return holds_weights(path) or other_format(path) is not None
    known = path.suffix.lower() in CHECKPOINT_SUFFIXES or path.name.endswith(INDEX_END)
    return path.is_file() and (known or (path.suffix.lower() not in _TEXTS and other_format(path) is not None))


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        if not value:
            return "none"
        more = f", ... ({len(value):,} in all)" if len(value) > _SHOWN else ""
        return ", ".join(map(_shown, value[:_SHOWN])) + more
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
