"""`dtn-det check` names what a path is, what would be left out of it, and whether a model fits it."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from array_sets import write_cifar_c, write_parquet
from checked import check, write_coco
from odd_coco_files import odd_content, plain_content
from odd_folders import WNIDS, arrays, link_classes, tiny_imagenet, write_classes, write_image
from PIL import Image

from dtn_det.check import CheckResult, inspect_path
from dtn_det.check.model import Target, read_target
from dtn_det.cli.main import build_parser, main
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError

CATS = ("cat", "dog")
MISSING = [f"{name} {severity}" for name in ("fog",) for severity in (2, 3, 4, 5)]


class TestFolders:
    def test_class_folders(self, tmp_path: Path) -> None:
        write_classes(tmp_path / "pets", CATS)
        (tmp_path / "pets" / "cat" / "notes.txt").write_text("")
        result = check(tmp_path / "pets")
        assert (result.kind, result.is_good, result.fits) == ("class_folders", True, None)
        facts = {"images": 4, "classes with images": 2, "classes": 2, "numbered by": "folder"}
        assert {name: result.facts[name] for name in facts} == facts
        assert [remark.count for remark in result.remarks] == [1]
        assert ".txt" in result.remarks[0].sentence()

    def test_a_parquet_file_alone(self, tmp_path: Path) -> None:
        result = check(write_parquet(tmp_path / "test.parquet", "image"))
        assert (result.kind, result.is_good, result.facts["images"]) == ("parquet", True, 10)
        problem = check(write_parquet(tmp_path / "other.parquet", "text")).problems[0]
        assert "expected one column out of image, img in" in problem

    def test_a_model_of_another_number_of_classes(self, tmp_path: Path) -> None:
        pytest.importorskip("timm")
        write_classes(tmp_path / "pets", CATS)
        result = check(tmp_path / "pets", read_target("timm:resnet10t"))
        assert result.fits is False
        assert "got 1,000 classes in 'timm:resnet10t'" in result.problems[0]

    def test_a_checkpoint_behind_the_name_must_exist(self, tmp_path: Path) -> None:
        pytest.importorskip("timm")
        (tmp_path / "a.pth").touch()
        target = read_target(f"timm:resnet10t@{tmp_path / 'a.pth'}")
        assert (target.source, target.checkpoint) == ("timm:resnet10t", str(tmp_path / "a.pth"))
        with pytest.raises(FileNotFoundError, match=r"expected a checkpoint file at b\.pth, got none"):
            read_target("timm:resnet10t@b.pth")
        with pytest.raises(InputError, match="expected a file or 'random' after '@' in 'timm:resnet10t@', got nothing"):
            read_target("timm:resnet10t@")

    def test_a_part_of_imagenet_fits_a_model_of_imagenet(self, tmp_path: Path) -> None:
        pytest.importorskip("timm")
        write_classes(tmp_path / "val", WNIDS)
        result = check(tmp_path / "val", read_target("timm:resnet10t"))
        assert (result.fits, result.facts["numbered by"]) == (True, "imagenet")
        assert any(remark.partial for remark in result.remarks)

    def test_corrupted_images_and_what_mce_would_miss(self, tmp_path: Path) -> None:
        write_classes(tmp_path / "c" / "fog" / "1", WNIDS, size=(224, 224))
        result = check(tmp_path / "c")
        assert result.kind == "corrupted"
        assert (result.facts["corruptions"], result.facts["severities"]) == (["fog"], [1])
        assert len(result.facts["missing for mCE"]) == 74
        assert set(MISSING) < set(result.facts["missing for mCE"])

    def test_kinds_that_cannot_be_evaluated_yet_are_named(self, tmp_path: Path) -> None:
        arrays(tmp_path / "CIFAR-10-C")
        result = check(tmp_path / "CIFAR-10-C")
        assert (result.kind, result.is_good) == ("array_corruptions", False)
        result = check(write_cifar_c(tmp_path / "whole"))
        assert (result.is_good, result.facts["images"], result.facts["classes"]) == (True, 10, 10)
        write_classes(tmp_path / "bar" / "dust_on_lens" / "1", WNIDS)
        assert check(tmp_path / "bar").kind == "unknown_corruptions"

    def test_tiny_imagenet_as_downloaded(self, tmp_path: Path) -> None:
        result = check(tiny_imagenet(tmp_path / "tiny"))
        assert (result.kind, result.is_good, result.facts["images"]) == ("tiny_imagenet_val", True, 2 * len(WNIDS))

    def test_images_that_commands_stop_at(self, tmp_path: Path) -> None:
        write_classes(tmp_path / "deep", CATS)
        Image.fromarray(np.full((40, 36), 4080, np.uint16)).save(tmp_path / "deep" / "cat" / "c.png")
        (problem,) = check(tmp_path / "deep").problems
        assert "got 1 of 5 looked at that cannot" in problem
        assert "c.png: expected 8 bits a channel, got mode I;16" in problem

    def test_the_split_that_is_named_can_be_read(self, tmp_path: Path) -> None:
        write_classes(tmp_path / "data" / "train", CATS)
        write_image(tmp_path / "data" / "test" / "a.png")
        (problem,) = check(tmp_path / "data").problems
        assert problem.endswith(f"such as {tmp_path / 'data' / 'train'}")
        assert check(tmp_path / "data" / "train").is_good

    def test_numbers_with_a_gap_are_a_problem(self, tmp_path: Path) -> None:
        link_classes(tmp_path / "numbers", ("0", "1", "3"), "a.png")
        result = check(tmp_path / "numbers")
        assert "named 0 to 2" in result.problems[0]
        assert check(tmp_path / "numbers", classes="sorted").is_good


class TestAnnotations:
    def test_a_data_set_and_its_files(self, tmp_path: Path) -> None:
        content = plain_content()
        write_coco(tmp_path, content)
        folder, file = inspect_path(tmp_path)
        assert (folder.kind, file.kind) == ("coco", "coco")
        assert file.is_good
        assert file.facts["images"] == len(content["images"])
        assert file.facts["objects"] == len(content["annotations"])
        assert file.facts["categories"] == [row["name"] for row in content["categories"]]

    def test_missing_images_are_counted(self, tmp_path: Path) -> None:
        content = plain_content()
        path = write_coco(tmp_path, content)
        (tmp_path / "val" / content["images"][0]["file_name"]).unlink()
        (problem,) = check(path).problems
        assert f"got 1 of {len(content['images'])} missing" in problem

    def test_what_the_evaluation_cannot_take_is_named_with_its_object(self, tmp_path: Path) -> None:
        content = plain_content()
        content["annotations"][1]["iscrowd"] = None
        path = write_coco(tmp_path, content)
        (problem,) = check(path).problems
        assert "iscrowd" in problem
        assert f"annotation {content['annotations'][1]['id']}" in problem

    def test_images_of_another_size_are_a_problem(self, tmp_path: Path) -> None:
        path = write_coco(tmp_path / "coco", plain_content())
        write_image(tmp_path / "coco/val/sub/3.jpg", (480, 640))
        (problem,) = check(path).problems
        assert problem.startswith(f"expected the width and height of each image file in {path}, got 640 x 480 where ")
        assert "the file has 480 x 640 in image 3 (sub/3.jpg): write the width and height of the image" in problem

    def test_names_that_are_not_those_of_the_files(self, tmp_path: Path) -> None:
        content = plain_content()
        path = write_coco(tmp_path / "coco", content)
        for new, advice in (
            ("sub/1.JPG", "there is 1.jpg, so write the names as the files have them, as file_name"),
            ("https://a/1.jpg", "these are URLs; fetch the images and write the names of their files as file_name"),
            ("none.jpg", "name the folder of the data set, or fetch the images"),
            (
                "/x/none.jpg",
                "put the images into one folder, each once, under the last parts of their paths, or write "
                "file_name relative to the folder of the images",
            ),
        ):
            for row in content["images"]:
                row["file_name"] = new
            path.write_text(json.dumps(content))
            assert check(path).problems[0].endswith(f": {advice}")

    def test_crowds_alone_cannot_be_evaluated(self, tmp_path: Path) -> None:
        content = plain_content()
        for row in content["annotations"]:
            row["iscrowd"] = 1
        (problem,) = check(write_coco(tmp_path / "coco", content)).problems
        assert (
            "got 26 crowds (iscrowd 1) and nothing else: COCO's evaluation ignores crowds, so set iscrowd to 0"
            in problem
        )

    def test_what_would_be_filled_in_is_told(self, tmp_path: Path) -> None:
        content = plain_content()
        for annotation in content["annotations"]:
            del annotation["area"]
        result = check(write_coco(tmp_path, content))
        assert result.is_good
        assert [remark.kind for remark in result.remarks] == ["areas_filled"]

    def test_masks_that_cannot_be_evaluated(self, tmp_path: Path) -> None:
        result = check(write_coco(tmp_path, odd_content("run lengths beyond the mask")))
        assert result.is_good
        assert [remark.kind for remark in result.remarks] == ["unusable_masks"]

    def test_results_of_a_detector_are_called_so(self, tmp_path: Path) -> None:
        path = tmp_path / "bbox.json"
        path.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]))
        result = check(path)
        assert (result.kind, result.is_good) == ("coco_results", False)
        assert result.title == "results of a detector in COCO's format, 1 detections"

    def test_files_that_are_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("{")
        assert check(tmp_path / "a.json").title == "a file that is not JSON"
        (tmp_path / "b.json").write_text("{}")
        assert check(tmp_path / "b.json").title == "JSON, but no COCO annotation file"
        (tmp_path / "c.xml").write_text("")
        assert "expected a JSON file of annotations" in check(tmp_path / "c.xml").problems[0]
        with pytest.raises(FileNotFoundError, match=r"expected a file or folder, got .*nowhere"):
            inspect_path(tmp_path / "nowhere")


class TestAgainstDetector:
    @pytest.mark.parametrize(
        ("names", "fits"),
        [(("RBC", "WBC", "Platelets"), True), (("RBC", "WBC"), False), (("rbc", "wbc", "platelets"), False)],
    )
    def test_categories_are_held_against_the_config(
        self, target: Target, names: tuple[str, ...], fits: bool, tmp_path: Path
    ) -> None:
        content = plain_content()
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        result = check(write_coco(tmp_path, content), target)
        assert result.fits is fits
        assert result.is_good is fits

    def test_a_category_that_the_reader_leaves_out_does_not_count(self, target: Target, tmp_path: Path) -> None:
        """Exports begin with a category of the project's name, which has no objects."""
        names = target.config.test_dataloader.dataset.metainfo["classes"]
        content = plain_content()
        content["categories"] = [{"id": 0, "name": names[0], "supercategory": "none"}]
        content["categories"] += [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        for row in content["annotations"]:
            row["category_id"] = 1
        result = check(write_coco(tmp_path / "coco", content), target)
        assert (result.fits, list(result.problems)) == (True, [])
        assert "category_names_twice" in [remark.kind for remark in result.remarks]

    @pytest.mark.parametrize("whole", [True, False], ids=["folder", "file"])
    def test_the_training_file_of_the_folder_tells_the_order(
        self, project_root: Path, whole: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As `mpc --data-root` finds it, which then goes by names."""
        pytest.importorskip("mmdet")
        names = ("disc", "square", "triangle", "star", "ring", "cross")
        content = plain_content()
        for row in content["annotations"]:
            row["category_id"] = 1
        root = tmp_path / "data"
        for split, order in (("train", names), ("val", names[::-1])):
            content["categories"] = [{"id": number, "name": name} for number, name in enumerate(order, 1)]
            write_coco(root, content).rename(root / f"annotations/instances_{split}.json")
        paths = [root if whole else root / "annotations/instances_val.json"]
        config = str(project_root / "configs/dtn_demo/atss_swin-nano_fpn_shapes.py")
        assert main(["check", *map(str, paths), "--config", config, "--cfg-options", "data_root=elsewhere/"]) == 0
        said = capsys.readouterr()
        assert said.err.endswith(
            "when the config is read: name the folder of the data set as the path that is checked\n"
        )
        order = f"another order than in {root}/annotations/instances_train.json (train_dataloader.dataset): dtn-det mpc"
        assert said.out.count(order) == 1
        assert said.out.count("fits the model: yes") == 1 + whole
        # Without it nothing tells the order.
        (root / "annotations/instances_train.json").unlink()
        assert main(["check", *map(str, paths), "--config", config]) == 1
        assert "is not at hand; name it by its whole path" in capsys.readouterr().out

    def test_checkpoints_are_held_against_the_config(self, target: Target, project_root: Path, tmp_path: Path) -> None:
        model = target.build()
        torch.save({"state_dict": model.state_dict(), "meta": {"epoch": 3}}, tmp_path / "a.pth")
        result = check(tmp_path / "a.pth", target)
        assert result.fits is True
        assert result.facts["epoch"] == 3
        assert result.facts["DTN norms"] > 0
        names = tuple(f"name{number}" for number in range(80))
        torch.save({"state_dict": model.state_dict(), "meta": {"CLASSES": names}}, tmp_path / "b.pth")
        result = check(tmp_path / "b.pth", target)
        assert (result.fits, [remark.kind for remark in result.remarks]) == (True, ["names_left_out"])
        twin = read_target(f"{project_root}/configs/dtn_bccd/atss_swin-nano_fpn_24e_bccd.py")
        assert check(tmp_path / "a.pth", twin).fits is False

    def test_class_folders_are_no_data_of_a_detector(self, target: Target, tmp_path: Path) -> None:
        result = check(write_classes(tmp_path / "pets", CATS), target)
        assert result.fits is False
        assert "expected the config of a classifier" in result.problems[0]


def test_a_detector_with_masks(project_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("mmdet")
    masks = read_target(str(project_root / "configs/dtn_pvtv2/mask-rcnn_pvtv2-b0_fpn_1x_coco.py"))
    torch.save(masks.build().state_dict(), tmp_path / "a.pth")
    assert check(tmp_path / "a.pth", masks).fits is True
    content = plain_content()
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)
    told = {remark.kind: remark for remark in check(write_coco(tmp_path, content), masks).remarks}
    assert told["objects_without_masks"].count == len(content["annotations"])
    # A segmentation that cannot be evaluated stops mpc and the tools, which is said once.
    names = pytest.importorskip("mmdet.datasets").CocoDataset.METAINFO["classes"]
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    assert check(write_coco(tmp_path, content), masks).fits is True
    for broken in ([[]], [1, 2, 3, 4, 5, 6]):
        content["annotations"][0]["segmentation"] = broken
        result = check(write_coco(tmp_path, content), masks)
        assert result.fits is False
        (problem,) = result.problems
        assert "segmentations that COCO's evaluation takes" in problem
        assert not {"objects_without_masks", "unusable_masks"} & {one.kind for one in result.remarks}


def test_a_model_that_does_not_build_is_a_problem_of_the_check(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(settings: Any) -> None:
        raise ValueError("negative depth")

    monkeypatch.setattr(importlib.import_module("mmdet.registry").MODELS, "build", build)
    torch.save({"weight": torch.ones(1)}, tmp_path / "a.pth")
    (problem,) = check(tmp_path / "a.pth", target).problems
    assert "got ValueError: negative depth: mend the config" in problem


def test_a_metric_of_masks_asks_for_masks(target: Target, tmp_path: Path) -> None:
    assert target.config is not None
    config = copy.deepcopy(target.config)
    config.test_evaluator = [{"type": "CocoMetric", "metric": ["bbox", "segm"]}]
    result = check(write_coco(tmp_path, odd_content("run lengths beyond the mask")), Target("a.py", config))
    assert any("run lengths of 10,000,004 pixels" in problem for problem in result.problems)


class TestCheckpoints:
    def test_an_average_is_named(self, tmp_path: Path) -> None:
        state = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
        torch.save({"state_dict": state, "state_dict_ema": state, "epoch": 7}, tmp_path / "a.pth")
        facts = check(tmp_path / "a.pth").facts
        assert facts["kind of weights"] == "average (EMA)"
        assert facts["others under"] == "state_dict"
        assert (facts["tensors"], facts["numbers"], facts["types"], facts["epoch"]) == (2, 8, ["float32"], 7)

    def test_another_number_of_classes_fits_a_model_of_timm(self, tmp_path: Path) -> None:
        """`mce timm:NAME@FILE` builds the model with the classes of the data."""
        timm = pytest.importorskip("timm")
        torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), tmp_path / "a.pth")
        result = check(tmp_path / "a.pth", read_target("timm:test_resnet"))
        assert (result.fits, list(result.problems)) == (True, [])
        assert [(remark.kind, remark.count) for remark in result.remarks] == [("other_classes", 10)]
        torch.save(timm.create_model("test_vit", num_classes=10).state_dict(), tmp_path / "b.pth")
        assert check(tmp_path / "b.pth", read_target("timm:test_resnet")).fits is False

    def test_a_damaged_file_is_a_problem(self, tmp_path: Path) -> None:
        (tmp_path / "a.pth").write_bytes(b"PK\x03\x04 and no more")
        result = check(tmp_path / "a.pth")
        assert not result.is_good
        assert "a.pth" in result.problems[0]

    def test_a_folder_of_hugging_face_is_a_checkpoint(self, tmp_path: Path) -> None:
        parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        for name, file in parts.items():
            pytest.importorskip("safetensors.torch").save_file({name: torch.zeros(3)}, tmp_path / file)
        (tmp_path / "config.json").write_text("{}")
        result = check(tmp_path)
        assert result.kind == "checkpoint"
        assert "got none of model.safetensors, pytorch_model.bin and their index" in result.problems[0]
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": parts}))
        for path in (tmp_path, index):
            result = check(path)
            assert (result.kind, result.is_good, result.facts["tensors"]) == ("checkpoint", True, 2)
        result = check(tmp_path / parts["a"])
        assert "which is part 1 of 2" in result.problems[0]


class TestCommand:
    def test_text_and_exit_code(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_classes(tmp_path / "pets", CATS)
        assert main(["check", str(tmp_path / "pets")]) == 0
        assert f"{tmp_path / 'pets'}: 2 class folders named by words" in capsys.readouterr().out
        (tmp_path / "empty").mkdir()
        assert main(["check", str(tmp_path / "pets"), str(tmp_path / "empty")]) == 1
        assert "  problem: expected images" in capsys.readouterr().out

    def test_json_has_all_of_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write_coco(tmp_path, odd_content("areas of null without masks"))
        assert main(["check", "--json", str(path)]) == 0
        (result,) = json.loads(capsys.readouterr().out)
        assert result["kind"] == "coco"
        assert result["fits"] is None
        assert [remark["kind"] for remark in result["remarks"]] == ["areas_filled"]
        assert result["problems"] == []

    def test_a_name_that_timm_does_not_have(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("timm")
        assert main(["check", str(tmp_path), "--config", "timm:resnet500"]) == 1
        assert "did you mean resnet50" in capsys.readouterr().err


def test_lines_say_everything() -> None:
    remark = Remark("other", "files were passed over", "val", 2)
    facts = {"images": 5000, "corruptions": []}
    result = CheckResult("val", "class_folders", "2 class folders", facts, (remark,), ("stop",), False)
    assert result.lines() == [
        "val: 2 class folders",
        "  images: 5,000",
        "  corruptions: none",
        "  note: val: 2 files were passed over",
        "  problem: stop",
        "  fits the model: no",
    ]


def test_a_missing_path_among_others_is_a_problem_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(tmp_path / "pets", CATS)
    paths = [str(tmp_path / name) for name in ("pets", "nope", "pets")]
    assert main(["check", *paths, "--json"]) == 1
    results = json.loads(capsys.readouterr().out)
    assert [(one["path"], len(one["problems"])) for one in results] == [(paths[0], 0), (paths[1], 1), (paths[2], 0)]
    assert (
        results[1]["problems"][0]
        == f"expected a file or folder, got {paths[1]}: there is no such thing; check the path"
    )


def test_an_image_is_named_and_what_can_be_done_with_it(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    result = check(path)
    assert (result.kind, result.title, result.is_good) == ("image", "an image", False)
    assert f"name its folder, {tmp_path}, or see the image under every" in result.problems[0]
    command = result.problems[0].partition("`dtn-det ")[2].rstrip("`").split()
    arguments = build_parser(command).parse_args(command)
    assert (arguments.command, str(arguments.grid)) == ("corrupt", "grid.png")


def test_a_name_of_timm_without_its_prefix_is_told() -> None:
    pytest.importorskip("timm")
    with pytest.raises(FileNotFoundError, match=r"'resnet18': there is no such file.* of that name: timm:resnet18$"):
        read_target("resnet18")
    with pytest.raises(FileNotFoundError, match=r"there is no such file(?!.*timm)"):
        read_target("resnet18.py")
