"""The data from which the browser draws figures and sample images, as values for JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dtn_det.corruptions.catalog import EVERY, EVERY_GROUP, SEVERITIES, catalog_for
from dtn_det.metrics import CLEAN
from dtn_det.metrics.error_types import ERROR_TYPES
from dtn_det.reports.contents import KIND_TITLES, Report
from dtn_det.reports.figures.data import ERROR_COLOURS, Mark, marks_of
from dtn_det.reports.labels import short, title
from dtn_det.reports.measures import Measure, measures_of
from dtn_det.reports.numbers import Numbers, set_of
from dtn_det.reports.samples import Answer, Box, Gallery, Picture, SampleImage

# Plotly's name of each marker by its name in matplotlib.
_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}
_DASHES = ("solid", "dash", "dot", "dashdot")
_DIGITS = 6

Values = dict[str, Any]

_SHOWN = 4


def figure_data(report: Report, sections: Sequence[Numbers]) -> Values:
    """Return all values that the figures show, for JSON; missing numbers are None.

    A number is a list of its value and both ends of its interval; a difference has its p-value as a fourth element.
    Models are given by their indices in ``models``.
    """
    names = [model.name for model in report.models]
    pairs = list(dict.fromkeys(pair for numbers in sections for pair in numbers.section.pairs))
    marks = marks_of(names, pairs)
    groups = catalog_for(key[3] for numbers in sections for key in numbers.found).groups
    return {
        "models": [_model(name, marks[name]) for name in names],
        "corruptions": [
            {"key": name, "title": title(name), "short": short(name), "group": title(group)}
            for group, members in groups.items()
            for name in members
        ],
        "groups": [{"key": group, "title": title(group)} for group in groups],
        "measures": [
            {"kind": KIND_TITLES[numbers.section.kind], **_measure(numbers, measure, names)}
            for numbers in sections
            for measure in measures_of(numbers)
        ],
        "pairs": [[names.index(first), names.index(second)] for first, second in pairs],
        "reliability": _reliability(report, names),
        "errors": ERROR_COLOURS,
        "level": report.provenance.level,
    }


def _model(name: str, mark: Mark) -> Values:
    return {
        "name": name,
        "colour": mark.colour,
        "symbol": _SYMBOLS[mark.marker] + ("" if mark.filled else "-open"),
        "dash": "solid" if mark.line == "-" else _DASHES[1 + _dots(mark.line)],
        "shown": mark.highlighted,
    }


def _dots(line: tuple[float, tuple[float, ...]]) -> int:
    """Return 0 for a line of dashes, 1 for a line of dots, and 2 for a line of dashes and dots."""
    return 2 if len(line[1]) > 2 else int(line[1][0] <= 1)


def _measure(numbers: Numbers, measure: Measure, names: list[str]) -> Values:
    return {
        "title": measure.title,
        # The error type whose cost the measure is, for the figure of the six types; empty for other measures.
        "error": next((error for error in ERROR_TYPES if measure.cell == f"dAP50 {error}"), ""),
        "better": "lower" if measure.is_lower_better else "higher",
        "decimals": measure.decimals,
        "models": [_of_model(numbers, measure, name) for name in names],
        "pairs": [
            {"models": [names.index(first), names.index(second)], **_of_pair(numbers, measure, (first, second))}
            for first, second in numbers.section.pairs
        ],
    }


def _of_model(numbers: Numbers, measure: Measure, model: str) -> Values | None:
    """Return all numbers of a model for a measure; None if the model has no number for any corruption or cell."""

    def get(name: str, scope: str = "", severity: int = 0) -> list[float | None] | None:
        found = numbers.get(model, set_of(scope), name, scope, severity) if name else None
        return None if found is None else _rounded(found[:3])

    cells = {name: [get(measure.cell, name, severity) for severity in SEVERITIES] for name in EVERY}
    found = {**_scopes(measure, get), "cells": {name: own for name, own in cells.items() if any(own)}}
    return found if found["corruptions"] or found["cells"] else None


def _of_pair(numbers: Numbers, measure: Measure, pair: tuple[str, str]) -> Values:
    """Return all differences of a pair for a measure, with adjusted p-values for severities, groups and corruptions."""

    def get(name: str, scope: str = "", severity: int = 0) -> list[float | None] | None:
        found = numbers.difference(pair, set_of(scope), name, scope, severity)
        if found is None:
            return None
        by_itself = not severity and scope in ("", CLEAN[0])
        return _rounded((*found[:3], found.p_value if by_itself else found.p_adjusted))

    return _scopes(measure, get)


def _scopes(measure: Measure, get: Callable[..., list[float | None] | None]) -> Values:
    """Return all numbers of a measure except single cells. `get` finds a number by its name, scope and severity."""
    return {
        "clean": get(measure.cell, *CLEAN),
        "mean": get(measure.mean),
        "severities": [get(measure.mean, "", severity) for severity in SEVERITIES],
        "groups": _kept({group: get(measure.mean, group) for group in EVERY_GROUP}),
        "corruptions": _kept({name: get(measure.corruption, name) for name in EVERY}),
    }


def _reliability(report: Report, names: list[str]) -> Values:
    """Return confidence, accuracy and number of images of each model's bins, for clean and for corrupted images."""
    found: Values = {"clean": [[] for _ in names], "corrupted": [[] for _ in names]}
    for section in report.sections:
        for model, images, _, _, count, accuracy, confidence in section.reliability.itertuples(index=False):
            if count:
                found[images][names.index(model)].append([*_rounded((confidence, accuracy)), int(count)])
    return found if any(map(any, found.values())) else {}


def _kept(numbers: Mapping[str, Any]) -> Values:
    return {key: number for key, number in numbers.items() if number is not None}


def _rounded(numbers: tuple[float, ...]) -> list[float | None]:
    return [float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None for number in numbers]


def gallery_data(report: Report, gallery: Gallery) -> Values:
    """Return the sample images with the models' answers, for JSON; models are given by their indices in the report."""
    places = {model.name: place for place, model in enumerate(report.models)}
    models = [places[name] for name in gallery.models if name in places]
    pair = [places[name] for one in gallery.disagreements[:1] for name in (one.worse, one.better)]
    return {
        "models": models,
        # Models whose answers are shown at first: all if they are few, else the compared pair, or else the first few.
        "shown": models if len(models) <= _SHOWN else pair or models[:_SHOWN],
        "images": [_image(image, places) for image in gallery.images],
        "disagreements": [
            {"better": places[one.better], "worse": places[one.worse], "image": _image(one.image, places)}
            for one in gallery.disagreements
        ],
    }


def class_pictures(model: str, gallery: Gallery | None) -> list[Values]:
    """Return the pictures of the classes of a model, for the page's template: an image each, with the answer to it."""
    found = []
    for sample in () if gallery is None else gallery.classes:
        (picture,) = sample.image.pictures
        if sample.model == model:
            where = f"{title(picture.cell.corruption)} {picture.cell.severity}"
            answers = [f"{answer.text}, {'right' if answer.right else 'wrong'}" for answer in picture.answers.values()]
            shown = {"source": _source(picture), "size": sample.image.size, "truth": sample.image.truth}
            found.append({**shown, "where": where, "answer": "".join(answers)})
    return found


def _source(picture: Picture) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture.webp).decode()}"


def _image(image: SampleImage, places: dict[str, int]) -> Values:
    return {
        "key": image.key,
        "truth": image.truth,
        "size": list(image.size),
        "objects": [[*box.corners, box.label] for box in image.objects],
        "pictures": [_picture(picture, places) for picture in image.pictures],
    }


def _picture(picture: Picture, places: dict[str, int]) -> Values:
    return {
        "corruption": picture.cell.corruption,
        "severity": picture.cell.severity,
        "source": _source(picture),
        "answers": {str(places[name]): _answer(answer) for name, answer in picture.answers.items() if name in places},
    }


def _answer(answer: Answer) -> Values:
    return {"text": answer.text, "right": answer.right, "boxes": [_box(box) for box in answer.boxes]}


def _box(box: Box) -> list[Any]:
    return [*box.corners, box.label, None if box.score is None else round(box.score, 2), box.right, box.error]
