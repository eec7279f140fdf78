"""Prepare images for exported detectors, and map boxes from the prepared image back to the image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dtn_det.corruptions.image import ByteImage
from dtn_det.errors import InputError

_PAD = 114


@dataclass(frozen=True)
class PreparedImage:
    """An image as the input of a model.

    Attributes:
        pixels: The input, (3, height, width), without the batch.
        scale: Factors by which x and y of the image were multiplied.
        offset: What was added to x and y afterwards.
    """

    pixels: NDArray[Any]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def in_image(self, boxes: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
        """Return boxes, (n, 4), in pixels of the image, clipped to its height and width."""
        moved = (boxes - np.tile(self.offset, 2)) / np.tile(self.scale, 2)
        return np.clip(moved, 0, (size[1], size[0]) * 2)


Prepare = Callable[[ByteImage], PreparedImage]


def unit_range(image: ByteImage) -> PreparedImage:
    """Return an image of its own size, RGB from 0 to 1, as torchvision's models take it."""
    return PreparedImage(_planes(image) / np.float32(255))


def raw_bytes(image: ByteImage) -> PreparedImage:
    """Return an image of its own size, RGB from 0 to 255, uint8."""
    return PreparedImage(np.ascontiguousarray(image.transpose(2, 0, 1)))


def stretched(height: int, width: int) -> Prepare:
    """Return a function that resizes images without regard to their shape, RGB from 0 to 1, as RT-DETR's export."""

    def prepare(image: ByteImage) -> PreparedImage:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return PreparedImage(_planes(np.asarray(resized)) / np.float32(255))

    return prepare


def letterboxed(height: int, width: int) -> Prepare:
    """Return a function that fits images into a grey rectangle, RGB from 0 to 1, as Ultralytics does."""

    def prepare(image: ByteImage) -> PreparedImage:
        ratio = min(height / image.shape[0], width / image.shape[1])
        inner = round(image.shape[1] * ratio), round(image.shape[0] * ratio)
        left, top = round((width - inner[0]) / 2 - 0.1), round((height - inner[1]) / 2 - 0.1)
        canvas = np.full((height, width, 3), _PAD, np.uint8)
        canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
        return PreparedImage(_planes(canvas) / np.float32(255), (ratio, ratio), (left, top))

    return prepare


def of_mmdeploy(path: Path) -> Prepare:
    """Return the function that the ``pipeline.json`` of MMDeploy describes.

    Raises:
        InputError: The file has a step that is not known here.
    """
    try:
        tasks = json.loads(path.read_bytes())["pipeline"]["tasks"]
        (steps,) = [task["transforms"] for task in tasks if task["name"] == "Preprocess"]
        functions = [(step["type"], _step(step, path)) for step in steps]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"expected the pipeline.json of MMDeploy with a task Preprocess, got {path} ({type(error).__name__}: "
            f"{error}): copy that of the export beside the model"
        ) from error

    def prepare(image: ByteImage) -> PreparedImage:
        pixels: NDArray[Any] = np.ascontiguousarray(image[..., ::-1])
        scale = (1.0, 1.0)
        for kind, function in functions:
            before, pixels = pixels.shape, function(pixels)
            if kind == "Resize":
                scale = (pixels.shape[1] / before[1], pixels.shape[0] / before[0])
        return PreparedImage(_planes(pixels), scale)

    return prepare


def _step(step: Mapping[str, Any], path: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    kind = step["type"]
    if kind == "Resize":
        return _resize(step, path)
    if kind == "Normalize":
        mean, std = np.array(step["mean"], np.float32), np.array(step["std"], np.float32)
        order = slice(None, None, -1) if step.get("to_rgb", step.get("bgr_to_rgb", True)) else slice(None)
        return lambda pixels: (pixels[..., order].astype(np.float32) - mean) / std
    if kind == "Pad":
        return _pad(step)
    if kind in ("LoadImageFromFile", "DefaultFormatBundle", "ImageToTensor", "Collect", "PackDetInputs", "Lift"):
        return lambda pixels: pixels
    raise InputError(
        f"expected Resize, Normalize and Pad as steps in {path}, got {kind!r}: wrap the model as python:MODULE:FUNCTION"
    )


def _resize(step: Mapping[str, Any], path: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    size: Sequence[int] = step.get("size") or step["scale"]
    size = [size, size] if isinstance(size, int) else size
    if not step.get("keep_ratio") and size[0] != size[1]:
        raise InputError(
            f"expected a Resize that keeps the ratio or has one side in {path}, got {list(size)}, whose order is not "
            "stated: wrap the model as python:MODULE:FUNCTION"
        )

    def resize(pixels: NDArray[Any]) -> NDArray[Any]:
        height, width = pixels.shape[:2]
        if step.get("keep_ratio"):
            ratio = min(max(size) / max(height, width), min(size) / min(height, width))
            wanted = int(width * ratio + 0.5), int(height * ratio + 0.5)
        else:
            wanted = size[0], size[1]
        return cv2.resize(pixels, wanted, interpolation=cv2.INTER_LINEAR)

    return resize


def _pad(step: Mapping[str, Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    value = step.get("pad_val", 0)
    value = value.get("img", 0) if isinstance(value, Mapping) else value
    divisor, size = step.get("size_divisor"), step.get("size")

    def pad(pixels: NDArray[Any]) -> NDArray[Any]:
        height, width = pixels.shape[:2]
        if divisor:
            wanted = -(-height // divisor) * divisor, -(-width // divisor) * divisor
        else:
            wanted = tuple(size or (max(height, width),) * 2)
        padded = np.empty((*wanted, 3), pixels.dtype)
        padded[:] = value
        padded[:height, :width] = pixels
        return padded

    return pad


def _planes(image: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
