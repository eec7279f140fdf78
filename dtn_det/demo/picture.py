"""Draw some validation images with the ground truth and with the boxes of both models."""

from __future__ import annotations

import io
import json
from typing import Any

from dtn_det._optional import require
from dtn_det.corruptions.cells import CLEAN
from dtn_det.demo.plan import LABELS, Layout
from dtn_det.demo.shapes import CLASSES
from dtn_det.robustness.detection.evaluation import read_cells
from dtn_det.robustness.detection.second_opinion import coco_results
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import Store
from dtn_det.system.files import write_bytes

NUM_IMAGES = 4
SCORE_THRESHOLD = 0.25
# Height of a label in pixels of the image.
LABEL_HEIGHT = 7
TITLES = {"truth": "ground truth", **LABELS}
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#f032e6")


def draw_picture(layout: Layout) -> None:
    """Write ``detections.png``, with a row per image and columns for the ground truth and both models.

    The images are the first ones with at least three objects, whatever the models detect in them.
    """
    require("matplotlib", "det")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cv2 = require("cv2", "det")
    truth = json.loads((layout.data / "annotations" / "instances_val.json").read_text())
    boxes = {"truth": truth["annotations"]}
    for model in LABELS:
        boxes[model] = [box for box in _clean_boxes(layout, model) if box["score"] >= SCORE_THRESHOLD]
    by_image = {name: _group(entries) for name, entries in boxes.items()}
    chosen = [image for image in truth["images"] if len(by_image["truth"].get(image["id"], [])) >= 3][:NUM_IMAGES]
    chosen = chosen or truth["images"][:NUM_IMAGES]

    figure = Figure(figsize=(3 * len(TITLES), 2.45 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), len(TITLES), squeeze=False)
    for axis, title in zip(axes[0], TITLES.values(), strict=True):
        axis.set_title(title)
    for image, row in zip(chosen, axes, strict=True):
        pixels = cv2.imread(str(layout.data / "val" / image["file_name"]))[:, :, ::-1]
        for name, axis in zip(TITLES, row, strict=True):
            axis.imshow(pixels)
            axis.set_axis_off()
            for box in by_image[name].get(image["id"], []):
                _draw_box(axis, box)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_bytes(layout.picture, buffer.getvalue())


def _clean_boxes(layout: Layout, model: str) -> list[dict[str, Any]]:
    """Return the detections on the clean images in COCO's result format."""
    store = Store.open(layout.store(model))
    (found,) = read_cells(store.model(LABELS[model]), [store.manifest.cells.index(CLEAN)])
    return coco_results(CocoTruth.of(store), found, "bbox")


def _group(boxes: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for box in boxes:
        groups.setdefault(box["image_id"], []).append(box)
    return groups


def _draw_box(axis: Any, box: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    label = box["category_id"] - 1
    colour = COLOURS[label % len(COLOURS)]
    x, y, width, height = box["bbox"]
    style = "--" if box.get("iscrowd") else "-"
    axis.add_patch(
        Rectangle((x - 0.5, y - 0.5), width, height, fill=False, color=colour, linewidth=1.5, linestyle=style)
    )
    text = list(CLASSES)[label]
    if "score" in box:
        text += f" {box['score']:.2f}"
    background = {"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
    # The label is above the box, or inside the box if the box reaches the upper border of the image.
    side = "bottom" if y > LABEL_HEIGHT else "top"
    axis.text(x, y, text, fontsize=6, color="black", verticalalignment=side, bbox=background, clip_on=True)
