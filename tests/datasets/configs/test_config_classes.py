"""What a config says of its classes: data sets in wrappers, evaluators, heads, checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="the configs need MMDetection")

from mmdet.datasets import CocoDataset
from mmdet.utils import register_all_modules
from mmengine.config import Config

from dtn_det.datasets.configs import classes as config_classes
from dtn_det.datasets.configs.classes import (
    LABEL_ORDER,
    check_evaluation,
    checkpoint_classes,
    classes_in_evaluation,
    classes_in_training,
    dataset_classes,
    head_numbers,
    prepare_training,
    read_categories,
)
from dtn_det.errors import ClassNameError

CLASSES = ("disc", "square", "bar")
OTHER = ("bar", "disc", "square")

Make = Callable[..., Config]


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register_all_modules()


def write(path: Path, names: tuple[str, ...], annotations: object = ()) -> None:
    categories = [{"id": 10 * place, "name": name} for place, name in enumerate(names)]
    path.write_text(json.dumps({"images": [], "annotations": list(annotations), "categories": categories}))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A config whose files have categories in a given order."""

    def build(
        train: tuple[str, ...] = CLASSES,
        val: tuple[str, ...] = CLASSES,
        test: tuple[str, ...] = CLASSES,
        evaluator: tuple[str, ...] = CLASSES,
        classes: tuple[str, ...] = CLASSES,
    ) -> Config:
        files = {"train": train, "val": val, "test": test, "evaluator": evaluator}
        for name, names in files.items():
            write(tmp_path / f"{name}.json", names)
        loaders = {
            f"{name}_dataloader": {
                "dataset": {
                    "type": "CocoDataset",
                    "data_root": f"{tmp_path}/",
                    "ann_file": f"{name}.json",
                    "metainfo": {"classes": classes, "palette": [(place, 0, 0) for place in range(len(classes))]},
                }
            }
            for name in ("train", "val", "test")
        }
        metric = {"type": "CocoMetric", "ann_file": str(tmp_path / "evaluator.json")}
        head = {"type": "ATSSHead", "num_classes": len(classes)}
        evaluators = {"val_evaluator": metric, "test_evaluator": [metric]}
        model = {"type": "ATSS", "backbone": {"type": "ResNet", "num_classes": 1000}, "bbox_head": head}
        return Config({"default_scope": "mmdet", "model": model, "val_cfg": {}, **loaders, **evaluators})

    return build


def test_labels_are_those_that_mmdetection_gives(make: Make, tmp_path: Path) -> None:
    cfg = make(train=("other", *OTHER))
    (found,) = dataset_classes(cfg, "train_dataloader")
    dataset = CocoDataset(
        data_root=f"{tmp_path}/", ann_file="train.json", metainfo={"classes": CLASSES}, lazy_init=True, pipeline=[]
    )
    with pytest.raises(ValueError, match="need at least one array"):
        dataset.full_init()
    assert [dataset.cat2label[10 * found.categories.index(name)] for name in found.labels] == [0, 1, 2]
    assert found.labels == OTHER


def test_a_config_that_agrees_is_left_as_it_is(make: Make) -> None:
    cfg = make()
    before = cfg.pretty_text
    assert prepare_training(cfg) == ()
    assert cfg.pretty_text == before
    check_evaluation(cfg, "test", "a.pth", {"meta": {"dataset_meta": {"classes": CLASSES}}})


def test_names_of_another_number_than_the_head_are_left_out_of_a_test(make: Make) -> None:
    names = ("person", "car", "dog", "cat")
    (remark,) = check_evaluation(make(), "test", "a.pth", {"meta": {"dataset_meta": {"classes": names}}})
    assert (remark.kind, remark.count, remark.where) == ("names_left_out", 4, "a.pth")


@pytest.mark.parametrize("which", ["train", "val", "evaluator"])
def test_every_file_of_a_training_is_looked_at(make: Make, which: str) -> None:
    cfg = make(**{which: ("disc", "bar")})
    with pytest.raises(ClassNameError, match=rf"{which}\.json \S+, got 2 without 'square'"):
        classes_in_training(cfg)
    cfg = make(**{which: OTHER})
    with pytest.raises(ClassNameError, match=r"in the order of those in .*train\.json"):
        classes_in_training(cfg)
    if which != "train":
        cfg.val_cfg = None
        assert classes_in_training(cfg) is not None


@pytest.mark.parametrize("which", ["test", "evaluator"])
def test_every_file_of_a_test_is_looked_at(make: Make, which: str) -> None:
    checkpoint = {"meta": {"dataset_meta": {"classes": CLASSES}}}
    with pytest.raises(ClassNameError, match="would take each for another"):
        check_evaluation(make(**{which: OTHER}), "test", "a.pth", checkpoint)
    with pytest.raises(ClassNameError, match="would take each for another"):
        check_evaluation(make(**{which: OTHER}), "test", "a.pth", {})


def test_wrappers_and_concatenations(make: Make, tmp_path: Path) -> None:
    cfg = make()
    own = cfg.train_dataloader.dataset
    write(tmp_path / "more.json", OTHER)
    more = {**own, "ann_file": "more.json"}
    cfg.train_dataloader.dataset = {
        "type": "RepeatDataset",
        "dataset": {"type": "ConcatDataset", "datasets": [own, more]},
    }
    keys = ["train_dataloader.dataset.dataset.datasets.0", "train_dataloader.dataset.dataset.datasets.1"]
    assert [one.where for one in dataset_classes(cfg, "train_dataloader")] == keys
    with pytest.raises(ClassNameError, match=r"more\.json \(train_dataloader\.dataset\.dataset\.datasets\.1\)"):
        classes_in_training(cfg)
    write(tmp_path / "more.json", ())  # of semi-supervised training
    assert [one.where for one in dataset_classes(cfg, "train_dataloader")] == keys[:1]


def test_classes_are_listed_in_the_order_of_the_labels(make: Make) -> None:
    """MMDetection numbers by the file anyway; now the names that it draws, and those in checkpoints, are right."""
    cfg = make(train=OTHER, val=OTHER, test=OTHER, evaluator=OTHER)
    (remark,) = prepare_training(cfg)
    assert "3 data sets list their classes in another order than the categories in" in remark.sentence()
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        metainfo = loader.dataset.metainfo
        assert metainfo.classes == OTHER
        assert metainfo.palette == [(2, 0, 0), (0, 0, 0), (1, 0, 0)]
        assert metainfo[LABEL_ORDER] is True
    assert prepare_training(cfg) == ()
    assert checkpoint_classes({"meta": {"dataset_meta": cfg.train_dataloader.dataset.metainfo}}) == (OTHER, True)


def test_a_test_set_that_could_not_be_evaluated_is_told(make: Make) -> None:
    (remark,) = prepare_training(make(test=OTHER))
    assert "tools/test.py will refuse its set: expected the categories in" in remark.sentence()
    (remark,) = prepare_training(make(test=("person",)))
    assert "got 1 without 'disc', 'square', 'bar'" in remark.sentence()


def test_a_training_file_may_be_named_alone(make: Make, tmp_path: Path) -> None:
    """As messages advise, for a config that has no training set."""
    cfg = make(test=OTHER, evaluator=OTHER)
    cfg.train_dataloader = {"dataset": {"ann_file": str(tmp_path / "train.json")}}
    found = classes_in_evaluation(cfg, "test")
    assert found is not None
    assert (found.names, found.evidence) == (CLASSES, "training file")


def test_other_data_sets_are_passed_over(make: Make) -> None:
    cfg = make(train=("a", "b"))
    for kind in ("VOCDataset", "LVISV1Dataset", "NoSuchDataset"):
        cfg.train_dataloader.dataset.type = kind
        assert classes_in_training(cfg) is None
    cfg.test_dataloader.dataset.ann_file = "elsewhere.json"
    assert classes_in_evaluation(cfg, "test") is None
    cfg.default_scope = "mmpretrain"
    assert prepare_training(cfg) == ()


def test_objects365_is_numbered_by_ids(make: Make, tmp_path: Path) -> None:
    cfg = make()
    cfg.train_dataloader.dataset.update(type="Objects365V2Dataset")
    categories = [{"id": 7, "name": "disc"}, {"id": 2, "name": "bar"}]
    (tmp_path / "train.json").write_text(json.dumps({"categories": categories}))
    assert dataset_classes(cfg, "train_dataloader")[0].categories == ("bar", "disc")


def test_classes_that_are_text(make: Make, tmp_path: Path) -> None:
    cfg = make(train=("disc",))
    cfg.train_dataloader.dataset.metainfo.classes = "disc"
    with pytest.raises(ClassNameError, match=r"got the text 'disc': write \('disc',\), with the comma"):
        classes_in_training(cfg)
    (tmp_path / "classes.txt").write_text("disc\n")
    cfg.train_dataloader.dataset.metainfo.classes = str(tmp_path / "classes.txt")
    assert dataset_classes(cfg, "train_dataloader")[0].wanted == ("disc",)


def test_heads_are_found_wherever_they_are() -> None:
    heads = [{"num_classes": 3}, {"num_classes": 4}]
    model = {
        "backbone": {"num_classes": 1000},
        "rpn_head": {"num_classes": 1},
        "roi_head": {
            "bbox_head": heads,
            "mask_head": {"num_classes": 5},
            "semantic_head": {"num_classes": 183},
        },
        "panoptic_head": {"num_things_classes": 6, "num_stuff_classes": 9},
        "detector": {"bbox_head": {"num_classes": 7, "loss_cls": {"num_classes": 8}}},
    }
    assert head_numbers(model) == {
        "model.roi_head.bbox_head.0.num_classes": 3,
        "model.roi_head.bbox_head.1.num_classes": 4,
        "model.roi_head.mask_head.num_classes": 5,
        "model.panoptic_head.num_things_classes": 6,
        "model.detector.bbox_head.num_classes": 7,
        "model.detector.bbox_head.loss_cls.num_classes": 8,
    }
    assert head_numbers({"language_model": {}, "bbox_head": {"num_classes": 256}}) == {}
    assert head_numbers(3) == {}


@pytest.mark.parametrize(
    "content",
    [
        {"meta": {"dataset_meta": {"classes": ["a", "b"]}}},
        {"meta": {"dataset_meta": {"CLASSES": ("a", "b")}}},
        {"meta": {"CLASSES": ("a", "b")}},
    ],
)
def test_names_in_checkpoints_of_all_versions(content: dict[str, Any]) -> None:
    assert checkpoint_classes(content) == (("a", "b"), False)


@pytest.mark.parametrize("content", [{}, {"meta": 3}, {"meta": {"dataset_meta": {"classes": "a"}}}, {"meta": {}}])
def test_checkpoints_without_names(content: dict[str, Any]) -> None:
    assert checkpoint_classes(content) == (None, False)


@pytest.mark.parametrize(
    "text",
    [
        '{"categories": [{"id": 1, "name": "caf\\u00e9"}], "images": []}',
        '{"images": [], "categories" :\n [{"name": "caf\u00e9", "id": 1, "supercategory": "x]"}]}',
        '{"note": "\\"categories\\": [", "categories": [{"id": 1, "name": "caf\u00e9"}]}',
        '{"info": {"categories": [1]}, "categories": [{"id": 1, "name": "caf\u00e9"}]}',
    ],
)
def test_categories_are_read_as_json_reads_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert read_categories(tmp_path / "a.json") == ((1, "caf\u00e9"),)


def test_a_long_list_behind_a_long_file_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": place, "name": f"class {place}"} for place in range(13204)]
    content = {"annotations": [{"bbox": [1, 2, 3, 4]}] * 100_000, "categories": rows, "images": [{"id": 1}] * 1000}
    (tmp_path / "a.json").write_text(json.dumps(content))
    monkeypatch.delattr(config_classes.json, "load")
    began = time.process_time()
    assert [row.name for row in read_categories(tmp_path / "a.json")] == [row["name"] for row in rows]
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"categories": [{"id": 1}]}', '{"categories": 3}'])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ClassNameError, match=r"expected a COCO file with categories in .*a\.json, got"):
        read_categories(tmp_path / "a.json")
