"""Models of timm: ``timm:NAME``, pretrained, ``timm:NAME@FILE``, ``timm:NAME@random``, ``timm:local-dir:FOLDER``."""

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
from dtn_det.checkpoints.load import Loaded, load_weights
from dtn_det.checkpoints.state_dict import WeightsKind
from dtn_det.errors import ClassCountError, InputError, MisfitError
from dtn_det.robustness.classification.models.classifier import Classifier, Normalizer, View

RANDOM = "random"
"""In place of a checkpoint: random weights, always the same."""

_FOLDER = "timm:local-dir:"
_SUGGESTED = 5


def load_timm(source: str, num_classes: int, weights: WeightsKind | None = None) -> Classifier:
    """Build a model of timm.

    A model of another input size than the images resizes them, with the interpolation that timm names for it; the crop
    that its own evaluation would do is done already.

    Args:
        source: ``timm:NAME``, ``timm:NAME@FILE``, ``timm:NAME@random`` or ``timm:local-dir:FOLDER``.
        num_classes: Number of classes of the data set.
        weights: Which weights to take where a file holds an average too: see
            :func:`dtn_det.checkpoints.load.load_weights`.

    Raises:
        ValueError: timm has no such model, its weights are not at hand, or the folder has none.
        CheckpointError: The checkpoint does not fit.
    """
    timm = require("timm", "cls")
    import dtn_det.timm  # noqa: F401  registers the models with DTN

    if source.startswith(_FOLDER):
        folder = source.removeprefix(_FOLDER)
        return _classifier(timm, source, Path(folder).resolve().name, "", _of_folder(timm, folder))
    name, at, checkpoint = source.removeprefix("timm:").partition("@")
    if at and not checkpoint:
        raise InputError(f"expected a file or {RANDOM!r} after '@' in {source!r}, got nothing: leave the '@' out")
    check_name(name)
    loaded = None
    if checkpoint:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = timm.create_model(name, pretrained=False, num_classes=num_classes)
        if checkpoint != RANDOM:
            loaded = _load_classes(model, checkpoint, num_classes, weights)
    else:
        model = _pretrained(timm, name)
    return _classifier(timm, source, name, checkpoint, model, loaded)


def check_name(name: str) -> None:
    """Check that timm has a model of a name, and pretrained weights of its tag if it has one.

    Raises:
        ValueError: It has not; the message has names that look like it.
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
    """A question for those that may be meant, or nothing."""
    longer = [other for other in known if name and other.startswith(name.lower())]
    found = [*longer[:_SUGGESTED], *difflib.get_close_matches(name.lower(), known, _SUGGESTED)]
    return f"did you mean {', '.join(dict.fromkeys(found[:_SUGGESTED]))}?" if found else ""


def _load_classes(model: nn.Module, checkpoint: str, num_classes: int, weights: WeightsKind | None) -> Loaded:
    """Load a checkpoint, with an error of its own where it has another number of classes.

    Raises:
        ClassCountError: It has.
        CheckpointError: It does not fit otherwise.
    """
    advice = "name the model that the checkpoint was written for"
    try:
        return load_weights(model, checkpoint, weights=weights, advice=advice)
    except MisfitError as error:
        if error.num_classes not in (None, num_classes):
            raise ClassCountError(checkpoint, error.num_classes, num_classes) from None
        raise


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


def _of_folder(timm: Any, folder: str) -> nn.Module:
    if not folder or not (Path(folder) / "config.json").is_file():
        raise InputError(
            f"expected a folder that `dtn-det export` or timm has written after {_FOLDER!r}, got {folder!r} without a "
            "config.json: name another"
        )
    # Whatever is wrong with the files.
    try:
        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except Exception as error:
        raise InputError(
            f"expected a model of timm in the folder {folder!r}, got {type(error).__name__}: {error}: export it again, "
            "or name its config and checkpoint, CONFIG.py@CHECKPOINT"
        ) from error
    return model


def _classifier(
    timm: Any, source: str, name: str, checkpoint: str, model: nn.Module, loaded: Loaded | None = None
) -> Classifier:
    config = require("timm.data", "cls").resolve_model_data_config(model)
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
        training=(loaded.facts if loaded else {}) if checkpoint else _training(model),
        num_classes=_num_classes(model),
        class_names=_class_names(model),
        # Random weights know no classes.
        class_order="sorted" if checkpoint == RANDOM else class_order(loaded.content) if loaded else "",
        remarks=loaded.remarks if loaded else (),
    )


def _num_classes(model: Any) -> int | None:
    number = getattr(model, "num_classes", None)
    return number if isinstance(number, int) and number > 0 else None


def _class_names(model: Any) -> tuple[str, ...]:
    """Names of the classes where the folder or the hub that the weights are from names them."""
    names = getattr(model, "pretrained_cfg", {}).get("label_names")
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def class_order(content: Mapping[str, Any]) -> str:
    """Return how the training that wrote a checkpoint numbered folders of classes, where it was timm's script.

    timm's own reader of folders sorts their names naturally, torchvision's (``--dataset torch/folder``) as text; the
    classes of other data sets, and those of a ``--class-map``, have no order of names.

    Args:
        content: What the checkpoint holds.

    Returns:
        ``'natural'``, ``'sorted'``, or nothing where that is not known.
    """
    # Other scripts write some of these, ImageNet's example of PyTorch `epoch` and `arch`, but not all.
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
    """Which of timm's pretrained weights these are."""
    tag = model.pretrained_cfg.get("tag")
    return {"pretrained": str(tag)} if tag else {}


def _interpolation(name: str) -> str:
    # timm's 'random' is for training.
    return name if name in ("nearest", "bilinear", "bicubic", "lanczos") else "bilinear"


_SECONDS = 5.0


@contextmanager
def hub_asked_once() -> Iterator[str]:
    """Let the hub's client take what it has kept if the hub does not answer, instead of asking again for a minute.

    Its warnings are held back meanwhile, for what it raises in the end says the same.

    Yields:
        Why the hub does not answer, or nothing.
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
    """Switch the hub off or on, as the variable HF_HUB_OFFLINE does, which is read only once."""
    constants.HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]
    # Sessions hold what they were begun with; later versions of the client ask each time.
    getattr(utils, "reset_sessions", lambda: None)()


def _fault(endpoint: str) -> str:
    """Return why there is no connection, or an empty string where the hub answers, if only with an error."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        reason = getattr(error, "reason", error)
        return "" if isinstance(reason, ssl.SSLError) else str(reason)
    return ""
