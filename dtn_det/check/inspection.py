"""Which kind a path is of, and who looks at it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dtn_det.check.result import CheckResult
from dtn_det.checkpoints.files import CHECKPOINT_SUFFIXES, INDEX_END, holds_weights
from dtn_det.datasets.folders.image_files import is_image_name

if TYPE_CHECKING:
    from dtn_det.check.model import Target


def inspect_paths(paths: Sequence[Path], target: Target | None = None, classes: str | None = None) -> list[CheckResult]:
    """Say of each path what :func:`inspect_path` says; one that is not there or cannot be read is a problem of its own.

    Args:
        paths: Files and folders.
        target: Model that they are held against.
        classes: How the classes of folders are numbered.
    """
    results = []
    for path in paths:
        try:
            results += inspect_path(path, target, classes)
        except OSError as error:
            title = "a path that cannot be read" if os.path.lexists(path) else "a path at which nothing is"
            results.append(CheckResult(str(path), "", title, problems=(str(error),)))
    return results


def inspect_path(path: Path, target: Target | None = None, classes: str | None = None) -> list[CheckResult]:
    """Say what a file or folder is, what a command would leave out, and whether it fits a model.

    Nothing is run, and nothing is written.

    Args:
        path: A folder of images, a COCO data set, an annotation file, a checkpoint or the folder of one, or a store.
        target: Model that it is held against.
        classes: How the classes of folders are numbered, see :data:`dtn_det.datasets.folders.label_maps.CLASSES`.

    Returns:
        One result, and one more for each annotation file of a COCO data set.

    Raises:
        FileNotFoundError: There is no such file or folder.
        OSError: It cannot be read.
    """
    # Imported where they are needed: torch, which reads checkpoints, takes longer than looking at a folder.
    if (path / "store.json").is_file():
        from dtn_det.check.stores import check_store

        return [check_store(path)]
    if path.is_dir() and holds_weights(path):
        from dtn_det.check.checkpoints import check_checkpoint

        return [check_checkpoint(path, target)]
    if path.is_dir():
        from dtn_det.check.folders import check_folder

        return check_folder(path, classes, target)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file or folder, got {path}: there is no such thing; check the path")
    if path.suffix.lower() in CHECKPOINT_SUFFIXES or path.name.endswith(INDEX_END):
        from dtn_det.check.checkpoints import check_checkpoint

        return [check_checkpoint(path, target)]
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
