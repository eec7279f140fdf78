"""Sample images as values for JSON."""

from __future__ import annotations

import base64
from typing import Any

from dtn_det.reports.contents import Report
from dtn_det.reports.samples.gallery import Answer, Box, Gallery, Picture, SampleImage

Values = dict[str, Any]

_SHOWN = 4


def gallery_data(report: Report, gallery: Gallery) -> Values:
    """What the page shows of the images; models are named by their places in the report."""
    places = {model.name: place for place, model in enumerate(report.models)}
    models = [places[name] for name in gallery.models if name in places]
    pair = [places[name] for one in gallery.disagreements[:1] for name in (one.worse, one.better)]
    return {
        "models": models,
        # The compared ones; with few models, all.
        "shown": models if len(models) <= _SHOWN else pair or models[:_SHOWN],
        "images": [_image(image, places) for image in gallery.images],
        "disagreements": [
            {"better": places[one.better], "worse": places[one.worse], "image": _image(one.image, places)}
            for one in gallery.disagreements
        ],
    }


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
        "source": f"data:image/webp;base64,{base64.b64encode(picture.webp).decode()}",
        "answers": {str(places[name]): _answer(answer) for name, answer in picture.answers.items() if name in places},
    }


def _answer(answer: Answer) -> Values:
    return {"text": answer.text, "right": answer.right, "boxes": [_box(box) for box in answer.boxes]}


def _box(box: Box) -> list[Any]:
    return [*box.corners, box.label, None if box.score is None else round(box.score, 2), box.right]
