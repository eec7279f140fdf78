"""Which images a folder holds, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from tree_files import coco_folder, imagenet_folder, picture, plain_folder, save, write_annotations

from dtn_det.corrupted_folders.layouts import choose, list_coco, list_folder
from dtn_det.corrupted_folders.plan import find_layout, plan_tree
from dtn_det.datasets.folders.recognise import recognise


class TestFolders:
    def test_plain(self, tmp_path):
        plain_folder(tmp_path / "a")
        (tmp_path / "a/notes.txt").write_text("")
        save(tmp_path / "a/.hidden.png", picture(1))
        (tmp_path / "a/deep/loop").symlink_to(tmp_path / "a")
        source = list_folder(tmp_path / "a", "plain")
        assert [image.key for image in source.images] == ["0.png", "2.png", "deep/er/1.png"]
        assert [str(image.target) for image in source.images] == ["0.png", "2.png", "deep/er/1.png"]
        (tmp_path / "a").rename(tmp_path / "b")
        assert list_folder(tmp_path / "b", "plain").digest == source.digest

    def test_linked_folders_are_followed(self, tmp_path):
        plain_folder(tmp_path / "a")
        (tmp_path / "b").mkdir()
        (tmp_path / "b/link").symlink_to(tmp_path / "a")
        assert list_folder(tmp_path / "b", "plain").images[0].key == "link/0.png"

    def test_imagenet(self, tmp_path):
        imagenet_folder(tmp_path)
        keys = [image.key for image in list_folder(tmp_path, "imagenet").images]
        assert keys == [
            "n01440760/ILSVRC2012_val_00000000.JPEG",
            "n01440760/ILSVRC2012_val_00000002.JPEG",
            "n01440761/ILSVRC2012_val_00000001.JPEG",
        ]

    def test_folders_beside_those_of_imagenet_are_no_silent_loss(self, tmp_path):
        imagenet_folder(tmp_path)
        save(tmp_path / "other/x.png", picture(1))
        with pytest.raises(ValueError, match=r"got 'other' beside them: move them away, or take --layout plain"):
            list_folder(tmp_path, "imagenet")
        assert len(list_folder(tmp_path, "plain").images) == 4

    def test_a_plain_folder_is_taken_as_it_is_where_it_is_named_so(self, tmp_path):
        imagenet_folder(tmp_path / "a" / "val")
        save(tmp_path / "a" / "train" / "n01440760" / "x.png", picture(1))
        chosen = plan_tree(tmp_path / "a", tmp_path / "b", ["fog"], [1])
        assert len(chosen.source.images) == 3
        assert [remark.kind for remark in chosen.source.remarks] == ["split"]
        whole = plan_tree(tmp_path / "a", tmp_path / "b", ["fog"], [1], layout="plain")
        assert len(whole.source.images) == 4
        assert not whole.source.remarks

    def test_layouts_are_found(self, tmp_path):
        assert find_layout(recognise(plain_folder(tmp_path / "a"))) == "plain"
        assert find_layout(recognise(imagenet_folder(tmp_path / "b"))) == "imagenet"
        assert find_layout(recognise(coco_folder(tmp_path / "c"))) == "coco"

    def test_nothing_to_corrupt_is_refused(self, tmp_path):
        (tmp_path / "notes.txt").write_text("")
        with pytest.raises(ValueError, match=r"expected images \(.jpg, .*\) in .*, got none"):
            list_folder(tmp_path, "plain")
        with pytest.raises(ValueError, match="expected class folders such as n01440764"):
            list_folder(tmp_path, "imagenet")

    def test_a_smaller_part_is_contained_in_a_larger_one(self, tmp_path):
        source = list_folder(plain_folder(tmp_path, 8), "plain")
        parts = [set(choose(source, limit, 3)) for limit in (1, 4, 8, 20)]
        assert [len(part) for part in parts] == [1, 4, 8, 8]
        assert parts[0] < parts[1] < parts[2]
        assert choose(source, None, 3) == source.images
        assert {choose(source, 1, seed) for seed in range(20)} != {choose(source, 1, 3)}
        with pytest.raises(ValueError, match="expected a limit of at least 1 image, got 0"):
            choose(source, 0, 3)


class TestCoco:
    def test_ids_are_keys(self, tmp_path):
        source = list_coco(coco_folder(tmp_path), [])
        assert [(image.key, str(image.target)) for image in source.images] == [
            (1000, "val2017/000000000000.png"),
            (999, "val2017/000000000001.png"),
            (998, "val2017/000000000002.png"),
        ]
        assert list(source.annotations) == [PurePosixPath("annotations/instances_val2017.json")]

    def test_one_of_several_must_be_chosen(self, tmp_path):
        coco_folder(tmp_path)
        write_annotations(tmp_path / "annotations/captions.json", [{"id": 1000, "file_name": "000000000000.png"}])
        with pytest.raises(ValueError, match=r"to choose out of annotations/captions.json, annotations/inst"):
            list_coco(tmp_path, [])
        both = list_coco(tmp_path, [Path("annotations/captions.json"), tmp_path / "annotations/instances_val2017.json"])
        assert len(both.images) == 3
        assert len(both.annotations) == 2

    def test_splits_that_number_alike_are_told_apart_by_name(self, tmp_path):
        coco_folder(tmp_path)
        save(tmp_path / "train2017/000000000000.png", picture(9))
        path = write_annotations(tmp_path / "x/train2017.json", [{"id": 5, "file_name": "000000000000.png"}])
        (image,) = list_coco(tmp_path, [path]).images
        assert str(image.target) == "train2017/000000000000.png"
        path = write_annotations(tmp_path / "x/other.json", [{"id": 5, "file_name": "000000000000.png"}])
        with pytest.raises(ValueError, match="got train2017, val2017: choose with --images"):
            list_coco(tmp_path, [path])
        (image,) = list_coco(tmp_path, [path], Path("val2017")).images
        assert str(image.target) == "val2017/000000000000.png"

    def test_annotations_from_elsewhere(self, tmp_path):
        coco_folder(tmp_path / "data")
        (tmp_path / "data/annotations/instances_val2017.json").rename(tmp_path / "mine.json")
        source = list_coco(tmp_path / "data", [tmp_path / "mine.json"])
        assert source.annotations == {PurePosixPath("annotations/mine.json"): tmp_path / "mine.json"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "expected JSON in"),
            ("[]", "expected a COCO annotation file in"),
            ('{"images": [{"id": 1}]}', "expected a file name of each image in"),
            ('{"images": []}', "expected images in"),
            ('{"images": [{"id": 1, "file_name": "../x.png"}]}', "expected file names below the image folder"),
            ('{"images": [{"id": 1, "file_name": "/x.png"}]}', "expected file names below the image folder"),
        ],
    )
    def test_other_files_are_refused(self, tmp_path, content, message):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            list_coco(tmp_path, [tmp_path / "a.json"])

    def test_what_is_missing_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"expected annotation files in .*annotations, got none"):
            list_coco(tmp_path, [])
        with pytest.raises(FileNotFoundError, match=r"expected --annotations to name a file, got a.json"):
            list_coco(tmp_path, [Path("a.json")])
        path = write_annotations(tmp_path / "a.json", [{"id": 5, "file_name": "x.png"}])
        with pytest.raises(FileNotFoundError, match=r"got none, such as 'x.png': name their folder with --images"):
            list_coco(tmp_path, [path])
        with pytest.raises(FileNotFoundError, match="expected --images to name a folder"):
            list_coco(tmp_path, [path], Path("nowhere"))

    def test_an_image_with_two_ids_is_refused(self, tmp_path):
        coco_folder(tmp_path)
        other = write_annotations(tmp_path / "annotations/b.json", [{"id": 5, "file_name": "000000000000.png"}])
        with pytest.raises(ValueError, match=r"expected one id for the image .*00\.png, got 1000 and 5"):
            list_coco(tmp_path, [tmp_path / "annotations/instances_val2017.json", other])


class TestPlan:
    @pytest.mark.parametrize(
        ("target", "error", "message"),
        [
            ("a", ValueError, "expected DST to lie outside SRC"),
            ("a/deep/c", ValueError, "expected DST to lie outside SRC"),
            ("link/c", ValueError, "expected DST to lie outside SRC"),
        ],
    )
    def test_a_tree_within_its_source_is_refused(self, tmp_path, target, error, message):
        plain_folder(tmp_path / "a")
        (tmp_path / "link").symlink_to(tmp_path / "a")
        with pytest.raises(error, match=message):
            plan_tree(tmp_path / "a", tmp_path / target, ["fog"], [1])

    def test_a_missing_or_empty_source_is_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"expected SRC to be a folder of images, got .*: there"):
            plan_tree(tmp_path / "a", tmp_path / "b", ["fog"], [1])
        (tmp_path / "a").mkdir()
        with pytest.raises(ValueError, match="expected SRC to hold images, got the empty folder"):
            plan_tree(tmp_path / "a", tmp_path / "b", ["fog"], [1])

    def test_what_does_not_fit_is_refused(self, tmp_path):
        root = plain_folder(tmp_path / "a")
        for settings, message in [
            ({"layout": "voc"}, "expected a layout out of auto, imagenet, coco, plain, got 'voc'"),
            ({"layout": "plain", "images": Path("x")}, "expected --layout coco with --annotations or --images"),
            ({"file_format": "gif"}, "expected a file format out of source, jpeg, png, got 'gif'"),
        ]:
            with pytest.raises(ValueError, match=message):
                plan_tree(root, tmp_path / "b", ["fog"], [1], **settings)

    def test_images_that_would_get_one_name_are_refused(self, tmp_path):
        root = plain_folder(tmp_path / "a")
        save(root / "0.bmp", picture(1))
        with pytest.raises(ValueError, match=r"got 2 that would become 0\.jpg"):
            plan_tree(root, tmp_path / "b", ["fog"], [1], file_format="jpeg")
        assert len(plan_tree(root, tmp_path / "b", ["fog"], [1]).source.images) == 4
