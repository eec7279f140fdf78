"""The engine for data sets of `torch.utils.data`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image

from dtn_det.corruptions.catalog import check_name, check_severity
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.reading import to_rgb
from dtn_det.corruptions.stream import Key

Picture = TypeVar("Picture", np.ndarray, Image.Image)  # type: ignore[type-arg]


@dataclass(frozen=True)
class Corrupt:
    """One corruption at one severity, to be called in the ``__getitem__`` of a data set.

    It can be pickled, and gives the same pixels in any worker.

    Attributes:
        name: Corruption.
        severity: 1 to 5, or 0 to leave images alone.
        corruptor: How.

    Raises:
        ValueError: An unknown name or severity.

    Example:
        >>> fog = Corrupt("fog", 3)
        >>> fog(Image.new("RGB", (224, 224)), "n01440764/ILSVRC2012_val_00000293.JPEG").size
        (224, 224)
    """

    name: str
    severity: int
    corruptor: Corruptor = field(default_factory=Corruptor)

    def __post_init__(self) -> None:
        check_name(self.name)
        # A False or a 0.0 is a mistake, although it equals 0.
        if isinstance(self.severity, bool | float) or self.severity != 0:
            check_severity(self.severity)

    def __call__(self, image: Picture, key: Key | None = None) -> Picture:
        """Corrupt an image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB array, or a Pillow image of 8 bits a channel.
            key: Its identity, such as :func:`dtn_det.corruptions.keys.image_key` of its path.

        Returns:
            What came in: an array or a Pillow image in RGB.

        Raises:
            ValueError: An image that does not fit.
        """
        if isinstance(image, Image.Image):
            rgb = to_rgb(image)
            return rgb if self.severity == 0 else Image.fromarray(self(np.asarray(rgb), key))
        return image if self.severity == 0 else self.corruptor(image, self.name, self.severity, key)
