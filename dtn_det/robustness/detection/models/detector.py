"""The interface of all detectors from any library: one image under several cells in, its detections out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import torch

from dtn_det.cost.facts import ModelFacts
from dtn_det.datasets.remarks import Remark, counted
from dtn_det.errors import InputError
from dtn_det.robustness.detection.images import CellImages
from dtn_det.robustness.detection.records import ImageDetections
from dtn_det.robustness.store.manifest import ModelManifest

_LIBRARIES = ("dtn-det", "numpy", "opencv-python-headless")


@dataclass(frozen=True)
class Detector:
    """A detector that can be evaluated.

    Attributes:
        manifest: Its name and what its records depend on.
        detect: Function from an image and a range of numbers of cells to the detections under each of these cells.
            Labels are indices of categories of the data set.
        facts: Function that returns the cost and the training of the model, for reports.
        gives_masks: Whether the detector finds masks besides boxes.
        remarks: What was decided when the model was loaded.
    """

    manifest: ModelManifest
    detect: Callable[[CellImages, range], list[ImageDetections]]
    facts: Callable[[], ModelFacts]
    gives_masks: bool
    remarks: tuple[Remark, ...] = ()

    @property
    def name(self) -> str:
        """Name of the model in the store and in reports."""
        return self.manifest.name


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of the libraries that the numbers may depend on, by package.

    Args:
        packages: The libraries of the model. Those that are not installed are left out.
    """
    found = {"torch": str(torch.__version__)}
    for package in (*_LIBRARIES, *packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextlib.contextmanager
def memory_reported(count: int, device: torch.device) -> Iterator[None]:
    """Report that images did not fit into the memory of the device.

    Raises:
        InputError: The accelerator has too little memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"expected {counted(count, 'image')} at once to fit into the memory of {device}, got: "
            f"{str(error).splitlines()[0]} Free the device and start again to continue; or give a smaller "
            "--batch-size and another --name, for what is finished was made with this one. It is kept"
        ) from error
