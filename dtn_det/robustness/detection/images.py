"""The data set of a sweep. Worker processes make its items: an image under every cell, after the test pipeline.

A cell is a corruption at a severity, or the clean image.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from dtn_det.corruptions.cells import Cell
from dtn_det.corruptions.engine import Corrupt, Corruptor
from dtn_det.corruptions.image import ByteImage, exact_bytes
from dtn_det.datasets.coco.orientation import orientation_fault
from dtn_det.errors import InputError

Transform = Callable[[dict[str, Any]], dict[str, Any] | None]

# First bytes of JPEG and PNG files, and last bytes of complete files. If a file was cut off, OpenCV raises no error and
# fills the rest of the image with grey.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}


@dataclass(frozen=True)
class PackedCells:
    """One image under every cell, after a test pipeline of MMDetection.

    Attributes:
        inputs: The image as the pipeline made it, (cells, channels, height, width).
        sample: Its meta information, the same under every cell.
    """

    inputs: torch.Tensor
    sample: Any


@dataclass(frozen=True)
class CellImages:
    """One image under every cell.

    Attributes:
        path: Path of the image file, for messages.
        packed: The image after each of the pipelines of the sweep, in their order.
        pixels: The image itself, RGB, (cells, height, width, 3), uint8; None if no detector of the sweep takes it.
    """

    number: int
    path: str
    packed: tuple[PackedCells, ...]
    pixels: torch.Tensor | None = None


@dataclass(frozen=True)
class BadImage:
    """An image that could not be evaluated.

    Attributes:
        reason: Path of the file and what is wrong with it.
        fault: `image`, or `pipeline` if the image was read and a test pipeline failed on it.
    """

    number: int
    reason: str
    fault: str


@dataclass(frozen=True)
class PipelineForm:
    """The form in which detectors of MMDetection get images: as a data set and a test pipeline make it.

    Attributes:
        dataset: The data set of MMDetection, without a pipeline.
        indices: For each image of the sweep, its index in the data set.
        load: Steps of the test pipeline up to the one that loads the image.
        rest: Steps of the test pipeline after the one that loads the image.
        decoding: How ``load`` decodes a file. Forms with the same text share the decoded and corrupted images.
    """

    dataset: Any
    indices: Sequence[int]
    load: Sequence[Transform]
    rest: Sequence[Transform]
    decoding: str


TURNED, AS_STORED = "OpenCV, turned as EXIF says", "OpenCV, as stored"
"""Values of :attr:`PipelineForm.decoding`, and of the decoding of images for detectors without a pipeline."""


class DetectionImages(Dataset[CellImages | BadImage]):
    """The images of a sweep, each decoded once and corrupted at its native resolution for all detectors.

    Args:
        keys: Id of each image as text, on which the randomness of its corruptions depends. The number of an image is
            its position here.
        paths: Path of each image file.
        sizes: Height and width of each image, as annotated.
        forms: The pipelines of the detectors of MMDetection.
        pixels: How images are decoded for other detectors, :data:`TURNED` or :data:`AS_STORED`; None if there are none.
    """

    def __init__(
        self,
        keys: Sequence[str],
        paths: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        forms: Sequence[PipelineForm],
        pixels: str | None,
        cells: Sequence[Cell],
        corruptor: Corruptor,
    ) -> None:
        self.keys, self.paths, self.sizes = keys, paths, sizes
        self.forms, self.pixels = forms, pixels
        # `Corrupt` needs the name of some corruption even for the clean cell, whose severity 0 changes nothing.
        names = [cell.corruption if cell.severity else "gaussian_noise" for cell in cells]
        self.corruptions = [Corrupt(name, cell.severity, corruptor) for name, cell in zip(names, cells, strict=True)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> CellImages | BadImage:
        """Return the image with this number under every cell, or why it cannot be evaluated."""
        path = self.paths[number]
        packed: list[PackedCells] = []
        stacks: dict[str, _Stack] = {}
        try:
            if "://" not in path:
                check_complete(Path(path))
            for form in self.forms:
                if form.decoding not in stacks:
                    info = _info(form, number)
                    loaded = _run(form.load, dict(info))
                    stacks[form.decoding] = self._stack(number, loaded.pop("img"), _new(loaded, info))
            if self.pixels is not None and self.pixels not in stacks:
                stacks[self.pixels] = self._stack(number, decode(path, as_stored=self.pixels == AS_STORED), {})
        except Exception as error:  # each backend raises errors of its own kinds
            return BadImage(number, f"{path}: {_reason(error)}", "image")
        try:
            for form in self.forms:
                stack = stacks[form.decoding]
                # Steps may write into the image, so a form that shares it gets a copy.
                cells = stack.cells if self._alone else [image.copy() for image in stack.cells]
                packed.append(_packed(form, {**_info(form, number), **stack.loaded}, cells))
        except Exception as error:
            return BadImage(number, f"{path}: {_reason(error)}", "pipeline")
        pixels = None
        if self.pixels is not None:
            cells = stacks[self.pixels].cells
            # All cells share one tensor, because each tensor that goes to another process takes a file descriptor.
            pixels = torch.empty((len(cells), *cells[0].shape), dtype=torch.uint8)
            for place, image in enumerate(cells):
                pixels[place] = torch.from_numpy(np.ascontiguousarray(image[..., ::-1]))
        return CellImages(number, path, tuple(packed), pixels)

    @property
    def _alone(self) -> bool:
        return len(self.forms) == 1 and self.pixels is None

    def _stack(self, number: int, image: Any, loaded: dict[str, Any]) -> _Stack:
        """Corrupt an image, which is BGR as OpenCV and MMCV load it, for every cell."""
        _check_size(Path(self.paths[number]), image, self.sizes[number])
        cells = [image] * len(self.corruptions)
        for place, corruption in enumerate(self.corruptions):
            if corruption.severity:
                corrupted = corruption(exact_bytes(image)[..., ::-1], self.keys[number])
                cells[place] = np.ascontiguousarray(corrupted[..., ::-1]).astype(image.dtype, copy=False)
        return _Stack(loaded, cells)


@dataclass(frozen=True)
class _Stack:
    """The fields that loading an image added besides its pixels, and the pixels under every cell, BGR."""

    loaded: dict[str, Any]
    cells: list[Any]


def decode(path: str, *, as_stored: bool) -> ByteImage:
    """Read an image file as MMDetection does by default: 8 bits, BGR, (height, width, 3).

    Args:
        as_stored: True to ignore the EXIF orientation, False to turn the image as EXIF says.

    Raises:
        OSError: The file cannot be read.
        InputError: OpenCV cannot decode the file.
    """
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0)
    image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if image is None:
        raise InputError("expected an image of a format that OpenCV reads, got another file")
    return np.asarray(image, np.uint8)


def decoding_of(load: Sequence[Mapping[str, Any]]) -> str:
    """Return how the steps of a pipeline decode files, as text: see :attr:`PipelineForm.decoding`."""
    last = load[-1]
    kind = str(getattr(last.get("type"), "__name__", last.get("type"))).rpartition(".")[2]
    plain = len(load) == 1 and kind == "LoadImageFromFile" and set(last) <= {"type", "backend_args", "color_type"}
    known = {"color": TURNED, "color_ignore_orientation": AS_STORED}
    color = str(last.get("color_type", "color"))
    if plain and last.get("backend_args") is None and color in known:
        return known[color]
    return json.dumps(list(load), default=str, sort_keys=True)


def _new(loaded: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that loading an image has added to what the data set knows, or changed."""
    return {key: value for key, value in loaded.items() if key not in info or value is not info[key]}


def _info(form: PipelineForm, number: int) -> dict[str, Any]:
    """Return what a data set knows of an image, without the objects, which the model does not need."""
    found: dict[str, Any] = form.dataset.get_data_info(form.indices[number])
    found.pop("instances", None)
    return found


def _packed(form: PipelineForm, loaded: dict[str, Any], corrupted: Sequence[Any]) -> PackedCells:
    inputs, sample = None, None
    for place, image in enumerate(corrupted):
        packed = _run(form.rest, {**copy.deepcopy(loaded), "img": image})
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
    return PackedCells(inputs, sample)


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
