"""Compare the image sizes in COCO files with the real sizes and EXIF orientations of the images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtn_det.corruptions.image import STORED_FORMATS
from dtn_det.datasets.remarks import Remark, counted_remark
from dtn_det.errors import AnnotationError

_ORIENTATION = 274
_TURNED = range(2, 9)
_SIDES_SWAPPED = range(5, 9)


@dataclass(frozen=True)
class ImageHeader:
    """Size and orientation in the header of an image file; pixels are not read.

    Attributes:
        stored: Height and width of the stored pixels.
        orientation: The EXIF orientation from 1 to 8; 1 if there is none.
        is_turned: True if OpenCV 4.12, and therefore MMDetection, turns images of this format by their EXIF
            orientation. OpenCV turns all formats except WebP.
    """

    stored: tuple[int, int]
    orientation: int = 1
    is_turned: bool = True

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of the picture as its EXIF orientation shows it."""
        return self.stored[::-1] if self.orientation in _SIDES_SWAPPED else self.stored

    @property
    def read(self) -> tuple[int, int]:
        """Height and width of the picture as MMDetection reads it by default."""
        return self.shown if self.is_turned else self.stored


@dataclass(frozen=True)
class OtherSize:
    """An image whose annotated size is neither the size of its file nor that size with the sides swapped.

    Attributes:
        place: Id and file name of the image, for messages.
        annotated: Height and width in the annotation file.
        read: Height and width of the picture as it is read.
    """

    place: str
    annotated: tuple[int, int]
    read: tuple[int, int]


@dataclass(frozen=True)
class Orientations:
    """How the annotated sizes of images agree with their files and EXIF orientations.

    Attributes:
        as_stored: True if images are read as they are stored, False if they are turned as EXIF says.
        swapped: Images with an EXIF orientation that are read with the annotated width as height and the annotated
            height as width.
        other: Images whose annotated size is neither the size of their file nor that size with the sides swapped.
        undecided: Images with an EXIF orientation that does not change the size, so that only their boxes can show the
            annotated orientation.
        agreeing: Number of images with an EXIF orientation that are read with their annotated size.
    """

    path: Path
    as_stored: bool
    swapped: tuple[str, ...] = ()
    other: tuple[OtherSize, ...] = ()
    undecided: tuple[str, ...] = ()
    agreeing: int = 0

    def check(self, option: str = "", leaving_out: str = "") -> None:
        """Check that the annotated size of each image is the size with which it is read.

        Args:
            option: Option of the config that changes how images are loaded; empty if there is none.
            leaving_out: Option of the command that leaves out images of another size; empty if there is none.

        Raises:
            AnnotationError: The annotated size of an image differs. The message names the image, its sizes or
                orientation, and what to do.
        """
        if self.swapped:
            more = f" and {len(self.swapped) - 1:,} more" if len(self.swapped) > 1 else ""
            read = "as they are stored" if self.as_stored else "as their EXIF orientation shows them"
            raise AnnotationError(
                self.path,
                f"the width and height of images that are read {read}",
                "width and height swapped",
                self.swapped[0] + more,
                orientation_advice(self.as_stored, option),
            )
        if self.other:
            first, rest = self.other[0], len(self.other) - 1
            raise AnnotationError(
                self.path,
                "the width and height of each image file",
                f"{_by(first.annotated)} where the file has {_by(first.read)}",
                first.place + (f" and other sizes in {rest:,} more" if rest else ""),
                "write the width and height of the image files into the annotations if their boxes are of these "
                "images, or put the images there that were annotated"
                + (f", or leave {'them' if rest else 'it'} out with {leaving_out}" if leaving_out else ""),
            )

    def remarks(self) -> tuple[Remark, ...]:
        """Return a remark on undecided images, unless other images are known to be read with their annotated sizes."""
        if not self.undecided or self.agreeing:
            return ()
        read = "as {it is|they are} stored" if self.as_stored else "as it shows {it|them}"
        what = (
            f"{{image has|images have}} an EXIF orientation that the size does not tell, and {{is|are}} read {read}: "
            "boxes must be of the picture as it is read"
        )
        return (counted_remark(self.path, "exif_orientation", what, self.undecided),)


def read_header(path: Path) -> ImageHeader | None:
    """Read the size and orientation of an image file; None if it cannot be read."""
    try:
        from PIL import Image

        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION)
            is_turned = image.format not in STORED_FORMATS
    except Exception:  # Pillow raises many kinds of errors for broken files; they are reported when pixels are read
        return None
    return ImageHeader((height, width), orientation if orientation in _TURNED else 1, is_turned)


def find_orientations(
    path: Path, images: Iterable[Mapping[str, Any]], folder: Path, *, as_stored: bool = False
) -> Orientations:
    """Compare the headers of all images with their annotated sizes.

    Images without an annotated size, and files that cannot be read, are skipped.

    Args:
        folder: Folder that file names are relative to.
        as_stored: True if images are read as they are stored, False if they are turned as EXIF says.
    """
    swapped, other, undecided, agreeing = [], [], [], 0
    for row in images:
        header = read_header(folder / row["file_name"])
        if header is None:
            continue
        orientation = "" if header.orientation == 1 else f", EXIF orientation {header.orientation}"
        place = f"image {row['id']} ({row['file_name']}{orientation})"
        read = header.stored if as_stored else header.read
        size = (row["height"], row["width"]) if "height" in row and "width" in row else None
        if size not in (None, header.stored, header.shown):
            other.append(OtherSize(place, size, read))
        elif header.stored == header.shown:
            undecided += [place] if orientation else []
        elif size == read:
            agreeing += bool(orientation)
        elif size is not None:
            swapped.append(place)
    return Orientations(path, as_stored, tuple(swapped), tuple(other), tuple(undecided), agreeing)


def _by(size: tuple[int, int]) -> str:
    """Return the size ``(height, width)`` as the text ``WIDTH x HEIGHT``."""
    return f"{size[1]} x {size[0]}"


def orientation_advice(as_stored: bool, option: str = "") -> str:
    """Return advice on what to do about swapped sizes.

    Args:
        as_stored: True if images are read as they are stored, False if they are turned as EXIF says.
        option: Option of the config that changes how images are loaded; empty if there is none.
    """
    if as_stored:
        return (
            "swap width and height in the file if the boxes are of the stored pixels; if they are of the picture as it "
            f"is shown, save the images turned{f', or leave {option} at its default' if option else ''}"
        )
    load = f"load those with --cfg-options {option}=color_ignore_orientation, or " if option else ""
    return (
        "swap width and height in the file if the boxes are of the picture as it is shown; if they are of the stored "
        f"pixels, {load}save the images without their EXIF orientation"
    )


def orientation_fault(path: Path, got: tuple[int, int], expected: tuple[int, int]) -> str | None:
    """Return an error message if the EXIF orientation explains why an image lacks its annotated size; else None.

    Args:
        got: Height and width as the image was read.
        expected: Height and width as annotated.
    """
    if got == expected or got != expected[::-1]:
        return None
    header = read_header(path)
    if header is None or header.stored == header.shown or expected not in (header.stored, header.shown):
        return None
    as_stored = got == header.stored
    read = "as it is stored" if as_stored else f"as its EXIF orientation {header.orientation} shows it"
    return (
        f"expected {expected[1]} x {expected[0]} pixels as the annotations say, got {got[1]} x {got[0]} {read}: "
        + orientation_advice(as_stored)
    )


def ignores_orientation(pipeline: Sequence[Mapping[str, Any]]) -> tuple[bool, int]:
    """Return whether a pipeline of MMDetection loads images as stored, and the index of its step that loads them."""
    for place, step in enumerate(pipeline):
        kind = step.get("type")
        if str(getattr(kind, "__name__", kind)).startswith("LoadImage"):
            color = str(step.get("color_type", "color"))
            backend = step.get("imdecode_backend")
            return color == "unchanged" or "ignore_orientation" in color or backend in ("turbojpeg", "tifffile"), place
    return False, 0
