"""Paths of other machines, EXIF orientations, sizes, crowds, files listed twice: in all commands that read COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mmdet", reason="detectors need MMDetection")


from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from dtn_det.check.annotations import check_annotations
from dtn_det.corrupted_folders.layouts import list_coco
from dtn_det.corruptions.image import read_image
from dtn_det.datasets.coco import read_coco_file
from dtn_det.datasets.configs.files import check_files
from dtn_det.errors import AnnotationError, InputError
from dtn_det.robustness.detection.data import read_data

WIDE, HIGH, SQUARE = (64, 48), (48, 64), (48, 48)


def content_of(names: list[str], size: tuple[int, int] = WIDE, crowd: int = 0) -> dict[str, Any]:
    """One object in each image."""
    images = [
        {"id": number, "file_name": name, "width": size[0], "height": size[1]} for number, name in enumerate(names, 1)
    ]
    box = {"bbox": [2, 3, 20, 10], "area": 200, "iscrowd": crowd, "category_id": 1}
    objects = [{"id": number, "image_id": number, **box} for number in range(1, len(names) + 1)]
    return {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "disc"}]}


def write(root: Path, content: dict[str, Any]) -> Path:
    (root / "coco.json").write_text(json.dumps(content))
    return root / "coco.json"


def save(path: Path, size: tuple[int, int] = WIDE, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", size).save(path, exif=exif)


def config(root: Path, prefix: str = "", **load: str) -> Config:
    init_default_scope("mmdet")
    dataset = {"type": "CocoDataset", "data_root": str(root), "ann_file": "coco.json", "data_prefix": {"img": prefix}}
    steps = [{"type": "LoadImageFromFile", **load}]
    dataset |= {"metainfo": {"classes": ("disc",)}, "pipeline": steps, "test_mode": True}
    return Config({"test_dataloader": {"dataset": dataset}, "test_evaluator": {"type": "CocoMetric"}})


def kinds(remarks) -> list[str]:
    return [remark.kind for remark in remarks]


class TestNames:
    @pytest.mark.parametrize(
        "before",
        [
            "..\\..\\label-studio\\upload\\4\\",
            "/data/local-files/?d=set%2Fupload%2F",
            "/srv/somebody/images/",
            "C:\\Users\\somebody\\",
            "../upload/",
        ],
    )
    def test_paths_of_another_machine_are_read_by_their_last_parts(self, before, tmp_path):
        for number in (1, 2):
            save(tmp_path / f"images/{number}.png")
        path = write(tmp_path, content_of([f"{before}{number}.png" for number in (1, 2)]))
        data = read_data(config(tmp_path), "test")
        assert [image.file for image in data.truth.images] == ["images/1.png", "images/2.png"]
        assert data.file_sizes() == [(tmp_path / f"images/{number}.png").stat().st_size for number in (1, 2)]
        assert kinds(data.remarks) == ["names_elsewhere"]
        assert f"{before}1.png as images/1.png" in data.remarks[0].sentence()
        cfg = config(tmp_path, "images/")
        assert kinds(check_files(cfg, ["test_dataloader"], tmp_path / "work")) == ["names_elsewhere"]
        mended = json.loads(Path(cfg.test_dataloader.dataset.ann_file).read_text())
        assert [row["file_name"] for row in mended["images"]] == ["1.png", "2.png"]
        source = list_coco(tmp_path, [path])
        assert [str(image.target) for image in source.images] == ["images/1.png", "images/2.png"]
        assert check_annotations(path).is_good

    @pytest.mark.parametrize(
        ("names", "files"),
        [
            (["..\\up\\1.png", "..\\up\\2.png"], ["images/1.png"]),
            (["/up/1.png", "/up/2.png"], ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]),
            (["/up/a/1.png", "/up/b/1.png"], ["images/1.png"]),
            (["images/1.png", "/up/1.png"], ["images/1.png"]),
            (["video2\\1.png"], ["video1/1.png"]),
        ],
    )
    def test_what_is_not_certain_is_refused_with_what_helps(self, names, files, tmp_path):
        for file in files:
            save(tmp_path / file)
        path = write(tmp_path, content_of(names))
        said = r"missing, such as .*: '.*' is a path of another machine, and not exactly one image below .*'\d.png'"
        with pytest.raises(InputError, match=said):
            read_data(config(tmp_path), "test").file_sizes()
        with pytest.raises(InputError, match=said + ".*; put the images there, each once, under the last parts of"):
            check_files(config(tmp_path), ["test_dataloader"], tmp_path / "work")
        assert not check_annotations(path).is_good

    def test_names_that_are_url_encoded_are_refused_with_the_names_that_are_there(self, tmp_path):
        save(tmp_path / "images" / "a (1).png")
        save(tmp_path / "images" / "b.png")
        for names in (["a%20(1).png"], ["b.png", "a%20%281%29.png"]):
            path = write(tmp_path, content_of(names))
            message = r"missing.*: there is 'a \(1\).png', so the names are URL-encoded; write urllib.parse.unquote\("
            with pytest.raises(InputError, match=message):
                read_data(config(tmp_path, "images/"), "test").file_sizes()
            assert "there is 'a (1).png', so the names are URL-encoded" in check_annotations(path).problems[0]
        with pytest.raises(FileNotFoundError, match=r"there is 'a \(1\).png', so the names are URL-encoded"):
            list_coco(tmp_path, [write(tmp_path, content_of(["a%20(1).png"]))])
        assert check_annotations(write(tmp_path, content_of(["a (1).png", "b.png"]))).is_good
        # A file that has the sign in its own name is not touched.
        save(tmp_path / "images" / "100%25.png")
        assert check_annotations(write(tmp_path, content_of(["100%25.png"]))).is_good

    def test_images_that_are_cut_off_or_of_16_bits_are_told_by_check(self, tmp_path):
        for name in ("a.png", "b.png"):
            save(tmp_path / "images" / name)
        path = write(tmp_path, content_of(["a.png", "b.png"]))
        assert check_annotations(path).is_good
        Image.fromarray(np.full(WIDE[::-1], 3000, np.uint16)).save(tmp_path / "images" / "a.png")
        result = check_annotations(path)
        assert result.is_good
        (told,) = (remark for remark in result.remarks if remark.kind == "refused_by_corrupt")
        assert "1 image of 2 looked at is of a kind that `dtn-det corrupt` refuses" in told.sentence()
        assert "dividing by 257" in told.sentence()
        whole = (tmp_path / "images" / "b.png").read_bytes()
        (tmp_path / "images" / "b.png").write_bytes(whole[: len(whole) // 2])
        (problem,) = check_annotations(path).problems
        assert problem.startswith("expected images that can be read, got 1 of 2 looked at that cannot; ")
        assert f"{tmp_path}/images/b.png: " in problem

    def test_what_the_refusal_says_helps(self, tmp_path):
        write(tmp_path, content_of(["..\\up\\1.png"]))
        with pytest.raises(InputError, match="put the images there"):
            read_data(config(tmp_path), "test").file_sizes()
        save(tmp_path / "1.png")
        assert len(read_data(config(tmp_path), "test").file_sizes()) == 1


class TestOrientations:
    def test_sizes_of_the_stored_pixels_are_refused_by_all(self, tmp_path):
        save(tmp_path / "1.jpg", WIDE, orientation=6)
        path = write(tmp_path, content_of(["1.jpg"]))
        said = (
            r"width and height swapped in image 1 \(.*1.jpg, EXIF orientation 6\): swap width and height in the file if"
        )
        with pytest.raises(AnnotationError, match=said):
            list_coco(tmp_path, [path])
        option = "--cfg-options test_dataloader.dataset.pipeline.0.color_type=color_ignore_orientation"
        with pytest.raises(AnnotationError, match=f"{said}.*{option}"):
            check_files(config(tmp_path), ["test_dataloader"], tmp_path / "work")
        with pytest.raises(AnnotationError, match=said):
            read_data(config(tmp_path), "test").orientations().check()
        (problem,) = check_annotations(path).problems
        assert "EXIF orientation 6" in problem

    def test_an_image_that_meets_another_size_names_its_orientation(self, tmp_path):
        save(tmp_path / "1.jpg", WIDE, orientation=6)
        write(tmp_path, content_of(["1.jpg"]))
        found = images_of(read_data(config(tmp_path), "test"))[0]
        assert "expected 64 x 48 pixels as the annotations say, got 48 x 64 as its EXIF orientation 6" in found.reason

    @pytest.mark.parametrize("load", [{}, {"color_type": "color_ignore_orientation"}])
    def test_both_cures_work(self, load, tmp_path):
        save(tmp_path / "1.jpg", WIDE, orientation=6)
        write(tmp_path, content_of(["1.jpg"], WIDE if load else HIGH))
        data = read_data(config(tmp_path, **load), "test")
        data.orientations().check()
        assert not data.remarks
        assert not check_files(config(tmp_path, **load), ["test_dataloader"], tmp_path / "work")
        assert images_of(data)[0].fault == "pipeline"  # loaded; nothing packs it

    def test_the_other_way_round(self, tmp_path):
        save(tmp_path / "1.jpg", WIDE, orientation=6)
        write(tmp_path, content_of(["1.jpg"], HIGH))
        data = read_data(config(tmp_path, color_type="color_ignore_orientation"), "test")
        with pytest.raises(AnnotationError, match=r"read as they are stored.*or leave color_type at its default"):
            data.orientations().check("color_type")
        assert "got 64 x 48 as it is stored: swap width and height" in images_of(data)[0].reason

    @pytest.mark.parametrize(("size", "orientation"), [(SQUARE, 6), (WIDE, 3)])
    def test_images_whose_size_does_not_tell(self, size, orientation, tmp_path):
        save(tmp_path / "1.jpg", size, orientation)
        path = write(tmp_path, content_of(["1.jpg"], size))
        told = "1 image has an EXIF orientation that the size does not tell, and is read as it shows it: boxes must be"
        for remarks in (
            read_data(config(tmp_path), "test").remarks,
            check_files(config(tmp_path), ["test_dataloader"], tmp_path / "work"),
            list_coco(tmp_path, [path]).remarks,
            check_annotations(path).remarks,
        ):
            assert kinds(remarks) == ["exif_orientation"]
            assert told in remarks[0].sentence()
        # Another image of the file says how it is annotated.
        save(tmp_path / "2.jpg", WIDE, orientation=6)
        content = content_of(["1.jpg", "2.jpg"], size)
        content["images"][1].update(width=48, height=64)
        write(tmp_path, content)
        assert not read_data(config(tmp_path), "test").remarks

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
    def test_corrupt_reads_images_as_mmdetection_does(self, suffix, tmp_path):
        import mmcv
        import numpy as np

        picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)).resize(WIDE)
        exif = Image.Exif()
        exif[274] = 6
        picture.save(tmp_path / f"1.{suffix}", exif=exif)
        theirs = mmcv.imread(str(tmp_path / f"1.{suffix}"), channel_order="rgb")
        ours = np.asarray(read_image(tmp_path / f"1.{suffix}", upright=True))
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 2


READERS = {
    "corrupt": lambda root: list_coco(root, [root / "coco.json"]),
    "tools/test.py": lambda root: check_files(config(root), ["test_dataloader"], root / "work"),
    "tools/train.py": lambda root: check_files(training(root), ["train_dataloader"], root / "work"),
    "mpc": lambda root: read_data(config(root), "test").orientations().check(),
    "check": lambda root: refused(*check_annotations(root / "coco.json").problems),
}


def training(root: Path, *, empty: bool = True) -> Config:
    dataset = {**config(root).test_dataloader.dataset, "test_mode": False}
    return Config({"train_dataloader": {"dataset": {**dataset, "filter_cfg": {"filter_empty_gt": not empty}}}})


def refused(*problems: str) -> None:
    for problem in problems:
        raise AnnotationError(Path("coco.json"), problem, "")


class TestSizesOfFiles:
    @pytest.mark.parametrize("reader", READERS)
    @pytest.mark.parametrize("orientation", [1, 3, 6])
    @pytest.mark.parametrize("annotated", [HIGH, (640, 480)])
    def test_sizes_that_the_files_do_not_have_are_refused_and_the_cure_works(
        self, annotated, orientation, reader, tmp_path
    ):
        if orientation == 6 and annotated == HIGH:
            annotated = (65, 48)  # the other one is that of the turned picture
        for number in range(1, 5):
            save(tmp_path / f"{number}.jpg", WIDE, orientation)
        content = content_of([f"{number}.jpg" for number in range(1, 5)], HIGH if orientation == 6 else WIDE)
        for row in content["images"][1:3]:
            row.update(width=annotated[0], height=annotated[1])
        write(tmp_path, content)
        read = "48 x 64" if orientation == 6 else "64 x 48"
        said = (
            f"expected the width and height of each image file in .*coco.json, got {annotated[0]} x {annotated[1]} "
            rf"where the file has {read} in image 2 \(.*2.jpg.*\) and other sizes in 1 more: write the width and height"
        )
        with pytest.raises(AnnotationError, match=said):
            READERS[reader](tmp_path)
        for row in content["images"]:
            row["width"], row["height"] = read_image(tmp_path / row["file_name"], upright=True).size
        write(tmp_path, content)
        READERS[reader](tmp_path)

    @pytest.mark.parametrize("reader", READERS)
    def test_sizes_that_are_missing_are_those_of_the_files(self, reader, tmp_path):
        for number in (1, 2, 3):
            save(tmp_path / f"{number}.jpg", WIDE)
        content = content_of(["1.jpg", "2.jpg", "3.jpg"], WIDE)
        del content["images"][0]["height"]
        content["images"][1].update(width=-1, height=-1)
        write(tmp_path, content)
        READERS[reader](tmp_path)
        assert [(image.height, image.width) for image in read_data(config(tmp_path), "test").truth.images] == [
            (48, 64)
        ] * 3

    def test_training_passes_over_images_that_it_leaves_out(self, tmp_path):
        for number in (1, 2):
            save(tmp_path / f"{number}.jpg", WIDE)
        content = content_of(["1.jpg", "2.jpg"], WIDE)
        content["images"][1].update(width=48, height=64)
        content["annotations"].pop()
        write(tmp_path, content)
        assert check_files(training(tmp_path, empty=False), ["train_dataloader"], tmp_path / "work") == ()
        with pytest.raises(AnnotationError, match="in image 2"):
            check_files(training(tmp_path), ["train_dataloader"], tmp_path / "work")

    def test_training_refuses_sizes_of_the_other_orientation(self, tmp_path):
        save(tmp_path / "1.jpg", WIDE, orientation=6)
        write(tmp_path, content_of(["1.jpg"]))
        option = "--cfg-options train_dataloader.dataset.pipeline.0.color_type=color_ignore_orientation"
        with pytest.raises(AnnotationError, match=f"EXIF orientation 6.*{option}"):
            check_files(training(tmp_path), ["train_dataloader"], tmp_path / "work")


def images_of(data) -> Any:
    from dtn_det.corruptions.cells import sweep_cells
    from dtn_det.corruptions.engine import Corruptor

    return data.images(sweep_cells(()), Corruptor("coco-c"))


class TestCrowds:
    def test_crowds_alone_are_refused_before_any_image(self, tmp_path):
        save(tmp_path / "1.jpg")
        path = write(tmp_path, content_of(["1.jpg"], crowd=1))
        said = r"expected objects in .*, got one crowd \(iscrowd 1\) and nothing else: .* set iscrowd to 0"
        with pytest.raises(AnnotationError, match=said):
            read_data(config(tmp_path), "test")
        with pytest.raises(AnnotationError, match=said):
            check_files(config(tmp_path), ["test_dataloader"], tmp_path / "work")
        (problem,) = check_annotations(path).problems
        assert "set iscrowd to 0" in problem

    def test_a_part_of_the_images_with_crowds_alone(self, tmp_path):
        for number in (1, 2):
            save(tmp_path / f"{number}.jpg")
        content = content_of(["1.jpg", "2.jpg"])
        for row in content["annotations"]:
            row["iscrowd"] = int(row["image_id"] == 1)
        write(tmp_path, content)
        cfg = config(tmp_path)
        cfg.test_dataloader.dataset["indices"] = [0]
        with pytest.raises(AnnotationError, match="got one crowd"):
            read_data(cfg, "test")
        assert not read_data(config(tmp_path), "test").remarks

    def test_a_category_of_crowds_is_told(self, tmp_path):
        save(tmp_path / "1.jpg")
        content = content_of(["1.jpg"])
        content["categories"].append({"id": 2, "name": "mass"})
        content["annotations"].append({**content["annotations"][0], "id": 2, "category_id": 2, "iscrowd": 1})
        (remark,) = read_coco_file(write(tmp_path, content)).remarks
        assert remark.sentence().endswith(
            "1 category has crowds alone (iscrowd 1), which COCO's evaluation ignores, so it counts like one without "
            "objects; set iscrowd to 0 where they are single objects (mass)"
        )


class TestFilesListedTwice:
    def test_each_id_counts_and_one_copy_is_corrupted(self, tmp_path):
        save(tmp_path / "images/1.jpg")
        save(tmp_path / "images/2.jpg")
        path = write(tmp_path, content_of(["1.jpg", "2.jpg", "./2.jpg"]))
        data = read_data(config(tmp_path, "images/"), "test")
        assert len(data.truth.images) == 3
        assert [remark.sentence() for remark in data.remarks] == [
            f"{path}: 1 image names the file of another image; each is evaluated against its own objects alone "
            "(image 3: 2.jpg as image 2)"
        ]
        source = list_coco(tmp_path, [path])
        assert [(str(image.target), image.key) for image in source.images] == [("images/1.jpg", 1), ("images/2.jpg", 2)]
        assert kinds(source.remarks) == ["same_files", "files_corrupted_once"]
        assert kinds(check_annotations(path).remarks) == ["same_files"]

    def test_two_files_of_annotations_that_differ_are_refused(self, tmp_path):
        save(tmp_path / "images/1.jpg")
        content = content_of(["1.jpg"])
        first = write(tmp_path, content)
        content["images"][0]["id"] = content["annotations"][0]["image_id"] = 7
        (tmp_path / "other.json").write_text(json.dumps(content))
        with pytest.raises(
            ValueError, match=r"got 1 and 7 in two annotation files: .* with one --annotations at a time"
        ):
            list_coco(tmp_path, [first, tmp_path / "other.json"])
        assert [image.key for image in list_coco(tmp_path, [tmp_path / "other.json"]).images] == [7]
