"""Load detectors of Hugging Face's transformers: ``hf:FOLDER`` or ``hf:NAME`` of its hub."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dtn_det.corruptions.image import ByteImage
from dtn_det.errors import InputError
from dtn_det.robustness.classification.models.hugging_face import HF, class_names, load_model_and_processor
from dtn_det.robustness.detection.models.category_ids import StatedClasses
from dtn_det.robustness.detection.models.pixels import PixelModel
from dtn_det.robustness.pixel_values import check_unit_range

_THRESHOLD = 0.0


def load_hugging_face_detector(source: str, device: torch.device) -> PixelModel:
    """Load an object detector of transformers and its image processor.

    The processor resizes, scales and normalises the images and converts the output to boxes, with a threshold of 0 on
    scores. ``id2label`` names the classes.

    Args:
        source: ``hf:`` and the name of a model on the hub or a folder that ``save_pretrained`` has written.

    Raises:
        InputError: There is no such model, it is no object detector, a part of its weights is missing, or its image
            processor is missing or makes no boxes.
    """
    name = source.removeprefix(HF)
    # Of the fast kind, that of YOLOS takes the scores of its classes, softmax, for those of a sigmoid.
    model, processor = load_model_and_processor(name, "AutoModelForObjectDetection", "an object detector", fast=False)
    convert = getattr(processor, "post_process_object_detection", None)
    if convert is None:
        raise InputError(
            f"expected an image processor with post_process_object_detection in {name!r}, got "
            f"{type(processor).__name__}: wrap the model as python:MODULE:FUNCTION"
        )
    settings = processor.to_dict()
    if settings.get("do_rescale", True) and settings.get("do_normalize", True) and settings.get("image_mean"):
        where = f"in the preprocessor_config.json of {name!r}"
        check_unit_range(settings["image_mean"], settings["image_std"], where, "write there")
    model = model.to(device)
    folder = Path(name)
    names = dict(enumerate(class_names(model.config.id2label)))
    return PixelModel(
        name=folder.resolve().name if folder.exists() else name.rpartition("/")[2],
        source=f"{HF}{folder.resolve().name}" if folder.exists() else source,
        adapter="transformers",
        detect=_detect(model, processor, convert, device),
        classes=StatedClasses(names, f"the id2label of {name}", model.config.num_labels),
        network=model,
        packages=("transformers", "pillow"),
        protocol={
            "input": f"size {settings.get('size')}, by {type(processor).__name__}",
            "normalization": f"mean {settings.get('image_mean')} std {settings.get('image_std')}",
            "threshold": str(_THRESHOLD),
        },
        training={"pretrained": name},
    )


def _detect(
    model: Any, processor: Any, convert: Callable[..., Any], device: torch.device
) -> Callable[[list[ByteImage]], list[dict[str, Any]]]:
    # Some models take no mask of padding, which their processor makes all the same. Images of one size need none.
    taken = inspect.signature(model.forward).parameters

    def detect(images: list[ByteImage]) -> list[dict[str, Any]]:
        inputs = processor(images=images, return_tensors="pt", input_data_format="channels_last").to(device)
        outputs = model(**{key: value for key, value in inputs.items() if key in taken})
        found = convert(outputs, threshold=_THRESHOLD, target_sizes=[image.shape[:2] for image in images])
        return [{"boxes": one["boxes"], "scores": one["scores"], "category_ids": one["labels"]} for one in found]

    return detect
