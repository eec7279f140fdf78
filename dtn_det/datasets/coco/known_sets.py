"""Recognise COCO's validation images and the domains of COCO-O by their files.

COCO-O (Mao et al., "COCO-O: A Benchmark for Object Detectors under Natural Distribution Shifts", ICCV 2023,
arXiv:2307.12730) has images of COCO's 80 categories in six domains. Each domain is a folder in the layout of COCO,
``ood_coco/sketch/val2017`` and ``ood_coco/sketch/annotations/instances_val2017.json``.
"""

from __future__ import annotations

import re
from pathlib import Path

from dtn_det.datasets.coco import CocoFile
from dtn_det.datasets.coco.coco_classes import COCO_NAMES

DOMAINS = ("sketch", "cartoon", "painting", "weather", "handmake", "tattoo")
"""The domains of COCO-O, by the names of their folders."""

COCO, COCO_O = "COCO", "COCO-O"
"""Titles of COCO's validation images of 2017, and of COCO-O."""

_VAL_IMAGES = 5000
_ROOT = re.compile(r"(?:ood[-_]?coco|coco[-_]?o(?:od)?)", re.IGNORECASE)


def coco_set_title(file: CocoFile) -> str:
    """Return the title of a known set.

    Returns:
        ``COCO`` for all 5,000 validation images of 2017, ``COCO-O sketch`` and the like for a domain of COCO-O, and an
        empty text for other sets.
    """
    if {row["name"] for row in file.categories} != set(COCO_NAMES.values()):
        return ""
    if domain := domain_of(file.path.parent) or domain_of(file.path.parent.parent):
        return f"{COCO_O} {domain}"
    named = (Path(row["file_name"]).name == f"{row['id']:012d}.jpg" for row in file.images if type(row["id"]) is int)
    return COCO if len(file.images) == _VAL_IMAGES == sum(named) else ""


def domain_of(folder: Path) -> str:
    """Return the domain of COCO-O that a folder is by its name and the folders around it; empty if it is none."""
    folder = folder.resolve()
    if folder.name not in DOMAINS:
        return ""
    return folder.name if _ROOT.fullmatch(folder.parent.name) or not missing_domains(folder.parent) else ""


def missing_domains(root: Path) -> tuple[str, ...]:
    """Return the domains of COCO-O that have no folder in a folder."""
    return tuple(name for name in DOMAINS if not (root / name).is_dir())
