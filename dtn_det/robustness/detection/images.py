"""The data set of a sweep. Worker processes make its items: an image under every cell, after the test pipeline.

A cell is a corruption at a severity, or the clean image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from dtn_det.corruptions.cells import Cell
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.transforms import ImageCorruption
from dtn_det.datasets.coco.orientation import orientation_fault
from dtn_det.errors import InputError

Transform = Callable[[dict[str, Any]], dict[str, Any] | None]

# First bytes of JPEG and PNG files, and last bytes of complete files. If a file was cut off, OpenCV raises no error and
# fills the rest of the image with grey.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}


@dataclass(frozen=True)
class CellImages:
    """One image under every cell.

    Attributes:
        inputs: The image as the pipeline made it, (cells, channels, height, width).
        sample: Its meta information, the same under every cell.
    """

    number: int
    inputs: torch.Tensor
    sample: Any


@dataclass(frozen=True)
class BadImage:
    """An image that could not be evaluated.

    Attributes:
        reason: Path of the file and what is wrong with it.
        fault: `image`, or `pipeline` if the image was read and the test pipeline failed on it.
    """

    number: int
    reason: str
    fault: str


class DetectionImages(Dataset[CellImages | BadImage]):
    """The images of a sweep, each loaded once and corrupted at its native resolution.

    Args:
        dataset: The data set of MMDetection, without a pipeline.
        indices: For each image of the sweep, its index in the data set. The number of an image is its position in
            ``indices``.
        sizes: Height and width of each image, as annotated.
        load: Steps of the test pipeline up to the one that loads the image.
        rest: Steps of the test pipeline after the one that loads the image.
    """

    def __init__(
        self,
        dataset: Any,
        indices: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        load: Sequence[Transform],
        rest: Sequence[Transform],
        cells: Sequence[Cell],
        corruptor: Corruptor,
    ) -> None:
        self.dataset, self.indices, self.sizes = dataset, indices, sizes
        self.load, self.rest = load, rest
        self.corruptions = [image_corruption(cell, corruptor) for cell in cells]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> CellImages | BadImage:
        """Return the image with this number under every cell, or why it cannot be evaluated."""
        results = self.dataset.get_data_info(self.indices[number])
        path = str(results.get("img_path"))
        # The model does not need the objects, and the evaluation has them from the annotation file.
        results.pop("instances", None)
        try:
            if "://" not in path:
                check_complete(Path(path))
            loaded = _run(self.load, results)
            _check_size(Path(path), loaded["img"], self.sizes[number])
            corrupted = [corruption(dict(loaded))["img"] for corruption in self.corruptions]
        except Exception as error:  # each backend raises errors of its own kinds
            return BadImage(number, f"{path}: {_reason(error)}", "image")
        try:
            return self._packed(number, loaded, corrupted)
        except Exception as error:
            return BadImage(number, f"{path}: {_reason(error)}", "pipeline")

    def _packed(self, number: int, loaded: dict[str, Any], corrupted: Sequence[Any]) -> CellImages:
        rest = {key: value for key, value in loaded.items() if key != "img"}
        inputs, sample = None, None
        for place, image in enumerate(corrupted):
            packed = _run(self.rest, {**copy.deepcopy(rest), "img": image})
            if not isinstance(packed.get("inputs"), torch.Tensor):
                raise InputError("expected a pipeline that packs one tensor an image: leave test-time augmentation out")
            if inputs is None:
                # All cells share one tensor, because each tensor that goes to another process takes a file descriptor.
                inputs = packed["inputs"].new_empty((len(corrupted), *packed["inputs"].shape))
                sample = packed["data_samples"]
            elif inputs.shape[1:] != packed["inputs"].shape:
                raise InputError("expected a pipeline without randomness, got inputs of two sizes: fix the scale")
            inputs[place] = packed["inputs"]
        assert inputs is not None  # the clean cell is always there
        return CellImages(number, inputs, sample)


def image_corruption(cell: Cell, corruptor: Corruptor) -> ImageCorruption:
    """Return the transform that makes the images of a cell."""
    # The transform needs the name of some corruption even for the clean cell, whose severity 0 changes nothing.
    name = cell.corruption if cell.severity else "gaussian_noise"
    return ImageCorruption(name, cell.severity, **asdict(corruptor))


def check_complete(path: Path) -> None:
    """Check that an image file was not cut off.

    Raises:
        ValueError: The file was cut off, is damaged or is empty.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(2)
        if not start:
            raise InputError("expected an image, got an empty file")
        if start not in _ENDS:
            return
        end = _ENDS[start]
        file.seek(0, 2)
        file.seek(-min(len(end), file.tell()), 2)
        if file.read() == end:
            return
    # Some programs append bytes to a complete file, so only decoding shows whether it is complete.
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise InputError(f"expected a complete image, got one that is damaged or was cut off ({error})") from error


def _run(steps: Sequence[Transform], results: dict[str, Any]) -> dict[str, Any]:
    for step in steps:
        done = step(results)
        if done is None:
            raise InputError(f"expected a result of {type(step).__name__}, got None: it drops the image")
        results = done
    return results


def _check_size(path: Path, image: Any, size: tuple[int, int]) -> None:
    if min(size) > 0 and tuple(image.shape[:2]) != size:
        height, width = image.shape[:2]
        turned = orientation_fault(path, (height, width), size)
        raise InputError(
            turned
            or f"expected {size[1]} x {size[0]} pixels as the annotations say, got {width} x {height}: mend the "
            "annotations or the file"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = str(error)
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
