"""Models of timm, mmpretrain and Python under one interface."""

from __future__ import annotations

import csv
import re
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from warm_python import WarmPython

from dtn_det.cli.main import main
from dtn_det.errors import CheckpointError
from dtn_det.robustness.classification import images as classification_images
from dtn_det.robustness.classification.images import ViewSlots, see
from dtn_det.robustness.classification.models.classifier import View
from dtn_det.robustness.classification.models.loading import load_classifier
from dtn_det.robustness.classification.models.mmpretrain import pipeline_view, split_source
from dtn_det.robustness.classification.models.timm import hub_asked_once
from dtn_det.robustness.classification.records import records_schema, score
from dtn_det.robustness.store import Store

timm = pytest.importorskip("timm")

CONFIG = """
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(3, ), style='pytorch',
                  init_cfg=dict(type='Pretrained', checkpoint='absent.pth')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=7, in_channels=512, loss=dict(type='CrossEntropyLoss')))
data_preprocessor = dict(num_classes=7, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_dataloader = dict(batch_size=1, dataset=dict(type='ImageNet', pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')]))
"""


def images(side: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_timm_gets_what_its_own_transform_gives() -> None:
    model = load_classifier("timm:resnet10t@random", 1000)
    config = timm.data.resolve_model_data_config(model.network)
    transform = timm.data.create_transform(**{**config, "crop_pct": 1.0}, is_training=False)
    side = config["input_size"][1]
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    with torch.inference_mode():
        wanted = model.network(transform(Image.fromarray(pixels))[None])
        found = model.forward(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "config", "checkpoint"),
    [
        ("configs/a.py@b.pth", "configs/a.py", "b.pth"),
        ("jobs@home/a.py@me@work/b.pth", "jobs@home/a.py", "me@work/b.pth"),
        ("a.py@http://host/b.py@1", "a.py", "http://host/b.py@1"),
        ("a.py", "a.py", ""),
    ],
)
def test_configs_and_checkpoints_whose_paths_have_an_at(source: str, config: str, checkpoint: str) -> None:
    assert split_source(source) == (config, checkpoint)


def test_random_weights_are_always_the_same_and_leave_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    first, again = (load_classifier("timm:resnet10t@random", 10).manifest({}, {}) for _ in range(2))
    assert first == again
    assert first.name == "resnet10t@random"
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", ["pth", "safetensors", "training"])
def test_checkpoints_of_timm(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(3)
    weights = timm.create_model("resnet10t", pretrained=False, num_classes=10).state_dict()
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "pth":
        torch.save(weights, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)
    model = load_classifier(f"timm:resnet10t@{path}", 10)
    assert model.name == "resnet10t@weights"
    found = model.network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_checkpoint_that_does_not_fit_is_described(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    weights = timm.create_model("resnet10t", pretrained=False, num_classes=10).state_dict()
    weights["strange.weight"] = weights.pop("conv1.0.weight")
    torch.save(weights, path)
    with pytest.raises(CheckpointError) as error:
        load_classifier(f"timm:resnet10t@{path}", 11)
    for text in (
        "1 missing (conv1.0.weight)",
        "1 unexpected (strange.weight)",
        "2 of another shape (fc.weight (10, 512) instead of (11, 512), fc.bias (10,) instead of (11,))",
        "It has 10 classes or outputs of fc, the model 11. Name the model that the checkpoint was written for",
    ):
        assert text in str(error.value)


def test_pretrained_weights_that_are_not_at_hand_say_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ValueError, match=r"check the network.*timm:resnet18@random"):
        load_classifier("timm:resnet18", 1000)


def test_a_hub_that_cannot_be_reached_is_asked_once_and_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(ValueError, match=r"no answer from http://127.0.0.1:9 \(.*refused\) and no copy") as error:
        load_classifier("timm:resnet10t", 1000)
    assert "timm:resnet10t@random" in str(error.value)
    assert not caplog.records
    assert not slept
    assert constants.HF_HUB_OFFLINE is False


def test_a_hub_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    def refuse(*args: object, **options: object) -> None:
        raise HTTPError("http://hub", 404, "Not Found", Message(), None)

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with hub_asked_once() as fault:
        assert fault == ""
        assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", "got 'resnt50'; did you mean resnet50, "),
        ("swin_tiny@random", "did you mean swin_tiny_patch4_window7_224, "),
        ("", "got ''; timm.list_models"),
        ("resnet50.a1_in2k@random", "weights of timm's 'resnet50', got 'a1_in2k'; did you mean a1_in1k, "),
        ("resnet50.zzzzz", "weights of timm's 'resnet50', got 'zzzzz'; timm has a1_in1k, "),
        ("dtn_vit_tny_patch16_224", "did you mean dtn_vit_tiny_patch16_224"),
        ("dtn_vit_tiny_patch16_224", "pretrained weights of, got 'dtn_vit_tiny_patch16_224': give a file"),
        ("local-dir:", "expected a folder that `dtn-det export` or timm has written after 'timm:local-dir:', got ''"),
        ("local-dir:nowhere", "got 'nowhere' without a config.json: name another"),
        ("test_none", "expected a model that timm has pretrained weights of, got 'test_none': give a file"),
    ],
)
def test_names_that_timm_does_not_have_are_told_with_near_ones(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = timm.is_model
    monkeypatch.setattr(timm, "is_model", lambda name: name == "test_none" or known(name))
    with pytest.raises(ValueError, match=re.escape(message)):
        load_classifier(f"timm:{name}", 1000)


def test_models_with_dtn_have_names(warm_libraries: WarmPython) -> None:
    script = (
        "from dtn_det.robustness.classification.models.loading import load_classifier\n"
        "print(type(load_classifier('timm:dtn_vit_tiny_patch16_224@random', 10).network.blocks[0].norm1).__name__)"
    )
    # In a process of its own, where nothing else has registered them.
    done = warm_libraries.run(["-c", script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["DTN"]


def test_a_folder_of_an_export(tmp_path: Path) -> None:
    import dtn_det.timm  # noqa: F401  registers the model

    folder = tmp_path / "a@b"
    small = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    model = timm.create_model("dtn_vit_tiny_patch16_224", **small, norm_cfg={"type": "dtn", "init": "layernorm"}).eval()
    settings = {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}
    timm.models.save_for_hf(model, str(folder), safe_serialization=True, data_config=settings)
    found = load_classifier(f"timm:local-dir:{folder}/", 5)
    assert found.name == "a@b"
    assert found.view.size == (32, 32)
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(settings[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(found.forward(images), model((images / 255 - mean) / std))
    (folder / "config.json").write_text('{"architecture": "nothing", "pretrained_cfg": {}}')
    with pytest.raises(ValueError, match=r"expected a model of timm in the folder .*Unknown model .*: export it again"):
        load_classifier(f"timm:local-dir:{folder}", 5)


def test_mmpretrain_gets_what_its_own_pipeline_gives(tmp_path: Path) -> None:
    pytest.importorskip("mmpretrain")
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import MODELS, TRANSFORMS

    # What the tests of detectors leave behind.
    DefaultScope.get_instance(f"mmdet {tmp_path}", scope_name="mmdet")

    path, checkpoint = tmp_path / "small.py", tmp_path / "weights.pth"
    path.write_text(CONFIG)
    config = Config.fromfile(path)
    config.model.backbone.pop("init_cfg")
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        reference = MODELS.build({**config.model, "data_preprocessor": {**config.data_preprocessor}}).eval()
    torch.save({"state_dict": reference.state_dict(), "meta": {}}, checkpoint)

    model = load_classifier(f"{path}@{checkpoint}", 7)
    assert model.view == View((224, 224), "bicubic")
    assert model.name == "small@weights"
    pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        pipeline = config.test_dataloader.dataset.pipeline
        steps = [TRANSFORMS.build(step) for step in pipeline if "Resize" not in step.type]
    results = {"img_path": str(tmp_path / "image.png")}
    for step in steps:
        results = step(results)
    with torch.inference_mode():
        batch = reference.data_preprocessor({"inputs": [results["inputs"]], "data_samples": [results["data_samples"]]})
        wanted = reference(batch["inputs"], mode="tensor")
        found = model.forward(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2))
    assert torch.equal(found, wanted)


def test_pipelines_of_mmpretrain() -> None:
    load, pack = {"type": "LoadImageFromFile"}, {"type": "PackInputs"}
    assert pipeline_view([load, pack], "c.py") == View()
    resize = {"type": "mmpretrain.Resize", "scale": (256, 192), "interpolation": "bicubic"}
    assert pipeline_view([load, resize, pack], "c.py") == View((192, 256), "bicubic")
    edge = {"type": "ResizeEdge", "scale": 256}
    crop = {"type": "CenterCrop", "crop_size": (224, 224)}
    assert pipeline_view([load, edge, crop, pack], "c.py") == View((224, 224), "bilinear")
    with pytest.raises(ValueError, match=r"in c.py, got TenCrop: wrap the model as python:MODULE:FUNCTION"):
        pipeline_view([load, {"type": "TenCrop"}, pack], "c.py")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("test_dataloader = None", "expected a config of mmpretrain with `model` and `test_dataloader`"),
        ("model = dict(type='NoSuchThing')", "expected the model of .* to be one of mmpretrain"),
        ("model.pop('head')", "expected a classifier in .*, got ImageClassifier without a head"),
    ],
)
def test_configs_that_are_no_classifiers(tmp_path: Path, change: str, message: str) -> None:
    pytest.importorskip("mmpretrain")
    path = tmp_path / "config.py"
    path.write_text(f"{CONFIG}\n{change}\n")
    with pytest.raises(ValueError, match=message):
        load_classifier(f"{path}@weights.pth", 7)


def test_images_are_resized_for_models_of_another_size_only() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    assert see(pixels, View()) is pixels
    assert see(pixels, View((32, 32), "bicubic")) is pixels
    wanted = np.array(Image.fromarray(pixels).resize((40, 48), Image.Resampling.BICUBIC))
    assert np.array_equal(see(pixels, View((48, 40), "bicubic")), wanted)
    assert View((32, 32), "bicubic").of(32) == View((32, 32), "lanczos").of(32) == View()
    assert View((48, 48), "bicubic").of(32) != View((48, 48), "lanczos").of(32)


def test_too_little_shared_memory_is_told_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def little(folder: object) -> SimpleNamespace:
        return SimpleNamespace(f_bavail=64, f_frsize=2**20)

    monkeypatch.setattr(classification_images.os, "statvfs", little)
    ViewSlots([View()], 76, 224, 5, shared=True)
    with pytest.raises(OSError, match=r"expected 80\.1 MB of shared memory in /dev/shm for 7 images .* got 67\.1 MB"):
        ViewSlots([View()], 76, 224, 7, shared=True)
    ViewSlots([View()], 76, 224, 7, shared=False)


def test_records_are_what_the_metrics_need() -> None:
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 10
    columns = score(logits, labels, "model")
    probabilities = logits.double().softmax(1).numpy()
    order = np.argsort(-probabilities, 1)
    assert np.array_equal(columns["prediction"], order[:, 0])
    assert np.array_equal(columns["correct"], order[:, 0] == labels.numpy())
    assert np.array_equal(columns["correct_top5"], (order[:, :5] == labels.numpy()[:, None]).any(1))
    np.testing.assert_allclose(columns["confidence"], probabilities.max(1), rtol=1e-5)
    np.testing.assert_allclose(columns["true_probability"], probabilities[np.arange(50), labels], rtol=1e-5)
    np.testing.assert_allclose(columns["squared_norm"], (probabilities**2).sum(1), rtol=1e-5)
    assert set(columns) | {"image", "cell"} == set(records_schema().names)


def test_a_resnet_with_random_weights_on_real_images(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared_dir / "data" / "imagenet_sample"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    labels = {}
    for row in csv.DictReader((source / "labels.csv").open()):
        link = tmp_path / "data" / row["wnid"] / Path(row["file"]).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source / row["file"])
        labels[f"{row['wnid']}/{link.name}"] = int(row["class_index"])
    arguments = ["--data", str(tmp_path / "data"), "--store", str(tmp_path / "store"), "--limit", "2", "--workers", "0"]
    few = ["--corruptions", "contrast", "brightness", "--severities", "5", "--device", "cpu"]
    assert main(["mce", "timm:resnet10t@random", *arguments, *few]) == 0
    out = capsys.readouterr().out
    # They are of too few classes for AlexNet's errors.
    said = " ".join(out.split())
    assert "no baseline: CE and mCE need another model in this store, named with --baseline" in said
    assert f"got images of {len({key.partition('/')[0] for key in labels})} of ImageNet's 1,000 classes" in said
    store = Store.open(tmp_path / "store")
    table = store.images().to_pylist()
    assert [row["label"] for row in table] == [labels[row["key"]] for row in table]
    assert sum(unit.num_rows for unit in store.model("resnet10t@random").batches()) == 2 * 3
