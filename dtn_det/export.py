"""Trained classifiers in the formats of others: safetensors with timm's `config.json`, and ONNX."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dtn_det._optional import require
from dtn_det.checkpoints.state_dict import WeightsKind
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import ExportError, InputError
from dtn_det.layers import DTN
from dtn_det.robustness.classification.models.mmpretrain import load_mmpretrain
from dtn_det.training.config import load_config

# Largest difference of logits between a model and its export, in units of the largest logit.
TOLERANCE = 1e-4

# Arguments of mmpretrain's TimmClassifier that are none of timm's.
_CLASSIFIER_KEYS = ("type", "model_name", "loss", "train_cfg", "with_cp", "data_preprocessor", "init_cfg", "pretrained")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: Paths.
        architecture: What `config.json` names.
        differences: By format, the largest difference from the logits of the model, in units of the largest logit.
        remarks: What was decided as the checkpoint was read.
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
    """Write a trained classifier of mmpretrain as `model.safetensors` and `config.json`, and as `model.onnx`.

    A model of timm (``TimmClassifier``, also within ``ConvertedModel``) becomes a folder that
    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads, after ``import dtn_det.timm`` if it was converted.
    Others keep their own names: the weights serve as an ``init_cfg``, and `config.json` holds the config of the model.
    The inputs of the ONNX file are normalised images ``(B, 3, H, W)``, with the mean and deviation of `config.json`;
    its outputs are logits ``(B, classes)``. Each file is read again, and its logits are compared.

    Args:
        config: Path of the config.
        checkpoint: Path or URL of the weights.
        out: Folder, which is made.
        onnx: Write the ONNX file, too.
        image_size: ``(H, W)``, if the config does not say.
        weights: Of a file with an average, too: see :func:`dtn_det.checkpoints.load.load_weights`.

    Returns:
        What was written.

    Raises:
        ValueError: A config without a classifier, or no image size.
        CheckpointError: The checkpoint does not fit.
        ExportError: A file does not give the numbers of the model.
    """
    if image_size is not None and min(image_size) < 1:
        raise InputError(f"expected image_size of positive integers (H, W), got {image_size}: pass pixels")
    cfg = load_config(config)
    classifier = load_mmpretrain(f"{config}@{checkpoint}", 0, weights)
    network = classifier.network.eval()
    size = image_size or classifier.view.size or _size_in(cfg.model)
    if size is None:
        raise InputError(
            f"expected the image size in {config}, got a test pipeline and a model without: pass --image-size H W"
        )
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    forward = _Logits(network).eval()
    with torch.no_grad():
        expected = forward(images)
    out.mkdir(parents=True, exist_ok=True)
    differences = {}
    architecture, again = _write_weights(out, cfg, network, size)
    if again is not None:
        with torch.no_grad():
            differences["model.safetensors"] = _difference(again(images), expected)
    files = [out / "model.safetensors", out / "config.json"]
    if onnx:
        files.append(out / "model.onnx")
        differences["model.onnx"] = _difference(_write_onnx(files[-1], forward, images), expected)
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise ExportError(
                f"expected {name} to give the logits of the model within {TOLERANCE:g}, got a difference of "
                f"{difference:.1e}: do not use it"
            )
    return Exported(tuple(files), architecture, differences, classifier.remarks)


class _Logits(nn.Module):
    """Normalised images to logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, classes)``."""
        logits: Tensor = self.network(images, mode="tensor")
        return logits


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _size_in(settings: Any) -> tuple[int, int] | None:
    """Look for an image size in the config of a model."""
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


def _write_weights(out: Path, cfg: Any, network: nn.Module, size: tuple[int, int]) -> tuple[str, nn.Module | None]:
    """Write the weights and `config.json`; return the architecture and, of a model of timm, what timm reads again."""
    outer = cfg.model
    converted = outer.type == "ConvertedModel"
    inner = outer.model if converted else outer
    settings = _data_settings(cfg, size)
    if inner.type.rpartition(".")[2] != "TimmClassifier":
        return _write_own(out, cfg, network, settings), None
    timm = require("timm", "cls")
    from dtn_det.timm import BASES, without_origin

    kwargs = {key: _plain(value) for key, value in inner.items() if key not in _CLASSIFIER_KEYS}
    architecture = inner.model_name
    if converted:
        norm = _with_trained_options(_plain(outer.get("norm_cfg")) or {"type": "LN"}, network)
        kwargs.update(norm_cfg=norm, spt=outer.get("spt", False), lsa=outer.get("lsa", False))
        kwargs.update({} if inner.model_name in BASES else {"base": inner.model_name})
        architecture = f"dtn_{inner.model_name}" if inner.model_name in BASES else "dtn_converted"
    model = timm.create_model(architecture, **kwargs).eval()
    model.load_state_dict(network.get_submodule("model").state_dict())
    model.pretrained_cfg = without_origin({**model.pretrained_cfg, "architecture": architecture})
    timm.models.save_for_hf(model, str(out), safe_serialization=True, data_config=settings)
    _share(out)
    return architecture, timm.create_model(f"local-dir:{out}", pretrained=True).eval()


def _with_trained_options(norm: Any, network: nn.Module) -> Any:
    """Settings of norms that build what the network has, whose checkpoint may have brought other options."""
    found = next((module for module in network.modules() if isinstance(module, DTN)), None)
    settings = {"type": norm} if isinstance(norm, str) else dict(norm)
    if found is None or (settings.get("init") == "layernorm") == (not found.head_rms and not found.unbiased):
        return norm
    return {**settings, "init": "local", "head_rms": found.head_rms, "unbiased": found.unbiased}


def _write_own(out: Path, cfg: Any, network: nn.Module, settings: Mapping[str, Any]) -> str:
    backbone = cfg.model.get("backbone") or cfg.model
    content = {
        "architecture": str(backbone.type),
        "library": "mmpretrain",
        "model": _plain(cfg.model),
        "pretrained_cfg": settings,
    }
    (out / "config.json").write_text(json.dumps(content, indent=2, default=str) + "\n")
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    temporary = out / "model.safetensors.part"
    require("safetensors.torch", "cls").save_file(state, str(temporary), metadata={"format": "pt"})
    os.replace(temporary, out / "model.safetensors")
    _share(out)
    return str(backbone.type)


def _share(out: Path) -> None:
    """Let all read the weights who may read `config.json`; safetensors writes them for their owner."""
    (out / "model.safetensors").chmod((out / "config.json").stat().st_mode & 0o777)


def _data_settings(cfg: Any, size: tuple[int, int]) -> dict[str, Any]:
    """What timm's `config.json` says of the input: mean and deviation of values from 0 to 1."""
    preprocessor = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    inner = cfg.model.get("model") or {}
    preprocessor = preprocessor or inner.get("data_preprocessor") or {}
    mean, std = (preprocessor.get(key) or default for key, default in (("mean", (0.0,) * 3), ("std", (255.0,) * 3)))
    return {
        "input_size": (3, *size),
        "mean": tuple(value / 255 for value in mean),
        "std": tuple(value / 255 for value in std),
        "crop_pct": 1.0,
    }


def _plain(value: Any) -> Any:
    """A config as plain dictionaries and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _write_onnx(path: Path, forward: nn.Module, images: Tensor) -> Tensor:
    """Export, read again, and give the logits of the file for the images."""
    require("onnxscript", "export")
    runtime = require("onnxruntime", "export")
    temporary = path.with_suffix(".part.onnx")
    program = torch.onnx.export(
        forward,
        (images,),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    assert program is not None  # with dynamo=True there is a program
    program.save(str(temporary))
    os.replace(temporary, path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(logits)
