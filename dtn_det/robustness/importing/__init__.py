"""Results of other tools in a store: metrics of each cell (corruption and severity), marked as imported.

The folder `aggregates` of a store contains `NAME.json`, the origin of the results, and `NAME.parquet`, one row for each
cell. There are no records of single images, and therefore no confidence intervals.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import StoreError
from dtn_det.robustness.store.files import folder_name
from dtn_det.system.files import locked, write_bytes, write_json

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Version of the format of the files."""

FOLDER = "aggregates"

COCO_DETECTIONS = "100"
"""COCO's rule: all metrics count the 100 best detections of a class in an image."""

MMDET_DETECTIONS = "AP 100, others 1000"
"""MMDetection's rule: AP counts the 100 best detections of a class in an image, but AP50, AP75 and the APs by object
size count the 1,000 best."""

MMDET_RULE = (
    "by MMDetection's rule AP is at the 100 best detections of a class in an image, but AP50, AP75 and those of sizes "
    "are at the 1,000 best; COCO's rule, which dtn-det mpc follows, takes 100 for all, and gives less where a model "
    "has more than that"
)


@dataclass(frozen=True)
class ImportSource:
    """The origin of imported results.

    Attributes:
        files: Names and SHA-256 of the files.
        severity_means: Whether some corruptions have only a mean over their severities.
        left_out: Corruptions in the files that the benchmarks do not have.
        detections: Rule by which a detector's metrics count detections, :data:`COCO_DETECTIONS` or
            :data:`MMDET_DETECTIONS`; empty for classifiers, and in stores of earlier versions.
        remarks: What the reader filled in or decided.
        dataset: Title of the data set of a classifier's results, one of
            :data:`dtn_det.robustness.importing.dataset.DATASETS`; empty if it is not known, for detectors, and in
            stores of earlier versions.
    """

    files: Mapping[str, str]
    format: str
    severity_means: bool = False
    left_out: tuple[str, ...] = ()
    detections: str = ""
    remarks: tuple[Remark, ...] = ()
    dataset: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        plain = {"left_out": list(self.left_out), "remarks": [remark.to_dict() for remark in self.remarks]}
        return {**asdict(self), **plain}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImportSource:
        """Read what :meth:`to_dict` wrote; fields that earlier versions did not write are empty."""
        remarks = tuple(Remark.from_dict(remark) for remark in values.get("remarks", ()))
        return cls(**{**values, "left_out": tuple(values["left_out"]), "remarks": remarks})


@dataclass(frozen=True)
class Imported:
    """The results of one model from other tools.

    Attributes:
        frames: A table for each kind of result, `top1` of classifiers, `bbox` and `segm` of detectors. Its columns are
            `corruption`, `severity` (NA for a mean over all severities) and, as fractions, `error` or COCO's metrics.
            Clean images are `clean` at severity 0.
    """

    name: str
    task: str
    source: ImportSource
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def write_imported(folder: Path, results: Imported) -> Path:
    """Write results into a store, which may be a new folder, and return the path of their JSON file.

    Raises:
        StoreError: The store has results of this name from other files.
        ValueError: Another process is writing to the store.
    """
    pandas = require("pandas", "eval")
    target = folder / FOLDER / f"{folder_name(results.name)}.json"
    values = {"format": FORMAT, "imported": True, "name": results.name, "task": results.task}
    values["source"] = results.source.to_dict()
    with locked(folder, "--store"):
        if target.is_file() and _identity(found := _read(target)) != _identity(values):
            raise StoreError(
                f"expected no other results called {results.name!r} in {folder}, got those of "
                f"{', '.join(found['source']['files'])}: give these another --name, or delete {target}"
            )
        table = pandas.concat([frame.assign(kind=kind) for kind, frame in results.frames.items()], ignore_index=True)
        sink = io.BytesIO()
        table.astype({"severity": "Int8"}).to_parquet(sink, index=False)
        write_bytes(target.with_suffix(".parquet"), sink.getvalue())
        # Written last: if this file exists, the results are complete.
        write_json(target, values)
    return target


def read_imported(folder: Path) -> dict[str, Imported]:
    """Read the imported results of a store, by name of the model.

    Raises:
        StoreError: A file is damaged or of another version.
    """
    pandas = require("pandas", "eval")
    found = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        values = _read(path)
        try:
            table = pandas.read_parquet(path.with_suffix(".parquet"))
            frames = {
                kind: rows.drop(columns="kind").dropna(axis="columns", how="all").reset_index(drop=True)
                for kind, rows in table.groupby("kind", sort=False)
            }
            for frame in frames.values():
                if "severity" not in frame:
                    frame.insert(1, "severity", pandas.array([pandas.NA] * len(frame), dtype="Int8"))
            found[values["name"]] = Imported(
                values["name"],
                values["task"],
                ImportSource.from_dict(values["source"]),
                frames,
            )
        except Exception as error:  # pandas and pyarrow raise their own types of errors
            raise StoreError(
                f"expected imported results in {path}, got a damaged file ({error}): delete it and import again"
            ) from error
    return found


def _identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are compared to detect equal results, without those that the reader chose."""
    source = {
        key: value for key, value in values.get("source", {}).items() if key not in ("detections", "remarks", "dataset")
    }
    return {**values, "source": source}


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise StoreError(f"expected JSON in {path}, got a damaged file ({error}): delete it") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise StoreError(
            f"expected imported results of format {FORMAT} in {path}, got another version: import them again"
        )
    return values
