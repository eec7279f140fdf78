"""Check and convert what a detector returns: boxes in pixels of the image, scores, category ids and masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.corruptions.image import ByteImage
from dtn_det.datasets.remarks import counted
from dtn_det.errors import InputError
from dtn_det.robustness.detection.models.category_ids import WAYS, CategoryPlaces
from dtn_det.robustness.detection.records import ImageDetections, encoded_masks

KEYS = ("boxes", "scores", "category_ids")
_FEW = 3
_ROUNDING = 1e-3


@dataclass(frozen=True)
class OutputCheck:
    """Converts the output of a model, and refuses what would give wrong numbers without a message.

    Attributes:
        model: Name of the model, for messages.
        places: The category of the data that each id means.
        masks: Whether masks are kept.
        path: The annotation file, for messages.
    """

    model: str
    places: CategoryPlaces
    masks: bool
    path: str

    def detections(self, found: object, images: Sequence[ByteImage], image: str) -> list[ImageDetections]:
        """Return the detections in some versions of one image.

        Args:
            found: What the model returned.
            images: The versions, (height, width, 3) each.
            image: Path of the image, for messages.

        Raises:
            InputError: The output is not a mapping with boxes, scores and category ids for each version, or its values
                cannot be right.
        """
        if isinstance(found, Mapping) or not isinstance(found, Sequence) or len(found) != len(images):
            got = f"{len(found)}" if isinstance(found, Sequence) else type(found).__name__
            raise self._fault(image, f"a list of {counted(len(images), 'result')}", got)
        height, width = images[0].shape[:2]
        raw = [self._arrays(one, image) for one in found]
        self._check_boxes(np.concatenate([boxes for boxes, _, _ in raw]), height, width, image)
        done = []
        for one, (boxes, scores, ids) in zip(found, raw, strict=True):
            labels = self._labels(ids, image)
            kept = labels >= 0
            masks = self._masks(one.get("masks"), len(boxes), kept, (height, width), image)
            done.append(ImageDetections(boxes[kept], scores[kept], labels[kept], masks))
        return done

    def _arrays(self, one: object, image: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        if not isinstance(one, Mapping) or any(key not in one for key in KEYS):
            got = sorted(map(str, one)) if isinstance(one, Mapping) else type(one).__name__
            raise self._fault(image, f"a mapping with {', '.join(KEYS)} for each image", f"{got}")
        boxes, scores, ids = (self._numbers(one[key], key, image) for key in KEYS)
        count = len(scores)
        if boxes.size == 0 and count == 0:
            boxes = boxes.reshape(0, 4)
        if boxes.shape != (count, 4) or scores.ndim != 1 or ids.shape != (count,):
            shapes = ", ".join(f"{key} {value.shape}" for key, value in zip(KEYS, (boxes, scores, ids), strict=True))
            raise self._fault(image, "boxes (n, 4), scores (n,) and category_ids (n,)", shapes)
        for key, value in zip(KEYS, (boxes, scores, ids), strict=True):
            if not np.isfinite(value).all():
                bad = value[~np.isfinite(value)][0]
                raise self._fault(image, f"finite {key}", f"{bad}", "check the weights, or try without --amp")
        if count and (scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING):
            worst = scores.min() if scores.min() < -_ROUNDING else scores.max()
            raise self._fault(image, "scores from 0 to 1", f"{worst:.6g}", "apply a sigmoid, or divide them")
        if not (ids == np.round(ids)).all():
            raise self._fault(image, "whole numbers as category_ids", f"{ids[ids != np.round(ids)][0]:.6g}")
        return boxes.astype(np.float32), scores.astype(np.float32), ids.astype(np.int64)

    def _numbers(self, value: object, key: str, image: str) -> NDArray[Any]:
        try:
            if isinstance(value, torch.Tensor):
                value = value.detach().double().cpu().numpy()
            if isinstance(value, list | tuple) and value and isinstance(value[0], torch.Tensor):
                value = torch.stack([one.detach().double().cpu() for one in value]).numpy()
            return np.asarray(value, np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._fault(image, f"an array of numbers as {key}", f"{type(value).__name__} ({error})") from error

    def _check_boxes(self, boxes: NDArray[Any], height: int, width: int, image: str) -> None:
        """Refuse boxes whose values show another format or another scale."""
        if not len(boxes):
            return
        x1, y1, x2, y2 = boxes.T
        turned = (x2 < x1 - 1) | (y2 < y1 - 1)
        if turned.any():
            first = _shown(boxes[turned][0])
            as_sizes = ((x1 + x2 <= 1.2 * width) & (y1 + y2 <= 1.2 * height)).all()
            advice = (
                "they look like x, y, width, height: add x and y to the last two"
                if as_sizes
                else "return the left, upper, right and lower edge"
            )
            raise self._fault(image, "boxes as x1, y1, x2, y2 with x2 >= x1 and y2 >= y1", first, advice)
        if len(boxes) >= 2 and boxes.max() <= 1.5 and boxes.min() >= -0.5 and (x2 > x1).any():
            advice = "multiply them by the width and height of the image"
            raise self._fault(image, f"boxes in pixels of {width} x {height}", f"{_shown(boxes[0])}, below 1.5", advice)
        outside = (x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0)
        if len(boxes) >= _FEW and 2 * outside.sum() > len(boxes):
            advice = "scale them from the size of the model's input to that of the image"
            raise self._fault(image, f"boxes within {width} x {height} pixels", _shown(boxes[outside][0]), advice)

    def _labels(self, ids: NDArray[Any], image: str) -> NDArray[Any]:
        places = self.places.places
        unknown = sorted({int(one) for one in np.unique(ids)} - set(places))
        if unknown:
            known = sorted(places)
            listed = f"{known[0]} to {known[-1]}" if known else "none"
            fitting = self.places.explaining(np.unique(ids).tolist())
            which = (
                f"such as {' or '.join(fitting)}, which explains all found" if fitting else f"one of {', '.join(WAYS)}"
            )
            raise self._fault(
                image,
                f"{len(known)} category ids ({listed}), by {self.places.evidence}, for {self.path}",
                ", ".join(map(str, unknown[:_FEW])),
                f"say what they are with --category-ids, {which}",
            )
        return np.array([places[int(one)] for one in ids], np.int32)

    def _masks(
        self, masks: Any, count: int, kept: NDArray[Any], size: tuple[int, int], image: str
    ) -> tuple[bytes, ...] | None:
        if masks is None or not self.masks:
            return None
        if len(masks) != count:
            raise self._fault(image, f"{counted(count, 'mask')} (one for each box)", f"{len(masks)}")
        if not count:
            return ()
        wanted = f"masks of {size[0]} x {size[1]} (height x width), as the image"
        if isinstance(masks[0], Mapping):
            wrong = [one for one in masks if [int(side) for side in one["size"]] != list(size)]
            if wrong:
                raise self._fault(image, wanted, f"run lengths of {wrong[0]['size']}")
            chosen = [one for one, keep in zip(masks, kept, strict=True) if keep]
            return tuple(map(_run_lengths, chosen))
        bits = self._numbers(masks, "masks", image) if isinstance(masks, list | tuple) else masks
        bits = bits.detach().cpu().numpy() if isinstance(bits, torch.Tensor) else np.asarray(bits)
        if bits.shape != (count, *size):
            raise self._fault(image, wanted, f"an array of shape {bits.shape}")
        if bits.dtype != bool and not np.isin(bits, (0, 1)).all():
            raise self._fault(
                image, "masks of 0 and 1", f"{bits[~np.isin(bits, (0, 1))][0]:.6g}", "compare them with a threshold"
            )
        return encoded_masks(bits[kept].astype(np.uint8))

    def _fault(self, image: str, expected: str, got: str, advice: str = "mend the model's function") -> InputError:
        return InputError(f"expected {expected} from the model {self.model!r}, got {got} for {image}: {advice}")


def _shown(box: NDArray[Any]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in box) + ")"


def _run_lengths(mask: Mapping[str, Any]) -> bytes:
    """Return COCO's compressed run lengths of a mask, which may be uncompressed."""
    counts = mask["counts"]
    if isinstance(counts, list | tuple):
        height, width = (int(side) for side in mask["size"])
        encode: Callable[..., Any] = require("hotcoco", "det").mask.frPyObjects
        counts = encode({"size": [height, width], "counts": list(counts)}, height, width)["counts"]
    return counts.encode() if isinstance(counts, str) else bytes(counts)
