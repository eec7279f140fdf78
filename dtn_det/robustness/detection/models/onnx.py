"""Load exported detectors whose outputs are final boxes: ``onnx:FILE``."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.corruptions.image import ByteImage
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.robustness.detection.models.category_ids import StatedClasses
from dtn_det.robustness.detection.models.onnx_inputs import (
    Prepare,
    PreparedImage,
    letterboxed,
    of_mmdeploy,
    raw_bytes,
    stretched,
    unit_range,
)
from dtn_det.robustness.detection.models.pixels import PixelModel

ONNX = "onnx:"
_SIZES = "orig_target_sizes"

Raw = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ExportLayout:
    """What the input and the outputs of an exported detector mean.

    Attributes:
        kind: The exporter whose layout it is, with what the input is.
        prepare: Makes the input from an image.
        read: Returns the boxes in pixels of the prepared image, or of the image itself where the model knows its size,
            with scores, category ids and masks where there are any. Its arguments are the outputs of one image.
        in_pixels_of_image: Whether the boxes are in pixels of the image itself.
    """

    kind: str
    prepare: Prepare
    read: Callable[[Raw], dict[str, NDArray[Any]]]
    in_pixels_of_image: bool = False


def load_onnx(source: str, device: torch.device) -> PixelModel:
    """Load an exported detector, whose layout is recognised from names and shapes of its inputs and outputs.

    Args:
        source: ``onnx:`` and the file.

    Raises:
        InputError: The file cannot be read, its outputs are not final boxes, or nothing tells how to make its input.
        FileNotFoundError: There is no such file.
    """
    path = Path(source.removeprefix(ONNX)).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"expected an ONNX file in {source!r}, got none: name the file of the export")
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    cuda = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [one for one in (*cuda, "CPUExecutionProvider") if one in runtime.get_available_providers()]
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    # onnxruntime has an error class of its own for each cause, without a common parent.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"expected an ONNX model in {path}, got {reason}: export it again") from error
    layout = _layout(session, path)
    names = _names(session.get_modelmeta().custom_metadata_map)
    return PixelModel(
        name=path.stem,
        source=f"{ONNX}{path.name}",
        adapter="onnxruntime",
        detect=_detect(session, layout),
        classes=StatedClasses(names, f"the metadata of {path.name}"),
        weights_hash=_hash(path),
        packages=("onnxruntime",),
        protocol={"layout": layout.kind, "provider": providers[0]},
        remarks=(Remark("onnx_layout", f"export read as that of {layout.kind}", str(path)),),
    )


def _layout(session: Any, path: Path) -> ExportLayout:
    """Recognise the layout from the names, types and shapes of inputs and outputs.

    Raises:
        InputError: The outputs are not final boxes, or nothing tells how to make the input.
    """
    outputs = {one.name: one.shape for one in session.get_outputs()}
    inputs = {one.name: one for one in session.get_inputs()}
    images = [one for one in inputs.values() if len(one.shape) in (3, 4) and 3 in one.shape[-3:-2]]
    if len(images) == 1:
        (image,) = images
        height, width = image.shape[-2:]
        fixed = isinstance(height, int) and isinstance(width, int)
        metadata = session.get_modelmeta().custom_metadata_map
        if {"boxes", "labels", "scores"} <= outputs.keys():
            if set(inputs) == {image.name, _SIZES} and fixed:
                kind = f"RT-DETR: RGB from 0 to 1, resized to {width} x {height}, with the size of the image"
                return ExportLayout(kind, stretched(height, width), _named, in_pixels_of_image=True)
            if len(inputs) == 1 and not fixed and not isinstance(height, int) and not isinstance(width, int):
                if image.type == "tensor(uint8)":
                    return ExportLayout("torchvision, with RGB from 0 to 255", raw_bytes, _named)
                return ExportLayout("torchvision: RGB from 0 to 1", unit_range, _named)
        if len(inputs) == 1 and {"dets", "labels"} <= outputs.keys():
            pipeline = path.with_name("pipeline.json")
            if pipeline.is_file():
                return ExportLayout("MMDeploy, with the input of its pipeline.json", of_mmdeploy(pipeline), _dets)
        rows = next(iter(outputs.values()))
        ultralytics = "names" in metadata and "imgsz" in metadata and "stride" in metadata
        if len(inputs) == len(outputs) == 1 and fixed and ultralytics and len(rows) == 3 and rows[-1] == 6:
            kind = f"Ultralytics: RGB from 0 to 1, fitted into {width} x {height}"
            return ExportLayout(kind, letterboxed(height, width), _rows)
    listed = [f"{name} {list(shape)}" for name, shape in outputs.items()]
    given = [f"{one.name} {one.type} {list(one.shape)}" for one in inputs.values()]
    raise InputError(
        "expected an export with final boxes: boxes, labels and scores with an input of any height and width "
        f"(torchvision) or with {_SIZES} (RT-DETR), dets and labels beside a pipeline.json (MMDeploy), or rows of 6 "
        f"with metadata (Ultralytics with nms=True), got the outputs {', '.join(listed)} of the input "
        f"{', '.join(given)} in {path}: export it with its last steps, or wrap it as python:MODULE:FUNCTION"
    )


def _named(raw: Raw) -> dict[str, NDArray[Any]]:
    found = {"boxes": raw["boxes"], "scores": raw["scores"], "category_ids": raw["labels"]}
    if "masks" in raw:
        masks = raw["masks"]
        found["masks"] = (masks[:, 0] if masks.ndim == 4 else masks) > 0.5
    return found


def _dets(raw: Raw) -> dict[str, NDArray[Any]]:
    dets, labels = raw["dets"], raw["labels"]
    # MMDeploy fills up to a fixed number of rows with label -1.
    kept = labels >= 0
    return {"boxes": dets[kept, :4], "scores": dets[kept, 4], "category_ids": labels[kept]}


def _rows(raw: Raw) -> dict[str, NDArray[Any]]:
    (rows,) = raw.values()
    # Ultralytics fills up to a fixed number of rows with zeros.
    rows = rows[rows[:, 4] > 0]
    return {"boxes": rows[:, :4], "scores": rows[:, 4], "category_ids": rows[:, 5]}


def _detect(session: Any, layout: ExportLayout) -> Callable[[list[ByteImage]], list[dict[str, Any]]]:
    inputs = {one.name: one for one in session.get_inputs()}
    names = [one.name for one in session.get_outputs()]
    (image_input,) = (one for one in inputs.values() if one.name != _SIZES)
    batched = len(image_input.shape) == 4

    def one_image(image: ByteImage) -> dict[str, Any]:
        prepared: PreparedImage = layout.prepare(image)
        given = {image_input.name: prepared.pixels[None] if batched else prepared.pixels}
        if _SIZES in inputs:
            given[_SIZES] = np.array([[image.shape[1], image.shape[0]]], np.int64)
        raw = dict(zip(names, session.run(None, given), strict=True))
        # Scores, or rows of a single output, have one axis more where the model takes a batch.
        scores = raw.get("scores", raw.get("labels"))
        with_batch = scores.ndim == 2 if scores is not None else True
        found = layout.read({name: value[0] for name, value in raw.items()} if with_batch else raw)
        if not layout.in_pixels_of_image:
            found["boxes"] = prepared.in_image(found["boxes"], (image.shape[0], image.shape[1]))
        return found

    return lambda images: [one_image(image) for image in images]


def _names(metadata: Mapping[str, str]) -> dict[int, str]:
    """Return the class names in the metadata, which Ultralytics writes as the text of a mapping."""
    try:
        names = ast.literal_eval(metadata.get("names", ""))
    except (SyntaxError, ValueError):
        return {}
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
    return {int(number): str(name) for number, name in pairs}


def _hash(path: Path) -> str:
    """Return the SHA-256 of the file and of the files beside it that hold its large weights."""
    digest = hashlib.sha256()
    for part in (path, *sorted(path.parent.glob(f"{path.name}*data"))):
        with part.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
