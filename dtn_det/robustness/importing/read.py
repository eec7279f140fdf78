"""Results of other tools, read into tables: RobustBench, MMDetection, and the text that evaluation scripts print."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dtn_det._optional import require
from dtn_det.corruptions.catalog import EVERY, IMAGENET_3DCC_CATALOG, SEVERITIES
from dtn_det.corruptions.cells import CLEAN
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import InputError, UnsafePickleError
from dtn_det.robustness.detection.evaluation import KINDS
from dtn_det.robustness.importing import COCO_DETECTIONS, MMDET_DETECTIONS, Imported, ImportSource
from dtn_det.robustness.importing.dataset import DATASETS, find_dataset

if TYPE_CHECKING:
    import pandas as pd


_LARGEST = 64 * 1024 * 1024
_KINDS = "biuf"


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle that holds plain data, without running any code from it.

    Args:
        path: Path of a file of at most 64 MB.

    Returns:
        Plain containers and Python's numbers. Arrays of numpy become flat lists.

    Raises:
        UnsafePickleError: The pickle would run code, or create objects of other types.
        ValueError: The file is not a pickle, was cut off, or is too large.
    """
    if path.stat().st_size > _LARGEST:
        raise InputError(f"expected results of at most {_LARGEST >> 20} MB in {path}, got more: name another file")
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"expected plain results in {path}, got {error}: nothing of it was run") from error
    except Exception as error:  # a damaged pickle can raise any error
        raise InputError(
            f"expected a pickle of results in {path}, got {type(error).__name__}: {error}: name another file"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    """Resolves each name in a pickle to a stand-in that builds plain data. Each look-up makes a new stand-in."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name, and refuse names that have no stand-in."""
        # numpy 2 renamed numpy.core to numpy._core; a file has the name of the numpy that wrote it.
        place = (module.replace("numpy.core", "numpy._core"), name)
        stand_ins: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): lambda *items: dict(*items),
            ("numpy", "dtype"): lambda code, *_: _Kind(code),
            ("numpy", "ndarray"): "ndarray",
            ("numpy._core.multiarray", "scalar"): lambda kind, content: kind.numbers(content)[0],
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Values(),
            # Pickle protocol 5 calls this with (bytes, dtype, shape, order).
            ("numpy._core.numeric", "_frombuffer"): lambda content, kind, *_: _Values(kind.numbers(content)),
            ("_codecs", "encode"): lambda text, encoding="latin1": text.encode("latin1"),
        }
        if place not in stand_ins:
            raise UnsafePickleError(f"{module}.{name}, which is no plain data")
        return stand_ins[place]


class _Kind:
    """Stands in for a numpy dtype of numbers."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        found = np.dtype(code) if isinstance(code, str) and len(code) <= 4 else None
        if found is None or found.kind not in _KINDS:
            raise UnsafePickleError(f"an array of {code!r}, which are no numbers")
        self.code, self.order = found.str[1:], found.byteorder

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numbers(self, content: Any) -> list[Any]:
        """Return the numbers that raw bytes hold in this dtype."""
        raw = content.encode("latin1") if isinstance(content, str) else content
        values: list[Any] = np.frombuffer(raw, np.dtype(self.order + self.code)).tolist()
        return values


class _Values(list[Any]):
    """Stands in for a numpy array, as a flat list of its numbers."""

    def __setstate__(self, state: Any) -> None:
        _, _, kind, _, content = state
        self[:] = kind.numbers(content)


_COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_MMDET_METRICS = {"mAP": "AP", "mAP_50": "AP50", "mAP_75": "AP75", "mAP_s": "APs", "mAP_m": "APm", "mAP_l": "APl"}
# Maps corruption names in printed tables, in lower case, to their identifiers: "gaussian noise" to "gaussian_noise".
_TITLE = {name.replace("_", " "): name for name in EVERY}
_NUMBER = r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?"


@dataclass
class _Model:
    """The results of one model, collected while files are read. Severity None means the mean over all severities."""

    task: str
    rows: dict[str, dict[tuple[str, int | None], dict[str, float]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    detections: str = ""
    dataset: str = ""

    def add(self, kind: str, corruption: str, severity: int | None, values: Mapping[str, float], file: Path) -> None:
        """Add the metrics of one cell, as fractions, or put the corruption into `left_out` if no benchmark has it.

        Raises:
            ValueError: A metric is not a fraction, a severity is not from 1 to 5, or the cell already has other values.
        """
        where = f"{corruption} {'' if severity is None else severity}".strip()
        if corruption not in (CLEAN.corruption, *EVERY):
            self.left_out.append(corruption)
            return
        if severity is not None and severity not in ((0,) if corruption == CLEAN.corruption else SEVERITIES):
            raise InputError(f"expected severities 1 to 5 in {file}, got {where}: mend the file")
        for metric, value in values.items():
            none = value == -1 and kind in KINDS
            if not (math.isfinite(value) and (none or 0 <= value <= 1)):
                raise InputError(
                    f"expected fractions (or percent where usual) in {file}, got {metric} {value} at {where}"
                )
        cells = self.rows.setdefault(kind, {})
        if cells.setdefault((corruption, severity), dict(values)) != dict(values):
            raise InputError(f"expected one result for {where} in {file}, got two that differ: mend the file")


def import_files(
    files: Sequence[Path], file_format: str, name: str | None = None, dataset: str | None = None
) -> list[Imported]:
    """Read results of other tools.

    Args:
        file_format: `robustbench` (CSV of accuracies, with JSON files of clean accuracies beside it), `mmdet` (pickle
            or JSON of `test_robustness.py`) or `text` (printed by Hendrycks' test.py or game-of-noise).
        name: If the files hold one model, its new name. If they hold several, the name of the model to import. None
            imports all models under their names in the files.
        dataset: Data set of classifiers' results, a key of :data:`dtn_det.robustness.importing.dataset.DATASETS`; None
            to take it from the files or from the names of their folders.

    Raises:
        ValueError: A file is not of this format, or none of several models has the name.
        FileNotFoundError: A file does not exist.
    """
    readers: dict[str, Callable[[Sequence[Path]], dict[str, _Model]]] = {
        "robustbench": _robustbench,
        "mmdet": _each(_mmdet),
        "text": _each(_text),
    }
    if file_format not in readers:
        raise InputError(f"expected a format out of {', '.join(readers)}, got {file_format!r}")
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"expected a file of results, got {str(file)!r}: there is no such file")
    models = readers[file_format](files)
    classifiers = [model for model in models.values() if model.task == "classification"]
    if dataset is not None and not classifiers:
        raise InputError(f"expected --dataset with results of classifiers, got {file_format}: leave --dataset out")
    if classifiers:
        stated = [model.dataset for model in classifiers]
        title, told = find_dataset(files, stated, dataset, "imagenet" if file_format == "text" else "")
        for model in classifiers:
            names = {corruption for corruption, _ in model.rows.get("top1", {})} - {CLEAN.corruption}
            of_3dcc = title == DATASETS["imagenet"] and names <= {*IMAGENET_3DCC_CATALOG.names}
            model.dataset = IMAGENET_3DCC_CATALOG.title if of_3dcc and names else title
            model.remarks += told
    if name is not None:
        models = _named(models, name)
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return [_imported(key, model, hashes, file_format) for key, model in models.items()]


def _named(models: dict[str, _Model], name: str) -> dict[str, _Model]:
    if len(models) == 1:
        return {name: next(iter(models.values()))}
    if name not in models:
        raise InputError(f"expected --name to be one of the models in the files, {', '.join(models)}, got {name!r}")
    return {name: models[name]}


def _imported(name: str, model: _Model, hashes: Mapping[str, str], file_format: str) -> Imported:
    pandas = require("pandas", "eval")
    frames: dict[str, pd.DataFrame] = {}
    means = False
    for kind, cells in model.rows.items():
        rows = [{"corruption": key[0], "severity": key[1], **values} for key, values in cells.items()]
        frames[kind] = pandas.DataFrame(rows).astype({"severity": "Int8"})
        means |= any(severity is None for _, severity in cells)
    if not any(key[0] != CLEAN.corruption for cells in model.rows.values() for key in cells):
        raise InputError(
            f"expected results under corruptions in {', '.join(hashes)}, got none: check --format ({file_format})"
        )
    left_out = tuple(dict.fromkeys(model.left_out))
    source = ImportSource(
        dict(hashes), file_format, means, left_out, model.detections, tuple(model.remarks), model.dataset
    )
    return Imported(name, model.task, source, frames)


def _each(read: Callable[[Path], _Model]) -> Callable[[Sequence[Path]], dict[str, _Model]]:
    def read_all(files: Sequence[Path]) -> dict[str, _Model]:
        models = {file.stem: read(file) for file in files}
        if len(models) < len(files):
            raise InputError("expected files of different names, got one twice: import them one by one with --name")
        return models

    return read_all


def _robustbench(files: Sequence[Path]) -> dict[str, _Model]:
    models: dict[str, _Model] = {}
    for file in files:
        if file.suffix != ".json":
            for name, model in _robustbench_csv(file).items():
                if name in models:
                    raise InputError(f"expected each model once, got {name!r} in two files: import them one by one")
                models[name] = model
    for file in files:
        if file.suffix == ".json":
            if file.stem not in models:
                raise InputError(f"expected {file} beside a CSV file with a row {file.stem!r}, got none: name both")
            accuracy, models[file.stem].dataset = _model_information(file)
            models[file.stem].add("top1", *CLEAN, {"error": 1 - accuracy / 100}, file)
    return models


def _robustbench_csv(file: Path) -> dict[str, _Model]:
    try:
        with file.open(newline="") as stream:
            rows = [row for row in csv.reader(stream) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _not_robustbench(file, f"no CSV ({error})") from error
    if len(rows) < 2:
        raise _not_robustbench(file, agreeing(len(rows), f"{len(rows)} {{row|rows}}"))
    # Some files end with a column of means, which has no severity.
    wanted = [place for place, name in enumerate(rows[0]) if place and name != "average"]
    names = [rows[0][place] for place in wanted]
    if len(rows[1]) != len(rows[0]):
        raise _not_robustbench(file, f"{len(rows[1])} severities for {len(rows[0])} columns")
    severities = [_robustbench_number(file, rows[1][place], "severity", "row 2") for place in wanted]
    models: dict[str, _Model] = {}
    for row in rows[1:]:
        if len(row) != len(rows[0]):
            raise _not_robustbench(file, f"{len(row)} values for {len(rows[0])} columns in the row {row[0]!r}")
    for row in rows[2:]:
        model = models.setdefault(row[0], _Model("classification"))
        for name, severity, text in zip(names, severities, [row[place] for place in wanted], strict=True):
            if text:
                accuracy = _robustbench_number(file, text, "accuracy", f"the row {row[0]!r}")
                model.add("top1", name, int(severity), {"error": 1 - accuracy}, file)
    return models


def _robustbench_number(file: Path, text: str, what: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number) or (what == "severity" and not number.is_integer()):
        raise _not_robustbench(file, f"{text!r} as {what} in {where}")
    return number


def _not_robustbench(file: Path, got: str) -> InputError:
    return InputError(
        f"expected RobustBench's unaggregated results in {file} (a row of corruptions, a row of severities, a row of "
        f"accuracies for each model), got {got}: name another file, or another --format"
    )


def _model_information(file: Path) -> tuple[float, str]:
    """Return the clean accuracy of a model in percent, and the name of its data set; empty if the file has no name."""
    try:
        content = json.loads(file.read_text())
        return float(content["clean_acc"]), str(content.get("dataset", ""))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"expected RobustBench's model information with clean_acc in {file}, got {error}") from error


def _mmdet(file: Path) -> _Model:
    content = json.loads(file.read_text()) if file.suffix == ".json" else read_plain_pickle(file)
    if not isinstance(content, Mapping):
        raise InputError(
            f"expected MMDetection's results in {file} (corruption, severity, COCO metrics), got a "
            f"{type(content).__name__}: check that it is the `_results` file of test_robustness.py on a COCO set"
        )
    model = _Model("detection")
    empty: list[tuple[str, int]] = []
    where = ""
    try:
        for corruption, severities in content.items():
            for key, metrics in severities.items():
                where = f" at {corruption} {key}"
                severity = int(key)
                cell = CLEAN if severity == 0 else (str(corruption), severity)
                if isinstance(metrics, Mapping) and not metrics:
                    empty.append(cell)
                    continue
                found = _mmdet_metrics(metrics)
                model.detections = model.detections or _detections_counted(metrics)
                for kind, values in found.items():
                    model.add(kind, *cell, values, file)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        if str(error).startswith("expected"):
            raise
        raise InputError(
            f"expected MMDetection's results in {file} (corruption, severity, COCO metrics), got {error}{where}: check "
            "that it is the `_results` file of test_robustness.py on a COCO set"
        ) from error
    _add_cells_without_detections(model, list(dict.fromkeys(empty)), file)
    return model


def _add_cells_without_detections(model: _Model, cells: Sequence[tuple[str, int]], file: Path) -> None:
    """Set all metrics of cells without metrics to 0: MMDetection's CocoMetric gives none if a detector finds nothing.

    Metrics that the data set cannot have, such as metrics of small objects where there are none, are -1 in all cells.
    """
    if not model.rows:
        return
    for kind, found in list(model.rows.items()):
        some = next(iter(found.values()))
        for corruption, severity in cells:
            values = {metric: -1.0 if value == -1 else 0.0 for metric, value in some.items()}
            model.add(kind, corruption, severity, values, file)
    named = tuple(
        f"{corruption} {severity}" for corruption, severity in cells if corruption in (CLEAN.corruption, *EVERY)
    )
    if named:
        what = agreeing(
            len(named),
            "{cell holds|cells hold} no metrics, as MMDetection writes where a detector finds nothing, and "
            "{has|have} AP 0",
        )
        model.remarks.append(Remark("no_detections", what, file.name, len(named), named))


def _detections_counted(metrics: Mapping[str, Any]) -> str:
    """Return how many detections of an image enter the metrics: see :attr:`ImportSource.detections`."""
    return COCO_DETECTIONS if any(key in KINDS for key in metrics) else MMDET_DETECTIONS


def _mmdet_metrics(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Read metrics by kind: `coco/bbox_mAP_50` of MMDetection 3 or `{'bbox': {'AP50': ...}}` of its first version."""
    found: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        if key in KINDS and isinstance(value, Mapping):
            found[key] = {name: float(value[name]) for name in _COCO_METRICS if name in value}
            continue
        kind, _, metric = key.rpartition("/")[2].partition("_")
        if kind in KINDS and metric in _MMDET_METRICS:
            found.setdefault(kind, {})[_MMDET_METRICS[metric]] = float(value)
    if not found:
        raise KeyError(f"no bbox or segm metrics among {', '.join(map(str, metrics))}")
    return found


def _text(file: Path) -> _Model:
    model = _Model("classification")
    average: list[float] = []
    try:
        lines = file.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"expected text in {file}, got other bytes: check --format") from error
    for line in lines:
        if line.startswith("=Average"):
            # numpy 2 prints a float as np.float64(0.5), whose 64 must not be read as an error rate.
            average = [
                float(number) for number in re.findall(_NUMBER, line.replace("float64", "").replace("float32", ""))
            ]
        elif found := re.match(rf"Distortion: (\w+)\s*\|.*?({_NUMBER})\s*$", line):
            _hendrycks_line(model, found[1], float(found[2]), average, file)
            average = []
        elif found := re.match(rf"Clean dataset error \(%\): ({_NUMBER})", line):
            model.add("top1", *CLEAN, {"error": float(found[1]) / 100}, file)
        elif found := re.match(rf"([\w ]+): Top1 accuracy:? ({_NUMBER}), Top5 accuracy:? ({_NUMBER})", line):
            _accuracy_line(model, found[1], float(found[2]), float(found[3]), file)
    return model


def _hendrycks_line(model: _Model, name: str, percent: float, average: Sequence[float], file: Path) -> None:
    """Add a corruption's errors from the line `=Average`; without this line, add only ``percent``, their mean."""
    if not average:
        model.add("top1", name, None, {"error": percent / 100}, file)
        return
    if len(average) != len(SEVERITIES) or abs(100 * sum(average) / len(average) - percent) > 0.006:
        raise InputError(f"expected 5 errors with the mean {percent} % of {name} in {file}, got {average}")
    for severity, error in zip(SEVERITIES, average, strict=True):
        model.add("top1", name, severity, {"error": error}, file)


def _accuracy_line(model: _Model, title: str, top1: float, top5: float, file: Path) -> None:
    values = {"error": 1 - top1 / 100, "top5_error": 1 - top5 / 100}
    name = _TITLE.get(title.lower(), title)
    if title == "ImageNet val":
        model.add("top1", *CLEAN, values, file)
    elif not title.startswith(("Full ", "ImageNet-C")):
        model.add("top1", name, None, values, file)
