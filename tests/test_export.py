"""Exports of trained classifiers: what others read gives the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmpretrain.models")
pytest.importorskip("timm")

import timm
from mmengine.registry import DefaultScope
from safetensors.torch import load_file

import dtn_det.timm  # noqa: F401  registers the models
from dtn_det import export
from dtn_det.cli.main import main
from dtn_det.errors import CheckpointError

_VIT = """dict(type="TimmClassifier", model_name="vit_small_patch16_224", img_size=32, patch_size=4, embed_dim=24,
    depth=2, num_heads=3, num_classes=5, drop_path_rate=0.1)"""
_CONVERTED = f"""dict(type="ConvertedModel", model={_VIT}, norm_cfg=dict(type="dtn", init="local", layers="blocks"))"""
_OTHER_BASE = _CONVERTED.replace("vit_small_patch16_224", "vit_medium_patch16_gap_256").replace("dtn", "bn")
_SWIN = """dict(type="ImageClassifier", backbone=dict(type="mmdet.DTNSwinTransformer", pretrain_img_size=32,
    embed_dims=16, patch_size=4, strides=(4, 2), depths=(1, 1), num_heads=(2, 4), window_size=4, out_indices=(1,),
    dtn_stages=(0, 1)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=5, in_channels=32, loss=dict(type="CrossEntropyLoss")))"""


def write_run(folder: Path, model: str) -> tuple[str, str]:
    """A config and the checkpoint of weights drawn at random."""
    config = folder / "config.py"
    config.write_text(
        'custom_imports = dict(imports=["dtn_det"])\ndefault_scope = "mmpretrain"\n'
        f"model = {model}\n"
        "data_preprocessor = dict(num_classes=5, mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True)\n"
        'test_dataloader = dict(dataset=dict(pipeline=[dict(type="LoadImageFromFile"), dict(type="PackInputs")]))\n'
    )
    from mmengine.config import Config
    from mmengine.registry import MODELS

    with DefaultScope.overwrite_default_scope("mmpretrain"):
        network = MODELS.build(Config.fromfile(config).model)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({"state_dict": network.state_dict()}, folder / "weights.pth")
    return str(config), str(folder / "weights.pth")


@pytest.mark.parametrize(
    ("model", "architecture"),
    [(_VIT, "vit_small_patch16_224"), (_CONVERTED, "dtn_vit_small_patch16_224"), (_OTHER_BASE, "dtn_converted")],
)
def test_a_folder_for_timm(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, architecture: str) -> None:
    run = write_run(tmp_path, model)
    assert main(["export", *run, "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"architecture: {architecture}"
    assert "model.safetensors (logits within 0.0e+00 of the model's)" in lines[1]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_classes"] == 5
    # Whose weights timm's are says nothing about these.
    assert not {"tag", "license", "hf_hub_id", "url"} & set(config["pretrained_cfg"])
    weights = tmp_path / "out" / "model.safetensors"
    assert weights.stat().st_mode == (tmp_path / "out" / "config.json").stat().st_mode
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert config["pretrained_cfg"]["mean"] == pytest.approx([125.3 / 255, 123 / 255, 113.9 / 255])
    assert timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)(torch.randn(1, 3, 32, 32)).shape == (
        1,
        5,
    )


def test_weights_of_our_own_backbone(tmp_path: Path) -> None:
    config, checkpoint = write_run(tmp_path, _SWIN)
    exported = export.export_classifier(config, checkpoint, tmp_path / "out")
    assert exported.architecture == "mmdet.DTNSwinTransformer"
    saved, state = load_file(tmp_path / "out" / "model.safetensors"), torch.load(checkpoint)["state_dict"]
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], state[name]) for name in state)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model"]["backbone"]["window_size"] == 4


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(_CONVERTED.replace("norm_cfg", "spt=True, lsa=True, norm_cfg"), id="vit"),
        pytest.param(_SWIN, id="swin", marks=pytest.mark.slow),
    ],
)
def test_onnx_gives_the_logits_for_any_number_of_images(tmp_path: Path, model: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    exported = export.export_classifier(*write_run(tmp_path, model), tmp_path / "out", onnx=True)
    assert exported.differences["model.onnx"] < 1e-5
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        (logits,) = session.run(None, {"images": torch.randn(count, 3, 32, 32).numpy()})
        assert logits.shape == (count, 5)


def test_what_cannot_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, checkpoint = write_run(tmp_path, _SWIN.replace("pretrain_img_size=32,", ""))
    Path(config).write_text(Path(config).read_text().replace("depths=(1, 1)", "depths=(1, 2)"))
    with pytest.raises(CheckpointError, match="missing"):
        export.export_classifier(config, checkpoint, tmp_path / "out")

    config, checkpoint = write_run(tmp_path, _SWIN.replace("pretrain_img_size=32,", ""))
    assert main(["export", config, checkpoint, "--out", str(tmp_path / "out")]) == 1
    assert "expected the image size" in capsys.readouterr().err
    assert main(["export", config, checkpoint, "--out", str(tmp_path / "out"), "--image-size", "40", "24"]) == 0

    assert main(["export", config, checkpoint, "--out", str(tmp_path / "out"), "--image-size", "0", "24"]) == 1
    assert "expected image_size of positive integers (H, W), got (0, 24): pass pixels" in capsys.readouterr().err

    def wrong(*args: Any) -> torch.Tensor:
        return torch.full((2, 5), 7.0)

    monkeypatch.setattr(export, "_write_onnx", wrong)
    with pytest.raises(
        export.ExportError, match=r"expected model\.onnx to give the logits of the model within 0\.0001"
    ):
        export.export_classifier(config, checkpoint, tmp_path / "out", onnx=True, image_size=(32, 32))
