"""Choose the baseline, whose errors are the denominators of corruption errors, for `dtn-det mce` and for reports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtn_det.corruptions.catalog import IMAGENET_3DCC_CATALOG, IMAGENET_C_CATALOG, catalog_for
from dtn_det.corruptions.cells import CLEAN
from dtn_det.corruptions.identity import CorruptionOrigin
from dtn_det.errors import InputError, StoreError
from dtn_det.metrics import BASELINES
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.manifest import StoreManifest

ALEXNET = "alexnet"

NUM_IMAGES, NUM_CLASSES, SIDE = 50_000, 1000, 224
"""The part of ImageNet on which AlexNet's errors were measured: images, classes, side of an image in pixels."""

_ORIGINAL = "imagenet-c"
_IMPORTED = "ImageNet-C"


@dataclass(frozen=True)
class BaselineChoice:
    """The baseline, whose errors are the denominators of corruption errors.

    Attributes:
        name: ``'alexnet'``, the name of a model, or None if no corruption errors are computed.
        reason: Why AlexNet is not the baseline although the classes are ImageNet's; else empty.
        caveat: If AlexNet is the baseline, how the images may differ from those of AlexNet's published errors; else
            empty.
    """

    name: str | None
    reason: str = ""
    caveat: str = ""


def choose_baseline(
    wanted: str | None,
    models: Sequence[str],
    manifests: Sequence[StoreManifest],
    num_labels: int | None = None,
    imported: Mapping[str, str] | None = None,
) -> BaselineChoice:
    """Choose the baseline that the user named, else AlexNet if its published errors fit the data, else none.

    Args:
        num_labels: Number of classes in the list of images. It is used if a store's manifest does not hold the number
            of classes.
        imported: Title of the data set of each imported model, by the model's name. The title is empty if the data set
            is not known (see :data:`dtn_det.robustness.importing.dataset.DATASETS`).

    Raises:
        ValueError: The named baseline is unknown, or it is AlexNet, which was measured on other images or classes.
    """
    if wanted is None and manifests and all(set(manifest.cells) == {CLEAN} for manifest in manifests):
        return BaselineChoice(None)
    faults = (*(alexnet_fault(manifest, num_labels) for manifest in manifests), _import_fault(imported or {}))
    fault = next(filter(None, faults), "")
    told = bool(imported) or any(manifest.protocol.get("classes") == "imagenet" for manifest in manifests)
    fits = not fault
    if wanted is None:
        name = ALEXNET if fits else None
        return BaselineChoice(name, fault if told else "", _caveat(manifests) if fits else "")
    if wanted in models:
        return BaselineChoice(wanted)
    if wanted in BASELINES and fits:
        return BaselineChoice(wanted, caveat=_caveat(manifests))
    if wanted in BASELINES and fault:
        raise InputError(
            f"expected another --baseline than {wanted}, whose errors are known for ImageNet-C alone, got {fault}: "
            f"name one of the models ({', '.join(models)})"
        )
    known = [*(BASELINES if fits else ()), *models]
    raise InputError(f"expected --baseline out of {', '.join(known)}, got {wanted!r}")


def alexnet_fault(manifest: StoreManifest, num_labels: int | None = None) -> str:
    """Return why AlexNet's errors cannot be the baseline for a store's data, or an empty string if they can.

    AlexNet's errors were measured on the 50,000 validation images of all 1,000 classes, resized to 256, cropped to 224
    and then corrupted as for ImageNet-C.

    Args:
        num_labels: Number of classes in the store's list of images, if known.
    """
    protocol, found = manifest.protocol, manifest.recognised
    catalog = catalog_for(name for name, _ in manifest.cells)
    if catalog not in (IMAGENET_C_CATALOG, IMAGENET_3DCC_CATALOG):
        return f"corruptions of {catalog.title}"
    if protocol.get("labels") == "Real":
        return "Real labels"
    if protocol.get("classes") != "imagenet":
        return f"classes by {protocol.get('classes')} and profile {_profile(manifest)}"
    classes = int(found["num_classes_found"]) if "num_classes_found" in found else None
    if classes is None and manifest.selection == "all":
        classes = num_labels
    if classes is not None and classes < NUM_CLASSES:
        return f"images of {classes} of ImageNet's {NUM_CLASSES:,} classes"
    dataset = found.get("dataset", "").removesuffix("-C")
    if dataset not in ("", "ImageNet", IMAGENET_3DCC_CATALOG.title):
        return f"the images of {dataset}"
    if _profile(manifest) != _ORIGINAL and catalog is IMAGENET_C_CATALOG:
        return f"profile {_profile(manifest)}"
    side, cropping = image_side(manifest), protocol.get("clean", "")
    if side is not None and side != SIDE:
        return f"images of {side} x {side}"
    return "images that were corrupted before they were cropped" if cropping.endswith("after the corruption") else ""


def _import_fault(imported: Mapping[str, str]) -> str:
    """Return why AlexNet's errors cannot be the baseline for imported results, or an empty string if they can."""
    for name, title in imported.items():
        if title not in (_IMPORTED, IMAGENET_3DCC_CATALOG.title):
            return (
                f"imported results of {title} ({name})"
                if title
                else f"imported results of which no file or folder names the data set ({name}; import them again with "
                "--dataset)"
            )
    return ""


def count_labels(store: Store) -> int | None:
    """Count the classes in the list of images of a store; None if the list is damaged or has no labels."""
    try:
        images = store.images()
    except StoreError:
        return None
    return len(images["label"].unique()) if "label" in images.column_names else None


def baseline_remarks(choice: BaselineChoice) -> list[str]:
    """Return sentences about the baseline, which reports show with the numbers."""
    remarks = []
    if choice.reason:
        remarks.append(
            f"no CE and mCE against AlexNet, whose errors are known for ImageNet-C alone: got {choice.reason}"
        )
    if choice.caveat:
        remarks.append(f"CE and mCE: {choice.caveat}")
    return remarks


def _caveat(manifests: Sequence[StoreManifest]) -> str:
    for manifest in manifests:
        found = manifest.recognised
        if catalog_for(name for name, _ in manifest.cells) is IMAGENET_3DCC_CATALOG:
            return "AlexNet's errors on ImageNet-3DCC are of 5,000 images, those of RobustBench"
        images = int(found.get("num_images_found", NUM_IMAGES))
        if images != NUM_IMAGES:
            return f"AlexNet's errors are of {NUM_IMAGES:,} images, and these are from {images:,}"
        if found and found.get("dataset", "") == "":
            return "AlexNet's errors are of ImageNet's validation images, and these files are not named like them"
        made_by = CorruptionOrigin.parse(manifest.corruption).made_by
        if made_by is not None and made_by.jpeg_quality is None:
            return "AlexNet's errors are of JPEG files, and these images were not compressed"
    return ""


def _profile(manifest: StoreManifest) -> str:
    """Return the profile of a store's images; ImageNet-C's if the corruptions are not recorded."""
    if "profile" in manifest.recognised:
        return manifest.recognised["profile"]
    origin = CorruptionOrigin.parse(manifest.corruption)
    if origin.made_by is not None:
        return origin.made_by.profile
    return _ORIGINAL if origin.is_untold else manifest.corruption


def image_side(manifest: StoreManifest) -> int | None:
    """Return the side in pixels of a store's square images, before the preprocessing of the models.

    Stores of earlier versions contain the side only in the text of the protocol. The result is None if the side is
    unknown.
    """
    if "side" in manifest.recognised:
        return int(manifest.recognised["side"])
    sides = re.findall(r"\d+", manifest.protocol.get("clean", ""))
    return int(sides[-1]) if sides else None
