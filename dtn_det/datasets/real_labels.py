"""The Real labels of ImageNet's validation images: for each image, the list of all classes that are right.

Beyer, Henaff, Kolesnikov, Zhai and van den Oord, "Are we done with ImageNet?", arXiv:2006.07159. The file ``real.json``
(github.com/google-research/reassessed-imagenet) holds 50,000 lists in the order of ILSVRC2012_val_00000001 and so on.
An image whose list is empty is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

from dtn_det._optional import require
from dtn_det.datasets.folders.label_maps import IMAGENET_CLASSES, SORT_IMAGENET
from dtn_det.datasets.labelled import LabelledImages
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import InputError

NUM_LISTS = 50_000
_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.")
_ENOUGH, _SOME, _LEAST_SHARE = 100, 20, 0.5


def read_real_labels(path: Path) -> list[tuple[int, ...]]:
    """Read the lists of a file such as ``real.json``.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file does not hold 50,000 lists of numbers from 0 to 999.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected --labels to be a file such as real.json, got {path}: there is no such file")
    try:
        lists = json.loads(path.read_text())
        found = [tuple(int(one) for one in each) for each in lists]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"expected a list of classes for each of {NUM_LISTS:,} images in {path}, got {error}: fetch real.json of "
            "google-research/reassessed-imagenet"
        ) from error
    beyond = [one for each in found for one in each if not 0 <= one < IMAGENET_CLASSES]
    if len(found) != NUM_LISTS or beyond:
        got = f"{len(found):,} lists" if len(found) != NUM_LISTS else f"the class {beyond[0]}"
        raise InputError(
            f"expected {NUM_LISTS:,} lists of classes from 0 to {IMAGENET_CLASSES - 1} in {path}, got {got}: fetch "
            "real.json of google-research/reassessed-imagenet"
        )
    return found


def check_numbered_folders(images: LabelledImages, root: Path) -> None:
    """Check that folders with validation images of ImageNet are numbered in the order of training.

    The numbers of the folders are compared with the Real labels, which timm contains. The devkit of ILSVRC2012 numbers
    the classes in another order. Fewer than twenty images are not checked.

    Args:
        images: Images in files named ``ILSVRC2012_val_...``, labelled with the numbers of their folders.
        root: The folder of the folders.

    Raises:
        InputError: Most of the images are not of the class with the number of their folder.
    """
    require("timm", "cls")
    lists = read_real_labels(Path(str(resources.files("timm.data") / "_info" / "imagenet_real_labels.json")))
    known = [
        image.label in lists[number - 1]
        for image in images.images
        if (match := _NAME.match(image.key.rpartition("/")[2])) and 1 <= (number := int(match[1])) <= NUM_LISTS
        if lists[number - 1]
    ]
    if len(known) >= _SOME and sum(known) < _LEAST_SHARE * len(known):
        raise InputError(
            f"expected folders named by the numbers of ImageNet's classes in the order of training in {root}, got "
            f"{sum(known):,} of {len(known):,} images in the folder of one of their Real labels: the devkit of "
            f"ILSVRC2012 numbers the classes in another order; {SORT_IMAGENET}"
        )


def with_real_labels(images: LabelledImages, path: Path) -> LabelledImages:
    """Set the Real labels of ImageNet's validation images, and leave out images whose list is empty.

    Args:
        images: Images in files named ``ILSVRC2012_val_...``, labelled with ImageNet's class numbers.
        path: The file of the lists.

    Raises:
        InputError: The images are not ImageNet's validation images, the file is damaged, or the labels do not fit the
            images.
    """
    lists = read_real_labels(path)
    accepted: dict[str, tuple[int, ...]] = {}
    left_out, agree, kept = 0, 0, []
    for image in images.images:
        match = _NAME.match(image.key.rpartition("/")[2])
        if images.labels.classes != "imagenet" or match is None or not 1 <= int(match[1]) <= NUM_LISTS:
            raise InputError(
                f"expected ImageNet's validation images, ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_000{NUM_LISTS}.JPEG in folders of wnids, with --labels, got {image.path}: leave "
                "--labels out"
            )
        own = lists[int(match[1]) - 1]
        if own:
            accepted[image.key] = own
            kept.append(image)
            agree += image.label in own
        else:
            left_out += 1
    if len(kept) >= _ENOUGH and agree < _LEAST_SHARE * len(kept):
        raise InputError(
            f"expected the Real labels of these images in {path}, got lists with the class of the folder for only "
            f"{agree:,} of {len(kept):,} images: fetch the file again, or sort the images into their folders again"
        )
    if not kept:
        raise InputError(f"expected images with Real labels in {path}, got an empty list for each: take more images")
    remarks = images.remarks
    if left_out:
        what = agreeing(left_out, "{image has no Real label and was|images have no Real label and were} left out")
        remarks += (Remark("no_real_label", what, str(path), left_out),)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(
        images,
        images=tuple(kept),
        accepted=accepted,
        remarks=remarks,
        evidence=(*images.evidence, f"labels {digest}"),
    )
