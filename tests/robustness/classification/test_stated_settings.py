"""Settings of the input and names of classes that a checkpoint of timm states, in its arguments or beside it."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dtn_det.check.checkpoints import check_checkpoint
from dtn_det.check.model import read_target
from dtn_det.errors import InputError
from dtn_det.robustness.classification.models.classifier import Classifier
from dtn_det.robustness.classification.models.loading import load_classifier

timm = pytest.importorskip("timm")
save_file = pytest.importorskip("safetensors.torch").save_file

MEAN, STD = [0.48, 0.45, 0.4], [0.26, 0.25, 0.27]
STATED = {"mean": MEAN, "std": STD, "interpolation": "bilinear"}


def model(**arguments: Any) -> nn.Module:
    torch.manual_seed(3)
    built: nn.Module = timm.create_model("test_vit", **{"num_classes": 3, **arguments})
    return built.eval()


def write_folder(folder: Path, settings: dict[str, Any], **config: Any) -> Path:
    folder.mkdir()
    save_file(model().state_dict(), folder / "model.safetensors")
    torch.save(model().state_dict(), folder / "last.pth")
    whole = {"architecture": "test_vit", "num_classes": 3, "pretrained_cfg": settings, **config}
    (folder / "config.json").write_text(json.dumps(whole))
    return folder


def assert_normalized(found: Classifier, mean: list[float], std: list[float], network: nn.Module | None = None) -> None:
    height, width = found.view.size or (160, 160)
    images = torch.randint(256, (2, 3, height, width), dtype=torch.uint8)
    means, stds = (torch.tensor(value).view(3, 1, 1) for value in (mean, std))
    with torch.no_grad():
        torch.testing.assert_close(found.forward(images), (network or model())((images / 255 - means) / stds))


def kinds(source: str) -> list[str]:
    """Return the kinds of the remarks of the check that the evaluation has too."""
    name, _, checkpoint = source.partition("@")
    remarks = check_checkpoint(Path(checkpoint), read_target(name)).remarks
    return [remark.kind for remark in remarks if remark.kind != "other_classes"]


@pytest.mark.parametrize("part", ["", "model.safetensors", "last.pth"])
def test_the_config_beside_the_weights_goes_before_timm(part: str, tmp_path: Path) -> None:
    source = f"timm:test_vit@{write_folder(tmp_path / 'a', STATED, label_names=['x', 'y', 'z']) / part}"
    found = load_classifier(source, 3)
    assert_normalized(found, MEAN, STD)
    assert found.view.interpolation == "bilinear"
    assert found.class_names == ("x", "y", "z")
    assert found.protocol["normalization"] == f"mean {tuple(MEAN)} std {tuple(STD)}"
    assert "in the config.json beside it" in found.training["settings of the input"]
    told = [remark.sentence() for remark in found.remarks if remark.kind == "stated_settings"]
    assert len(told) == 1
    assert (
        "3 settings of the input in the config.json beside it went before timm's: mean (0.48, 0.45, 0.4) (" in told[0]
    )
    assert kinds(source) == ["stated_settings"]


def test_a_config_of_another_architecture_counts_for_the_weights_of_its_folder_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", STATED, architecture="vit_tiny_patch16_224")
    assert_normalized(load_classifier(f"timm:test_vit@{folder}", 3), MEAN, STD)
    of_timm = timm.create_model("test_vit").pretrained_cfg
    found = load_classifier(f"timm:test_vit@{folder / 'last.pth'}", 3)
    assert_normalized(found, of_timm["mean"], of_timm["std"])
    assert not found.remarks


@pytest.mark.parametrize("kind", [argparse.Namespace, dict])
def test_arguments_of_timms_training_go_before_all_else(kind: type, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", {"mean": [0.1] * 3, "std": [0.9] * 3})
    args = kind(model="test_vit", mean=MEAN, std=None, interpolation="", img_size=None, input_size=None)
    content = {"arch": "test_vit", "version": 2, "epoch": 3, "state_dict": model().state_dict(), "args": args}
    torch.save(content, folder / "last.pth")
    source = f"timm:test_vit@{folder / 'last.pth'}"
    found = load_classifier(source, 3)
    assert_normalized(found, MEAN, [0.9] * 3)
    assert found.training["settings of the input"].split("; ") == [
        "mean in the args of " + str(folder / "last.pth"),
        "std in the config.json beside it",
    ]
    assert kinds(source) == ["stated_settings"]


def test_what_training_was_not_told_is_that_of_the_model_that_it_names(tmp_path: Path) -> None:
    """Weights of one architecture with different tags have different settings."""
    name = "vit_base_patch32_clip_224"
    stated = timm.get_pretrained_cfg(f"{name}.openai")
    from dtn_det.robustness.classification.models.stated import read_stated

    content: dict[str, Any] = {
        "arch": name,
        "version": 2,
        "args": {"model": f"{name}.openai", "mean": None, "std": None},
    }
    found = read_stated(str(tmp_path / "a.pth"), content, f"{name}.augreg_in21k")
    assert found.settings["mean"] == stated.mean
    assert found.settings["std"] == stated.std
    content["args"]["model"] = f"{name}.unknown_tag"
    assert not read_stated(str(tmp_path / "a.pth"), content, name).settings


def test_a_stated_size_is_taken_where_the_weights_are_of_it(tmp_path: Path) -> None:
    large = model(img_size=192)
    path = tmp_path / "a.pth"
    for network, size in ((large, (192, 192)), (model(), (160, 160))):
        torch.save({"state_dict": network.state_dict(), "args": {"img_size": 192}}, path)
        found = load_classifier(f"timm:test_vit@{path}", 3)
        of_timm = found.network.pretrained_cfg
        assert found.view.size == size
        assert_normalized(found, of_timm["mean"], of_timm["std"], network)
        assert bool(found.remarks) == (size == (192, 192))
        assert kinds(f"timm:test_vit@{path}") == ["stated_settings"] * (size == (192, 192))


def test_a_model_of_any_size_gets_the_stated_one(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    torch.save({"state_dict": network.state_dict(), "args": {"img_size": 96}}, tmp_path / "a.pth")
    assert load_classifier(f"timm:test_resnet@{tmp_path / 'a.pth'}", 3).view.size == (96, 96)


def check_built(path: Path, network: nn.Module, told: str) -> None:
    """Check that the evaluation and the check build the model with the arguments of its training."""
    found = load_classifier(f"timm:test_vit@{path}", 3)
    of_timm: Any = network.pretrained_cfg
    assert_normalized(found, of_timm["mean"], of_timm["std"], network)
    sentences = [remark.sentence() for remark in found.remarks if remark.kind == "stated_arguments"]
    assert len(sentences) == 1
    assert re.search(r": \d arguments? of the model in place of timm's: ", sentences[0])
    assert told in sentences[0]
    assert told in found.training["arguments of the model"]
    assert kinds(f"timm:test_vit@{path}") == ["stated_arguments"]


def test_arguments_that_timms_training_built_the_model_with(tmp_path: Path) -> None:
    """A pool over all tokens without its own norm, and another activation, have the same weights as timm's defaults."""
    network = model(global_pool="max", fc_norm=False, act_layer="relu")
    args = {"model": "test_vit", "gp": "max", "model_kwargs": {"fc_norm": False, "act_layer": "relu"}}
    content = {"arch": "test_vit", "version": 2, "epoch": 3, "state_dict": network.state_dict(), "args": args}
    torch.save(content, tmp_path / "a.pth")
    told = f"fc_norm=False, act_layer='relu', global_pool='max', as stated in the args of {tmp_path}"
    check_built(tmp_path / "a.pth", network, told)


def test_arguments_in_the_config_beside_the_weights(tmp_path: Path) -> None:
    network = model(act_layer="relu", img_size=192)
    folder = write_folder(tmp_path / "a", {}, model_args={"act_layer": "relu", "img_size": 192, "drop_rate": 0.1})
    for name in ("pytorch_model.bin", "last.pth"):
        torch.save(network.state_dict(), folder / name)
    (folder / "model.safetensors").unlink()
    for path in (folder, folder / "last.pth"):
        found = load_classifier(f"timm:test_vit@{path}", 3)
        assert found.view.size == (192, 192)
        assert_normalized(found, *(found.network.pretrained_cfg[key] for key in ("mean", "std")), network)
        assert found.training["arguments of the model"] == "act_layer='relu', as stated in the config.json beside it"
        assert kinds(f"timm:test_vit@{path}") == ["stated_arguments", "stated_settings"]


def test_arguments_that_the_model_does_not_take_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": model().state_dict(), "args": {"model_kwargs": {"no_such": 1}}}, tmp_path / "a.pth")
    message = r"expected arguments that timm's 'test_vit' takes in the args of .*got no_such=1 \(TypeError: "
    with pytest.raises(InputError, match=message):
        load_classifier(f"timm:test_vit@{tmp_path / 'a.pth'}", 3)


@pytest.mark.parametrize("names", [{"class_to_idx": {"b": 1, "a": 2, "c": 0}}, {"classes": ["c", "b", "a"]}])
def test_names_of_classes_in_the_file(names: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"state_dict": model().state_dict(), **names}, tmp_path / "a.pth")
    assert load_classifier(f"timm:test_vit@{tmp_path / 'a.pth'}", 3).class_names == ("c", "b", "a")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"mean": [0.1, 0.2]},
            r"expected a mean of 1 or 3 finite numbers for .*a\.pth, got \[0\.1, 0\.2\] in the args",
        ),
        (
            {"std": [0.1, 0.0, 0.1]},
            r"expected a std of 1 or 3 finite numbers above 0 for .*: write that of the training",
        ),
        (
            {"mean": [124.0] * 3, "std": [58.0] * 3},
            r"expected mean and std of pixels from 0 to 1 in the args of .*a\.pth",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(args: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": model().state_dict(), "args": args}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        load_classifier(f"timm:test_vit@{tmp_path / 'a.pth'}", 3)


@pytest.mark.parametrize(
    "names", [("module.normalizer.new_mean", "module.normalizer.new_std"), ("normalize.mu", "normalize.sigma")]
)
def test_the_normalizer_within_a_network_goes_before_timm(names: tuple[str, str], tmp_path: Path) -> None:
    """The package robustness saves its networks so, and RobustBench its own."""
    prefix = "module.model." if names[0].startswith("module.") else "model."
    state = {f"{prefix}{name}": value for name, value in model().state_dict().items()}
    state |= {name: torch.tensor(value).view(3, 1, 1) for name, value in zip(names, (MEAN, STD), strict=True)}
    torch.save({"model": state}, tmp_path / "a.pt")
    found = load_classifier(f"timm:test_vit@{tmp_path / 'a.pt'}", 3)
    assert_normalized(found, MEAN, STD)
    (told,) = [remark.sentence() for remark in found.remarks if remark.kind == "stated_settings"]
    assert (
        f"2 settings of the input in the normalizer within the network of {tmp_path / 'a.pt'} went before timm's"
        in told
    )
