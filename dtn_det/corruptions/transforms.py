"""Corruptions as transforms for the pipelines of MMDetection and mmpretrain."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from dtn_det._optional import require
from dtn_det.corruptions.engine import Backend, ChannelOrder, Corrupt, Corruptor
from dtn_det.corruptions.image import ByteImage, exact_bytes
from dtn_det.corruptions.stream import Key, image_key
from dtn_det.errors import InputError

require("mmcv", "det")  # raises an error that names the missing extra, unlike the import below

from mmcv.transforms import BaseTransform  # noqa: E402


class ImageCorruption(BaseTransform):  # type: ignore[misc]
    """Corrupts the loaded image. In a config it belongs right after ``LoadImageFromFile``.

    For ImageNet-C it belongs after ``ResizeEdge`` to 256 and ``CenterCrop`` to 224, because the images of ImageNet-C
    were resized and cropped before they were corrupted.

    The random pattern of an image depends on its ``img_id``, or if the data set has none, on its ``img_path`` within
    ``data_root``: see :func:`dtn_det.corruptions.stream.image_key`. So it depends neither on the place of the data nor
    on the order of images. ``dtn-det corrupt`` uses the same ids and paths.

    Required key: ``img``, in BGR as MMCV loads it, with whole numbers from 0 to 255 of any dtype. The result has the
    same dtype. Modified key: ``img``.

    Args:
        corruption: Name of the corruption.
        severity: 1 to 5, or 0 to leave images unchanged.
        profile: See :class:`dtn_det.corruptions.Corruptor`.
        seed: Seed of all randomness.
        jpeg: Whether to save the result as JPEG and read it again; None to follow the benchmark.
        channel_order: With ``'bgr'`` the corruption receives the array unchanged, as for the published results of
            MMDetection's models. With ``'rgb'`` it receives the true colours.
        frost_folder: Folder with the original frost textures; None for the textures that this package draws.
        backend: ``'dtn_det'`` or ``'imagecorruptions'``.
        data_root: Folder that image paths are relative to in the keys of the images.
        engine: Version of the engine; None for the latest.

    Raises:
        InputError: An argument is invalid; raised when the pipeline is built.
        FileNotFoundError: A frost texture is missing.
    """

    def __init__(
        self,
        corruption: str,
        severity: int,
        profile: str = "coco-c",
        seed: int = 0,
        jpeg: bool | None = None,
        channel_order: ChannelOrder = "rgb",
        frost_folder: str | PathLike[str] | None = None,
        backend: Backend = "dtn_det",
        data_root: str | PathLike[str] | None = None,
        engine: int | None = None,
    ) -> None:
        folder = None if frost_folder is None else str(frost_folder)
        corruptor = Corruptor(profile, seed, jpeg, channel_order, folder, backend, engine)
        self.corrupt = Corrupt(corruption, severity, corruptor)
        self.data_root = data_root

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Corrupt ``results['img']``.

        Raises:
            InputError: The image has neither an id nor a path, or cannot be corrupted.
        """
        if self.corrupt.severity == 0:
            return results
        image = results["img"]
        corrupted = self.corrupt(self._bytes(results)[..., ::-1], self._key(results))
        results["img"] = np.ascontiguousarray(corrupted[..., ::-1]).astype(image.dtype, copy=False)
        return results

    def _bytes(self, results: dict[str, Any]) -> ByteImage:
        try:
            return exact_bytes(results["img"])
        except ValueError as error:
            name = results.get("img_path", results.get("img_id", "an image"))
            raise InputError(f"{error} (got in {name})") from error

    def _key(self, results: dict[str, Any]) -> Key:
        if results.get("img_id") is not None:
            return str(results["img_id"])
        if results.get("img_path") is not None:
            return image_key(results["img_path"], self.data_root)
        raise InputError(
            f"expected 'img_id' or 'img_path' in the results, got {', '.join(map(repr, results))}: "
            "the data set must name its images"
        )

    def __repr__(self) -> str:
        corrupt = self.corrupt
        return f"{type(self).__name__}({corrupt.name}, severity={corrupt.severity}, {corrupt.corruptor.identity})"


class MMDetCorrupt(ImageCorruption):
    """The transform ``Corrupt`` of MMDetection up to 3.3, for configs that use it.

    As in MMDetection, the corruption receives the array as MMCV loads it, in BGR, and uses the parameters of
    `imagecorruptions`: this is :class:`ImageCorruption` with ``profile='coco-c'`` and ``channel_order='bgr'``. Unlike
    in MMDetection, an image gets the same random pattern in every run.

    Required key: ``img``, whole numbers from 0 to 255. Other numbers are refused, whereas MMDetection clipped them.
    Modified key: ``img``.

    Args:
        corruption: Name of the corruption.
        severity: 1 to 5.

    Raises:
        InputError: An argument is invalid; raised when the pipeline is built.
    """

    def __init__(self, corruption: str, severity: int = 1) -> None:
        super().__init__(corruption, severity, channel_order="bgr")
