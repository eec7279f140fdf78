"""Load the classifiers that users name, such as ``timm:resnet50`` or ``python:MODULE:FUNCTION``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.datasets.remarks import Remark, counted
from dtn_det.errors import ClassCountError, InputError
from dtn_det.metrics import BASELINES
from dtn_det.robustness.classification.class_agreement import ClassSet, align, check_number
from dtn_det.robustness.classification.models.classifier import Classifier, View
from dtn_det.robustness.store.files import check_name
from dtn_det.robustness.user_code import call_factory, import_callable


def load_classifier(
    source: str, num_classes: int, weights: WeightsKind | None = None, *, adapting: bool = False
) -> Classifier:
    """Load a model.

    Args:
        source: ``timm:NAME``, ``timm:NAME@FILE``, ``timm:NAME@random``, ``timm:local-dir:FOLDER``,
            ``hf:FOLDER`` or ``hf:NAME``, ``CONFIG@CHECKPOINT`` of mmpretrain, or ``python:MODULE:FUNCTION``.
        weights: Which weights to take from a file with plain weights and an average: see
            :func:`dtn_det.checkpoints.load.load_weights`.
        adapting: See :func:`load_python`.

    Raises:
        ValueError: The source has none of these forms, or the model cannot be loaded.
    """
    if source.startswith("timm:"):
        from dtn_det.robustness.classification.models.timm import load_timm

        return load_timm(source, num_classes, weights)
    if source.startswith("hf:"):
        from dtn_det.robustness.classification.models.hugging_face import load_hugging_face

        return load_hugging_face(source, num_classes)
    if source.startswith("python:"):
        return load_python(source, adapting=adapting)
    if source.endswith(".py") or ".py@" in source:
        from dtn_det.robustness.classification.models.mmpretrain import load_mmpretrain

        return load_mmpretrain(source, num_classes, weights)
    raise InputError(
        f"expected MODEL to be timm:NAME, timm:NAME@FILE, timm:local-dir:FOLDER, hf:FOLDER_OR_NAME, "
        f"CONFIG.py@CHECKPOINT or python:MODULE:FUNCTION, got {source!r}"
    )


def load_classifiers(
    sources: Sequence[str],
    names: Sequence[str] | None,
    classes: ClassSet,
    side: int,
    weights: WeightsKind | None = None,
    loaded: dict[tuple[str, int], Classifier] | None = None,
    *,
    adapting: bool = False,
) -> tuple[list[Classifier], tuple[Remark, ...]]:
    """Load models, name them, and check that their classes are those of the data.

    Args:
        names: Names of the models in the store and in reports; None for names made from the sources.
        loaded: Models that are already loaded for other sets, by source and number of classes. Newly loaded models are
            added.
        adapting: See :func:`load_python`.

    Returns:
        The models, with logits in the order of the data's classes, and remarks about how classes were matched.

    Raises:
        ValueError: A model cannot be loaded, has other classes than the data or the name of a published baseline, or
            two models have the same name.
    """
    if names is not None and len(names) != len(sources):
        wanted = counted(len(sources), "model")
        raise InputError(f"expected --names for {wanted}, got {len(names)}: give each model one name")
    for name in names or ():
        check_name(name)
    loaded = {} if loaded is None else loaded
    models = []
    for source in sources:
        # A model that adapts is loaded for each set and each name, because it does not stay as it was loaded.
        if adapting or (source, classes.number) not in loaded:
            loaded[source, classes.number] = _load(source, classes, weights, adapting)
        models.append(loaded[source, classes.number])
    if names is not None:
        models = [replace(model, name=name) for model, name in zip(models, names, strict=True)]
    called = [model.name for model in models]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        raise InputError(f"expected models of different names, got {', '.join(twice)} twice: name them with --names")
    taken = [name for name in called if name in BASELINES]
    if taken:
        raise InputError(
            f"expected another name than {taken[0]!r}, which stands for published errors: give one with --names"
        )
    aligned: list[Classifier] = []
    remarks: list[Remark] = []
    for model in models:
        # Counting logits runs a model, which would change one that adapts. Its first batch will show their number.
        if not adapting or model.num_classes is not None:
            check_number(model, classes, side)
        model, told = align(model, classes)
        aligned.append(model)
        remarks += told
    return aligned, tuple(remarks)


def _load(source: str, classes: ClassSet, weights: WeightsKind | None, adapting: bool) -> Classifier:
    try:
        return load_classifier(source, classes.number, weights, adapting=adapting)
    except ClassCountError as error:
        raise InputError(classes.fault(error.number, error.name)) from error


def load_python(source: str, *, adapting: bool = False) -> Classifier:
    """Load a model by calling a function of the user.

    The function takes no arguments. It returns a torch module that computes logits from images, ``(N, 3, H, W)``
    float32 RGB in [0, 1]. Or it returns a pair: a torch module, and a function that makes the module's input from
    images, ``(N, 3, H, W)`` uint8 RGB on the module's device. The Python module of the function may lie in the current
    folder.

    Args:
        adapting: Whether the model may adapt while it is tested. Its modules then stay in the mode, training or
            evaluation, in which the function returns them.

    Raises:
        ValueError: There is no such function, it fails, or it returns something else.
    """
    function_name, function = import_callable(source)
    made = call_factory(function, source, "a model")
    network, prepare = made if isinstance(made, tuple) and len(made) == 2 else (made, _unit_range)
    if not isinstance(network, nn.Module) or not callable(prepare):
        raise InputError(
            f"expected {source!r} to return a torch module, or a module and a function that prepares its input, got "
            f"{type(made).__name__}"
        )
    if not adapting:
        network.eval()
    return Classifier(
        name=function_name,
        source=source,
        network=network,
        forward=lambda images: network(prepare(images.contiguous())),
        view=View(),
        protocol={"input": "as corrupted", "normalization": getattr(prepare, "__qualname__", type(prepare).__name__)},
    )


def _unit_range(images: Tensor) -> Tensor:
    return images.to(torch.float32) / 255
