"""The check of a checkpoint: what it holds, and whether it fits a model."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dtn_det.check import CheckResult
from dtn_det.check.model import TIMM, Target
from dtn_det.checkpoints.files import folder_remarks, transformers_class
from dtn_det.checkpoints.lit_ema import choose_lit_ema
from dtn_det.checkpoints.load import Loaded, fit_weights
from dtn_det.checkpoints.mmcv_ema import EmaCopies, find_copies
from dtn_det.checkpoints.parametrizations import check_parametrizations, fold_weight_norm
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.checkpoints.several_networks import networks_beside
from dtn_det.checkpoints.state_dict import Chosen, check_whole, choose_weights
from dtn_det.checkpoints.trained_config import trained_options
from dtn_det.checkpoints.weights import COPIES
from dtn_det.datasets.class_names import ModelClasses, NamedSet, labels_in_evaluation, names_left_out
from dtn_det.datasets.configs.classes import (
    checkpoint_classes,
    classes_in_evaluation,
    head_numbers,
    wanted_classes,
)
from dtn_det.datasets.configs.settings import innermost_settings
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import CheckpointError, ClassNameError, InputError, MisfitError
from dtn_det.layers.options import CLASS_KEYS, EXTRA_STATE, describe_options, unpack_options

_TITLE = "checkpoint"


def check_checkpoint(path: Path, target: Target | None = None) -> CheckResult:
    """Check a checkpoint: read it as every command does, and compare it with a model, if one is given.

    Args:
        path: The file, or the folder of a model of Hugging Face.
    """
    try:
        content = read_checkpoint(path)
        chosen = choose_lit_ema(choose_weights(content))
    except CheckpointError as error:
        return CheckResult(str(path), "checkpoint", "a checkpoint that cannot be read", problems=(str(error),))
    copies = None if chosen.other else find_copies(chosen.state, content)
    if copies is not None:
        chosen = replace(chosen, state=copies.state)
    facts = dict(_facts(content, chosen, copies))
    title = _title(path)
    if target is None:
        problems = (*_not_whole(path, chosen), *_not_loaded(path))
        of_copies = () if copies is None else (Remark(COPIES, copies.remark(), str(path)),)
        remarks = (*folder_remarks(str(path)), *networks_beside(str(path)), *of_copies)
        return CheckResult(str(path), "checkpoint", title, facts, remarks, problems=problems)
    try:
        loaded = _fitted(path, content, target)
    except InputError as error:
        return CheckResult(str(path), "checkpoint", title, facts, problems=(str(error),), fits=False)
    told = (*loaded.remarks, *_names_left_out(path, content, target))
    fault = _other_classes(path, content, target)
    problems = (fault,) if fault else ()
    return CheckResult(str(path), "checkpoint", title, facts, told, problems, fits=not fault)


def _other_classes(path: Path, content: Mapping[str, Any], target: Target) -> str:
    """Return why the classes in a detector's checkpoint are not those of the config; empty if they are."""
    names, in_order = checkpoint_classes(content)
    if names is None or target.config is None or not target.is_detector:
        return ""
    heads = head_numbers(target.config.get("model"))
    try:
        if classes_in_evaluation(target.config, "test", str(path), content) is None:
            # The data are elsewhere, so a file is assumed that has its categories in the order of the config.
            for where, settings in innermost_settings(target.config, "test_dataloader"):
                if (wanted := wanted_classes(where, settings)) is not None:
                    named = NamedSet(where, "the config", wanted.names, wanted.names)
                    labels_in_evaluation([named], [], ModelClasses(heads, str(path), names, in_order))
    except ClassNameError as error:
        return str(error)
    return ""


def _names_left_out(path: Path, content: Mapping[str, Any], target: Target) -> Iterator[Remark]:
    """Yield a remark if a fitting checkpoint has more or fewer names of classes than the model has classes."""
    if target.config is None:
        return
    heads = head_numbers(target.config.get("model"))
    numbers, (names, _) = set(heads.values()), checkpoint_classes(content)
    # Panoptic heads count things and stuff separately, but the names cover both, so the counts are not compared.
    panoptic = any(key.endswith("num_things_classes") for key in heads)
    if names is not None and len(numbers) == 1 and len(names) not in numbers and not panoptic:
        yield names_left_out(names, numbers.pop(), str(path))


def _title(path: Path) -> str:
    """Return the title of a checkpoint; for an exported model, with the architecture that its ``config.json`` names."""
    if (kind := transformers_class(str(path))) is not None and path.is_dir():
        end = f", which `dtn-det mce hf:{path}` evaluates" if kind.endswith("ForImageClassification") else ""
        return f"model of Hugging Face's transformers ({kind}){end}"
    try:
        settings = json.loads((path / "config.json").read_bytes())
    # The path is a file, or a folder without a readable config.json.
    except (OSError, ValueError):
        return _TITLE
    architecture = settings.get("architecture") if isinstance(settings, dict) else None
    if not isinstance(architecture, str):
        return _TITLE
    library = settings.get("library") or "timm"
    return f"exported model (weights and config.json, {library}'s {architecture})"


def _not_whole(path: Path, chosen: Chosen) -> Iterator[str]:
    try:
        check_whole(chosen.state)
        check_parametrizations(fold_weight_norm(chosen.state)[0])
    except CheckpointError as error:
        yield f"{path}: {error}"


def _not_loaded(path: Path) -> Iterator[str]:
    """Load a folder with an image classifier of transformers, and yield why `dtn-det mce` cannot evaluate it."""
    kind = transformers_class(str(path)) if path.is_dir() else None
    if kind is None or not kind.endswith("ForImageClassification"):
        return
    from dtn_det.robustness.classification.models.hugging_face import load_model_and_processor

    try:
        load_model_and_processor(str(path))
    except InputError as error:
        yield str(error)


def _fitted(path: Path, content: Mapping[str, Any], target: Target) -> Loaded:
    """Fit weights to a model.

    As in `dtn-det mce`, a model of timm gets the number of classes of the weights, and the input size that is stated
    with them. A remark lists the stated settings that are used.
    """
    model = target.build()
    if target.config is not None:
        return fit_weights(model, content, str(path))
    from dtn_det.robustness.classification.models.stated import read_stated
    from dtn_det.robustness.classification.models.timm import (
        check_classifier,
        for_stated_size,
        told_settings,
        with_stated_arguments,
    )

    if target.is_folder:
        check_classifier(model, target.source)
        return fit_weights(model, content, str(path))
    number = None
    if getattr(model, "num_classes", None) == 0:
        # Under this name timm builds a model without a classifier, but `dtn-det mce` builds a model with one.
        number = _classes_of_head(model, content)
        model = target.build(number or 1)
    name = target.source.removeprefix(TIMM)
    stated = read_stated(str(path), content, name)
    classes = _classes_of_head(model, content)
    if stated.arguments:
        number = classes if classes != getattr(model, "num_classes", None) else number
        model = with_stated_arguments(model, name, stated, str(path), classes)
    sized = for_stated_size(model, name, stated, classes)
    if sized is not None:
        with contextlib.suppress(MisfitError):
            loaded = fit_weights(sized, content, str(path))
            return replace(loaded, remarks=(*loaded.remarks, *told_settings(stated, model, sized, str(path))))
    loaded = _fitted_classes(model, path, content, target)
    if number is not None:
        loaded = _with_classes(loaded, number, path, target)
    return replace(loaded, remarks=(*loaded.remarks, *told_settings(stated, model, model, str(path))))


def _fitted_classes(model: nn.Module, path: Path, content: Mapping[str, Any], target: Target) -> Loaded:
    try:
        return fit_weights(model, content, str(path))
    except MisfitError as error:
        number = error.num_classes or _classes_of_head(model, content)
        if number in (None, getattr(model, "num_classes", None)):
            raise
        # The rebuilt model has the number of classes of the file, so an error raised here names another cause.
        return _with_classes(fit_weights(target.build(number), content, str(path)), number, path, target)


def _with_classes(loaded: Loaded, number: int, path: Path, target: Target) -> Loaded:
    """Add a remark that the file has another number of classes than the model that timm builds by default."""
    what = f"classes in the file; {target.source} fits as dtn-det mce builds it for data of so many"
    return replace(loaded, remarks=(*loaded.remarks, Remark("other_classes", what, str(path), number)))


def _classes_of_head(model: nn.Module, content: Mapping[str, Any]) -> int | None:
    """Return the number of rows of timm's classifier layer; None without such a layer, or if several layers differ."""
    settings = getattr(model, "pretrained_cfg", None)
    classifier = settings.get("classifier") if isinstance(settings, Mapping) else None
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    state = fold_weight_norm(choose_weights(content).state)[0]
    ends = tuple(f".{name}.{end}" for name in names for end in ("weight", "bias"))
    rows = {value.shape[0] for name, value in state.items() if value.ndim and f".{name}".endswith(ends)}
    return rows.pop() if names and len(rows) == 1 else None


def _facts(content: Mapping[str, Any], chosen: Chosen, copies: EmaCopies | None) -> Iterator[tuple[str, Any]]:
    weights = {name: value for name, value in chosen.state.items() if not name.endswith(EXTRA_STATE)}
    if chosen.place:
        yield "weights under", chosen.place
    if chosen.kind is not None:
        yield "kind of weights", {"ema": "average (EMA)", "plain": "without average"}[chosen.kind]
    if chosen.other:
        yield "others under", chosen.other
    if chosen.aside:
        yield "other networks under", list(chosen.aside)
    if copies is not None:
        told = {"own": "names of the model", "copies": "ema_*", None: "not told"}
        yield "second set of weights", f"{len(copies.copied)} tensors ema_* of mmcv's EMAHook"
        yield "average (EMA)", told[copies.average]
    yield "tensors", len(weights)
    yield "numbers", sum(value.numel() for value in weights.values())
    yield (
        "types",
        [str(kind).removeprefix("torch.") for kind, _ in Counter(v.dtype for v in weights.values()).most_common()],
    )
    yield "parts", list(dict.fromkeys(name.partition(".")[0] for name in weights))
    dtn = sum(name.endswith(".pos_proj.weight") for name in weights)
    if dtn:
        yield "DTN norms", dtn
    yield from _options(content, chosen)
    yield from _training(content)


def _options(content: Mapping[str, Any], chosen: Chosen) -> Iterator[tuple[str, Any]]:
    """Yield the options that norms and other layers were trained with, if the file holds them."""
    packed = [unpack_options(value) for name, value in chosen.state.items() if name.endswith(EXTRA_STATE)]
    for key in CLASS_KEYS:
        told = {describe_options(options) for options in packed if options and key in options}
        if key == "norm" and not told and (options := trained_options(content)):
            told = {describe_options(options)}
        if told:
            yield f"options of {key}s", sorted(told)


def _training(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    for name, places in {"epoch": (meta, content), "iterations": (meta,)}.items():
        key = "iter" if name == "iterations" else name
        number = next((place[key] for place in places if isinstance(place.get(key), int)), None)
        if number is not None:
            yield name, number
    data = meta.get("dataset_meta")
    classes = (data if isinstance(data, Mapping) else {}).get("classes") or meta.get("CLASSES")
    if isinstance(classes, list | tuple):
        yield "classes", [str(name) for name in classes]
