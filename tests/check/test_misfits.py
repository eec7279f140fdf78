"""`dtn-det check` with a config: misfits of a detector's checkpoint and training file, and how models are built."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from checked import check, write_coco
from odd_coco_files import plain_content

from dtn_det.check.model import Target, read_target


def test_weights_of_a_classifier_are_no_detector(target: Target, tmp_path: Path) -> None:
    """The backbone of the detector loads the same file, as its init_cfg."""
    backbone = target.build().backbone
    state = backbone.state_dict()
    head = {"head.fc.weight": torch.ones(2, 4), "head.fc.bias": torch.ones(2)}
    for prefix in ("", "backbone."):
        path = tmp_path / f"{prefix}a.pth"
        torch.save({"state_dict": {**{f"{prefix}{name}": value for name, value in state.items()}, **head}}, path)
        (problem,) = check(path, target).problems
        assert f"got {len(state)} of the {len(state)} weights of its backbone alone, as classifiers have" in problem
        assert "Name a checkpoint of the whole detector; training starts from this file with init_cfg=dict" in problem
    part = {name: value for name, value in target.build().state_dict().items() if not name.startswith("neck.")}
    torch.save(part, path)
    assert "its backbone alone" not in check(path, target).problems[0]


def test_a_training_file_without_an_object_to_train_on(target: Target, tmp_path: Path) -> None:
    content = plain_content()
    assert target.config is not None
    names = target.config.metainfo.classes
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    path = write_coco(tmp_path, content)
    config = copy.deepcopy(target.config)
    dataset = config.train_dataloader.dataset
    dataset.update(data_root=str(tmp_path), ann_file="annotations/val.json", filter_cfg={"min_size": 640})
    trained = Target(target.source, config)
    assert check(path, target).fits is True
    result = check(path, trained)
    assert result.fits is False
    side = "in an image with a side below filter_cfg.min_size=640"
    assert any(
        side in one and one.endswith(": lower filter_cfg.min_size if images are small") for one in result.problems
    )


def test_a_wrapper_whose_parts_have_no_scope_is_built(tmp_path: Path) -> None:
    """mmpretrain's TimmClassifier looks its data preprocessor up in the default scope."""
    pytest.importorskip("mmpretrain")
    pytest.importorskip("timm")
    config = tmp_path / "a.py"
    config.write_text(
        "default_scope = 'mmpretrain'\nmodel = dict(type='TimmClassifier', model_name='test_vit', num_classes=3,\n"
        "    data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=3))\n"
    )
    model = read_target(str(config))
    torch.save(model.build().state_dict(), tmp_path / "a.pth")
    assert check(tmp_path / "a.pth", model).fits is True


def test_a_pretraining_of_the_backbone_is_named_as_such(target: Target, tmp_path: Path) -> None:
    """SimMIM's weights have a mask token, a decoder called neck, and tables of positions of other windows."""
    state = {f"backbone.{name}": value for name, value in target.build().backbone.state_dict().items()}
    table = next(name for name in state if name.endswith("relative_position_bias_table"))
    state[table] = torch.zeros(25, state[table].shape[1])
    extra = {"backbone.mask_token": torch.zeros(1, 1, 4), "neck.decoder.0.weight": torch.zeros(2)}
    torch.save({**state, **extra}, tmp_path / "a.pth")
    (problem,) = check(tmp_path / "a.pth", target).problems
    assert "weights of its backbone alone, as classifiers have" in problem


def test_classes_of_a_checkpoint_in_another_order_are_refused_as_by_mpc(target: Target, tmp_path: Path) -> None:
    assert target.config is not None
    names = tuple(target.config.metainfo.classes)
    moved = Target(target.source, copy.deepcopy(target.config))
    assert moved.config is not None
    for loader in ("train_dataloader", "test_dataloader"):
        moved.config[loader].dataset.data_root = str(tmp_path)
    state = target.build().state_dict()
    for classes, problem in (
        (names, None),
        (names[::-1], "in the order of the classes of"),
        (("a", "b", "c"), "to be trained on the classes of test_dataloader.dataset"),
    ):
        torch.save({"state_dict": state, "meta": {"dataset_meta": {"classes": classes}}}, tmp_path / "a.pth")
        result = check(tmp_path / "a.pth", moved)
        assert result.fits is (problem is None)
        assert [problem in one for one in result.problems] == [True] * (problem is not None)
