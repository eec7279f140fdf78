"""Sample images for the models of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dtn_det.errors import ReportError
from dtn_det.reports.samples.gallery import Gallery
from dtn_det.reports.sources import Sources
from dtn_det.robustness.store.store import ModelStore


def make_samples(
    sources: Sources,
    data: Path,
    pairs: Sequence[tuple[str, str]] = (),
    *,
    clean: Path | None = None,
    frost: Path | None = None,
    seed: int = 0,
) -> Gallery:
    """Make the sample images of a report again from the images that were evaluated.

    Args:
        sources: The models of the report.
        data: Folder of the images: what ``dtn-det mce`` was given as ``--data``; for detectors the image folder, or the
            folder that it lies in.
        pairs: Compared models; of the first pair with records, the disagreements are shown.
        clean: The clean images, where ``data`` has the corrupted ones of classifiers.
        frost: Folder with the original frost textures, where those were used.
        seed: Of the choice of the images.

    Raises:
        ReportError: Other images than those that were evaluated, or no model has records of images.
        ValueError: Images or corruptions that cannot be made again.
        FileNotFoundError: No such folder.
    """
    models = {name: model for name, model in sources.models.items() if isinstance(model, ModelStore)}
    if not models:
        raise ReportError(
            "expected models with records of images for sample images, got imported results: leave out --data"
        )
    pair = next((pair for pair in pairs if pair[0] in models and pair[1] in models), None)
    if sources.task == "classification":
        from dtn_det.reports.samples.classification import classification_gallery

        return classification_gallery(models, data, pair, clean=clean, frost=frost, seed=seed)
    if clean is not None:
        raise ReportError("expected --clean with classifiers only, got it with detectors: leave it out")
    from dtn_det.reports.samples.detection import detection_gallery

    return detection_gallery(models, data, pair, frost=frost, seed=seed)
