"""Folders with several networks, as Accelerate's ``save_state`` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from dtn_det.check.checkpoints import check_checkpoint
from dtn_det.checkpoints.load import load_weights
from dtn_det.errors import CheckpointError, MisfitError

save_file = pytest.importorskip("safetensors.torch").save_file


def network(outputs: int = 3, inputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 5), nn.Linear(5, outputs))


OTHER = nn.Sequential(nn.Conv2d(3, 8, 4), nn.Conv2d(8, 1, 1))


@pytest.fixture(params=["model{}.safetensors", "pytorch_model{}.bin"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(folder: Path, name: str, *networks: nn.Module) -> str:
    for number, one in enumerate(networks):
        path = folder / name.format(f"_{number}" if number else "")
        state = one.state_dict()
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    torch.save({"param_groups": []}, folder / "optimizer.bin")
    return str(folder)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_only_one_that_fits_is_taken_and_told(place: int, name: str, tmp_path: Path) -> None:
    networks = [OTHER, OTHER, OTHER]
    networks[place] = right = network()
    model = network()
    loaded = load_weights(model, write(tmp_path, name, *networks))
    assert torch.equal(model[1].weight, right[1].weight)  # type: ignore[index]
    file = name.format(f"_{place}" if place else "")
    assert loaded.facts["network"] == file
    (remark,) = loaded.remarks
    assert f"3 networks are in the folder, and {file} was taken, the only one that fits the model" in remark.sentence()


def test_several_that_fit_are_refused_with_their_names(name: str, tmp_path: Path) -> None:
    model, right = network(), network()
    folder = write(tmp_path, name, OTHER, network(), right)
    first, second = name.format("_1"), name.format("_2")
    with pytest.raises(CheckpointError, match=rf"got 2 that fit it \({first}, {second}\): name the file of the one"):
        load_weights(model, folder)
    load_weights(model, str(tmp_path / second))
    assert torch.equal(model[1].weight, right[1].weight)  # type: ignore[index]


def test_one_of_another_number_of_classes_is_the_one_that_is_meant(name: str, tmp_path: Path) -> None:
    with pytest.raises(MisfitError, match="It has 7 classes") as error:
        load_weights(network(), write(tmp_path, name, OTHER, network(7)))
    assert error.value.num_classes == 7
    assert name.format("_1") in str(error.value)


def test_none_that_fits(name: str, tmp_path: Path) -> None:
    with pytest.raises(MisfitError, match="got 2, none of which fits it") as error:
        load_weights(network(), write(tmp_path, name, OTHER, network(inputs=6)))
    assert name.format("_1") in str(error.value)


def test_the_check_without_a_model_names_them(name: str, tmp_path: Path) -> None:
    result = check_checkpoint(Path(write(tmp_path, name, OTHER, network())))
    assert [remark.kind for remark in result.remarks] == ["networks_in_folder"]
    assert list(result.remarks[0].examples) == [name.format(""), name.format("_1")]


def test_timm_takes_the_one_that_fits(tmp_path: Path, name: str) -> None:
    timm = pytest.importorskip("timm")
    from dtn_det.check.model import read_target
    from dtn_det.robustness.classification.models.loading import load_classifier

    right = timm.create_model("test_vit", num_classes=3)
    folder = write(tmp_path, name, OTHER, right)
    settings = {"input_size": [3, 160, 160], "fixed_input_size": True, "classifier": "head"}
    config = {"architecture": "test_vit", "num_classes": 3, "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for source in (f"timm:test_vit@{folder}", f"timm:local-dir:{folder}"):
        found = load_classifier(source, 3)
        assert torch.equal(found.network.head.weight, right.head.weight)
        assert "network_of_folder" in [remark.kind for remark in found.remarks]
        assert check_checkpoint(tmp_path, read_target(source.partition("@")[0])).fits


def test_a_backbone_is_not_guessed(tmp_path: Path, name: str) -> None:
    pytest.importorskip("mmdet")
    from dtn_det.backbones.swin import DTNSwinTransformer

    folder = write(tmp_path, name, OTHER, network())
    backbone = DTNSwinTransformer(
        dtn_stages=(), embed_dims=8, depths=(1,), num_heads=(2,), out_indices=(0,), strides=(4,),
        init_cfg={"type": "Pretrained", "checkpoint": folder},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"expected one network in the folder .*, got 2 .*: name the file"):
        backbone.init_weights()
