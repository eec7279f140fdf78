"""Checks of the folders that this package writes: stores, reports, corrupted COCO sets, training folders and others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det.check import CheckResult
from dtn_det.corrupted_folders.manifest import MANIFEST as CORRUPTIONS
from dtn_det.corrupted_folders.manifest import read_manifest
from dtn_det.datasets.folders.corruption_folders import is_corruption
from dtn_det.datasets.folders.image_files import subfolders
from dtn_det.datasets.folders.magnitudes import is_severity
from dtn_det.datasets.remarks import counted
from dtn_det.errors import StoreError

if TYPE_CHECKING:
    from dtn_det.check.model import Target
    from dtn_det.robustness.importing import Imported
    from dtn_det.robustness.store import ModelStore

_STORE, _IMPORTED = "store.json", "aggregates"
_RUN = re.compile(r"\d{8}_\d{6}")
"""Name of the folder of a run of MMEngine: date and time."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "store": (_STORE, "images.parquet", "models", _IMPORTED),
    "imported_store": (_IMPORTED,),
    "stores": (),
    "report": ("report.json", "tables", "figures", "vis_data", "sets"),
    "corrupted_coco": (CORRUPTIONS,),
    "inspection": ("inspect.json",),
    "demo": ("settings.json",),
    "listops": ("listops.json",),
    "work_dir": (),
}
"""The files and subfolders that cannot be checked alone, in each kind of folder that this package writes.

A path to one of them is refused, with the advice to name the whole folder. What can be checked alone is not listed,
such as the stores of a demonstration. The folders of runs in a ``work_dir`` are not listed either, because their names
hold the date and time.
"""


def check_artefact(path: Path, target: Target | None = None) -> list[CheckResult] | None:
    """Check a folder that this package writes, or a file or subfolder of such a folder.

    Checkpoints, exported models and corrupted class folders are not recognised here, because other programs write them
    too.

    Args:
        path: A file or folder.
        target: Model with which checkpoints and annotation files in the folder are compared; None for no comparison.

    Returns:
        The results; None if the path is no such folder and not listed in :data:`PARTS`.

    Raises:
        OSError: The folder cannot be read.
    """
    if path.is_dir():
        kind = _kind(path)
        return _part(path) if kind is None else _CHECKS[kind](path, target)
    return _part(path) if path.suffix in (".json", ".parquet") else None


def _kind(folder: Path) -> str | None:
    """Return the folder's key in :data:`PARTS`; None if this package does not write such folders."""
    if (folder / _STORE).is_file():
        return "store"
    if any(_content(path).get("imported") is True for path in sorted((folder / _IMPORTED).glob("*.json"))[:1]):
        return "imported_store"
    if (read_manifest(folder) or {}).get("layout") == "coco":
        return "corrupted_coco"
    if str(_content(folder / "report.json").get("format")).startswith("dtn-det report"):
        return "report"
    if (folder / "inspect.json").is_file():
        return "inspection"
    if "corruptor" in _content(folder / "settings.json"):
        return "demo"
    if "generator" in _content(folder / "listops.json"):
        return "listops"
    if _runs(folder):
        return "work_dir"
    return "stores" if any(folder.glob(f"*/{_STORE}")) else None


def _content(path: Path) -> dict[str, Any]:
    """Return the dict in a JSON file; empty if the file has no dict or cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _runs(folder: Path) -> list[str]:
    """Return the names of the run folders in a work_dir of MMEngine, in alphabetical order."""
    names = [name for name in subfolders(folder) if _RUN.fullmatch(name)]
    return [name for name in names if any((folder / name / one).exists() for one in ("vis_data", f"{name}.log"))]


def _part(path: Path) -> list[CheckResult] | None:
    """If a path is listed in :data:`PARTS`, return a result that advises to name the whole folder; else return None."""
    here = path.absolute()
    for root in here.parents[:3]:
        try:
            kind = _kind(root)
        # A parent folder may be unreadable.
        except OSError:
            continue
        if kind is None:
            continue
        first = here.relative_to(root).parts[0]
        if first in PARTS[kind] or (kind == "work_dir" and first in _runs(root)):
            title = f"a part of {_TITLES[kind]}"
            problem = f"expected the whole of {_TITLES[kind]}, got {path}, which is a part of it: name {root}"
            return [CheckResult(str(path), f"{kind}_part", title, problems=(problem,))]
    return None


_TITLES = {
    "store": "a store of results",
    "imported_store": "a store of imported results",
    "stores": "a folder of stores",
    "report": "a report of `dtn-det report`",
    "corrupted_coco": "a COCO data set corrupted by `dtn-det corrupt`",
    "inspection": "a folder of `dtn-det inspect`",
    "demo": "a folder of `dtn-det demo`",
    "listops": "a ListOps data set of `dtn-det listops`",
    "work_dir": "a folder of training or test runs (work_dir)",
}


def _check_store(folder: Path, target: Target | None) -> list[CheckResult]:
    """Open a store of results and count the units that are still to be evaluated."""
    from dtn_det.robustness.importing import read_imported
    from dtn_det.robustness.store import Store

    try:
        store = Store.open(folder)
        models = {name: store.model(name) for name in store.models()}
        done = [f"{name} ({_done(model)})" for name, model in models.items()]
        imported = read_imported(folder) if (folder / _IMPORTED).is_dir() else {}
    except StoreError as error:
        return [CheckResult(str(folder), "store", "a store that cannot be opened", problems=(str(error),))]
    manifest = store.manifest
    facts = {
        "task": manifest.task,
        "data": manifest.data,
        "images": manifest.num_images,
        "selection": manifest.selection,
        "corruption": manifest.corruption,
        "conditions": len(manifest.cells),
        "models": done,
        **({"imported models": _described(imported)} if imported else {}),
    }
    remarks = (*manifest.remarks, *(remark for one in imported.values() for remark in one.source.remarks))
    return [CheckResult(str(folder), "store", "store of results", facts, remarks)]


def _done(model: ModelStore) -> str:
    units, pending, blocks = model.store.manifest.num_units, len(model.pending()), len(model.blocks())
    by_cell = f", {counted(blocks, 'block')} of --order cell" if blocks else ""
    return "complete" if not pending else f"{units - pending:,} of {units:,} units{by_cell}"


def _check_stores(folder: Path, target: Target | None) -> list[CheckResult]:
    """Check each store in a folder of stores."""
    inner = [path.parent for path in sorted(folder.glob(f"*/{_STORE}"))]
    title = "folder of the stores of several sets, which `dtn-det report` reads"
    first = CheckResult(str(folder), "stores", title, {"sets": [path.name for path in inner]})
    return [first, *(result for path in inner for result in _check_store(path, target))]


def _check_imported(folder: Path, target: Target | None) -> list[CheckResult]:
    from dtn_det.robustness.importing import read_imported

    title = "store of imported results alone, which `dtn-det report` and `compare` read"
    try:
        imported = read_imported(folder)
    except StoreError as error:
        return [CheckResult(str(folder), "imported_store", title, problems=(str(error),))]
    found = imported.values()
    facts = {
        "task": sorted({one.task for one in found}),
        "models": _described(imported),
        "kinds of results": list(dict.fromkeys(kind for one in found for kind in one.frames)),
        "corruptions": sorted(
            {str(name) for one in found for frame in one.frames.values() for name in frame.corruption}
        ),
        "files": list(dict.fromkeys(name for one in found for name in one.source.files)),
    }
    remarks = tuple(remark for one in found for remark in one.source.remarks)
    return [CheckResult(str(folder), "imported_store", title, facts, remarks)]


def _described(imported: Mapping[str, Imported]) -> list[str]:
    return [f"{name} (from {one.source.format})" for name, one in imported.items()]


def _check_corrupted_coco(folder: Path, target: Target | None) -> list[CheckResult]:
    """Describe the corruptions, and check the annotation files of one corruption at one severity."""
    from dtn_det.check.annotations import check_annotations
    from dtn_det.corrupted_folders.layouts import find_annotations

    manifest = read_manifest(folder) or {}
    cells = [
        folder / name / severity
        for name in subfolders(folder)
        if is_corruption(name)
        for severity in subfolders(folder / name)
        if is_severity(severity)
    ]
    facts = {
        "corruption": manifest.get("identity"),
        "clean images": manifest.get("num_images"),
        "corruptions": sorted({cell.parent.name for cell in cells}),
        "severities": sorted({cell.name for cell in cells}),
    }
    title = f"COCO data set corrupted by `dtn-det corrupt` ({counted(len(cells), 'data set')}, one in each severity)"
    problem = f"expected corrupted images in {folder}, got none: run the same `dtn-det corrupt` command again"
    problems = () if cells else (problem,)
    files = [path for cell in cells[:1] for path in find_annotations(cell)]
    inside = [check_annotations(path, target, path.parent.parent) for path in files]
    return [CheckResult(str(folder), "corrupted_coco", title, facts, problems=problems), *inside]


def _check_report(folder: Path, target: Target | None) -> list[CheckResult]:
    content = _content(folder / "report.json")
    origin = content.get("provenance") or {}
    facts = {
        "task": content.get("task"),
        "models": [f"{one.get('name')} ({one.get('origin')})" for one in content.get("models") or ()],
        "data": origin.get("data"),
        "sets": list(content.get("sets") or ()),
        "corruption": origin.get("corruption"),
        "date": origin.get("date"),
    }
    facts = {name: value for name, value in facts.items() if value not in (None, [])}
    problem = (
        f"expected data, a checkpoint or a store, got the report in {folder}: open {folder / 'report.html'}, or name "
        "the store that it was made from"
    )
    return [CheckResult(str(folder), "report", "report of `dtn-det report`", facts, problems=(problem,))]


def _check_inspection(folder: Path, target: Target | None) -> list[CheckResult]:
    content = _content(folder / "inspect.json")
    facts = {key: content[key] for key in ("model", "checkpoint", "image") if isinstance(content.get(key), str)}
    problem = (
        f"expected data, a checkpoint or a store, got figures and tables in {folder}: name the checkpoint that was "
        "inspected"
    )
    return [CheckResult(str(folder), "inspection", "folder of `dtn-det inspect`", facts, problems=(problem,))]


def _check_demo(folder: Path, target: Target | None) -> list[CheckResult]:
    content = _content(folder / "settings.json")
    stores = [str(path.parent) for path in sorted(folder.glob("*/store/store.json"))]
    facts = {"corruption": content["corruptor"], "stores": stores}
    problem = (
        f"expected data, a checkpoint or a store, got the folder of a demonstration, {folder}: name its data "
        f"({folder / 'data'}), its report's page or one of its stores"
    )
    return [CheckResult(str(folder), "demo", "folder of `dtn-det demo`", facts, problems=(problem,))]


def _check_listops(folder: Path, target: Target | None) -> list[CheckResult]:
    facts = {name.replace("_", " "): value for name, value in _content(folder / "listops.json").items()}
    return [CheckResult(str(folder), "listops", "ListOps data set of `dtn-det listops`", facts)]


def _check_work_dir(folder: Path, target: Target | None) -> list[CheckResult]:
    """Describe a training folder, and check its last checkpoint."""
    from dtn_det.check.checkpoints import check_checkpoint

    found = sorted(folder.glob("*.pth"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    note = folder / "last_checkpoint"
    # `last_checkpoint` holds the path at the time of the training, and the folder may have been moved since then.
    last = folder / Path(note.read_text().strip()).name if note.is_file() else None
    if last is None or not last.is_file():
        last = found[-1] if found else None
    facts = {
        "runs": _runs(folder),
        "config": [path.name for path in sorted(folder.glob("*.py"))],
        "checkpoints": [path.name for path in found],
        **({} if last is None else {"last checkpoint": last.name}),
    }
    title = "folder of training or test runs (work_dir)"
    problem = (
        f"expected a checkpoint in {folder}, got logs alone, as of tests or of a training that was ended before its "
        "first checkpoint: name the folder of a training or a checkpoint"
    )
    result = CheckResult(str(folder), "work_dir", title, facts, problems=() if found else (problem,))
    return [result] if last is None else [result, check_checkpoint(last, target)]


_CHECKS: Mapping[str, Callable[[Path, Target | None], list[CheckResult]]] = {
    "store": _check_store,
    "stores": _check_stores,
    "imported_store": _check_imported,
    "corrupted_coco": _check_corrupted_coco,
    "report": _check_report,
    "inspection": _check_inspection,
    "demo": _check_demo,
    "listops": _check_listops,
    "work_dir": _check_work_dir,
}
