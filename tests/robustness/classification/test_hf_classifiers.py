"""Image classifiers of Hugging Face's transformers: their image processor, names of classes, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dtn_det.check.checkpoints import check_checkpoint
from dtn_det.check.model import read_target
from dtn_det.errors import CheckpointError, ClassCountError, InputError
from dtn_det.robustness.classification.models.classifier import View
from dtn_det.robustness.classification.models.loading import load_classifier

transformers = pytest.importorskip("transformers")

NAMES = {0: "fox", 1: "cat", 2: "dog"}


def config(**others: Any) -> Any:
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.ViTConfig(**settings, image_size=32, patch_size=16, id2label=NAMES, **others)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf") / "vit"
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config()).save_pretrained(path)
    transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], resample=3
    ).save_pretrained(path)
    return path


def pixels(side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def test_logits_are_those_of_the_model_and_its_own_processor(folder: Path) -> None:
    found = load_classifier(f"hf:{folder}", 3)
    image = pixels(32)
    processor = transformers.ViTImageProcessor.from_pretrained(folder)
    own = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        wanted = own(**processor(Image.fromarray(image), return_tensors="pt")).logits
        logits = found.forward(torch.from_numpy(image)[None].permute(0, 3, 1, 2))
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)
    assert found.class_names == ("fox", "cat", "dog")
    assert found.name == "vit"
    assert found.num_classes == 3
    assert found.view == View((32, 32), "bicubic")
    assert found.protocol["normalization"].startswith("mean [0.4, 0.5, 0.6] std [0.2, 0.3, 0.4], by ViTImageProcessor")


def test_pixels_that_are_not_scaled_before_a_small_mean_are_told(folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path)
    transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, do_rescale=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(copy)
    (remark,) = load_classifier(f"hf:{copy}", 3).remarks
    assert "the ViTImageProcessorFast without do_rescale has mean=(0.5, 0.5, 0.5)" in remark.sentence()
    assert load_classifier(f"hf:{folder}", 3).remarks == ()


@pytest.mark.parametrize(
    ("processor", "view"),
    [
        ("ConvNextImageProcessor(size={'shortest_edge': 384}, resample=3)", View((384, 384), "bicubic")),
        ("LevitImageProcessor(size={'shortest_edge': 40}, crop_size={'height': 32, 'width': 32})", None),
        ("MobileViTImageProcessor(size={'shortest_edge': 36}, crop_size={'height': 32, 'width': 32})", None),
        ("ViTImageProcessor(do_resize=False)", View()),
    ],
)
def test_processors_of_other_kinds(processor: str, view: View | None, folder: Path, tmp_path: Path) -> None:
    """A centre crop decides the size; MobileViT's processor turns RGB into BGR."""
    copy = copied(folder, tmp_path)
    made = eval(f"transformers.{processor}", {"transformers": transformers})
    made.save_pretrained(copy)
    found = load_classifier(f"hf:{copy}", 3)
    assert found.view == (View((32, 32), found.view.interpolation) if view is None else view)
    image = pixels(32)
    seen: list[torch.Tensor] = []
    found.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    found.forward(torch.from_numpy(image)[None].permute(0, 3, 1, 2))
    kept = {key: False for key in ("do_resize", "do_center_crop") if key in made.to_dict()}
    wanted = made(Image.fromarray(image), return_tensors="pt", **kept)["pixel_values"]
    torch.testing.assert_close(seen[0], wanted, atol=1e-6, rtol=1e-5)


def copied(folder: Path, tmp_path: Path, **changes: Any) -> Path:
    """Copy the folder, with other values in its config.json."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    settings = {**json.loads((copy / "config.json").read_text()), **changes}
    (copy / "config.json").write_text(json.dumps(settings))
    return copy


def test_placeholders_are_no_names(folder: Path, tmp_path: Path) -> None:
    names = {str(number): f"LABEL_{number}" for number in range(3)}
    copy = copied(folder, tmp_path, id2label=names, label2id={name: int(key) for key, name in names.items()})
    assert load_classifier(f"hf:{copy}", 3).class_names == ()


def test_another_number_of_classes_is_refused(folder: Path) -> None:
    with pytest.raises(ClassCountError, match="expected weights of 1,000 classes, got 3 in hf:"):
        load_classifier(f"hf:{folder}", 1000)


def test_weights_without_a_classifier_are_refused(tmp_path: Path, folder: Path) -> None:
    copy = copied(folder, tmp_path)
    (copy / "model.safetensors").unlink()
    transformers.ViTModel(config()).save_pretrained(copy)
    message = r"expected all weights of ViTForImageClassification in .*, got none for .*classifier\.\w+.*: name a check"
    with pytest.raises(InputError, match=message):
        load_classifier(f"hf:{copy}", 3)


def test_names_of_other_classes_than_those_of_the_weights_are_refused(tmp_path: Path, folder: Path) -> None:
    copy = copied(folder, tmp_path)
    settings = json.loads((copy / "config.json").read_text())
    settings.update(id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    (copy / "config.json").write_text(json.dumps(settings))
    message = r"got another one of classifier\.\w+ than \(2,.*\): write the settings of the training into config"
    with pytest.raises(InputError, match=message):
        load_classifier(f"hf:{copy}", 3)
    (problem,) = check_checkpoint(copy).problems
    assert re.search(message, problem)
    assert check_checkpoint(folder).problems == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"preprocessor_config.json": None},
            r"expected an image processor \(preprocessor_config\.json\) in .*, got \w+: ",
        ),
        ({"config.json": '{"model_type": "bert"}'}, r"expected an image classifier of transformers in .*, got Value"),
        ({"config.json": None}, r"expected a folder with a config\.json after 'hf:', got "),
        (
            {"preprocessor_config.json": '{"image_processor_type": "ViTImageProcessor", "image_mean": [124, 1, 1]}'},
            r"expected mean and std of pixels from 0 to 1 in the preprocessor_config\.json of ",
        ),
        (
            {"preprocessor_config.json": '{"image_processor_type": "ViTImageProcessor", "resample": 5}'},
            r"one of Pillow's filters from 0 to 3, in the preprocessor_config\.json of .*, got .* and 5: wrap",
        ),
    ],
)
def test_folders_that_cannot_be_used(change: dict[str, str | None], message: str, folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path)
    for name, content in change.items():
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_classifier(f"hf:{copy}", 3)


def test_no_name_is_refused() -> None:
    with pytest.raises(InputError, match="expected a folder or a name of the hub after 'hf:', got nothing"):
        load_classifier("hf:", 3)


def test_a_folder_of_transformers_is_told_from_one_of_timm(folder: Path) -> None:
    pytest.importorskip("timm")
    message = rf"got '{folder}' with ViTForImageClassification of Hugging Face's transformers: name hf:{folder}$"
    with pytest.raises(InputError, match=message):
        load_classifier(f"timm:local-dir:{folder}", 3)
    with pytest.raises(InputError, match=message):
        read_target(f"timm:local-dir:{folder}")
    for path in (folder, folder / "model.safetensors"):
        with pytest.raises(CheckpointError, match="got those of ViTForImageClassification of Hugging Face's transform"):
            load_classifier(f"timm:test_vit@{path}", 3)
    title = check_checkpoint(folder).title
    assert title == (
        f"model of Hugging Face's transformers (ViTForImageClassification), which `dtn-det mce hf:{folder}` evaluates"
    )
    with pytest.raises(InputError, match="expected a config or a model of timm to compare with, got hf:"):
        read_target(f"hf:{folder}")
