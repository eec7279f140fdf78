"""Mended annotations for a store whose detections are of the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dtn_det.datasets.remarks import Remark
from dtn_det.robustness.detection.data import DetectionData
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store.manifest import StoreManifest, differences
from dtn_det.robustness.store.store import Store


def take_new_annotations(
    folder: Path, manifest: StoreManifest, data: DetectionData, say: Callable[[str], None] = lambda text: None
) -> bool:
    """Give a store the annotations of this run where nothing else differs, for detections do not depend on them.

    Args:
        folder: Of a store, or one that is to become a store.
        manifest: Of this run.
        data: Of this run.
        say: Where that is told.

    Returns:
        Whether the annotations were replaced.

    Raises:
        StoreError: The store is damaged.
        ValueError: Another process writes it.
    """
    if not (folder / "store.json").is_file():
        return False
    store = Store.open(folder)
    found = store.manifest
    if found.data_hash == manifest.data_hash or _others(found, manifest):
        return False
    if manifest.images_hash != (found.images_hash or _images_hash(store, data)):
        return False
    hashes = f"{found.data_hash[:12]} before, {manifest.data_hash[:12]} now"
    what = "change of the annotations; the detections are of the same images and were kept"
    remark = Remark("annotations_replaced", what, data.name, 1, (hashes,))
    earlier = (*found.earlier_data_hashes, found.data_hash)
    new = replace(manifest, remarks=(*manifest.remarks, remark), earlier_data_hashes=earlier)
    store.with_other_labels(new, data.truth.table())
    say(f"note: {remark.sentence()}")
    return True


def _others(found: StoreManifest, wanted: StoreManifest) -> list[str]:
    """What differs besides the annotations."""
    return differences({**found.to_dict(), "data_hash": ""}, {**wanted.to_dict(), "data_hash": ""})


def _images_hash(store: Store, data: DetectionData) -> str:
    """That of a store of an earlier version, which kept one hash of all; empty where the files are others."""
    truth, sizes = CocoTruth.of(store), data.file_sizes()
    if len(truth.images) != len(sizes) or truth.hash(sizes) != store.manifest.data_hash:
        return ""
    return truth.images_hash(sizes)
