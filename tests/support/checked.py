"""The check of one path, and a COCO data set with images for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from odd_folders import write_image

from dtn_det.check import CheckResult, inspect_path
from dtn_det.check.model import Target


def check(path: Path, target: Target | None = None, classes: str | None = None) -> CheckResult:
    (result,) = inspect_path(path, target, classes)
    return result


def write_coco(root: Path, content: dict[str, Any]) -> Path:
    for image in content["images"]:
        write_image(root / "val" / image["file_name"], (image.get("width") or 64, image.get("height") or 48))
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    path = root / "annotations" / "val.json"
    path.write_text(json.dumps(content))
    return path
