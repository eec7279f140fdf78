"""Find the result files of a detector in a folder: the files of the clean images and of each corruption and severity.

COCO's result format is a list of detections, https://cocodataset.org/#format-results. Many programs write one such file
for boxes and masks together; MMDetection's `CocoMetric` writes ``NAME.bbox.json`` and ``NAME.segm.json``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtn_det.corruptions.catalog import EVERY, SEVERITIES, Catalog, catalog_of
from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.datasets.folders.corruption_folders import known_corruption, normalized
from dtn_det.datasets.folders.magnitudes import severities_of
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import InputError

_ENDING = re.compile(r"(?P<stem>.+?)(?:\.(?P<kind>bbox|segm))?\.json(?:\.gz)?", re.IGNORECASE)
_JOINED = re.compile(r"(?P<name>.+?)[_\- ]+(?P<severity>(?:severity|sev|s|level)?[_\- ]?\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"(?:severity|sev|s|level)?[_\- ]?\d+", re.IGNORECASE)
_EXPECTED = (
    "<corruption>/<severity>/NAME.json, <corruption>/<severity>.json, <corruption>_<severity>.json or clean.json"
)


@dataclass(frozen=True)
class CellFiles:
    """The result files of one cell.

    Attributes:
        main: File of the boxes, or of boxes and masks together, or of the masks alone.
        masks: File of the masks if :attr:`main` has only the boxes, else None.
    """

    cell: Cell
    main: Path
    masks: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, one or two."""
        return (self.main,) if self.masks is None else (self.main, self.masks)


@dataclass(frozen=True)
class ResultFiles:
    """The result files of a detector, in the order of the cells in a store.

    Attributes:
        remarks: Files that were passed over, and corruptions or severities without files.
    """

    cells: tuple[CellFiles, ...]
    remarks: tuple[Remark, ...] = ()


def find_result_files(path: Path) -> ResultFiles:
    """Find the result files in a folder, also within folders of groups such as ``weather``.

    Args:
        path: A folder, or a single file, which is taken as the results on the clean images.

    Raises:
        InputError: There are no result files, a corruption or severity is unknown, corruptions are of several
            benchmarks, or a cell has several files.
        FileNotFoundError: There is no such file or folder.
    """
    if path.is_file():
        what = "file of results is taken as that of the clean images"
        return ResultFiles((CellFiles(CLEAN, path),), (Remark("clean_alone", what, path.name),))
    if not path.is_dir():
        raise FileNotFoundError(f"expected a folder of result files, got {str(path)!r}: there is no such folder")
    found: dict[Cell, dict[str, list[Path]]] = {}
    passed_over = []
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        match = _ENDING.fullmatch(file.name)
        if match is None or not file.is_file() or any(part.startswith(".") for part in parts):
            continue
        cell = _cell_of(path, (*parts[:-1], match["stem"]))
        if cell is None or match["stem"].lower().endswith(".proposal"):
            passed_over.append(str(file.relative_to(path)))
            continue
        found.setdefault(cell, {}).setdefault((match["kind"] or "").lower(), []).append(file)
    if not found:
        got = f"{len(passed_over)} JSON files of other names, such as {passed_over[0]}" if passed_over else "none"
        raise InputError(f"expected result files {_EXPECTED} in {path}, got {got}: rename them, or name another folder")
    names = {cell.corruption for cell in found} - {CLEAN.corruption}
    catalog = catalog_of(sorted(names))
    cells = tuple(
        _files_of_cell(cell, found[cell])
        for cell in (CLEAN, *(Cell(name, severity) for name in catalog.names for severity in SEVERITIES))
        if cell in found
    )
    remarks = [*_missing(path, found, names, catalog)]
    if passed_over:
        what = "JSON {file|files} whose {name tells|names tell} no corruption and severity {was|were} passed over"
        remarks.append(
            Remark(
                "other_files",
                agreeing(len(passed_over), what),
                path.name,
                len(passed_over),
                tuple(passed_over[:3]),
            )
        )
    return ResultFiles(cells, tuple(remarks))


def _cell_of(root: Path, parts: Sequence[str]) -> Cell | None:
    """Return the cell that the folders and the name of a file tell, or None if they tell none."""
    for place, part in enumerate(parts):
        name, inner = normalized(part), parts[place + 1 : place + 2]
        if name == CLEAN.corruption or re.fullmatch(rf"{CLEAN.corruption}[_\-.]0*", name):
            if inner and _NUMBER.fullmatch(inner[0]) and int(re.sub(r"\D", "", inner[0])) != CLEAN.severity:
                raise _unknown(root, parts, f"severity {inner[0]} of the clean images", "name it clean/0")
            return CLEAN
        joined = _JOINED.fullmatch(part)
        if inner and known_corruption(name):
            severity = inner[0]
        elif joined is not None and known_corruption(normalized(joined["name"])):
            name, severity = normalized(joined["name"]), joined["severity"]
        elif inner and _NUMBER.fullmatch(inner[0]):
            hint = difflib.get_close_matches(name, EVERY, n=1)
            advice = f"rename it to {hint[0]}" if hint else "rename it, or move it away"
            raise _unknown(root, parts, f"the corruption {part!r}", advice)
        elif joined is not None and (hint := difflib.get_close_matches(normalized(joined["name"]), EVERY, n=1)):
            raise _unknown(root, parts, f"the corruption {joined['name']!r}", f"rename it to {hint[0]}")
        else:
            continue
        found = severities_of(name, [severity])
        if not found:
            raise _unknown(root, parts, f"severity {severity!r} of {name}", "name severities 1 to 5")
        return Cell(name, found[severity])
    return None


def _unknown(root: Path, parts: Sequence[str], got: str, advice: str) -> InputError:
    return InputError(f"expected result files {_EXPECTED} in {root}, got {got} in {'/'.join(parts)}: {advice}")


def _files_of_cell(cell: Cell, kinds: dict[str, list[Path]]) -> CellFiles:
    """Return the files of a cell: one file, or one of boxes and one of masks."""
    paths = [path for kind in sorted(kinds) for path in kinds[kind]]
    if set(kinds) == {"bbox", "segm"} and len(paths) == 2:
        return CellFiles(cell, kinds["bbox"][0], kinds["segm"][0])
    if len(paths) > 1:
        where = "the clean images" if cell == CLEAN else f"{cell.corruption} at severity {cell.severity}"
        raise InputError(
            f"expected one result file for {where}, or one of boxes and one of masks (.bbox.json, .segm.json), got "
            f"{' and '.join(map(str, paths[:3]))}: move all but one away"
        )
    return CellFiles(cell, paths[0])


def _missing(path: Path, found: dict[Cell, dict[str, list[Path]]], names: set[str], catalog: Catalog) -> list[Remark]:
    """Return remarks on cells without files, if there are results under corruptions."""
    if not names:
        return []
    remarks = []
    wanted = dict.fromkeys((*(catalog.benchmark if names & {*catalog.benchmark} else ()), *sorted(names)))
    cells = [Cell(name, severity) for name in wanted for severity in SEVERITIES]
    lacking = [f"{name} {severity}" for name, severity in cells if (name, severity) not in found]
    if lacking:
        what = (
            f"of {len(cells)} conditions (a corruption at a severity) {{has|have}} no result file, so means over "
            "corruptions are partial"
        )
        remarks.append(
            Remark("cells_missing", agreeing(len(lacking), what), path.name, len(lacking), tuple(lacking[:3]), True)
        )
    if CLEAN not in found:
        what = "set of results is missing, that of the clean images, so there is no clean AP and no rPC"
        remarks.append(Remark("clean_missing", what, path.name))
    return remarks
