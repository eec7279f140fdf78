"""Export of trained classifiers as safetensors with timm's `config.json`, and as ONNX.

:func:`export_classifier` exports a config of mmpretrain with a checkpoint. :func:`export_model` exports a model of timm
that the user's own program has built, converted and trained.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det._optional import require
from dtn_det.checkpoints.load import fit_weights, inner_model
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.conversion.config import norm_settings
from dtn_det.datasets.remarks import Remark, counted
from dtn_det.errors import ExportError, InputError
from dtn_det.layers import DTN
from dtn_det.robustness.classification.models.classifier import View, channel_values
from dtn_det.robustness.classification.models.mmpretrain import configured_view, load_mmpretrain
from dtn_det.training.config import load_config

TOLERANCE = 1e-4
"""Largest allowed difference of logits between a model and its export, in units of the largest logit."""

# Arguments of mmpretrain's TimmClassifier that are not passed on to timm.
_CLASSIFIER_KEYS = ("type", "model_name", "loss", "train_cfg", "with_cp", "data_preprocessor", "init_cfg", "pretrained")


# Arguments of timm.create_model that set the origin of the weights.
_STARTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


@dataclass(frozen=True)
class Exported:
    """The files that an export wrote.

    Attributes:
        architecture: Name of the model in `config.json`.
        differences: For each format, the largest difference from the logits of the model, relative to the largest
            logit.
        remarks: Remarks for the user on how the checkpoint was read.
    """

    files: tuple[Path, ...]
    architecture: str
    differences: Mapping[str, float]
    remarks: tuple[Remark, ...] = ()


def export_classifier(
    config: str,
    checkpoint: str,
    out: Path,
    *,
    onnx: bool = False,
    image_size: tuple[int, int] | None = None,
    weights: WeightsKind | None = None,
) -> Exported:
    """Write a trained classifier of mmpretrain as safetensors with `config.json`, and on request as ONNX.

    A model of timm (``TimmClassifier``, also within ``ConvertedModel``) becomes a folder that
    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` can read, after ``import dtn_det.timm`` if the model was
    converted. Other models keep the names of their weights, so that the file can be an ``init_cfg``; `config.json` then
    contains the config of the model.

    The inputs of the ONNX file are normalised images ``(B, 3, H, W)``, with the mean and deviation in `config.json`.
    Its outputs are logits ``(B, classes)``.

    Before the files are moved into the folder, the files for timm and ONNX are read again, and their logits are
    compared with the logits of the model.

    Args:
        checkpoint: Path or URL of the weights.
        out: Folder for the files; created if absent.
        image_size: ``(H, W)``; by default the size in the config's test pipeline, or otherwise in its model.
        weights: Kind of weights to take from a file with an average, see :func:`dtn_det.checkpoints.load.load_weights`.

    Raises:
        InputError: The config has no classifier, or there is no image size in the config or the arguments.
        CheckpointError: The checkpoint does not fit.
        ExportError: A file does not reproduce the logits of the model.
    """
    _check_size(image_size)
    cfg = load_config(config)
    if cfg.get("model") is None:
        raise InputError(f"expected a config of mmpretrain with a `model`, got {config} without: name another")
    view = configured_view(cfg, config)
    size = image_size or (view.size if view else None) or _size_in(cfg.model)
    if size is None:
        raise InputError(
            f"expected the image size in {config}, got none in its test pipeline and its model: pass --image-size H W"
        )
    classifier = load_mmpretrain(f"{config}@{checkpoint}", 0, weights, view=view or View(size))
    network = classifier.network.eval()
    # C x H x W
    shape = (_channels_in(cfg.model), *size)
    settings = _data_settings(cfg, shape)
    names = classifier.class_names if classifier.num_classes in (None, len(classifier.class_names)) else ()

    def write(folder: Path) -> tuple[str, nn.Module | None]:
        inner = cfg.model.model if cfg.model.type == "ConvertedModel" else cfg.model
        if inner.type.rpartition(".")[2] != "TimmClassifier":
            return _write_own(folder, cfg, network, settings, names), None
        recipe = _Recipe(
            inner.model_name,
            {key: _plain(value) for key, value in inner.items() if key not in _CLASSIFIER_KEYS},
            *((_plain(cfg.model.get(key)) for key in ("norm_cfg", "spt", "lsa")) if inner is not cfg.model else ()),
        )
        return _write_for_timm(folder, network.get_submodule("model"), recipe, settings, names)

    return _export(_Logits(network, mode="tensor"), write, out, shape, onnx, classifier.remarks)


def export_model(
    model: nn.Module,
    out: Path,
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    norm_cfg: Mapping[str, Any] | str | None = None,
    spt: bool = False,
    lsa: bool = False,
    onnx: bool = False,
    image_size: tuple[int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    class_names: Sequence[str] | None = None,
) -> Exported:
    """Write a model of timm that your own program has built, converted and trained, without changing the model.

    The files are the same as for :func:`export_classifier`. To write them, the function builds the model again from the
    original arguments and loads the weights into it. Both models must produce the same logits.

    Args:
        model: The model, perhaps compiled or in a wrapper for several processes.
        out: Folder for the files; created if absent.
        name: Name that was passed to ``timm.create_model``. Names of :mod:`dtn_det.timm` are possible too.
        arguments: Further arguments that were passed to ``timm.create_model``, as values that JSON supports.
        norm_cfg: Conversion of the norms: ``type``, the name that was passed to :func:`dtn_det.convert_norm`, and its
            further arguments. A name alone stands for ``dict(type=name)``. None if the norms were not converted.
        spt: True if :func:`dtn_det.convert_tokenization` was called.
        lsa: True if :func:`dtn_det.convert_attention` was called.
        image_size: ``(H, W)``; by default the size for which timm has built the model.
        mean: Mean by which the inputs were normalised in training, for values from 0 to 1: one for each channel of the
            model, or one for all. By default the mean in timm's settings of the model.
        std: Standard deviation by which the inputs were normalised, in the same form.
        class_names: Name of each output, in the order of the outputs, such as the names of the folders of images. By
            default the names in timm's settings of the model, if it has any.

    Raises:
        InputError: An argument does not fit, or timm's mean or deviation has another number of channels.
        CheckpointError: The model built from the arguments has other weights.
        ExportError: A file does not reproduce the logits of the model.

    Example:
        >>> model = convert_norm(timm.create_model("vit_tiny_patch16_224", num_classes=10), "dtn")
        >>> export_model(model, Path("exported"), "vit_tiny_patch16_224", dict(num_classes=10), norm_cfg="dtn")
    """
    _check_size(image_size)
    of_model = {key: value for key, value in (arguments or {}).items() if key not in _STARTS}
    recipe = _Recipe(name, of_model, norm_settings(norm_cfg) or None, spt, lsa)
    try:
        json.dumps([recipe.arguments, recipe.norm_cfg])
    except TypeError as error:
        raise InputError(
            f"expected arguments and norm_cfg of plain values, which config.json can hold, got one that it cannot "
            f"({error}): write layers as a regular expression"
        ) from error
    # A copy in evaluation mode on the CPU, so that the model's training can continue.
    network = copy.deepcopy(inner_model(model)).cpu().float().eval()
    known = dict(getattr(network, "pretrained_cfg", None) or {})
    size = image_size or _size_in(recipe.arguments) or tuple(known.get("input_size", ())[1:])
    if len(size) != 2:
        raise InputError(f"expected the image size of {name}, got none in timm's settings: pass image_size=(H, W)")
    names = known.get("label_names") or () if class_names is None else class_names
    if isinstance(names, str) or len(names) != getattr(network, "num_classes", len(names)):
        if class_names is not None:
            raise InputError(
                f"expected the names of {network.num_classes} classes, got {class_names!r}: name each output"
            )
        names = ()
    twice = sorted({str(one) for one in class_names or () if list(class_names or ()).count(one) > 1})
    if twice:
        raise InputError(
            f"expected each name once in class_names, got {', '.join(map(repr, twice))} more than once: give each "
            "output the name of its own class"
        )
    channels = int(recipe.arguments.get("in_chans", 3))
    settings = {
        "input_size": (channels, *size),
        **channel_values({"mean": mean, "std": std}, known, channels),
        "crop_pct": known.get("crop_pct", 1.0),
        "interpolation": known.get("interpolation", "bicubic"),
    }
    return _export(
        _Logits(network),
        lambda folder: _write_for_timm(folder, network, recipe, settings, names),
        out,
        (channels, *size),
        onnx,
    )


@dataclass(frozen=True)
class _Recipe:
    """A model of timm by its name, its arguments, and the conversions applied to it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    norm_cfg: Any = None
    spt: bool | None = None
    lsa: bool | None = None

    def architecture(self, network: nn.Module) -> tuple[str, dict[str, Any]]:
        """Return the name and the arguments with which ``timm.create_model`` builds the network."""
        from dtn_det.timm import BASES

        arguments = dict(self.arguments)
        if self.name.startswith("dtn_"):
            arguments["norm_cfg"] = _with_trained_options(arguments.get("norm_cfg") or {"type": "dtn"}, network)
            return self.name, arguments
        if not (self.norm_cfg or self.spt or self.lsa):
            return self.name, arguments
        norm = _with_trained_options(self.norm_cfg or {"type": "LN"}, network)
        arguments.update(norm_cfg=norm, spt=bool(self.spt), lsa=bool(self.lsa))
        if self.name in BASES:
            return f"dtn_{self.name}", arguments
        return "dtn_converted", {**arguments, "base": self.name}


def _check_size(image_size: tuple[int, int] | None) -> None:
    if image_size is not None and min(image_size) < 1:
        raise InputError(f"expected image_size of positive integers (H, W), got {image_size}: pass pixels")


def _export(
    forward: nn.Module,
    write: Callable[[Path], tuple[str, nn.Module | None]],
    out: Path,
    shape: tuple[int, ...],
    onnx: bool,
    remarks: tuple[Remark, ...] = (),
) -> Exported:
    """Write the files, compare their logits with the model's, and move the files into ``out``."""
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", suffix=".tmp", dir=out) as temporary:
            architecture, differences = _write_and_compare(forward, write, Path(temporary), shape, onnx)
            # config.json comes last: timm looks for it first, so a folder with this file is complete.
            names = sorted((path.name for path in Path(temporary).iterdir()), key=lambda name: name == "config.json")
            for name in names:
                os.replace(Path(temporary) / name, out / name)
    except BaseException:
        if made and not any(out.iterdir()):
            out.rmdir()
        raise
    files = [out / "model.safetensors", out / "config.json", *([out / "model.onnx"] if onnx else [])]
    return Exported(tuple(files), architecture, differences, remarks)


def _write_and_compare(
    forward: nn.Module,
    write: Callable[[Path], tuple[str, nn.Module | None]],
    folder: Path,
    shape: tuple[int, ...],
    onnx: bool,
) -> tuple[str, dict[str, float]]:
    """Write the files; return the architecture, and for each file the difference from the model's logits."""
    architecture, again = write(folder)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    forward.eval()
    differences = {}
    with torch.no_grad():
        expected = forward(images)
        if again is not None:
            differences["model.safetensors"] = _difference(again(images), expected)
    if onnx:
        differences["model.onnx"] = _difference(_write_onnx(folder / "model.onnx", forward, images), expected)
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise ExportError(
                f"expected {name} to give the logits of the model within {TOLERANCE:g}, got a difference of "
                f"{difference:.1e}: nothing was written"
            )
    return architecture, differences


class _Logits(nn.Module):
    """Maps normalised images ``(B, C, H, W)`` to logits ``(B, classes)``."""

    def __init__(self, network: nn.Module, **arguments: str) -> None:
        super().__init__()
        self.network = network
        self.arguments = arguments

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, **self.arguments)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _size_in(settings: Any) -> tuple[int, int] | None:
    """Return the image size in the config or arguments of a model; None if there is none."""
    if isinstance(settings, Mapping):
        for name in ("img_size", "pretrain_img_size"):
            value = settings.get(name)
            if isinstance(value, int):
                return value, value
            if isinstance(value, list | tuple) and len(value) == 2:
                return int(value[0]), int(value[1])
        found = (_size_in(value) for value in settings.values())
        return next((size for size in found if size is not None), None)
    return None


def _write_for_timm(
    out: Path, network: nn.Module, recipe: _Recipe, settings: Mapping[str, Any], names: Sequence[str]
) -> tuple[str, nn.Module]:
    """Write the weights and `config.json`; return the architecture, and the model that timm reads from these files."""
    timm = require("timm", "cls")
    from dtn_det.timm import without_origin

    architecture, arguments = recipe.architecture(network)
    model = timm.create_model(architecture, **arguments).eval()
    advice = "pass the name and the arguments with which it was built and converted"
    model.load_state_dict(fit_weights(model, network.state_dict(), "the model", advice=advice).state, strict=False)
    model.pretrained_cfg = without_origin({**model.pretrained_cfg, "architecture": architecture})
    timm.models.save_for_hf(
        model,
        str(out),
        {"label_names": list(names)} if names else None,
        safe_serialization=True,
        data_config=dict(settings),
        model_args=arguments,
    )
    _share(out)
    return architecture, timm.create_model(f"local-dir:{out}", pretrained=True).eval()


def _with_trained_options(norm: Any, network: nn.Module) -> Any:
    """Return the norm settings with the DTN options of the network, which its checkpoint may have changed."""
    found = next((module for module in network.modules() if isinstance(module, DTN)), None)
    settings = {"type": norm} if isinstance(norm, str) else dict(norm)
    if found is None or (settings.get("init") == "layernorm") == (not found.head_rms and not found.unbiased):
        return norm
    return {**settings, "init": "local", "head_rms": found.head_rms, "unbiased": found.unbiased}


def _write_own(out: Path, cfg: Any, network: nn.Module, settings: Mapping[str, Any], names: Sequence[str]) -> str:
    backbone = cfg.model.get("backbone") or cfg.model
    content = {
        "architecture": str(backbone.type),
        "library": "mmpretrain",
        "model": _plain(cfg.model),
        "pretrained_cfg": settings,
        **({"label_names": list(names)} if names else {}),
    }
    (out / "config.json").write_text(json.dumps(content, indent=2, default=str) + "\n")
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    require("safetensors.torch", "cls").save_file(state, str(out / "model.safetensors"), metadata={"format": "pt"})
    _share(out)
    return str(backbone.type)


def _share(out: Path) -> None:
    """Give the weights the file permissions of `config.json`. safetensors makes files readable by their owner only."""
    (out / "model.safetensors").chmod((out / "config.json").stat().st_mode & 0o777)


def _channels_in(model: Any) -> int:
    """Return the number of channels of a classifier's input images, according to its config."""
    inner = model.get("model") or model
    backbone = inner.get("backbone") or {}
    return int(inner.get("in_chans") or backbone.get("in_chans") or backbone.get("in_channels") or 3)


def _data_settings(cfg: Any, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return timm's settings of the input: size, mean and deviation, for values from 0 to 1."""
    preprocessor = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    inner = cfg.model.get("model") or {}
    preprocessor = preprocessor or inner.get("data_preprocessor") or {}
    mean, std = (preprocessor.get(key) or default for key, default in (("mean", (0.0,)), ("std", (255.0,))))
    channels = shape[0]
    if not {len(mean), len(std)} <= {1, channels}:
        raise InputError(
            f"expected mean and std of {counted(channels, 'value')} in the data_preprocessor for a model of "
            f"{counted(channels, 'channel')}, got {list(mean)} and {list(std)}: name those of the training there"
        )
    return {
        "input_size": shape,
        "mean": tuple(value / 255 for value in mean) * (channels if len(mean) == 1 else 1),
        "std": tuple(value / 255 for value in std) * (channels if len(std) == 1 else 1),
        "crop_pct": 1.0,
    }


def _plain(value: Any) -> Any:
    """Return a config as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _write_onnx(path: Path, forward: nn.Module, images: Tensor) -> Tensor:
    """Write the ONNX file, read it again, and return its logits for the images."""
    require("onnxscript", "export")
    runtime = require("onnxruntime", "export")
    program = torch.onnx.export(
        forward,
        (images,),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    assert program is not None  # not None with dynamo=True
    program.save(str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(logits)
