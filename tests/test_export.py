"""Exports of trained classifiers: what others read gives the same logits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("mmpretrain.models")
pytest.importorskip("timm")

import timm
from mmengine.registry import DefaultScope
from PIL import Image
from safetensors.torch import load_file

import dtn_det.timm  # noqa: F401  registers the models
from dtn_det import export
from dtn_det.cli.main import main
from dtn_det.conversion.config import convert
from dtn_det.errors import CheckpointError, ExportError, InputError
from dtn_det.robustness.classification.models.mmpretrain import load_mmpretrain
from dtn_det.robustness.store import Store

_VIT = """dict(type="TimmClassifier", model_name="vit_small_patch16_224", img_size=32, patch_size=4, embed_dim=24,
    depth=2, num_heads=3, num_classes=5, drop_path_rate=0.1)"""
_CONVERTED = f"""dict(type="ConvertedModel", model={_VIT}, norm_cfg=dict(type="dtn", init="local", layers="blocks"))"""
_OTHER_BASE = _CONVERTED.replace("vit_small_patch16_224", "vit_medium_patch16_gap_256").replace("dtn", "bn")
_SWIN = """dict(type="ImageClassifier", backbone=dict(type="mmdet.DTNSwinTransformer", pretrain_img_size=32,
    embed_dims=16, patch_size=4, strides=(4, 2), depths=(1, 1), num_heads=(2, 4), window_size=4, out_indices=(1,),
    dtn_stages=(0, 1)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=5, in_channels=32, loss=dict(type="CrossEntropyLoss")))"""

_PIPELINE = 'test_dataloader = dict(dataset=dict(pipeline=[dict(type="LoadImageFromFile"), dict(type="PackInputs")]))\n'


def write_run(folder: Path, model: str, pipeline: bool = True) -> tuple[str, str]:
    """A config and the checkpoint of weights drawn at random."""
    config = folder / "config.py"
    config.write_text(
        'custom_imports = dict(imports=["dtn_det"])\ndefault_scope = "mmpretrain"\n'
        f"model = {model}\n"
        "data_preprocessor = dict(num_classes=5, mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True)\n"
        + _PIPELINE
        * pipeline
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


@pytest.mark.parametrize("values", [("[125.3]", "[63.0]"), ("[1, 2, 3]", "[63.0]")])
def test_a_config_of_grey_images(tmp_path: Path, values: tuple[str, str]) -> None:
    config, checkpoint = write_run(tmp_path, _CONVERTED.replace("img_size=32", "in_chans=1, img_size=32"))
    text = Path(config).read_text().replace("[125.3, 123.0, 113.9]", values[0]).replace("[63.0, 62.1, 66.7]", values[1])
    Path(config).write_text(text.replace(", to_rgb=True", ""))
    if values[0] != "[125.3]":
        with pytest.raises(
            InputError, match=r"expected mean and std of 1 value in the data_preprocessor .* got \[1, 2, 3\]"
        ):
            export.export_classifier(config, checkpoint, tmp_path / "out")
        return
    assert export.export_classifier(config, checkpoint, tmp_path / "out").differences == {"model.safetensors": 0.0}
    told = json.loads((tmp_path / "out" / "config.json").read_text())["pretrained_cfg"]
    assert told["input_size"] == [1, 32, 32]
    assert told["mean"] + told["std"] == pytest.approx([125.3 / 255, 63 / 255])


def test_weights_of_our_own_backbone(tmp_path: Path) -> None:
    # The model tells its size, so a config without a test pipeline serves too.
    config, checkpoint = write_run(tmp_path, _SWIN, pipeline=False)
    exported = export.export_classifier(config, checkpoint, tmp_path / "out")
    assert exported.architecture == "mmdet.DTNSwinTransformer"
    saved, state = load_file(tmp_path / "out" / "model.safetensors"), torch.load(checkpoint)["state_dict"]
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], state[name]) for name in state)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model"]["backbone"]["window_size"] == 4


_SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


def small_vit(**arguments: Any) -> torch.nn.Module:
    model = timm.create_model("vit_tiny_patch16_224", **_SMALL, **arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


class TestModels:
    @pytest.mark.parametrize(
        ("conversions", "architecture"),
        [
            ({}, "vit_tiny_patch16_224"),
            ({"norm_cfg": "dtn"}, "dtn_vit_tiny_patch16_224"),
            ({"norm_cfg": {"type": "dtn", "init": "local", "layers": "blocks"}, "lsa": True, "spt": True},
             "dtn_vit_tiny_patch16_224"),
            ({"norm_cfg": "rmsnorm"}, "dtn_vit_tiny_patch16_224"),
        ],
    )  # fmt: skip
    def test_a_model_of_a_program_of_ones_own(
        self, tmp_path: Path, conversions: dict[str, Any], architecture: str
    ) -> None:
        model = convert(small_vit(), **conversions).train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        exported = export.export_model(model, tmp_path, "vit_tiny_patch16_224", _SMALL, std=(0.2,) * 3, **conversions)
        assert (exported.architecture, exported.differences) == (architecture, {"model.safetensors": 0.0})
        assert model.training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        told = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
        assert (told["input_size"], told["mean"], told["std"]) == ([3, 32, 32], [0.5] * 3, [0.2] * 3)
        again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
        images = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(again(images), model.eval()(images), rtol=0, atol=0)

    @pytest.mark.parametrize(
        "values", [((0.4,), (0.2,)), (None, None), ((0.5,) * 3, (0.5,) * 3), (0.4, (0.2,)), ((0.4,), (0.0,))]
    )
    def test_a_model_of_grey_images(self, tmp_path: Path, values: tuple[Any, Any]) -> None:
        arguments = {**_SMALL, "in_chans": 1}
        model = convert(small_vit(in_chans=1), "dtn").eval()

        def write() -> None:
            mean, std = values
            export.export_model(
                model, tmp_path / "out", "vit_tiny_patch16_224", arguments, norm_cfg="dtn", mean=mean, std=std
            )

        message = {
            None: "expected mean and std of 1 value for a model of 1 channel, got timm's 3: pass mean=(m,) and "
            "std=(s,), those of your training",
            (0.5,) * 3: "got mean=(0.5, 0.5, 0.5) and std=(0.5, 0.5, 0.5): pass mean=(m,)",
            0.4: "expected mean of 1 value for a model of 1 channel, got mean=0.4: pass mean=(m,), that of",
            (0.4,): "std above 0, got (0.4,) and (0.0,)",
        }[values[0]]
        if values != ((0.4,), (0.2,)):
            with pytest.raises(InputError, match=re.escape(message)):
                write()
            assert not (tmp_path / "out").exists()
            return
        write()
        told = json.loads((tmp_path / "out" / "config.json").read_text())["pretrained_cfg"]
        assert (told["input_size"], told["mean"], told["std"]) == ([1, 32, 32], [0.4], [0.2])
        images = torch.randn(2, 1, 32, 32)
        with torch.no_grad():
            again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()(images)
            torch.testing.assert_close(again, model(images), rtol=0, atol=0)

    def test_channels_left_out_of_the_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="Pass the name and the arguments with which it was built"):
            export.export_model(small_vit(in_chans=1), tmp_path / "out", "vit_tiny_patch16_224", _SMALL)
        assert not (tmp_path / "out").exists()

    def test_one_value_stands_for_all_channels(self, tmp_path: Path) -> None:
        export.export_model(small_vit(), tmp_path, "vit_tiny_patch16_224", _SMALL, mean=(0.4,), std=[0.1, 0.2, 0.3])
        told = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
        assert (told["mean"], told["std"]) == ([0.4] * 3, [0.1, 0.2, 0.3])

    def test_values_of_pixels_up_to_255_are_refused_with_those_that_work(self, tmp_path: Path) -> None:
        values = {"mean": (127.5,) * 3, "std": (51.0,)}
        message = "pass mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), which are these divided by 255"
        with pytest.raises(InputError, match=re.escape(message)):
            export.export_model(small_vit(), tmp_path / "out", "vit_tiny_patch16_224", _SMALL, **values)
        assert not (tmp_path / "out").exists()

    def test_a_name_of_two_classes_is_refused(self, tmp_path: Path) -> None:
        names = ["ant", "bee", "ant", "cow", "bee"]
        with pytest.raises(InputError, match="once in class_names, got 'ant', 'bee' more than once: give each output"):
            export.export_model(small_vit(), tmp_path / "out", "vit_tiny_patch16_224", _SMALL, class_names=names)

    def test_a_failed_export_leaves_what_was_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        export.export_model(small_vit(), tmp_path, "vit_tiny_patch16_224", _SMALL)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert sorted(before) == ["config.json", "model.safetensors"]
        monkeypatch.setattr(export, "_difference", lambda found, expected: 1.0)
        with pytest.raises(ExportError, match="nothing was written"):
            export.export_model(small_vit(), tmp_path, "vit_tiny_patch16_224", _SMALL)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_model_of_the_package_by_name(self, tmp_path: Path) -> None:
        arguments = {**_SMALL, "norm_cfg": {"layers": "blocks"}, "pretrained": False}
        model = timm.create_model("dtn_vit_tiny_patch16_224", **arguments)
        exported = export.export_model(torch.nn.DataParallel(model), tmp_path, "dtn_vit_tiny_patch16_224", arguments)
        assert exported.architecture == "dtn_vit_tiny_patch16_224"
        assert exported.differences == {"model.safetensors": 0.0}

    @pytest.mark.parametrize(
        ("arguments", "conversions", "message"),
        [
            (
                _SMALL,
                {},
                r"expected the weights of VisionTransformer in the model, got others: .*Pass the",
            ),
            ({**_SMALL, "depth": 3}, {"norm_cfg": "dtn"}, "Pass the name and the arguments with which it was built"),
            (_SMALL, {"norm_cfg": {"type": "dtn", "layers": len}}, "which config.json can hold.*regular expression"),
            (_SMALL, {"norm_cfg": 3}, "expected norm_cfg to be a config or a name"),
            (_SMALL, {"image_size": (0, 32)}, "expected image_size of positive integers"),
        ],
    )
    def test_arguments_that_are_not_those_of_the_model(
        self, tmp_path: Path, arguments: dict[str, Any], conversions: dict[str, Any], message: str
    ) -> None:
        model = convert(small_vit(), "dtn")
        with pytest.raises(InputError, match=message):
            export.export_model(model, tmp_path, "vit_tiny_patch16_224", arguments, **conversions)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            _CONVERTED.replace("norm_cfg", "spt=True, lsa=True, norm_cfg").replace("depth=2", "depth=1"), id="vit"
        ),
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
        export.export_classifier(config, checkpoint, tmp_path / "out", image_size=(32, 32))

    config, checkpoint = write_run(tmp_path, _SWIN.replace("pretrain_img_size=32,", ""))
    assert main(["export", config, checkpoint, "--out", str(tmp_path / "out")]) == 1
    assert "expected the image size" in capsys.readouterr().err
    assert main(["export", config, checkpoint, "--out", str(tmp_path / "out"), "--image-size", "40", "24"]) == 0

    assert main(["export", config, checkpoint, "--out", str(tmp_path / "out"), "--image-size", "0", "24"]) == 1
    assert "expected image_size of positive integers (H, W), got (0, 24): pass pixels" in capsys.readouterr().err

    def wrong(*args: Any) -> torch.Tensor:
        return torch.full((2, 5), 7.0)

    monkeypatch.setattr(export, "_write_onnx", wrong)
    with pytest.raises(ExportError, match=r"expected model\.onnx to give the logits of the model within 0\.0001"):
        export.export_classifier(config, checkpoint, tmp_path / "out", onnx=True, image_size=(32, 32))


class TestClassNames:
    """Outputs are numbered by the text order of the folders, as in mmpretrain: 0, 1, 10, 11, 2."""

    FOLDERS = sorted(str(number) for number in range(12))
    COLOURS = tuple((37 * number % 256, 101 * number % 256, 211 * number % 256) for number in range(12))

    def trained(self, folder: Path) -> tuple[str, str]:
        """A classifier of twelve colours, whose head gives exactly one logit for each."""
        config, checkpoint = write_run(folder, _VIT.replace("num_classes=5", "num_classes=12"))
        Path(config).write_text(Path(config).read_text().replace("num_classes=5", "num_classes=12"))
        content = torch.load(checkpoint)
        network = load_mmpretrain(f"{config}@{checkpoint}", 12).network
        images = torch.tensor(self.COLOURS, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 32, 32)
        mean, std = (torch.tensor(values)[:, None, None] for values in ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]))
        features = []
        network.model.get_submodule("head").register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        with torch.no_grad():
            network.model.eval()((images - mean) / std)
        head = {"weight": torch.linalg.pinv(features[0]).T, "bias": torch.zeros(12)}
        content["state_dict"] |= {f"head.{name}": value for name, value in head.items()}
        content["meta"] = {"dataset_meta": {"classes": self.FOLDERS}}
        torch.save(content, checkpoint)
        return config, checkpoint

    def test_mce_gives_the_errors_of_the_checkpoint(self, tmp_path: Path) -> None:
        config, checkpoint = self.trained(tmp_path)
        for name, colour in zip(self.FOLDERS, self.COLOURS, strict=True):
            (tmp_path / "images" / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), colour).save(tmp_path / "images" / name / "a.png")
        assert main(["export", config, checkpoint, "--out", str(tmp_path / "out")]) == 0
        assert json.loads((tmp_path / "out" / "config.json").read_text())["label_names"] == self.FOLDERS
        options = ["--data", str(tmp_path / "images"), "--store", str(tmp_path / "store"), "--names", "ours", "timms"]
        options += ["--corruptions", "contrast", "--severities", "1", "--workers", "0", "--device", "cpu"]
        assert main(["mce", f"{config}@{checkpoint}", f"timm:local-dir:{tmp_path / 'out'}", *options]) == 0
        store = Store.open(tmp_path / "store")
        ours, timms = (
            [row for batch in store.model(name).batches() for row in batch.to_pylist()] for name in ("ours", "timms")
        )
        assert [row["cell"] for row in ours] == [row["cell"] for row in timms]
        # Without the names, the ten classes from 2 on would have other numbers than the folders.
        assert all(row["correct"] for row in (*ours, *timms))

    def test_names_of_a_model_of_ones_own(self, tmp_path: Path) -> None:
        names = ["b", "a", "e", "d", "c"]
        export.export_model(small_vit(), tmp_path, "vit_tiny_patch16_224", _SMALL, class_names=names)
        again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
        assert again.pretrained_cfg["label_names"] == names
        with pytest.raises(InputError, match=r"expected the names of 5 classes, got \['b'\]: name each output"):
            export.export_model(small_vit(), tmp_path, "vit_tiny_patch16_224", _SMALL, class_names=["b"])

    def test_without_names_there_are_none(self, tmp_path: Path) -> None:
        export.export_classifier(*write_run(tmp_path, _SWIN), tmp_path / "out")
        assert "label_names" not in json.loads((tmp_path / "out" / "config.json").read_text())
        config, checkpoint = write_run(tmp_path, _SWIN)
        content = {**torch.load(checkpoint), "meta": {"dataset_meta": {"classes": list("edcba")}}}
        torch.save(content, checkpoint)
        export.export_classifier(config, checkpoint, tmp_path / "out")
        assert json.loads((tmp_path / "out" / "config.json").read_text())["label_names"] == list("edcba")
        content["meta"]["dataset_meta"]["classes"] = ["a"]
        torch.save(content, checkpoint)
        export.export_classifier(config, checkpoint, tmp_path / "out")
        assert "label_names" not in json.loads((tmp_path / "out" / "config.json").read_text())
