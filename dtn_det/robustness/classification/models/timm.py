"""Load timm's models: pretrained ``timm:NAME``, ``timm:NAME@FILE``, ``timm:NAME@random``, ``timm:local-dir:FOLDER``."""

from __future__ import annotations

import argparse
import difflib
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dtn_det._optional import require
from dtn_det.checkpoints.files import INDEX_END, folder_remarks, network_files, transformers_class, weight_files
from dtn_det.checkpoints.load import Loaded, fit_weights, load_weights
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import CheckpointError, ClassCountError, InputError, MisfitError
from dtn_det.robustness.classification.models.classifier import Classifier, Normalizer, View
from dtn_det.robustness.classification.models.stated import NOTHING_STATED, StatedSettings, read_stated
from dtn_det.robustness.pixel_values import check_unit_range

RANDOM = "random"
"""Named in place of a checkpoint for random weights, which are the same in every run."""

FOLDER = "timm:local-dir:"
"""Beginning of a source that is a folder written by :mod:`dtn_det.export` or by timm."""

_SUGGESTED = 5


def load_timm(source: str, num_classes: int, weights: WeightsKind | None = None) -> Classifier:
    """Build a model of timm.

    Images are resized to the model's input size, with the interpolation in timm's settings of the model. They are not
    cropped, because the images of a sweep are centre crops already.

    Args:
        source: ``timm:NAME``, ``timm:NAME@FILE``, ``timm:NAME@random`` or ``timm:local-dir:FOLDER``.

    Raises:
        ValueError: timm has no such model, its weights cannot be loaded, or the folder has no model.
        CheckpointError: The checkpoint does not fit.
    """
    timm = require("timm", "cls")
    name, checkpoint = split_source(source)
    if source.startswith(FOLDER):
        model, loaded = _of_folder(timm, name)
        return _classifier(timm, source, Path(name).resolve().name, "", model, loaded)
    loaded, stated, of_timm = None, NOTHING_STATED, None
    if checkpoint:
        model = _unloaded(timm, name, num_classes=num_classes)
        if checkpoint != RANDOM:
            of_timm = data_config(model)
            model, loaded, stated = _load_stated(timm, model, name, checkpoint, num_classes, weights)
    else:
        model = _pretrained(timm, name)
    return _classifier(timm, source, name, checkpoint, model, loaded, stated, of_timm)


def _unloaded(timm: Any, name: str, **arguments: Any) -> nn.Module:
    """Build a model with random weights that are the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    return model


def split_source(source: str) -> tuple[str, str]:
    """Split the source of a timm model, and check that timm has the model or that the folder exists.

    Returns:
        The name of the model, and the file or ``random`` that follows its ``@``, empty without an ``@``. For a folder,
        its path and an empty string.

    Raises:
        InputError: timm has no such model, the folder has no ``config.json``, or nothing follows the ``@``.
    """
    import dtn_det.timm  # noqa: F401  registers the models with DTN

    if source.startswith(FOLDER):
        folder = source.removeprefix(FOLDER)
        if not folder or not (Path(folder) / "config.json").is_file():
            raise InputError(
                f"expected a folder that `dtn-det export` or timm has written after {FOLDER!r}, got {folder!r} without "
                "a config.json: name another"
            )
        if (kind := transformers_class(folder)) is not None:
            raise InputError(
                f"expected a folder that `dtn-det export` or timm has written after {FOLDER!r}, got {folder!r} with "
                f"{kind} of Hugging Face's transformers: name hf:{folder}"
            )
        return folder, ""
    name, at, checkpoint = source.removeprefix("timm:").partition("@")
    if at and not checkpoint:
        raise InputError(f"expected a file or {RANDOM!r} after '@' in {source!r}, got nothing: leave the '@' out")
    check_name(name)
    return name, checkpoint


def check_name(name: str) -> None:
    """Check that timm has a model with this name and, if the name ends in a dot and a tag, weights with this tag.

    Raises:
        ValueError: timm has no such model or weights; the message suggests similar names.
    """
    timm = require("timm", "cls")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        hint = _near(architecture, timm.list_models()) or "timm.list_models() names them all"
        raise InputError(f"expected the name of a model of timm after 'timm:', got {name!r}; {hint}")
    if tag and not timm.is_model_pretrained(name):
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        hint = _near(tag, tags) or f"timm has {', '.join(tags) or 'none'}"
        raise InputError(f"expected one of the pretrained weights of timm's {architecture!r}, got {tag!r}; {hint}")


def _near(name: str, known: list[str]) -> str:
    """Return a question that suggests similar names, or an empty text if there are none."""
    longer = [other for other in known if name and other.startswith(name.lower())]
    found = [*longer[:_SUGGESTED], *difflib.get_close_matches(name.lower(), known, _SUGGESTED)]
    return f"did you mean {', '.join(dict.fromkeys(found[:_SUGGESTED]))}?" if found else ""


def _load_stated(
    timm: Any, model: nn.Module, name: str, checkpoint: str, num_classes: int, weights: WeightsKind | None
) -> tuple[nn.Module, Loaded, StatedSettings]:
    """Load a checkpoint into a timm model that is built with the settings stated by the checkpoint.

    Returns:
        The model, the loaded weights and the stated settings. The model has the stated arguments, and also the stated
        input size if the weights fit it. Without stated settings, the model is the given one.
    """
    content = read_checkpoint(checkpoint)
    stated = read_stated(checkpoint, content, name)
    model = with_stated_arguments(model, name, stated, checkpoint, num_classes)
    if (sized := for_stated_size(model, name, stated, num_classes)) is not None:
        try:
            return sized, _load_classes(sized, content, checkpoint, num_classes, weights), stated
        except MisfitError:
            pass
    return model, _load_classes(model, content, checkpoint, num_classes, weights), stated


def with_stated_arguments(
    model: nn.Module, name: str, stated: StatedSettings, checkpoint: str, num_classes: int | None
) -> nn.Module:
    """Build a timm model again with the arguments that its checkpoint states.

    Returns:
        The new model; the given one if no arguments are stated.

    Raises:
        InputError: timm's model does not take the arguments.
    """
    if not stated.arguments:
        return model
    classes = {} if num_classes is None else {"num_classes": num_classes}
    # timm's models raise many types of errors for unsupported arguments.
    try:
        return _unloaded(require("timm", "cls"), name, **stated.arguments, **classes)
    except Exception as error:
        arguments = ", ".join(f"{key}={value!r}" for key, value in stated.arguments.items())
        raise InputError(
            f"expected arguments that timm's {name!r} takes {stated.arguments_place} ({checkpoint}), got {arguments} "
            f"({type(error).__name__}: {error}): name the model that the checkpoint was written for, or use the "
            "version of timm that wrote it"
        ) from error


def for_stated_size(model: nn.Module, name: str, stated: StatedSettings, num_classes: int | None) -> nn.Module | None:
    """Build a timm model again for the input size that its checkpoint states.

    Returns:
        The new model. None if the given model takes any size or has the stated size already, or if it cannot be built
        for another size.
    """
    size = fixed_size(model)
    if stated.size is None or size in (None, stated.size):
        return None
    arguments = {} if num_classes is None else {"num_classes": num_classes}
    try:
        sized = _unloaded(require("timm", "cls"), name, img_size=stated.size, **stated.arguments, **arguments)
    # timm's models raise many types of errors if they cannot be built for this size.
    except (TypeError, ValueError, AssertionError, RuntimeError):
        return None
    sized.pretrained_cfg = {**_settings(sized), "input_size": (3, *stated.size)}  # type: ignore[assignment]
    return sized


def fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """Return the fixed input height and width of a timm model; None if the model takes any size."""
    settings = _settings(model)
    if not settings.get("fixed_input_size"):
        return None
    _, height, width = settings["input_size"]
    return height, width


def _settings(model: nn.Module) -> Mapping[str, Any]:
    settings: Any = getattr(model, "pretrained_cfg", {})
    return settings if isinstance(settings, Mapping) else vars(settings)


def _load_classes(
    model: nn.Module, content: Mapping[str, Any], checkpoint: str, num_classes: int, weights: WeightsKind | None
) -> Loaded:
    """Load the content of a checkpoint, which must have as many classes as the data.

    Raises:
        ClassCountError: The checkpoint has another number of classes.
        CheckpointError: The checkpoint does not fit the model for another reason.
    """
    advice = "name the model that the checkpoint was written for"
    try:
        loaded = fit_weights(model, content, checkpoint, weights=weights, advice=advice)
    except MisfitError as error:
        if error.num_classes not in (None, num_classes):
            raise ClassCountError(checkpoint, error.num_classes, num_classes) from None
        raise
    model.load_state_dict(loaded.state, strict=False)
    return loaded


def _pretrained(timm: Any, name: str) -> nn.Module:
    others = f"give a file, timm:{name}@FILE, or timm:{name}@{RANDOM} for random weights"
    if not timm.is_model_pretrained(name):
        raise InputError(f"expected a model that timm has pretrained weights of, got {name!r}: {others}")
    with hub_asked_once() as fault:
        try:
            model: nn.Module = timm.create_model(name, pretrained=True)
        # The hub's client raises errors of several packages.
        except Exception as error:
            raise InputError(
                f"expected the pretrained weights of timm's {name!r}, got {fault or f'{type(error).__name__}: {error}'}"
                f"{' and no copy of an earlier download' if fault else ''}: check the network, or {others}"
            ) from error
    return model


def _of_folder(timm: Any, folder: str) -> tuple[nn.Module, Loaded | None]:
    # timm cannot load weights that are split into several files, and would load another file in the folder instead. Of
    # the files of several networks, timm would load the first without asking.
    parts = any(path.name.endswith(INDEX_END) for path in weight_files(Path(folder))[:1]) or network_files(folder)
    # timm and its libraries raise many types of errors for damaged files.
    try:
        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=not parts)
        return model, load_weights(model, folder) if parts else None
    except CheckpointError:
        raise
    except Exception as error:
        raise InputError(
            f"expected a model of timm in the folder {folder!r}, got {type(error).__name__}: {error}: export it again, "
            "or name its config and checkpoint, CONFIG.py@CHECKPOINT"
        ) from error


def _classifier(
    timm: Any,
    source: str,
    name: str,
    checkpoint: str,
    model: nn.Module,
    loaded: Loaded | None = None,
    stated: StatedSettings = NOTHING_STATED,
    of_timm: Mapping[str, Any] | None = None,
) -> Classifier:
    check_classifier(model, source)
    of_timm = data_config(model) if of_timm is None else of_timm
    config = stated.over(of_timm, fixed_size(model))
    folder = name if source.startswith(FOLDER) else ""
    where = f"in the config.json of {folder!r}" if folder else f"in timm's settings of {name!r}"
    where = " and ".join(dict.fromkeys(stated.places[key] for key in ("mean", "std") if key in stated.places)) or where
    advice = "write into its pretrained_cfg" if folder else "wrap the model as python:MODULE:FUNCTION with"
    check_unit_range(config["mean"], config["std"], where, advice)
    normalize = Normalizer(config["mean"], config["std"])
    _, height, width = config["input_size"]
    model.eval()
    return Classifier(
        name="@".join(filter(None, (name, Path(checkpoint).stem))),
        source=source,
        network=model,
        forward=lambda images: model(normalize(images)),
        view=View((height, width), _interpolation(config["interpolation"])),
        protocol={
            "input": f"{height}x{width} {config['interpolation']}",
            "normalization": f"mean {config['mean']} std {config['std']}",
        },
        versions={"timm": metadata.version("timm")},
        training={**(loaded.facts if loaded else {}), **stated.facts(of_timm, config)}
        if checkpoint
        else _training(model),
        num_classes=_num_classes(model),
        class_names=_class_names(model) if not checkpoint else stated.class_names,
        # Random weights have no class order, so any order is valid.
        class_order="sorted" if checkpoint == RANDOM else class_order(loaded.content) if loaded else "",
        remarks=(
            *(loaded.remarks if loaded else folder_remarks(source.removeprefix(FOLDER))),
            *stated.told(of_timm, config, checkpoint),
        ),
    )


def told_settings(stated: StatedSettings, model: nn.Module, built: nn.Module, checkpoint: str) -> tuple[Remark, ...]:
    """Return the remark of :func:`load_timm` on the settings that a checkpoint states.

    Args:
        model: The model as timm builds it by its name.
        built: The model that the weights were loaded into, perhaps with another input size.
    """
    of_timm = data_config(model)
    return stated.told(of_timm, stated.over(of_timm, fixed_size(built)), checkpoint)


def data_config(model: nn.Module) -> dict[str, Any]:
    """Return timm's data config of a model, such as ``input_size``, ``mean``, ``std`` and ``interpolation``."""
    config: dict[str, Any] = require("timm.data", "cls").resolve_model_data_config(model)
    return config


def check_classifier(model: nn.Module, source: str) -> None:
    """Check that a model of timm has a classifier.

    Raises:
        InputError: The model has no classifier and returns features.
    """
    if getattr(model, "num_classes", None) == 0:
        raise InputError(
            f"expected a classifier, got {source}, which has no classifier: it gives features; name a model with a "
            "trained classifier"
        )


def _num_classes(model: Any) -> int | None:
    number = getattr(model, "num_classes", None)
    return number if isinstance(number, int) and number > 0 else None


def _class_names(model: Any) -> tuple[str, ...]:
    """Return the class names stored with the weights in a folder or on the hub; empty if there are none."""
    names = getattr(model, "pretrained_cfg", {}).get("label_names")
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def class_order(content: Mapping[str, Any]) -> str:
    """Return the order in which timm's training script numbered the class folders, from its checkpoint.

    timm's reader sorts folder names in natural order, torchvision's (``--dataset torch/folder``) as text. Other data
    sets and a ``--class-map`` do not number classes by folder names.

    Returns:
        ``'natural'`` or ``'sorted'``; empty if another script wrote the checkpoint or the order is not known.
    """
    # Other scripts write only some of these keys: PyTorch's ImageNet example writes `epoch` and `arch`.
    written = isinstance(content.get("arch"), str) and isinstance(content.get("version"), int) and "epoch" in content
    if not written:
        return ""
    args = content.get("args")
    args = vars(args) if isinstance(args, argparse.Namespace) else args if isinstance(args, Mapping) else {}
    if args.get("class_map"):
        return ""
    dataset = str(args.get("dataset") or "").lower()
    if dataset.startswith(("torch/", "torch:")):
        return "sorted" if dataset[len("torch/") :] in ("folder", "image_folder") else ""
    return "natural" if dataset in ("", "folder", "image_folder") else ""


def _training(model: Any) -> dict[str, str]:
    """Return the tag of timm's pretrained weights, as a fact about the model's training."""
    tag = model.pretrained_cfg.get("tag")
    return {"pretrained": str(tag)} if tag else {}


def _interpolation(name: str) -> str:
    # timm's settings contain 'random' if training chose the interpolation at random; bilinear is used then.
    return name if name in ("nearest", "bilinear", "bicubic", "lanczos") else "bilinear"


_SECONDS = 5.0


@contextmanager
def hub_asked_once() -> Iterator[str]:
    """Within the block, make the client of the Hugging Face hub use only its cache if the hub does not answer.

    Otherwise the client would retry for a minute. Its warnings are silenced, because they repeat the error that it
    raises.

    Yields:
        Why the hub does not answer; empty if it answers.
    """
    constants = require("huggingface_hub.constants", "cls")
    utils = require("huggingface_hub.utils", "cls")
    verbosity, offline = utils.logging.get_verbosity(), constants.HF_HUB_OFFLINE
    fault = "it is switched off by HF_HUB_OFFLINE" if offline else _fault(constants.ENDPOINT)
    utils.logging.set_verbosity_error()
    try:
        _switch(constants, utils, offline or bool(fault))
        yield f"no answer from {constants.ENDPOINT} ({fault})" if fault else ""
    finally:
        utils.logging.set_verbosity(verbosity)
        _switch(constants, utils, offline)


def _switch(constants: object, utils: object, offline: bool) -> None:
    """Switch the hub off or on, as HF_HUB_OFFLINE does at import."""
    constants.HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]
    # Client versions with `reset_sessions` read the setting only when they open a session.
    getattr(utils, "reset_sessions", lambda: None)()


def _fault(endpoint: str) -> str:
    """Return why there is no connection to the hub, or an empty string if it answers, even with an error."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        reason = getattr(error, "reason", error)
        return "" if isinstance(reason, ssl.SSLError) else str(reason)
    return ""
