"""The identity of an image, from which its randomness follows: the same wherever the data lie."""

from __future__ import annotations

from os import PathLike
from pathlib import PurePath

from dtn_det.datasets.folders.label_maps import WNID


def image_key(path: str | PathLike[str], root: str | PathLike[str] | None = None) -> str:
    """The key of an image that has no id of its own.

    Args:
        path: Of the image.
        root: Folder of the data set, which leads to the path within it. Without one, the key is the file's name, from
            its ImageNet class folder on if it lies in one: so much does not change when the data move.

    Returns:
        A path with forward slashes.

    Raises:
        ValueError: The image is not below ``root``.

    Example:
        >>> image_key("/data/imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG")
        'n01440764/ILSVRC2012_val_00000293.JPEG'
        >>> image_key("/data/photos/2024/cat.png")
        'cat.png'
        >>> image_key("/data/photos/2024/cat.png", root="/data/photos")
        '2024/cat.png'
    """
    image = PurePath(path)
    if root is not None:
        try:
            return image.relative_to(root).as_posix()
        except ValueError:
            raise ValueError(f"expected an image in {str(root)!r}, got {str(path)!r}: name its data root") from None
    folders = [index for index, part in enumerate(image.parts[:-1]) if WNID.fullmatch(part)]
    start = folders[-1] if folders else len(image.parts) - 1
    return PurePath(*image.parts[start:]).as_posix()
